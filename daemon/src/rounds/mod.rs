//! The round loop: the only writer. Commands gather while a commit is in flight, so load makes batches, not queues.

mod first_policy;
mod gathering;
mod lanes;
mod recovery;
mod replaced;
mod round_loop;

use crate::health::Health;
use crate::metrics;
use crate::routes::problem::{Answer, Refused};
use crate::shared::Shared;
use crate::store::Store;
use crate::store::idempotency_keys::Key;
use crate::store::leader::Leadership;
use anyhow::Context;
use chiptide_allocator::Command;
use chiptide_model::Policy;
pub use lanes::Lanes;
use parking_lot::RwLock;
use round_loop::RoundLoop;
use std::sync::Arc;
use tokio::sync::oneshot;

/// One command on its way into a round.
#[derive(Debug)]
pub struct Entry {
    /// What is asked.
    pub command: Command,
    /// Whether a list was sent, which a list answers.
    pub many: bool,
    /// The idempotency key it came with.
    pub key: Option<Key>,
    /// The plan that it must come to, else it is refused.
    pub plan: Option<String>,
    /// Where the answer goes, after the commit.
    pub reply: oneshot::Sender<Answer>,
}

/// The way into the round loop: a bounded queue.
#[derive(Clone, Debug)]
pub struct Rounds {
    /// Absent while this daemon does not lead.
    entries: Arc<RwLock<Option<lanes::Senders>>>,
    capacity: usize,
    health: Arc<Health>,
}

impl Rounds {
    /// A queue of at most `capacity` submits (and four times as much of everything else), which is closed.
    pub fn closed(capacity: usize, health: Arc<Health>) -> Rounds {
        Rounds { entries: Arc::default(), capacity, health }
    }

    /// Opens the queue for a new leadership, and answers its other end.
    pub fn open(&self) -> Lanes {
        let (entries, lanes) = lanes::lanes(self.capacity, self.capacity.saturating_mul(4));
        *self.entries.write() = Some(entries);
        lanes
    }

    /// Closes the queue: what is in it is still decided, nothing more comes in.
    pub fn close(&self) {
        *self.entries.write() = None;
    }

    fn senders(&self) -> Option<lanes::Senders> {
        self.entries.read().clone()
    }

    /// Submits a command; the answer comes after the commit. A full queue refuses at once, and so do rounds that cannot
    /// write.
    pub async fn submit(&self, command: Command, many: bool, key: Option<Key>) -> Result<Answer, Refused> {
        self.submit_as(command, many, key, None).await
    }

    /// Submits a command that is done only as this plan of a dry run says, if one is given.
    pub async fn submit_as(
        &self,
        command: Command,
        many: bool,
        key: Option<Key>,
        plan: Option<String>,
    ) -> Result<Answer, Refused> {
        if let Some(known) = self.health.unwritable() {
            return Err(Refused::store_unavailable(known.trouble));
        }
        let (reply, answer) = oneshot::channel();
        let entries = self.senders().ok_or_else(Refused::no_leader)?;
        entries.try_send(Entry { command, many, key, plan, reply }).map_err(|error| match error {
            lanes::NotTaken::Full => {
                metrics::shed("round", "the queue is full");
                Refused::overloaded("the queue of commands is full")
            }
            lanes::NotTaken::Closed => Refused::no_leader(),
        })?;
        // The queue is closed when its last sender is gone.
        drop(entries);
        answer.await.map_err(|_| Refused::outcome_unknown())
    }

    /// Submits a command of the daemon's own, however full the queue is. The answer may be waited for; it never comes when
    /// the outcome is unknown.
    pub async fn tell(&self, command: Command) -> oneshot::Receiver<Answer> {
        let (reply, answer) = oneshot::channel();
        // A closed queue means that we do not lead any more: the command has become pointless.
        if let Some(entries) = self.senders() {
            let _ = entries.send(Entry { command, many: false, key: None, plan: None, reply }).await;
        }
        answer
    }

    /// How many commands wait, by lane; nothing while this daemon does not lead.
    pub fn waiting(&self) -> Vec<(&'static str, usize)> {
        self.senders().map_or_else(Vec::new, |entries| entries.waiting().to_vec())
    }
}

/// The round loop on its own thread.
#[derive(Debug)]
pub struct Led {
    leading: Option<oneshot::Receiver<()>>,
    ended: Option<oneshot::Receiver<anyhow::Result<()>>>,
}

impl Led {
    /// Waits until the cluster is read and led.
    pub async fn leading(&mut self) -> anyhow::Result<()> {
        if let Some(leading) = self.leading.take()
            && leading.await.is_ok()
        {
            return Ok(());
        }
        self.ended().await?;
        anyhow::bail!("the round loop ended before it led")
    }

    /// Waits for the loop's end, and answers how it ended; `Ok` if that was told already.
    pub async fn ended(&mut self) -> anyhow::Result<()> {
        let Some(ended) = &mut self.ended else { return Ok(()) };
        let how = ended.await.context("the round loop broke");
        self.ended = None;
        how?
    }
}

/// Reads the cluster, takes the lead in it (putting `policy` in force, if it is another than the one that is), and runs the loop on a thread and a runtime of its own: a round waits for
/// Postgres ten times, and among the tasks of a hundred clients each wait would end in a queue (measured: half the
/// throughput).
pub fn spawn(
    shared: Arc<Shared>,
    store: Store,
    leadership: Leadership,
    entries: Lanes,
    policy: Option<Policy>,
) -> anyhow::Result<Led> {
    let (leading_in, leading) = oneshot::channel();
    let (ended_in, ended) = oneshot::channel();
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("make the rounds' runtime")?;
    let life = async move {
        let round_loop = RoundLoop::lead(shared, store, leadership, entries, policy).await?;
        let _ = leading_in.send(());
        round_loop.run().await
    };
    let thread = std::thread::Builder::new().name("rounds".into());
    // The handle is not joined: the end is told through the channel, and a panic closes it.
    thread.spawn(move || drop(ended_in.send(runtime.block_on(life)))).context("start the rounds' thread")?;
    Ok(Led { leading: Some(leading), ended: Some(ended) })
}
