//! A thread that does one thing when asked, for callers that cannot wait for ever. It is never asked again while it is still
//! at it, so a stuck driver call costs one thread and no queue.

use std::io;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::thread;
use std::time::Instant;

/// One worker and what it owes.
#[derive(Debug)]
pub(crate) struct Worker<T> {
    asks: SyncSender<()>,
    answers: Receiver<T>,
    busy: bool,
}

impl<T: Send + 'static> Worker<T> {
    /// A worker that does `work` each time it is asked. It ends when this handle is dropped and its work is done.
    pub(crate) fn start(name: String, mut work: impl FnMut() -> T + Send + 'static) -> io::Result<Worker<T>> {
        let (asks, asked) = sync_channel::<()>(1);
        let (answering, answers) = sync_channel(1);
        thread::Builder::new().name(name).spawn(
            move || {
                while asked.recv().is_ok() && answering.send(work()).is_ok() {}
            },
        )?;
        Ok(Worker { asks, answers, busy: false })
    }

    /// Asks, unless the last question is still open; answers whether it asked. A late answer to an earlier question is
    /// thrown away: it is old news.
    pub(crate) fn ask(&mut self) -> bool {
        if self.busy && matches!(self.answers.try_recv(), Err(TryRecvError::Empty)) {
            return false;
        }
        // A worker that has died stays busy: it is asked in vain, and no answer comes.
        self.busy = true;
        self.asks.try_send(()).is_ok()
    }

    /// The answer to the question just asked, if it comes by then.
    pub(crate) fn answer_by(&mut self, deadline: Instant) -> Option<T> {
        let answer = self.answers.recv_timeout(deadline.saturating_duration_since(Instant::now())).ok()?;
        self.busy = false;
        Some(answer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;
    use std::time::Duration;

    #[test]
    fn a_stuck_worker_is_not_asked_again_and_its_late_answer_is_not_used() {
        let (go, gate) = channel();
        let mut count = 0;
        let mut worker = Worker::start("test".into(), move || {
            gate.recv().expect("the test lives");
            count += 1;
            count
        })
        .expect("a thread");
        assert!(worker.ask());
        assert_eq!(worker.answer_by(Instant::now()), None);
        assert!(!worker.ask(), "still at the first");
        go.send(()).expect("it waits");
        while !worker.ask() {
            std::thread::yield_now();
        }
        go.send(()).expect("it waits");
        assert_eq!(worker.answer_by(Instant::now() + Duration::from_secs(20)), Some(2));
    }
}
