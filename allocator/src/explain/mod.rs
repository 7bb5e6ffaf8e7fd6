//! Why a job waits, who is in its way, what would help and when it may start; for a job that holds chips, how safe they
//! are. Computed on demand from the cluster as it is; a round never pays for it.

mod ahead;
mod holders;
mod in_the_way;
mod quota;
mod reason;
mod sentence;
mod shortage;
mod standing;
mod start;
mod survey;
mod unblock;

use crate::cluster::Cluster;
use crate::queue::Shape;
use crate::reservations;
use chiptide_model::{Job, JobState, Timestamp};
use rustc_hash::FxHashMap;
use survey::Survey;

pub use holders::{Holder, Holders};
pub use reason::{Reason, Shortage, Unit};
pub use sentence::{EvictedFor, Eviction, chips_text, work_text};
pub use standing::{Exposure, Standing};
pub use start::{Basis, StartEstimate};
pub use unblock::{InTheWay, Spared, Unblocker};

/// All there is to say about one live job.
#[derive(Clone, PartialEq, Debug)]
pub struct Explanation {
    /// While it is pending: everything that keeps it from starting.
    pub blockers: Vec<Blocker>,
    /// While it is pending: ways out, the cheapest first.
    pub ways: Vec<Unblocker>,
    /// While it is pending: when it may start.
    pub start: Option<StartEstimate>,
    /// While it holds chips: what it holds, and who may take it.
    pub standing: Option<Standing>,
}

/// One thing in the way of a pending job.
#[derive(Clone, PartialEq, Debug)]
pub struct Blocker {
    /// What it is, with its numbers.
    pub reason: Reason,
    /// Who has what the job lacks, where somebody has.
    pub holders: Option<Holders>,
    /// The cheapest thing that would end it, where one was found.
    pub unblock: Option<Unblocker>,
}

/// Explains one live job.
pub fn job(cluster: &Cluster, job: &Job, now: Timestamp) -> Explanation {
    if job.state != JobState::Pending {
        let standing = standing::of(cluster, job, now);
        return Explanation { blockers: Vec::new(), ways: Vec::new(), start: None, standing };
    }
    let reasons = explain(cluster, job);
    let shape = Shape::of(&job.spec);
    if cluster.claim(job.id).is_some() {
        let blocker = |reason| Blocker { reason, holders: holders::of_claim(cluster, job.id), unblock: None };
        let blockers = reasons.into_iter().map(blocker).collect();
        return Explanation {
            blockers,
            ways: Vec::new(),
            start: start::of_claim(cluster, job.id, now),
            standing: None,
        };
    }
    let held = reasons.iter().any(Reason::is_held_by_others).then(|| holders::of_shape(cluster, &shape)).flatten();
    let holders = |reason: &Reason| match reason {
        Reason::QueueLimit { queue, .. } => holders::of_queue(cluster, queue),
        reason if reason.is_held_by_others() => held.clone(),
        _ => None,
    };
    let rehearsal = start::rehearse(cluster, job, &shape, now);
    let ways = unblock::ways(cluster, job.id, &shape, &reasons, &rehearsal, now);
    let blocker = |reason: Reason| Blocker {
        holders: holders(&reason),
        unblock: ways.iter().find(|way| way.ends(&reason)).cloned(),
        reason,
    };
    let blockers = reasons.into_iter().map(blocker).collect();
    Explanation { blockers, start: Some(rehearsal.estimate), ways, standing: None }
}

/// Explains jobs of one cluster, each shape once: jobs that ask for the same wait for the same reasons.
#[derive(Debug)]
pub struct Explainer<'a> {
    cluster: &'a Cluster,
    survey: Option<Survey>,
    known: FxHashMap<Shape, Vec<Reason>>,
}

impl<'a> Explainer<'a> {
    /// An explainer of this cluster as it is.
    pub fn of(cluster: &'a Cluster) -> Explainer<'a> {
        Explainer { cluster, survey: None, known: FxHashMap::default() }
    }

    /// The cluster it explains.
    pub fn cluster(&self) -> &'a Cluster {
        self.cluster
    }

    /// Every reason why a pending job has not started; empty for one that is not pending.
    pub fn explain(&mut self, job: &Job) -> Vec<Reason> {
        if job.state != JobState::Pending || self.cluster.claim(job.id).is_some() {
            return explain(self.cluster, job);
        }
        let survey = self.survey.get_or_insert_with(|| Survey::of(self.cluster));
        let known = self.known.entry(Shape::of(&job.spec));
        let known = known.or_insert_with_key(|shape| shortage::blockers(self.cluster, survey, shape));
        with_reservations(self.cluster, job, known.clone())
    }
}

/// Every reason why a pending job has not started; empty for one that is not pending.
pub fn explain(cluster: &Cluster, job: &Job) -> Vec<Reason> {
    if job.state != JobState::Pending {
        return Vec::new();
    }
    if let Some(claim) = cluster.claim(job.id) {
        let holds = || claim.placements.iter().flat_map(|placement| &placement.holds);
        let occupied = |hold: &&chiptide_model::Hold| {
            let held = cluster.chip(&hold.chip).into_iter().flat_map(|chip| &chip.holds).flat_map(|held| &held.slots);
            held.into_iter().any(|held| hold.slots.iter().any(|slots| slots.overlaps(*held)))
        };
        let (chips, waiting_for) = (holds().count() as u64, holds().filter(occupied).count() as u64);
        return vec![Reason::AwaitingVacancy { chips, waiting_for, deadline: claim.deadline }];
    }
    with_reservations(cluster, job, shortage::blockers(cluster, &Survey::of(cluster), &Shape::of(&job.spec)))
}

/// What a shape waits for, and what reservations have to do with this one job of it.
fn with_reservations(cluster: &Cluster, job: &Job, mut reasons: Vec<Reason>) -> Vec<Reason> {
    if !reasons.contains(&Reason::NextRound) {
        reasons.extend(reservations::reasons(cluster, job));
    }
    reasons
}
