//! What becomes of a lease whose workload has ended: the job succeeds, fails, or gives its chips back before the deadline.
//! Pure. Agents repeat what they say of a replica until its lease is gone, so nothing is lost when a daemon restarts.

use chiptide_allocator::Command;
use chiptide_api::work::{WorkBody, WorkReport};
use chiptide_model::{JobState, Lease, LeaseId, LeaseState, NodeId, Outcome, Placement};

/// How much of an agent's reason is kept.
const REASON_MAX: usize = 200;

/// What a lease's replicas are said to do, by node and rank.
pub trait Said {
    /// What the node last said of a replica.
    fn of(&self, node: &NodeId, lease: LeaseId, rank: u32) -> Option<WorkBody>;
}

/// The leases of a report whose replicas have ended.
pub fn ended(work: &[WorkReport]) -> impl Iterator<Item = LeaseId> {
    let mut leases: Vec<LeaseId> =
        work.iter().filter(|work| work.work != WorkBody::Running).map(|work| LeaseId(work.lease)).collect();
    leases.sort_unstable();
    leases.dedup();
    leases.into_iter()
}

/// What follows for a lease from what its replicas are said to do; nothing while that is open. A lease that is being taken
/// is given back once nothing runs under it, whatever the exit codes say: it was told to stop.
pub fn verdict(lease: &Lease, state: &JobState, said: &impl Said) -> Option<Command> {
    if !lease.is_live() || state.lease() != Some(lease.id) {
        return None;
    }
    let of = |placement: &Placement| said.of(&placement.node, lease.id, placement.replica);
    let told: Vec<Option<WorkBody>> = lease.placements.iter().map(of).collect();
    let all = |wanted: &dyn Fn(&WorkBody) -> bool| told.iter().all(|work| work.as_ref().is_some_and(wanted));
    let release = Command::Release { lease: lease.id, requeue: false };
    if matches!(lease.state, LeaseState::Revoking { .. }) {
        return all(&|work| *work != WorkBody::Running).then_some(release);
    }
    let failure = lease.placements.iter().zip(&told).find_map(|(placement, work)| {
        let what = how_it_failed(work.as_ref()?)?;
        Some(format!("replica {} on {}: {what}", placement.replica, placement.node))
    });
    match failure {
        Some(reason) => {
            let reason = reason.chars().take(REASON_MAX).map(|c| if c.is_control() { ' ' } else { c }).collect();
            Some(Command::Done(lease.job, Outcome::Failed { reason }))
        }
        None => all(&|work| *work == WorkBody::Exited { code: 0 }).then_some(release),
    }
}

fn how_it_failed(work: &WorkBody) -> Option<String> {
    match work {
        WorkBody::Running | WorkBody::Exited { code: 0 } => None,
        WorkBody::Exited { code } => Some(format!("exit code {code}")),
        WorkBody::Killed { signal } => Some(format!("killed by signal {signal}")),
        WorkBody::Failed { reason } => Some(reason.clone()),
    }
}
