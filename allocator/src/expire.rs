//! What the clock does: leases that lapse or reach their end, notices that run out, claims and proofs that are overdue,
//! nodes that stay away.

use crate::cluster::Timer;
use crate::draft::{Draft, after};
use crate::node_loss;
use chiptide_model::{Cause, ClaimDrop, Event, LeaseId, LeaseState, Quarantine};

/// Does everything that is due. Every event emitted here moves or removes its own timer, so the loop ends.
pub(crate) fn overdue(draft: &mut Draft<'_>) {
    while let Some((at, timer)) = draft.cluster.timers.first().cloned()
        && at <= draft.now()
    {
        let before = draft.cluster.seq;
        match &timer {
            Timer::Lease(lease) => lease_due(draft, *lease),
            Timer::Claim(job) => draft.emit(Event::ClaimDropped { job: *job, why: ClaimDrop::Overdue }),
            Timer::Lost(lease) => node_loss::end_lost(draft, *lease),
            Timer::Start(lease) => node_loss::end_unstarted(draft, *lease),
            Timer::Vacate(chip, lease) => {
                let chip = draft.cluster.fleet.chips[*chip].facts.id.clone();
                draft.emit(Event::ChipQuarantined { chip, quarantine: Quarantine::NotVacated { lease: *lease } });
            }
        }
        let moved = draft.cluster.seq > before && !draft.cluster.timers.contains(&(at, timer.clone()));
        debug_assert!(moved, "timer {timer:?} was not moved by its event");
        if !moved {
            draft.cluster.timers.remove(&(at, timer));
        }
    }
}

fn lease_due(draft: &mut Draft<'_>, id: LeaseId) {
    let Some(lease) = draft.cluster.lease(id) else { return };
    let now = draft.now();
    match &lease.state {
        LeaseState::Revoking { cause, .. } => {
            let (cause, next) = (cause.clone(), after(cause));
            draft.end_lease(id, cause, next);
        }
        LeaseState::Active if lease.expires_at.is_some_and(|at| at <= now) => {
            let next = after(&Cause::Expired);
            draft.end_lease(id, Cause::Expired, next);
        }
        LeaseState::Active => {
            let grace = draft.cluster.job(lease.job).map(|job| job.spec.grace).unwrap_or_default();
            draft.revoke(id, &Cause::MaxDuration, now + grace);
            if grace.0 == 0 {
                let next = after(&Cause::MaxDuration);
                draft.end_lease(id, Cause::MaxDuration, next);
            }
        }
        LeaseState::Ended { .. } => {}
    }
}
