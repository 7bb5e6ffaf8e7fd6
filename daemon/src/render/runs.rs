//! How a job's replicas are and were, run by run.

use crate::store::work_ends::RunEnd;
use crate::workloads::Said;
use chiptide_allocator::Cluster;
use chiptide_api::time::to_utc;
use chiptide_api::work::{ReplicaWorkView, RunView};
use chiptide_model::{Job, Lease, Placement};

/// The run a live job is in, as its nodes last said; `None` while it holds no lease.
pub fn run_now(cluster: &Cluster, job: &Job, said: &impl Said) -> Option<RunView> {
    let base = cluster.lease(job.state.lease()?)?;
    let extras = job.extras.iter().filter_map(|lease| cluster.lease(*lease));
    let placements =
        [base].into_iter().chain(extras).flat_map(|lease| lease.placements.iter().map(move |p| (lease, p)));
    let mut replicas: Vec<ReplicaWorkView> =
        placements.map(|(lease, placement)| replica(lease, placement, job.restarts, said)).collect();
    replicas.sort_by_key(|replica| replica.replica);
    Some(RunView { attempt: job.attempt, run: job.restarts, ended_at: None, failure: None, replicas })
}

fn replica(lease: &Lease, placement: &Placement, run: u32, said: &impl Said) -> ReplicaWorkView {
    let node = placement.node.as_str();
    let told = said.of(&placement.node, lease.id, placement.replica).filter(|told| told.run == run);
    match told.map(|told| (told.work.end(), told.ended_at)) {
        None => ReplicaWorkView::going_on(placement.replica, node, "starting"),
        Some((None, _)) => ReplicaWorkView::going_on(placement.replica, node, "running"),
        Some((Some(end), at)) => ReplicaWorkView::ended(placement.replica, node, &end, to_utc(at)),
    }
}

/// A run that is over.
pub fn run_ended(end: &RunEnd) -> RunView {
    let mut replicas: Vec<ReplicaWorkView> = end
        .replicas
        .iter()
        .map(|replica| ReplicaWorkView::ended(replica.replica, replica.node.as_str(), &replica.end, to_utc(replica.at)))
        .collect();
    replicas.sort_by_key(|replica| replica.replica);
    RunView {
        attempt: end.attempt,
        run: end.run,
        ended_at: Some(to_utc(end.at)),
        failure: end.failure.clone(),
        replicas,
    }
}
