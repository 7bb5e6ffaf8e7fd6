//! Promises: chips claimed for a job while their last holders leave. Kept whole or given up whole.

use crate::cluster::{Claim, Cluster};
use crate::draft::{Draft, after};
use crate::preempt::Plan;
use chiptide_model::{Cause, ClaimDrop, Event, JobId, LeaseId, LeaseState, Timestamp};

/// Evicts a plan's victims and promises their chips to the job, in one round.
pub(crate) fn make(draft: &mut Draft<'_>, job: JobId, plan: Plan) {
    let now = draft.now();
    let grace_of = |lease: &LeaseId| {
        let holder = draft.cluster.lease(*lease).and_then(|lease| draft.cluster.job(lease.job));
        holder.map_or(now, |holder| now + holder.spec.grace)
    };
    let deadlines: Vec<(LeaseId, Timestamp)> = plan.victims.iter().map(|lease| (*lease, grace_of(lease))).collect();
    let mut last = deadlines.iter().map(|(_, deadline)| *deadline).max().unwrap_or(now);
    // Others who have been given notice already may take longer to leave.
    for hold in plan.placements.iter().flat_map(|placement| &placement.holds) {
        for holder in draft.cluster.chip(&hold.chip).into_iter().flat_map(|chip| &chip.holds) {
            if let Some(LeaseState::Revoking { deadline, .. }) = draft.cluster.lease(holder.lease).map(|l| &l.state) {
                last = last.max(*deadline);
            }
        }
    }
    let choice = plan.choice();
    for (lease, deadline) in deadlines {
        let cause = Cause::Preempt { for_job: job };
        draft.revoke(lease, &cause, deadline);
        if deadline <= now {
            let next = after(&cause);
            draft.end_lease(lease, cause, next);
        }
    }
    draft.emit(Event::ClaimMade {
        job,
        placements: plan.placements,
        victims: plan.victims.into_iter().collect(),
        deadline: last + draft.cluster.policy.bounds.claim,
        choice,
    });
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
        if node.unknown_since.is_some() {
            return Progress::Lost;
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
