//! The round loop: the only writer. Commands gather while a commit is in flight, so load makes batches, not queues.

use crate::app::Shared;
use crate::metrics;
use crate::render;
use crate::routes::problem::{Answer, Refused};
use crate::store::commit::{Commit, commit};
use crate::store::idempotency_keys::{self, Key, Recorded};
use crate::store::leader::Leadership;
use crate::store::{Store, StoreError, load};
use anyhow::Context;
use chiptide_allocator::explain::Explainer;
use chiptide_allocator::{Ack, Cluster, Command, Decision, Refusal, Round, check, check_touched, decide};
use chiptide_api::lease::LeaseView;
use chiptide_model::Timestamp;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};

/// Most commands of one round. A larger batch gains nothing and holds the answers of the first for longer.
const BATCH_MAX: usize = 512;

/// One command on its way into a round.
#[derive(Debug)]
pub struct Entry {
    /// What is asked.
    pub command: Command,
    /// Whether a list was sent, which a list answers.
    pub many: bool,
    /// The idempotency key it came with.
    pub key: Option<Key>,
    /// Where the answer goes, after the commit.
    pub reply: oneshot::Sender<Answer>,
}

/// The way into the round loop: a bounded queue.
#[derive(Clone, Debug)]
pub struct Rounds {
    entries: mpsc::Sender<Entry>,
}

impl Rounds {
    /// A queue of at most `capacity` commands, and its other end.
    pub fn channel(capacity: usize) -> (Rounds, mpsc::Receiver<Entry>) {
        let (entries, receiver) = mpsc::channel(capacity);
        (Rounds { entries }, receiver)
    }

    /// Submits a command; the answer comes after the commit. A full queue refuses at once.
    pub async fn submit(&self, command: Command, many: bool, key: Option<Key>) -> Result<Answer, Refused> {
        let (reply, answer) = oneshot::channel();
        self.entries.try_send(Entry { command, many, key, reply }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => Refused::overloaded(),
            mpsc::error::TrySendError::Closed(_) => Refused::unavailable("the daemon is shutting down"),
        })?;
        answer
            .await
            .map_err(|_| Refused::unavailable("the outcome is unknown; ask again with the same idempotency key"))
    }

    /// Submits a command of the daemon's own, whose answer nobody waits for.
    pub async fn tell(&self, command: Command) {
        let (reply, _) = oneshot::channel();
        // A closed queue means shutdown: the command has become pointless.
        drop(self.entries.send(Entry { command, many: false, key: None, reply }).await);
    }
}

/// Times the phases of a round, one after another.
struct Phases {
    since: Instant,
}

impl Phases {
    fn start() -> Phases {
        Phases { since: Instant::now() }
    }

    fn ended(&mut self, phase: &'static str) {
        let now = Instant::now();
        metrics::round_phase(phase, now.duration_since(self.since));
        self.since = now;
    }
}

/// The loop's own state.
#[derive(Debug)]
pub struct RoundLoop {
    /// What the handlers read.
    pub shared: Arc<Shared>,
    /// Postgres.
    pub store: Store,
    /// Under which every round is written.
    pub leadership: Leadership,
    /// Commands coming in.
    pub entries: mpsc::Receiver<Entry>,
    /// The cluster as it will be after the round in the making; otherwise equal to the committed one.
    pub draft: Cluster,
}

impl RoundLoop {
    /// Runs until every sender of commands is gone, or another daemon leads (an error).
    pub async fn run(mut self) -> anyhow::Result<()> {
        let mut waiting: VecDeque<Entry> = VecDeque::new();
        loop {
            if waiting.is_empty() && !self.wait(&mut waiting).await {
                return Ok(());
            }
            while waiting.len() < BATCH_MAX
                && let Ok(entry) = self.entries.try_recv()
            {
                waiting.push_back(entry);
            }
            let batch = waiting.drain(..waiting.len().min(BATCH_MAX)).collect();
            match self.round(batch, &mut waiting).await {
                Ok(()) => {}
                Err(StoreError::Deposed) => anyhow::bail!("another daemon has taken the lead; stepping down"),
                Err(error) => self.recover(error).await?,
            }
        }
    }

    /// Waits for a command or the next thing the clock will do. False when no command can come any more.
    async fn wait(&mut self, waiting: &mut VecDeque<Entry>) -> bool {
        let until_due = self.draft.next_due().map(|at| Duration::from_millis(at.since(self.shared.now()).0));
        let due = tokio::time::sleep(until_due.unwrap_or(Duration::from_secs(3600)));
        tokio::select! {
            entry = self.entries.recv() => match entry {
                Some(entry) => { waiting.push_back(entry); true }
                None => false,
            },
            () = due => true,
        }
    }

    async fn round(&mut self, batch: Vec<Entry>, waiting: &mut VecDeque<Entry>) -> Result<(), StoreError> {
        let mut clock = Phases::start();
        let batch = self.replay_known(batch, waiting).await?;
        clock.ended("replay");
        let (commands, replies): (Vec<_>, Vec<_>) =
            batch.into_iter().map(|entry| (entry.command, (entry.many, entry.key, entry.reply))).unzip();
        let size = commands.len();
        let round = Round { now: self.shared.now(), seed: rand::random() };
        let decision = decide(&mut self.draft, commands, round);
        let touched = self.draft.take_touched();
        metrics::round_decided(size, &decision.events);
        self.verify(&decision, &touched)?;
        clock.ended("decide");
        let mut explainer = Explainer::of(&self.draft);
        let given = decision.answers.iter().zip(&replies);
        let answers: Vec<Answer> =
            given.map(|(answer, (many, _, _))| self.answer(&mut explainer, answer, *many, &touched)).collect();
        let keyed = replies.iter().zip(&answers);
        let recorded: Vec<Recorded> = keyed
            .filter_map(|((_, key, _), answer)| {
                Some(Recorded { key: key.clone()?, status: answer.status, body: answer.body.clone() })
            })
            .collect();
        clock.ended("answer");
        if !decision.events.is_empty() || !recorded.is_empty() {
            self.commit(&mut clock, round.now, &decision, &touched, &recorded).await?;
        }
        for ((_, _, reply), answer) in replies.into_iter().zip(answers) {
            // A client that has gone away does not undo what is committed.
            drop(reply.send(answer));
        }
        Ok(())
    }

    /// Answers what was answered before, and puts back what repeats a key of this very batch.
    async fn replay_known(
        &mut self,
        batch: Vec<Entry>,
        waiting: &mut VecDeque<Entry>,
    ) -> Result<Vec<Entry>, StoreError> {
        let keys: Vec<&Key> = batch.iter().filter_map(|entry| entry.key.as_ref()).collect();
        if keys.is_empty() {
            return Ok(batch);
        }
        let known = idempotency_keys::find(&self.store.writer, &keys).await?;
        let same = |a: &Key, b: &Key| a.principal == b.principal && a.key == b.key;
        let mut fresh: Vec<Entry> = Vec::with_capacity(batch.len());
        let mut met: std::collections::HashSet<(String, String)> = std::collections::HashSet::new();
        for entry in batch {
            let Some(key) = &entry.key else {
                fresh.push(entry);
                continue;
            };
            if let Some(recorded) = known.iter().find(|recorded| same(&recorded.key, key)) {
                let answer = if recorded.key.request_hash == key.request_hash {
                    Answer { status: recorded.status, body: recorded.body.clone(), replayed: true }
                } else {
                    Refused::key_reused().answer()
                };
                drop(entry.reply.send(answer));
            } else if met.insert((key.principal.clone(), key.key.clone())) {
                fresh.push(entry);
            } else {
                waiting.push_back(entry);
            }
        }
        Ok(fresh)
    }

    /// A violation stops the round before anything is written.
    fn verify(&self, decision: &Decision, touched: &chiptide_allocator::Touched) -> Result<(), StoreError> {
        let violations = if cfg!(debug_assertions) { check(&self.draft) } else { check_touched(&self.draft, touched) };
        let unfounded = decision.unfounded.as_ref().map(ToString::to_string);
        let found: Vec<String> = violations.iter().map(ToString::to_string).chain(unfounded).collect();
        if found.is_empty() {
            return Ok(());
        }
        metrics::violations(found.len());
        tracing::error!(violations = ?found, events = ?decision.events, "a round broke an invariant and was dropped");
        let detail = found.join("; ");
        Err(StoreError::Unreadable { table: "round", row: "draft".into(), detail })
    }

    fn answer(
        &self,
        explainer: &mut Explainer<'_>,
        answer: &Result<Ack, Refusal>,
        many: bool,
        touched: &chiptide_allocator::Touched,
    ) -> Answer {
        let mut job_view = |id| {
            let job = self.draft.job(id).or_else(|| touched.ended_jobs.get(&id))?;
            Some(render::job(explainer, job))
        };
        match answer {
            Err(refusal) => Refused::of(refusal, many).answer(),
            Ok(Ack::Submitted(ids)) if many => {
                let jobs: Vec<_> = ids.iter().filter_map(|id| job_view(*id)).collect();
                let pending = jobs.iter().any(|job| job.lease.is_none());
                Answer::json(if pending { 202 } else { 201 }, &chiptide_api::job::CreatedView { jobs })
            }
            Ok(Ack::Submitted(ids)) => match ids.first().and_then(|id| job_view(*id)) {
                Some(view) => Answer::json(if view.lease.is_some() { 201 } else { 202 }, &view),
                None => Refused::internal("a submitted job is not there").answer(),
            },
            Ok(Ack::Job(id)) => match job_view(*id) {
                Some(view) => Answer::json(200, &view),
                None => Refused::internal("a changed job is not there").answer(),
            },
            Ok(Ack::Lease(id)) => match self.draft.lease(*id) {
                Some(lease) => Answer::json(200, &LeaseView::of(lease)),
                None => Refused::internal("a changed lease is not there").answer(),
            },
            Ok(Ack::Registered(session)) => Answer::json(200, &self.shared.registered(*session)),
            Ok(Ack::Done) => Answer { status: 200, body: "{}".into(), replayed: false },
        }
    }

    async fn commit(
        &mut self,
        clock: &mut Phases,
        at: Timestamp,
        decision: &Decision,
        touched: &chiptide_allocator::Touched,
        answers: &[Recorded],
    ) -> Result<(), StoreError> {
        let round = {
            let before = self.shared.cluster();
            Commit::of(self.leadership, at, (&before, &self.draft), touched, &decision.events, answers)
        };
        commit(&self.store, &round).await?;
        clock.ended("commit");
        let shared = self.shared.cluster_arc();
        let mut cluster = shared.write();
        for event in &decision.events {
            if let Err(unfounded) = cluster.apply(at, event) {
                let detail = unfounded.to_string();
                return Err(StoreError::Unreadable { table: "events", row: "memory".into(), detail });
            }
        }
        drop(cluster.take_touched());
        debug_assert!(*cluster == self.draft, "memory is the fold of committed events");
        drop(cluster);
        self.shared.watchers.wake(touched);
        clock.ended("apply");
        Ok(())
    }

    /// A failed commit may or may not have landed: drops the round and reads everything anew, for as long as it takes.
    /// The callers of the round find their reply dropped and are told that the outcome is unknown.
    async fn recover(&mut self, error: StoreError) -> anyhow::Result<()> {
        metrics::round_failed();
        tracing::error!(%error, "commit round; reading the cluster anew");
        self.shared.set_ready(false);
        let mut pause = Duration::from_millis(100);
        loop {
            match self.reload().await {
                Ok(()) => break,
                Err(StoreError::Deposed) => anyhow::bail!("another daemon has taken the lead; stepping down"),
                Err(error) => tracing::warn!(%error, retry_ms = pause.as_millis() as u64, "read the cluster anew"),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(2));
        }
        self.shared.set_ready(true);
        Ok(())
    }

    async fn reload(&mut self) -> Result<(), StoreError> {
        let mut connection = self.store.writer.acquire().await?;
        crate::store::leader::guard(&mut connection, self.leadership).await?;
        drop(connection);
        let cluster = load::load(&self.store).await?;
        self.draft = cluster.clone();
        *self.shared.cluster_arc().write() = cluster;
        self.shared.watchers.wake_all();
        Ok(())
    }
}

/// The round loop on its own thread.
#[derive(Debug)]
pub struct Led {
    leading: Option<oneshot::Receiver<()>>,
    ended: oneshot::Receiver<anyhow::Result<()>>,
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

    /// Waits for the loop's end.
    pub async fn ended(&mut self) -> anyhow::Result<()> {
        (&mut self.ended).await.context("the round loop broke")?
    }
}

/// Reads the cluster, takes the lead in it, and runs the loop on a thread and a runtime of its own: a round waits for
/// Postgres ten times, and among the tasks of a hundred clients each wait would end in a queue (measured: half the
/// throughput).
pub fn spawn(
    shared: Arc<Shared>,
    store: Store,
    leadership: Leadership,
    entries: mpsc::Receiver<Entry>,
) -> anyhow::Result<Led> {
    let (leading_in, leading) = oneshot::channel();
    let (ended_in, ended) = oneshot::channel();
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("make the rounds' runtime")?;
    let life = async move {
        let round_loop = lead(shared, store, leadership, entries).await?;
        let _ = leading_in.send(());
        round_loop.run().await
    };
    let thread = std::thread::Builder::new().name("rounds".into());
    // The handle is not joined: the end is told through the channel, and a panic closes it.
    thread.spawn(move || drop(ended_in.send(runtime.block_on(life)))).context("start the rounds' thread")?;
    Ok(Led { leading: Some(leading), ended })
}

/// Reads the cluster, takes the lead in it, and makes the loop that leads it.
async fn lead(
    shared: Arc<Shared>,
    store: Store,
    leadership: Leadership,
    entries: mpsc::Receiver<Entry>,
) -> anyhow::Result<RoundLoop> {
    let cluster = load::load(&store).await.context("read the cluster")?;
    *shared.cluster_arc().write() = cluster.clone();
    let mut lead = RoundLoop { shared, store, leadership, entries, draft: cluster };
    let first = lead.draft.seq == 0;
    let mut commands = vec![Command::TakeOver { epoch: leadership.epoch }];
    if first {
        commands.push(Command::ApplyPolicy(chiptide_model::Policy::default()));
    }
    let entries =
        commands.into_iter().map(|command| Entry { command, many: false, key: None, reply: oneshot::channel().0 });
    lead.round(entries.collect(), &mut VecDeque::new()).await.context("take the lead")?;
    Ok(lead)
}
