//! What becomes of a lease whose workload has ended: the job succeeds, fails, starts anew, or gives its chips back before the
//! deadline. Pure. Agents repeat what they say of a replica until its lease is gone, so nothing is lost when a daemon restarts.

use chiptide_allocator::Command;
use chiptide_api::work::{WorkBody, WorkReport};
use chiptide_model::{Job, Lease, LeaseId, LeaseState, NodeId, Placement, ReplicaEnd, Timestamp, Verdict, WorkEnd};

/// How much of an agent's reason is kept.
const REASON_MAX: usize = 200;

/// What a node last said of one replica.
#[derive(Clone, PartialEq, Debug)]
pub struct Told {
    /// Which run of it.
    pub run: u32,
    /// How it is.
    pub work: WorkBody,
    /// When it ended; when that was told, where its agent does not say.
    pub ended_at: Timestamp,
}

/// What a lease's replicas are said to do, by node and rank.
pub trait Said {
    /// What the node last said of a replica.
    fn of(&self, node: &NodeId, lease: LeaseId, rank: u32) -> Option<Told>;
}

/// The leases of a report whose replicas have ended.
pub fn ended(work: &[WorkReport]) -> impl Iterator<Item = LeaseId> {
    let mut leases: Vec<LeaseId> =
        work.iter().filter(|work| work.work != WorkBody::Running).map(|work| LeaseId(work.lease)).collect();
    leases.sort_unstable();
    leases.dedup();
    leases.into_iter()
}

/// What follows for a lease from what its replicas are said to do in the run they are in; nothing while that is open. A lease
/// that is being taken is given back once nothing runs under it, whatever the exit codes say: it was told to stop.
pub fn verdict(lease: &Lease, job: &Job, said: &impl Said) -> Option<Command> {
    if !lease.is_live() || !(lease.extra || job.state.lease() == Some(lease.id)) {
        return None;
    }
    let ends: Vec<ReplicaEnd> =
        lease.placements.iter().filter_map(|placement| end(lease, job, placement, said)).collect();
    let all_ended = ends.len() == lease.placements.len();
    let verdict = match (&lease.state, first_failure(&ends)) {
        (LeaseState::Revoking { .. }, _) => all_ended.then_some(Verdict::Left)?,
        (_, Some(failed)) => {
            let reason = format!("replica {} on {}: {}", failed.replica, failed.node, failed.end);
            Verdict::Failed { reason: reason.chars().take(REASON_MAX).collect() }
        }
        (_, None) => all_ended.then_some(Verdict::Succeeded)?,
    };
    Some(Command::WorkEnded { lease: lease.id, run: job.restarts, verdict, replicas: ends })
}

/// How a replica ended in the run that its job is in.
fn end(lease: &Lease, job: &Job, placement: &Placement, said: &impl Said) -> Option<ReplicaEnd> {
    let told = said.of(&placement.node, lease.id, placement.replica).filter(|told| told.run == job.restarts)?;
    let end = match told.work.end()? {
        WorkEnd::Failed { reason } => {
            let reason = reason.chars().take(REASON_MAX).map(|c| if c.is_control() { ' ' } else { c }).collect();
            WorkEnd::Failed { reason }
        }
        end => end,
    };
    Some(ReplicaEnd { replica: placement.replica, node: placement.node.clone(), at: told.ended_at, end })
}

/// The replica that failed first, which is the one that the others may have failed for.
fn first_failure(ends: &[ReplicaEnd]) -> Option<&ReplicaEnd> {
    ends.iter().filter(|end| !end.end.is_success()).min_by_key(|end| (end.at, end.replica))
}
