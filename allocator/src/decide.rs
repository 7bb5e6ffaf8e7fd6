//! One round: what comes in, what is decided, and the events that say so.

use crate::apply::Unfounded;
use crate::cluster::Cluster;
use crate::command::{Ack, Command, NewJob, PolicyChange, Refusal};
use crate::draft::{Draft, after};
use crate::{elastic, expire, node_loss, place, promise, register, report, reservations, serve};
use chiptide_model::{
    Cause, ClaimDrop, Event, JobId, Lease, LeaseId, LeaseState, Millis, Next, NodeId, Outcome, Policy, ReplicaEnd,
    ReservationDrop, Timestamp, Unfit, Verdict,
};

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
    let mut draft = Draft::of(draft, round);
    draft.cluster.ripen(round.now);
    let answers = commands.into_iter().map(|command| draft.handle(command)).collect();
    expire::overdue(&mut draft);
    promise::keep(&mut draft);
    reservations::tend(&mut draft);
    serve::waiting(&mut draft);
    elastic::grow(&mut draft);
    reservations::close_overdue(&mut draft);
    let (events, unfounded) = draft.into_events();
    Decision { events, answers, unfounded }
}

impl Draft<'_> {
    fn handle(&mut self, command: Command) -> Result<Ack, Refusal> {
        match command {
            Command::TakeOver { epoch } => {
                self.emit(Event::LeaderTookOver { epoch });
                Ok(Ack::Done)
            }
            Command::ApplyPolicy(policy) => {
                self.apply_policy(policy, String::new(), String::new());
                Ok(Ack::Done)
            }
            Command::ChangePolicy(change) => self.change_policy(*change),
            Command::Submit(jobs) => self.submit(jobs),
            Command::Cancel(job) => self.end(job, Cause::Cancelled, Outcome::Cancelled),
            Command::Done(job, outcome) => self.end(job, Cause::Done, outcome),
            Command::Renew(lease) => self.renew(lease),
            Command::Checkpoint { lease, step, leave } => self.checkpoint(lease, step, leave),
            Command::Extend { lease, by, reason } => self.extend(lease, by, reason),
            Command::WorkEnded { lease, run, verdict, replicas } => self.work_ended(lease, run, verdict, replicas),
            Command::Release { lease, requeue } => self.release(lease, requeue),
            Command::Register { node, session, boot_id, facts, chips, seen } => {
                register::register(self, node, session, boot_id, facts, chips, &seen)
            }
            Command::Report(report) => report::accept(self, report),
            Command::Silent(node) => {
                if self.cluster.node(&node).is_some_and(|node| node.unknown_since.is_none()) {
                    self.emit(Event::NodeSilent { node });
                }
                Ok(Ack::Done)
            }
            Command::Quarantine { chip, who, reason } => self.quarantine(chip, who, reason),
            Command::ReleaseChip { chip, who, reason } => self.release_chip(chip, who, reason),
            Command::DeclareOff { node, by, reason } => self.declare_off(node, by, reason),
            Command::Cordon { node, who, reason } => self.cordon(node, who, reason),
            Command::Drain { node, who, reason, by } => self.drain(node, who, reason, by),
            Command::Uncordon { node, who, reason } => self.uncordon(node, who, reason),
            Command::DatabaseReplaced { detail } => {
                self.emit(Event::DatabaseReplaced { detail });
                Ok(Ack::Done)
            }
            Command::Nothing => Ok(Ack::Done),
        }
    }

    /// Answers the policy that was in force before.
    fn apply_policy(&mut self, policy: Policy, author: String, reason: String) -> Policy {
        let before = self.cluster.policy.clone();
        self.emit(Event::PolicyApplied { policy, author, reason });
        reservations::policy_changed(self, &before);
        before
    }

    fn change_policy(&mut self, change: PolicyChange) -> Result<Ack, Refusal> {
        let PolicyChange { policy, after, author, reason } = change;
        let in_force = self.cluster.policy.version;
        if after.is_some_and(|seen| seen != in_force) {
            return Err(Refusal::PolicyChanged { in_force });
        }
        let same = Policy { version: in_force, ..policy.clone() };
        if same == self.cluster.policy && in_force > 0 {
            return Ok(Ack::Policy { before: Box::new(same), author, reason });
        }
        let policy = Policy { version: in_force + 1, ..policy };
        let before = self.apply_policy(policy, author.clone(), reason.clone());
        Ok(Ack::Policy { before: Box::new(before), author, reason })
    }

    fn submit(&mut self, jobs: Vec<NewJob>) -> Result<Ack, Refusal> {
        for (index, job) in jobs.iter().enumerate() {
            if self.cluster.job(job.id).is_some() {
                return Err(Refusal::DuplicateJob(job.id));
            }
            if job.spec.unfit == Unfit::Refuse {
                let capacity = place::capacity(self.cluster, &crate::queue::Shape::of(&job.spec));
                let wanted = job.spec.gang();
                if capacity < u64::from(wanted) {
                    let missing = u64::from(wanted) - capacity;
                    let detail = format!(
                        "{wanted} replicas asked for, the whole fleet would hold {capacity}: {missing} too many"
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
        let lease = self.cluster.job(id).ok_or(Refusal::NoSuchJob(id))?.state.lease();
        reservations::served(self, id, ReservationDrop::Cancelled);
        match lease {
            Some(lease) => self.end_lease(lease, cause, Next::Ended(outcome)),
            None => {
                if self.cluster.claim(id).is_some() {
                    self.emit(Event::ClaimDropped { job: id, why: ClaimDrop::Cancelled });
                }
                self.emit(Event::JobEnded { job: id, outcome });
            }
        }
        Ok(Ack::Job(id))
    }

    fn renew(&mut self, id: LeaseId) -> Result<Ack, Refusal> {
        let lease = self.live_lease(id)?;
        if let LeaseState::Revoking { cause, .. } = &lease.state {
            return Err(Refusal::LeaseRevoked(id, cause.clone()));
        }
        // An extra replica lives as long as the base lease does: there is nothing to extend.
        let ttl = self.cluster.job(lease.job).filter(|_| !lease.extra).and_then(|job| job.spec.lease_ttl);
        if let Some(ttl) = ttl {
            self.emit(Event::LeaseRenewed { lease: id, expires_at: self.now() + ttl });
        }
        Ok(Ack::Lease(id))
    }

    fn declare_off(&mut self, node: NodeId, by: String, reason: String) -> Result<Ack, Refusal> {
        match self.cluster.node(&node) {
            None => Err(Refusal::NotRegistered(node)),
            Some(known) if known.unknown_since.is_none() => Err(Refusal::NodeReports(node)),
            Some(_) => {
                node_loss::declare_off(self, node, by, reason);
                Ok(Ack::Done)
            }
        }
    }

    fn checkpoint(&mut self, id: LeaseId, step: Option<u64>, leave: bool) -> Result<Ack, Refusal> {
        let lease = self.live_lease(id)?;
        let (job, under_notice) = (lease.job, !lease.is_active());
        self.emit(Event::JobCheckpointed { job, step, under_notice: under_notice.then_some(id) });
        if leave && under_notice { self.release(id, false) } else { Ok(Ack::Lease(id)) }
    }

    fn extend(&mut self, id: LeaseId, by: Millis, reason: String) -> Result<Ack, Refusal> {
        let lease = self.live_lease(id)?;
        let LeaseState::Revoking { deadline, .. } = lease.state else { return Err(Refusal::NotRevoked(id)) };
        if lease.extended {
            return Err(Refusal::ExtensionUsed(id));
        }
        let by = by.min(self.cluster.policy.bounds.extension_max);
        if by.0 == 0 {
            return Err(Refusal::NoExtension);
        }
        self.emit(Event::LeaseExtended { lease: id, deadline: deadline + by, reason });
        Ok(Ack::Lease(id))
    }

    fn release(&mut self, id: LeaseId, requeue: bool) -> Result<Ack, Refusal> {
        let lease = self.live_lease(id)?;
        let (job, state) = (lease.job, lease.state.clone());
        let (cause, next) = match state {
            LeaseState::Revoking { cause, .. } => {
                let next = after(&cause);
                (cause, next)
            }
            _ if requeue => (Cause::Released, Next::Pending),
            _ => (Cause::Released, Next::Ended(Outcome::Succeeded)),
        };
        self.end_lease(id, cause, next);
        Ok(Ack::Job(job))
    }

    /// A gang is started anew as a whole or not at all: what one replica lost, the others cannot go on without.
    fn work_ended(
        &mut self,
        id: LeaseId,
        run: u32,
        verdict: Verdict,
        replicas: Vec<ReplicaEnd>,
    ) -> Result<Ack, Refusal> {
        let lease = self.live_lease(id)?;
        let (job, is_active) = (lease.job, lease.is_active());
        let known = self.cluster.job(job).ok_or(Refusal::NoSuchJob(job))?;
        if known.restarts != run {
            return Ok(Ack::Done);
        }
        let restarts_left = known.spec.workload.as_ref().is_some_and(|work| run < work.restart.times());
        self.emit(Event::WorkEnded { lease: id, job, run, verdict: verdict.clone(), replicas });
        match verdict {
            Verdict::Failed { .. } if restarts_left && is_active => {
                self.emit(Event::JobRestarted { job, run: run + 1 });
                Ok(Ack::Job(job))
            }
            Verdict::Failed { reason } => self.end(job, Cause::Done, Outcome::Failed { reason }),
            Verdict::Succeeded | Verdict::Left => self.release(id, false),
        }
    }

    fn live_lease(&self, id: LeaseId) -> Result<&Lease, Refusal> {
        self.cluster.lease(id).filter(|lease| lease.is_live()).ok_or(Refusal::NoSuchLease(id))
    }
}
