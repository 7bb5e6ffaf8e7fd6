//! Promises: chips claimed for a job while their last holders leave. Kept whole or given up whole.

use crate::cluster::{Claim, Cluster};
use crate::draft::{Draft, after};
use crate::preempt::Plan;
use crate::queue::Shape;
use crate::quota::Why;
use crate::reservations::{self, Use};
use crate::rights::Rights;
use chiptide_model::{
    Cause, Choice, ClaimDrop, Event, JobId, Lease, LeaseId, LeaseState, ReservationDrop, RunnerUp, Timestamp,
};
use std::collections::BTreeSet;

/// Evicts a plan's victims, by priority or by quota, and promises their chips to the job, in one round.
pub(crate) fn make(draft: &mut Draft<'_>, job: JobId, plan: Plan) {
    let now = draft.now();
    let victims = causes(draft.cluster, job, &plan, now);
    take(draft, job, plan, victims);
}

/// Moves a plan's victims aside for a gang, and promises it their chips.
pub(crate) fn make_by_moving(draft: &mut Draft<'_>, for_job: JobId, plan: Plan) {
    let now = draft.now();
    let moved = |lease: &LeaseId| {
        let holder = draft.cluster.lease(*lease).and_then(|lease| draft.cluster.job(lease.job));
        let grace = holder.map(|holder| holder.spec.grace).unwrap_or_default();
        (*lease, Cause::Consolidate { for_job }, now + grace)
    };
    let victims = plan.victims.iter().map(moved).collect();
    take(draft, for_job, plan, victims);
}

fn take(draft: &mut Draft<'_>, job: JobId, plan: Plan, victims: Vec<(LeaseId, Cause, Timestamp)>) {
    let now = draft.now();
    let choice = choice(draft.cluster, &plan, now);
    // Extra replicas go with their job's lease, whether the plan names them or not.
    let going = plan.victims.iter().flat_map(|id| draft.cluster.with_extras(*id));
    let active = |id: &LeaseId| draft.cluster.lease(*id).is_some_and(Lease::is_active);
    let going: BTreeSet<LeaseId> = going.filter(active).collect();
    let mut last = victims.iter().map(|(.., deadline)| *deadline).max().unwrap_or(now);
    // Others who have been given notice already may take longer to leave.
    for hold in plan.placements.iter().flat_map(|placement| &placement.holds) {
        for holder in draft.cluster.chip(&hold.chip).into_iter().flat_map(|chip| &chip.holds) {
            if let Some(LeaseState::Revoking { deadline, .. }) = draft.cluster.lease(holder.lease).map(|l| &l.state) {
                last = last.max(*deadline);
            }
        }
    }
    for (lease, cause, deadline) in victims {
        draft.revoke(lease, &cause, deadline);
        if deadline <= now {
            let next = after(&cause);
            draft.end_lease(lease, cause, next);
        }
    }
    reservations::make_way(draft, job, &plan.placements, Use::Later);
    draft.emit(Event::ClaimMade {
        job,
        placements: plan.placements,
        victims: going.into_iter().collect(),
        deadline: last + draft.cluster.policy.bounds.claim,
        choice,
    });
    reservations::served(draft, job, ReservationDrop::Promised);
}

/// Why each victim is taken, and by when it leaves. Extra replicas that go with their job's lease go for its reason.
fn causes(cluster: &Cluster, for_job: JobId, plan: &Plan, now: Timestamp) -> Vec<(LeaseId, Cause, Timestamp)> {
    let Some(job) = cluster.job(for_job) else { return Vec::new() };
    let mut rights = Rights::of(cluster, &Shape::of(&job.spec), now);
    let along: BTreeSet<LeaseId> = plan.victims.iter().flat_map(|id| cluster.extras_of(*id)).collect();
    let cause = |lease: &Lease| {
        let cause = match rights.may_evict(lease) {
            Some(Why::Reclaim) => Cause::Reclaim { for_job },
            _ => Cause::Preempt { for_job },
        };
        rights.take(lease);
        let grace = cluster.job(lease.job).map(|holder| holder.spec.grace).unwrap_or_default();
        (lease.id, cause, now + grace)
    };
    let asked = plan.victims.iter().filter(|id| !along.contains(id));
    asked.filter_map(|id| cluster.lease(*id)).map(cause).collect()
}

/// What the plan and each of its victims cost, and the next best, for whoever asks later why it was chosen.
fn choice(cluster: &Cluster, plan: &Plan, now: Timestamp) -> Choice {
    let priced = |id: &LeaseId| Some((*id, cluster.eviction_cost(cluster.lease(*id)?, now)));
    let runner_up = plan.runner_up.as_ref();
    Choice {
        cost: plan.cost,
        per_victim: plan.victims.iter().filter_map(priced).collect(),
        runner_up: runner_up
            .map(|(victims, cost)| RunnerUp { victims: victims.iter().copied().collect(), cost: *cost }),
    }
}

/// Looks at every promise that something has changed for: grants it when all its chips are free, gives it up when one
/// of them can no longer be granted.
pub(crate) fn keep(draft: &mut Draft<'_>) {
    while let Some(job) = draft.cluster.claims_to_check.pop_first() {
        let Some(claim) = draft.cluster.claim(job) else { continue };
        match progress(draft.cluster, job, claim) {
            Progress::Ready => {
                let placements = claim.placements.clone();
                draft.grant(job, placements);
            }
            Progress::Lost => draft.emit(Event::ClaimDropped { job, why: ClaimDrop::ChipLost }),
            Progress::Waiting => {}
        }
    }
}

enum Progress {
    Ready,
    Waiting,
    Lost,
}

fn progress(cluster: &Cluster, job: JobId, claim: &Claim) -> Progress {
    let mut waiting = false;
    for placement in &claim.placements {
        let Some(node) = cluster.node(&placement.node) else { return Progress::Lost };
        match node.unknown_since {
            // A new leader has yet to hear the node: giving up now would have evicted its victims in vain.
            Some(since) if cluster.took_over_at == Some(since) => waiting = true,
            Some(_) => return Progress::Lost,
            None if node.cordon.is_some() => return Progress::Lost,
            None => {}
        }
        let others_cpu = claim_total(claim, &placement.node, |p| p.cpu_milli);
        let others_memory = claim_total(claim, &placement.node, |p| p.memory_mib);
        waiting |= node.cpu_free < others_cpu || node.memory_free < others_memory;
        for hold in &placement.holds {
            let Some(chip) = cluster.chip(&hold.chip).filter(|chip| chip.in_service()) else { return Progress::Lost };
            debug_assert!(chip.claims.iter().any(|(owner, _)| *owner == job));
            let held = chip.holds.iter().flat_map(|held| &held.slots);
            waiting |= held.into_iter().any(|held| hold.slots.iter().any(|slots| slots.overlaps(*held)));
        }
    }
    if waiting { Progress::Waiting } else { Progress::Ready }
}

fn claim_total(claim: &Claim, node: &chiptide_model::NodeId, of: impl Fn(&chiptide_model::Placement) -> u64) -> u64 {
    claim.placements.iter().filter(|placement| placement.node == *node).map(of).sum()
}
