//! The loop: while one round is being committed, the next is gathered and decided on the draft.
//!
//! At any moment at most one round is in Postgres's hands and at most one is being gathered. They are committed in
//! order; an answer leaves after the commit of its round. If a commit fails, both are dropped and the cluster is read
//! anew.

use super::first_policy::first_policy;
use super::gathering::{Closed, Gathering, Keys};
use super::recovery::{self, Recovered, Unsettled};
use super::replaced::{self, Sighting};
use super::{Entry, Lanes};
use crate::fault_point;
use crate::health::Witness;
use crate::metrics;
use crate::routes::problem::{Answer, Refused};
use crate::shared::Shared;
use crate::store::idempotency_keys::{self, Key, Recorded};
use crate::store::identity::Identity;
use crate::store::leader::Leadership;
use crate::store::trouble::Trouble;
use crate::store::{Store, StoreError, load};
use anyhow::Context;
use chiptide_allocator::{Cluster, Command};
use chiptide_model::Policy;
use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{Notify, oneshot};

/// Most commands of one round. A larger batch gains nothing and holds the answers of the first for longer.
const BATCH_MAX: usize = 512;

type Committing = Pin<Box<dyn Future<Output = (Box<Closed>, Result<(), Failed>)> + Send>>;
type Looking = Pin<Box<dyn Future<Output = Result<Vec<Recorded>, StoreError>> + Send>>;

/// A commit that did not come back well.
struct Failed {
    error: StoreError,
    /// Whether the word to commit had been sent: then the round may have landed.
    was_sent: bool,
}

/// The loop's state.
pub(super) struct RoundLoop {
    shared: Arc<Shared>,
    store: Store,
    leadership: Leadership,
    entries: Lanes,
    /// The cluster as it will be once everything decided is committed.
    draft: Cluster,
    gathering: Gathering,
    /// The round in Postgres's hands, and the keys of its requests.
    committing: Option<Committing>,
    committing_keys: Keys,
    /// Set when the round in Postgres's hands waits for the disk only: the moment to take in the next batch. Earlier,
    /// batches would be small, and a batch costs as much as several commands.
    syncing: Arc<Notify>,
    takes_in: bool,
    /// A batch, and the look-up of its idempotency keys.
    looking: Option<Looking>,
    looked_for: Vec<Entry>,
    /// Commands that repeat a key of a round not committed yet: they are answered after it.
    held_back: VecDeque<Entry>,
    /// Who the database is, to be noted with the next round.
    to_note: Option<Identity>,
}

enum Woken {
    Committed(Box<Closed>, Result<(), Failed>),
    Looked(Result<Vec<Recorded>, StoreError>),
    Came(Option<Box<Entry>>),
    Syncing,
    Due,
}

impl RoundLoop {
    /// Reads the cluster and takes the lead in it.
    pub(super) async fn lead(
        shared: Arc<Shared>,
        store: Store,
        leadership: Leadership,
        entries: Lanes,
        policy: Option<Policy>,
    ) -> anyhow::Result<RoundLoop> {
        let cluster = load::load(&store).await.context("read the cluster")?;
        fault_point::reach("lead-read");
        shared.tail.restart(cluster.seq);
        *shared.cluster_arc().write() = cluster.clone();
        let mut lead = RoundLoop {
            shared,
            store,
            leadership,
            entries,
            draft: cluster,
            gathering: Gathering::default(),
            committing: None,
            committing_keys: Keys::new(),
            syncing: Arc::default(),
            takes_in: true,
            looking: None,
            looked_for: Vec::new(),
            held_back: VecDeque::new(),
            to_note: None,
        };
        let change = first_policy(&lead.draft, &lead.store, policy).await.context("read the policies")?;
        if let Some(change) = &change {
            tracing::info!(author = change.author, queues = change.policy.queues.len(), "put a policy in force");
        }
        let policy = change.map(|change| Command::ChangePolicy(Box::new(change)));
        let sighting = replaced::look(&lead.store).await.context("read which database this is")?;
        let replaced = lead.heed(sighting);
        let first = [Some(Command::TakeOver { epoch: leadership.epoch }), replaced, policy];
        lead.decide(first.into_iter().flatten().map(own).collect())?;
        let closed = lead.close();
        fault_point::reach("lead-before-first-round");
        closed.commit.write(&lead.store, leadership, || ()).await.context("take the lead")?;
        lead.on_committed(closed)?;
        Ok(lead)
    }

    /// Runs until every sender of commands is gone, or another daemon leads (an error).
    pub(super) async fn run(mut self) -> anyhow::Result<()> {
        let mut open = true;
        while open || self.is_busy() {
            if self.committing.is_none() && !self.gathering.is_empty() {
                self.start_commit();
            }
            self.try_held_back();
            let mut unsettled = None;
            let stepped = match self.wake(open).await {
                Woken::Committed(closed, Ok(())) => self.on_committed(*closed),
                Woken::Committed(closed, Err(failed)) => {
                    unsettled = failed.open(*closed);
                    Err(failed.error)
                }
                Woken::Looked(Ok(known)) => self.on_looked(&known),
                Woken::Looked(Err(error)) => Err(error),
                Woken::Came(Some(entry)) => self.on_entry(*entry),
                Woken::Came(None) => {
                    open = false;
                    Ok(())
                }
                Woken::Syncing => {
                    self.takes_in = true;
                    Ok(())
                }
                Woken::Due => self.decide(Vec::new()),
            };
            match stepped {
                Ok(()) => {}
                Err(StoreError::Deposed) => return Err(StoreError::Deposed.into()),
                Err(error) => open = open && self.recover(error, unsettled).await?,
            }
        }
        Ok(())
    }

    fn is_busy(&self) -> bool {
        self.committing.is_some() || self.looking.is_some() || !(self.gathering.is_empty() && self.held_back.is_empty())
    }

    /// Waits for the next thing to happen.
    async fn wake(&mut self, open: bool) -> Woken {
        let until_due = self.draft.next_due().map(|at| Duration::from_millis(at.since(self.shared.now()).0));
        let due = tokio::time::sleep(until_due.unwrap_or(Duration::from_secs(3600)));
        let room = open && self.takes_in && self.looking.is_none() && self.gathering.len() < BATCH_MAX;
        tokio::select! {
            biased;
            (closed, result) = pending_or(&mut self.committing) => {
                self.committing = None;
                Woken::Committed(closed, result)
            }
            known = pending_or(&mut self.looking) => {
                self.looking = None;
                Woken::Looked(known)
            }
            () = self.syncing.notified(), if self.committing.is_some() => Woken::Syncing,
            entry = self.entries.recv(), if room => Woken::Came(entry.map(Box::new)),
            () = due => Woken::Due,
        }
    }

    /// Takes an entry and what else waits beside it; decides at once if none of them carries a key.
    fn on_entry(&mut self, entry: Entry) -> Result<(), StoreError> {
        self.takes_in = self.committing.is_none();
        let mut batch = vec![entry];
        self.entries.fill(&mut batch, BATCH_MAX.saturating_sub(self.gathering.len()));
        self.look_up(batch)
    }

    /// Looks up the keys of a batch, beside the commit and on another connection.
    fn look_up(&mut self, batch: Vec<Entry>) -> Result<(), StoreError> {
        if batch.iter().all(|entry| entry.key.is_none()) {
            return self.decide(batch);
        }
        self.start_look_up(batch);
        Ok(())
    }

    /// What repeats a key under way is held back *before* the look-up: afterwards its first request may have been
    /// committed meanwhile, and be neither found nor under way.
    fn start_look_up(&mut self, batch: Vec<Entry>) {
        let under_way = |entry: &Entry| entry.key.as_ref().is_some_and(|key| self.is_under_way(key));
        let (repeats, batch): (Vec<_>, Vec<_>) = batch.into_iter().partition(under_way);
        self.held_back.extend(repeats);
        if batch.is_empty() {
            return;
        }
        let keys: Vec<Key> = batch.iter().filter_map(|entry| entry.key.clone()).collect();
        let store = self.store.clone();
        self.looked_for = batch;
        self.looking = Some(Box::pin(async move {
            let (started, limit) = (Instant::now(), store.limits().round);
            let known = tokio::time::timeout(limit, idempotency_keys::find(&store.keys, &keys)).await;
            metrics::round_phase("replay", started.elapsed());
            known.unwrap_or(Err(StoreError::TooLate(limit)))
        }));
    }

    /// Answers what was answered before, holds back what repeats a key of this very batch, decides the rest.
    fn on_looked(&mut self, known: &[Recorded]) -> Result<(), StoreError> {
        let batch = std::mem::take(&mut self.looked_for);
        let mut fresh: Vec<Entry> = Vec::with_capacity(batch.len());
        let mut met = Keys::new();
        for entry in batch {
            let Some(key) = &entry.key else {
                fresh.push(entry);
                continue;
            };
            let name = (key.principal.clone(), key.key.clone());
            let same = |recorded: &&Recorded| recorded.key.principal == key.principal && recorded.key.key == key.key;
            if let Some(recorded) = known.iter().find(same) {
                // A client that has gone away needs no answer.
                drop(entry.reply.send(replayed(recorded, key)));
            } else if met.insert(name) {
                fresh.push(entry);
            } else {
                self.held_back.push_back(entry);
            }
        }
        if fresh.is_empty() { Ok(()) } else { self.decide(fresh) }
    }

    /// Whether a request with this key is decided and not committed.
    fn is_under_way(&self, key: &Key) -> bool {
        self.gathering.holds(key) || self.committing_keys.contains(&(key.principal.clone(), key.key.clone()))
    }

    /// Looks up those held back whose first request is committed by now.
    fn try_held_back(&mut self) {
        let first = self.held_back.front().and_then(|entry| entry.key.as_ref());
        if self.looking.is_none() && first.is_some_and(|key| !self.is_under_way(key)) {
            let held_back = self.held_back.drain(..).collect();
            self.start_look_up(held_back);
        }
    }

    fn decide(&mut self, batch: Vec<Entry>) -> Result<(), StoreError> {
        self.gathering.decide(&mut self.draft, &self.shared, batch)
    }

    fn close(&mut self) -> Closed {
        fault_point::reach("round-decided");
        let mut closed = self.gathering.close(&mut self.draft);
        closed.commit.identity = self.to_note.take();
        closed
    }

    /// What follows from who the database is. It is noted with the round that says so.
    fn heed(&mut self, sighting: Option<Sighting>) -> Option<Command> {
        let Sighting { now, replaced } = sighting?;
        self.to_note = Some(now);
        replaced.map(|detail| Command::DatabaseReplaced { detail })
    }

    fn start_commit(&mut self) {
        let mut closed = self.close();
        self.committing_keys = std::mem::take(&mut closed.keys);
        self.takes_in = false;
        // A new one each time: a call left over from the last round would open this one too early.
        let syncing = Arc::new(Notify::new());
        self.syncing = syncing.clone();
        let (store, leadership) = (self.store.clone(), self.leadership);
        self.committing = Some(Box::pin(async move {
            let (started, limit, mut was_sent) = (Instant::now(), store.limits().round, false);
            let on_sent = || {
                was_sent = true;
                syncing.notify_one();
            };
            // Statements have limits of their own in Postgres; one that does not answer at all knows none.
            let written = tokio::time::timeout(limit, closed.commit.write(&store, leadership, on_sent)).await;
            let written = written.unwrap_or(Err(StoreError::TooLate(limit)));
            metrics::round_phase("commit", started.elapsed());
            (Box::new(closed), written.map_err(|error| Failed { error, was_sent }))
        }));
    }

    /// A round is in Postgres: memory follows, answers leave, watchers wake.
    fn on_committed(&mut self, closed: Closed) -> Result<(), StoreError> {
        self.takes_in = true;
        fault_point::reach("round-committed");
        let started = Instant::now();
        let shared = self.shared.cluster_arc();
        let mut cluster = shared.write();
        let (first, events) = (closed.commit.first_seq(), closed.commit.into_events());
        for (at, event) in &events {
            if let Err(unfounded) = cluster.apply(*at, event) {
                let detail = unfounded.to_string();
                return Err(StoreError::Unreadable { table: "events", row: "memory".into(), detail });
            }
        }
        drop(cluster.take_touched());
        debug_assert!(!self.gathering.is_empty() || *cluster == self.draft, "memory is the fold of committed events");
        drop(cluster);
        fault_point::reach("round-applied");
        for (reply, answer) in closed.replies {
            // A client that has gone away does not undo what is committed.
            drop(reply.send(answer));
        }
        fault_point::reach("round-answered");
        self.shared.watchers.wake(&closed.touched);
        self.shared.tail.push(first, events);
        fault_point::reach("round-woken");
        self.committing_keys.clear();
        metrics::round_committed();
        metrics::round_phase("apply", started.elapsed());
        Ok(())
    }

    /// Drops everything decided and not committed, and reads the cluster anew, for as long as it takes. False when the
    /// daemon stops meanwhile.
    async fn recover(&mut self, error: StoreError, unsettled: Option<Unsettled>) -> anyhow::Result<bool> {
        metrics::round_failed();
        let trouble = Trouble::of(&error);
        tracing::error!(%error, reason = trouble.as_str(), "a round did not go through; reading the cluster anew");
        self.shared.health.trouble(Witness::Rounds, trouble, &error.to_string(), self.shared.now());
        recovery::refuse_all(std::mem::take(&mut self.gathering).into_replies(), trouble);
        let waiting = std::mem::take(&mut self.looked_for).into_iter().chain(self.held_back.drain(..));
        waiting.for_each(|entry| recovery::refuse(entry, &self.shared));
        (self.committing, self.looking, self.takes_in) = (None, None, true);
        self.committing_keys.clear();
        let (shared, leadership) = (self.shared.clone(), self.leadership);
        let read = recovery::recover(&shared, &mut self.store, leadership, &mut self.entries, trouble, unsettled);
        match read.await {
            Ok(Recovered::Read(mut cluster)) => {
                cluster.resume(self.shared.now());
                self.draft = (*cluster).clone();
                self.shared.tail.restart(cluster.seq);
                *self.shared.cluster_arc().write() = *cluster;
                self.shared.watchers.wake_all();
                self.shared.health.well(Witness::Rounds, self.shared.now());
                self.look_again().await;
                Ok(true)
            }
            Ok(Recovered::Closed) => Ok(false),
            Err(StoreError::Deposed) => Err(StoreError::Deposed.into()),
            Err(error) => Err(error).context("read the cluster anew"),
        }
    }

    /// The database was away: is it still the one it was? Until that is known nothing is granted on a node's old session.
    async fn look_again(&mut self) {
        match replaced::look(&self.store).await {
            Ok(sighting) => {
                if let Some(command) = self.heed(sighting)
                    && let Err(error) = self.decide(vec![own(command)])
                {
                    tracing::error!(%error, "withdraw the sessions of nodes");
                }
            }
            Err(error) => tracing::warn!(%error, "read which database this is"),
        }
    }
}

/// A command of the loop's own, whose answer nobody waits for.
fn own(command: Command) -> Entry {
    Entry { command, many: false, key: None, plan: None, reply: oneshot::channel().0 }
}

impl Failed {
    /// What is open after this failure: the answers of a round that may have landed. Those of one that cannot have are told
    /// so.
    fn open(&self, closed: Closed) -> Option<Unsettled> {
        if !self.was_sent {
            recovery::refuse_all(closed.replies, Trouble::of(&self.error));
            return None;
        }
        Some(Unsettled { last_seq: closed.commit.last_seq(), replies: closed.replies })
    }
}

fn replayed(recorded: &Recorded, key: &Key) -> Answer {
    if recorded.key.request_hash == key.request_hash {
        Answer { status: recorded.status, body: recorded.body.clone(), replayed: true }
    } else {
        Refused::key_reused().answer()
    }
}

/// The outcome of the future that is there; never comes when there is none.
async fn pending_or<T>(future: &mut Option<Pin<Box<dyn Future<Output = T> + Send>>>) -> T {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}
