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
use chiptide_allocator::{
    Ack, Cluster, Command, Decision, Refusal, Round, Touched, check, check_touched, decide, rehearsal,
};
use chiptide_api::lease::LeaseView;
use chiptide_model::{Event, Timestamp};
use std::collections::HashSet;
use std::time::Instant;
use tokio::sync::oneshot;

/// Where an answer goes once its round is committed.
pub(super) type Reply = (oneshot::Sender<Answer>, Answer);

/// What is known of a command beside the command: whether it was a list, its key, and where its answer goes.
type Asked = (bool, Option<Key>, oneshot::Sender<Answer>);

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
        if batch.iter().any(|entry| entry.plan.is_some()) {
            let (planned, rest): (Vec<_>, Vec<_>) = batch.into_iter().partition(|entry| entry.plan.is_some());
            planned.into_iter().try_for_each(|entry| self.decide_as_planned(draft, shared, entry))?;
            return if rest.is_empty() { Ok(()) } else { self.decide(draft, shared, rest) };
        }
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
        metrics::decided(size, &decision.events);
        self.take_in(draft, shared, decision, asked, (round.now, started))
    }

    /// Decides a command on a copy of the draft, which takes the draft's place if the plan is the one that was asked for.
    fn decide_as_planned(&mut self, draft: &mut Cluster, shared: &Shared, entry: Entry) -> Result<(), StoreError> {
        let Entry { command, many, key, plan, reply } = entry;
        let (started, round) = (Instant::now(), Round { now: shared.now(), seed: rand::random() });
        let commands = vec![command];
        let new_jobs = rehearsal::new_jobs(&commands);
        let mut trial = draft.clone();
        let decision = decide(&mut trial, commands, round);
        let name = render::plan_name(&rehearsal::plan(&decision.events, &new_jobs));
        let is_refused = decision.answers.iter().any(Result::is_err);
        if !is_refused && plan.is_some_and(|plan| plan != name) {
            self.replies.push((reply, Refused::plan_stale().answer()));
            return Ok(());
        }
        *draft = trial;
        metrics::decided(1, &decision.events);
        self.take_in(draft, shared, decision, vec![(many, key, reply)], (round.now, started))
    }

    /// Takes in what was decided, with the answers.
    fn take_in(
        &mut self,
        draft: &Cluster,
        shared: &Shared,
        decision: Decision,
        asked: Vec<Asked>,
        (now, started): (Timestamp, Instant),
    ) -> Result<(), StoreError> {
        verify(draft, decision.unfounded.as_ref(), &decision.events)?;
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
        self.events.extend(decision.events.into_iter().map(|event| (now, event)));
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
        Ok(Ack::Node(id)) => match draft.node(id) {
            Some(node) => Answer::json(200, &render::node(draft, node, &shared.telemetry)),
            None => Refused::internal("a changed node is not there").answer(),
        },
        Ok(Ack::Policy { before, author, reason }) => {
            Answer::json(200, &render::policy_applied(draft, before, author, reason))
        }
        Ok(Ack::Registered(session)) => Answer::json(200, &shared.registered(*session)),
        Ok(Ack::Done) => Answer { status: 200, body: "{}".into(), replayed: false },
    }
}
