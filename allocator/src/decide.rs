//! One round: what comes in, what is decided, and the events that say so.

use crate::apply::Unfounded;
use crate::cluster::Cluster;
use crate::command::{Ack, Command, NewJob, Refusal};
use crate::{expire, place, preempt, promise, register, report};
use chiptide_model::{
    Cause, Event, JobId, JobState, Lease, LeaseId, Millis, Next, Outcome, Placement, Timestamp, Unfit,
};
use uuid::Uuid;

/// What a round is given from outside: the time, and a number from which lease ids are minted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Round {
    /// The one `now` of this round.
    pub now: Timestamp,
    /// Random, fresh for every round; equal seeds would mint equal lease ids.
    pub seed: u128,
}

/// The outcome of a round. `draft` already is what memory will be once `events` are committed.
#[derive(Clone, PartialEq, Debug)]
pub struct Decision {
    /// What happened, in order.
    pub events: Vec<Event>,
    /// One answer a command, in order.
    pub answers: Vec<Result<Ack, Refusal>>,
    /// An event that the draft itself refused: a bug of ours. The round must not be committed.
    pub unfounded: Option<Unfounded>,
}

/// Decides one round on a draft of the cluster: handles each command, lets the clock work, keeps promises, places and
/// preempts for whoever waits.
pub fn decide(draft: &mut Cluster, commands: Vec<Command>, round: Round) -> Decision {
    let mut draft = Draft { cluster: draft, round, events: Vec::new(), minted: 0, unfounded: None };
    let answers = commands.into_iter().map(|command| draft.handle(command)).collect();
    expire::overdue(&mut draft);
    promise::keep(&mut draft);
    draft.serve_waiting();
    Decision { events: draft.events, answers, unfounded: draft.unfounded }
}

/// The draft with the events emitted so far. Every change goes through [`Draft::emit`].
pub(crate) struct Draft<'a> {
    pub cluster: &'a mut Cluster,
    pub round: Round,
    events: Vec<Event>,
    minted: u64,
    unfounded: Option<Unfounded>,
}

impl Draft<'_> {
    pub(crate) fn now(&self) -> Timestamp {
        self.round.now
    }

    /// Emits an event and applies it to the draft.
    pub(crate) fn emit(&mut self, event: Event) {
        if let Err(unfounded) = self.cluster.apply(self.round.now, &event) {
            self.unfounded.get_or_insert(unfounded);
        }
        self.events.push(event);
    }

    fn handle(&mut self, command: Command) -> Result<Ack, Refusal> {
        match command {
            Command::TakeOver { epoch } => {
                self.emit(Event::LeaderTookOver { epoch });
                Ok(Ack::Done)
            }
            Command::ApplyPolicy(policy) => {
                self.emit(Event::PolicyApplied { policy });
                Ok(Ack::Done)
            }
            Command::Submit(jobs) => self.submit(jobs),
            Command::Cancel(job) => self.end(job, Cause::Cancelled, Outcome::Cancelled),
            Command::Done(job, outcome) => self.end(job, Cause::Done, outcome),
            Command::Renew(lease) => self.renew(lease),
            Command::Release { lease, requeue } => self.release(lease, requeue),
            Command::Register { node, session, boot_id, facts, chips } => {
                register::register(self, node, session, boot_id, facts, chips)
            }
            Command::Report(report) => report::accept(self, report),
            Command::Silent(node) => {
                if self.cluster.node(&node).is_some_and(|node| node.unknown_since.is_none()) {
                    self.emit(Event::NodeSilent { node });
                }
                Ok(Ack::Done)
            }
            Command::Nothing => Ok(Ack::Done),
        }
    }

    fn submit(&mut self, jobs: Vec<NewJob>) -> Result<Ack, Refusal> {
        for (index, job) in jobs.iter().enumerate() {
            if self.cluster.job(job.id).is_some() {
                return Err(Refusal::DuplicateJob(job.id));
            }
            if job.spec.unfit == Unfit::Refuse {
                let capacity = place::capacity(self.cluster, &crate::queue::Shape::of(&job.spec));
                if capacity < u64::from(job.spec.replicas) {
                    let missing = u64::from(job.spec.replicas) - capacity;
                    let detail = format!(
                        "{} replicas asked for, the whole fleet would hold {capacity}: {missing} too many",
                        job.spec.replicas
                    );
                    return Err(Refusal::NeverFits { index, detail });
                }
            }
        }
        let ids = jobs.iter().map(|job| job.id).collect();
        for job in jobs {
            let place = self.cluster.last_place + 1;
            self.emit(Event::JobSubmitted { job: job.id, place, spec: job.spec });
        }
        Ok(Ack::Submitted(ids))
    }

    /// Ends a job at its owner's word, whatever it holds.
    fn end(&mut self, id: JobId, cause: Cause, outcome: Outcome) -> Result<Ack, Refusal> {
        let job = self.cluster.job(id).ok_or(Refusal::NoSuchJob(id))?;
        match job.state.lease() {
            Some(lease) => self.emit(Event::LeaseEnded { lease, cause, next: Next::Ended(outcome) }),
            None => {
                if self.cluster.claim(id).is_some() {
                    self.emit(Event::ClaimDropped { job: id, why: chiptide_model::ClaimDrop::Cancelled });
                }
                self.emit(Event::JobEnded { job: id, outcome });
            }
        }
        Ok(Ack::Job(id))
    }

    fn renew(&mut self, id: LeaseId) -> Result<Ack, Refusal> {
        let lease = self.live_lease(id)?;
        if let chiptide_model::LeaseState::Revoking { cause, .. } = &lease.state {
            return Err(Refusal::LeaseRevoked(id, cause.clone()));
        }
        let ttl = self.cluster.job(lease.job).and_then(|job| job.spec.lease_ttl);
        if let Some(ttl) = ttl {
            self.emit(Event::LeaseRenewed { lease: id, expires_at: self.now() + ttl });
        }
        Ok(Ack::Lease(id))
    }

    fn release(&mut self, id: LeaseId, requeue: bool) -> Result<Ack, Refusal> {
        let lease = self.live_lease(id)?;
        let (job, state) = (lease.job, lease.state.clone());
        let (cause, next) = match state {
            chiptide_model::LeaseState::Revoking { cause, .. } => {
                let next = after(&cause);
                (cause, next)
            }
            _ if requeue => (Cause::Released, Next::Pending),
            _ => (Cause::Released, Next::Ended(Outcome::Succeeded)),
        };
        self.emit(Event::LeaseEnded { lease: id, cause, next });
        Ok(Ack::Job(job))
    }

    fn live_lease(&self, id: LeaseId) -> Result<&Lease, Refusal> {
        self.cluster.lease(id).filter(|lease| lease.is_live()).ok_or(Refusal::NoSuchLease(id))
    }

    /// Serves whoever waits, in order: places, else preempts, else marks the shape as tried.
    fn serve_waiting(&mut self) {
        let mut walk = self.cluster.queue.walk();
        while let Some(step) = walk.step() {
            let shape = self.cluster.queue.shape(&step);
            if let Some(placements) = place::find(self.cluster, shape) {
                self.grant(step.job, placements);
                walk.next_of_shape(&self.cluster.queue, &step);
                continue;
            }
            let plan = if self.cluster.anyone_below(shape.priority) {
                preempt::choose(self.cluster, shape, self.now())
            } else {
                None
            };
            match plan {
                Some(plan) => {
                    promise::make(self, step.job, plan);
                    walk.next_of_shape(&self.cluster.queue, &step);
                }
                None => {
                    let shape = shape.clone();
                    self.cluster.queue.shape_failed(&shape);
                }
            }
        }
    }

    /// Grants a lease on chips that are free, each under a new epoch.
    pub(crate) fn grant(&mut self, id: JobId, mut placements: Vec<Placement>) {
        let Some(job) = self.cluster.job(id) else { return };
        debug_assert_eq!(job.state, JobState::Pending);
        let (attempt, spec) = (job.attempt + 1, job.spec.clone());
        let mut epochs = std::collections::BTreeMap::new();
        for hold in placements.iter_mut().flat_map(|placement| &mut placement.holds) {
            let known = self.cluster.chip(&hold.chip).map_or(0, |chip| chip.epoch);
            let epoch = epochs.entry(hold.chip.clone()).or_insert(known);
            *epoch += 1;
            hold.epoch = *epoch;
        }
        let until = |span: Option<Millis>| span.map(|span| self.now() + span);
        let (expires_at, ends_at) = (until(spec.lease_ttl), until(spec.max_duration));
        let lease = self.mint_lease();
        self.emit(Event::LeaseGranted { lease, job: id, attempt, placements, expires_at, ends_at });
    }

    /// A lease id that only this round can mint: its seed, mixed with a counter.
    fn mint_lease(&mut self) -> LeaseId {
        self.minted += 1;
        let mixed = self.round.seed ^ (u128::from(self.minted).wrapping_mul(0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C835));
        LeaseId(uuid::Builder::from_custom_bytes(Uuid::from_u128(mixed).into_bytes()).into_uuid())
    }
}

/// What becomes of a job whose lease ends for this cause.
pub(crate) fn after(cause: &Cause) -> Next {
    let failed = |reason: &str| Next::Ended(Outcome::Failed { reason: reason.into() });
    match cause {
        Cause::Preempt { .. } | Cause::Fault { .. } | Cause::Released => Next::Pending,
        Cause::MaxDuration => failed("max_duration"),
        Cause::Expired => failed("lease_expired"),
        Cause::Cancelled => Next::Ended(Outcome::Cancelled),
        Cause::Done => Next::Ended(Outcome::Succeeded),
    }
}
