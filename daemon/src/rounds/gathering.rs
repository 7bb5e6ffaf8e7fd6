//! The round being gathered: commands decided on the draft, with their answers, not yet committed.

use super::Entry;
use crate::metrics;
use crate::render;
use crate::routes::problem::{Answer, Refused};
use crate::shared::Shared;
use crate::store::StoreError;
use crate::store::commit::Commit;
use crate::store::idempotency_keys::{Key, Recorded};
use chiptide_allocator::explain::Explainer;
use chiptide_allocator::{Ack, Cluster, Command, Refusal, Round, Touched, check, check_touched, decide};
use chiptide_api::lease::LeaseView;
use chiptide_model::{Event, Timestamp};
use std::collections::HashSet;
use std::time::Instant;
use tokio::sync::oneshot;

/// Where an answer goes once its round is committed.
pub(super) type Reply = (oneshot::Sender<Answer>, Answer);

/// Keys whose first request is decided but not committed yet.
pub(super) type Keys = HashSet<(String, String)>;

/// Decisions that will be committed together.
#[derive(Debug, Default)]
pub(super) struct Gathering {
    events: Vec<(Timestamp, Event)>,
    recorded: Vec<Recorded>,
    replies: Vec<Reply>,
    keys: Keys,
}

/// A gathered round on its way into Postgres.
#[derive(Debug)]
pub(super) struct Closed {
    pub(super) commit: Commit,
    pub(super) touched: Touched,
    pub(super) replies: Vec<Reply>,
    pub(super) keys: Keys,
}

impl Gathering {
    /// How many commands have been decided.
    pub(super) fn len(&self) -> usize {
        self.replies.len()
    }

    /// Whether there is nothing to write and nobody to answer.
    pub(super) fn is_empty(&self) -> bool {
        self.events.is_empty() && self.replies.is_empty()
    }

    /// The callers, when nothing of it will be written.
    pub(super) fn into_replies(self) -> Vec<Reply> {
        self.replies
    }

    /// Whether a request with this key has been decided here.
    pub(super) fn holds(&self, key: &Key) -> bool {
        self.keys.contains(&(key.principal.clone(), key.key.clone()))
    }

    /// Decides a batch on the draft. An error means that the draft is broken and must be thrown away.
    pub(super) fn decide(&mut self, draft: &mut Cluster, shared: &Shared, batch: Vec<Entry>) -> Result<(), StoreError> {
        let started = Instant::now();
        let size = batch.len();
        let mut asked = Vec::with_capacity(size);
        let mut commands: Vec<Command> = Vec::with_capacity(size);
        for entry in batch {
            commands.push(entry.command);
            asked.push((entry.many, entry.key, entry.reply));
        }
        let round = Round { now: shared.now(), seed: rand::random() };
        let decision = decide(draft, commands, round);
        verify(draft, decision.unfounded.as_ref(), &decision.events)?;
        metrics::decided(size, &decision.events);
        let decided = Instant::now();
        metrics::round_phase("decide", decided.duration_since(started));
        let mut explainer = Explainer::of(draft);
        for (answer, (many, key, reply)) in decision.answers.into_iter().zip(asked) {
            let answer = render_answer(&mut explainer, shared, &answer, many);
            if let Some(key) = key {
                self.keys.insert((key.principal.clone(), key.key.clone()));
                self.recorded.push(Recorded { key, status: answer.status, body: answer.body.clone() });
            }
            self.replies.push((reply, answer));
        }
        self.events.extend(decision.events.into_iter().map(|event| (round.now, event)));
        metrics::round_phase("answer", decided.elapsed());
        Ok(())
    }

    /// Closes the round: what it writes no longer depends on the draft, which goes on.
    pub(super) fn close(&mut self, draft: &mut Cluster) -> Closed {
        let gathered = std::mem::take(self);
        let touched = draft.take_touched();
        let commit = Commit::of(draft, &touched, gathered.events, gathered.recorded);
        Closed { commit, touched, replies: gathered.replies, keys: gathered.keys }
    }
}

/// A violation stops the round before anything is written.
fn verify(
    draft: &Cluster,
    unfounded: Option<&chiptide_allocator::Unfounded>,
    events: &[Event],
) -> Result<(), StoreError> {
    let violations = if cfg!(debug_assertions) { check(draft) } else { check_touched(draft, draft.touched()) };
    let found: Vec<String> =
        violations.iter().map(ToString::to_string).chain(unfounded.map(ToString::to_string)).collect();
    if found.is_empty() {
        return Ok(());
    }
    metrics::violations(found.len());
    tracing::error!(violations = ?found, ?events, "a round broke an invariant and was dropped");
    Err(StoreError::Unreadable { table: "round", row: "draft".into(), detail: found.join("; ") })
}

/// The answer to one command, from the draft that will be committed.
fn render_answer(explainer: &mut Explainer<'_>, shared: &Shared, answer: &Result<Ack, Refusal>, many: bool) -> Answer {
    let draft = explainer.cluster();
    let mut job_view = |id| {
        let job = draft.job(id).or_else(|| draft.touched().ended_jobs.get(&id))?;
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
        Ok(Ack::Lease(id)) => match draft.lease(*id) {
            Some(lease) => Answer::json(200, &LeaseView::of(lease)),
            None => Refused::internal("a changed lease is not there").answer(),
        },
        Ok(Ack::Chip(id)) => match draft.chip(id) {
            Some(chip) => Answer::json(200, &render::chip(&draft.fleet.nodes[chip.node], chip, &shared.telemetry)),
            None => Refused::internal("a changed chip is not there").answer(),
        },
        Ok(Ack::Policy { before, author, reason }) => {
            Answer::json(200, &render::policy_applied(draft, before, author, reason))
        }
        Ok(Ack::Registered(session)) => Answer::json(200, &shared.registered(*session)),
        Ok(Ack::Done) => Answer { status: 200, body: "{}".into(), replayed: false },
    }
}
