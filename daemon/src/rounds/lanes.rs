//! The queue before the rounds, in two lanes: what agents and holders of leases say never waits behind new work.

use super::Entry;
use chiptide_allocator::Command;
use tokio::sync::mpsc::{self, error::TrySendError};

/// Of a batch, this much is kept for new work: a crowd of reports must not stop it altogether.
const SUBMITS_SHARE: usize = 4;

/// The way in.
#[derive(Clone, Debug)]
pub(super) struct Senders {
    urgent: mpsc::Sender<Entry>,
    submits: mpsc::Sender<Entry>,
}

/// The way out: for the round loop alone.
#[derive(Debug)]
pub struct Lanes {
    urgent: mpsc::Receiver<Entry>,
    submits: mpsc::Receiver<Entry>,
}

/// Why a command was not taken in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum NotTaken {
    /// Its lane is full.
    Full,
    /// The loop has ended.
    Closed,
}

/// Two lanes of so many commands each at most. Of urgent ones each agent has one under way, and there may be many agents.
pub(super) fn lanes(submits: usize, urgent: usize) -> (Senders, Lanes) {
    let (urgent_in, urgent) = mpsc::channel(urgent);
    let (submits_in, submits) = mpsc::channel(submits);
    (Senders { urgent: urgent_in, submits: submits_in }, Lanes { urgent, submits })
}

impl Senders {
    fn lane(&self, entry: &Entry) -> &mpsc::Sender<Entry> {
        if matches!(entry.command, Command::Submit(_)) { &self.submits } else { &self.urgent }
    }

    /// Puts it into its lane, if there is room.
    pub(super) fn try_send(&self, entry: Entry) -> Result<(), NotTaken> {
        self.lane(&entry).try_send(entry).map_err(|error| match error {
            TrySendError::Full(_) => NotTaken::Full,
            TrySendError::Closed(_) => NotTaken::Closed,
        })
    }

    /// Puts it into its lane, once there is room. False when the loop has ended.
    pub(super) async fn send(&self, entry: Entry) -> bool {
        self.lane(&entry).send(entry).await.is_ok()
    }

    /// How many wait, by lane.
    pub(super) fn waiting(&self) -> [(&'static str, usize); 2] {
        let waiting = |lane: &mpsc::Sender<Entry>| lane.max_capacity() - lane.capacity();
        [("urgent", waiting(&self.urgent)), ("submits", waiting(&self.submits))]
    }
}

impl Lanes {
    /// The next one; `None` once all senders are gone.
    pub(super) async fn recv(&mut self) -> Option<Entry> {
        tokio::select! {
            biased;
            Some(entry) = self.urgent.recv() => Some(entry),
            Some(entry) = self.submits.recv() => Some(entry),
            else => None,
        }
    }

    /// Fills a batch up to `most` with what waits: urgent ones first, but for the part that is kept for submits.
    pub(super) fn fill(&mut self, batch: &mut Vec<Entry>, most: usize) {
        let urgent_most = most - most / SUBMITS_SHARE;
        take(&mut self.urgent, batch, urgent_most);
        take(&mut self.submits, batch, most);
        take(&mut self.urgent, batch, most);
    }
}

fn take(lane: &mut mpsc::Receiver<Entry>, batch: &mut Vec<Entry>, most: usize) {
    while batch.len() < most
        && let Ok(entry) = lane.try_recv()
    {
        batch.push(entry);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::oneshot;

    fn entry(command: Command) -> Entry {
        Entry { command, many: false, key: None, plan: None, reply: oneshot::channel().0 }
    }

    fn batch(submits: usize, urgent: usize, most: usize) -> (usize, usize) {
        let (senders, mut lanes) = lanes(1000, 1000);
        for _ in 0..submits {
            senders.try_send(entry(Command::Submit(Vec::new()))).expect("room");
        }
        for _ in 0..urgent {
            senders.try_send(entry(Command::Nothing)).expect("room");
        }
        let mut batch = Vec::new();
        lanes.fill(&mut batch, most);
        let new_work = batch.iter().filter(|entry| matches!(entry.command, Command::Submit(_))).count();
        (new_work, batch.len() - new_work)
    }

    #[test]
    fn reports_do_not_wait_behind_submits_and_do_not_stop_them() {
        assert_eq!(batch(500, 5, 100), (95, 5));
        assert_eq!(batch(500, 500, 100), (25, 75));
        assert_eq!(batch(0, 500, 100), (0, 100));
        assert_eq!(batch(10, 500, 100), (10, 90));
    }

    #[tokio::test]
    async fn a_full_lane_leaves_the_other_open() {
        let (senders, mut lanes) = lanes(1, 1);
        senders.try_send(entry(Command::Submit(Vec::new()))).expect("room");
        assert!(senders.try_send(entry(Command::Submit(Vec::new()))).is_err());
        senders.try_send(entry(Command::Nothing)).expect("room of its own");
        assert_eq!(senders.waiting(), [("urgent", 1), ("submits", 1)]);
        assert!(matches!(lanes.recv().await.expect("one").command, Command::Nothing));
        drop(senders);
        assert!(lanes.recv().await.is_some() && lanes.recv().await.is_none());
    }
}
