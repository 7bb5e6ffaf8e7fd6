//! What a daemon tells a node, and what it makes of what a node says: the same reading of the cluster as the daemon's own.

use super::rules::Rules;
use chiptide_allocator::fleet::Node;
use chiptide_allocator::{Cluster, Command, RefusedGrant, Report};
use chiptide_api::node::{ChipOrder, LeaseOrder, OrdersView, ReportBody, VacateOrder};
use chiptide_api::work::{ReplicaOrder, WorkBody, WorkOrder};
use chiptide_model::{ChipId, JobState, Lease, LeaseId, LeaseState, NodeId, ReplicaEnd, SessionId, Timestamp, Verdict};

/// The revision of a node's orders.
pub(super) fn revision(cluster: &Cluster, node: &Node) -> String {
    format!("{}.{}", cluster.leader_epoch, node.orders_revision)
}

/// Everything wanted of a node now.
pub(super) fn of(cluster: &Cluster, node: &Node, now: Timestamp) -> OrdersView {
    let mut view = OrdersView { revision: revision(cluster, node), ..OrdersView::default() };
    let leases = node.leases.iter().filter_map(|id| cluster.lease(*id)).filter(|lease| lease.is_live());
    view.leases = leases.map(|lease| lease_order(cluster, lease, node, now)).collect();
    for chip in node.chips.iter().map(|&ix| &cluster.fleet.chips[ix]) {
        let vacating = chip.holds.iter().filter(|hold| hold.vacate_by.is_some());
        let order = |hold: &chiptide_allocator::fleet::ChipHold| VacateOrder {
            chip: chip.facts.id.to_string(),
            lease: hold.lease.0,
            epoch: hold.epoch,
        };
        view.vacate.extend(vacating.map(order));
    }
    view
}

fn lease_order(cluster: &Cluster, lease: &Lease, node: &Node, now: Timestamp) -> LeaseOrder {
    let here = || lease.placements.iter().filter(|placement| placement.node == node.id);
    let ends_in = match &lease.state {
        LeaseState::Revoking { deadline, .. } => Some(deadline.since(now)),
        _ => None,
    };
    let hold = |hold: &chiptide_model::Hold| ChipOrder {
        chip: hold.chip.to_string(),
        slots: hold.slots.iter().map(|slots| slots.count()).sum(),
        epoch: hold.epoch,
    };
    let replica = |placement: &chiptide_model::Placement| ReplicaOrder {
        rank: placement.replica,
        chips: placement.holds.iter().map(|hold| hold.chip.to_string()).collect(),
        cpu_milli: 0,
        memory_mib: 0,
    };
    let work = cluster.job(lease.job).filter(|job| job.spec.workload.is_some()).map(|job| WorkOrder {
        command: vec!["work".into()],
        env: Default::default(),
        directory: None,
        run: job.restarts,
        notice_signal: None,
        user: None,
        nodes: lease.placements.iter().map(|placement| placement.node.to_string()).collect(),
        replicas: here().map(replica).collect(),
    });
    LeaseOrder {
        lease: lease.id.0,
        job: lease.job.0,
        confirmed: lease.confirmed.contains(&node.id),
        deadline: None,
        fence: None,
        ends_in,
        chips: here().flat_map(|placement| &placement.holds).map(hold).collect(),
        work,
    }
}

/// The part of a report that can change a decision.
pub(super) fn report(cluster: &Cluster, node: &NodeId, body: &ReportBody, rules: Rules) -> Report {
    let chip = |text: &str| ChipId::new(text).ok();
    let health = body.chips.iter().filter_map(|now| Some((chip(&now.id)?, super::node::health(&now.health))));
    let mut vacant: Vec<(ChipId, LeaseId, u64)> =
        body.vacant.iter().filter_map(|proof| Some((chip(&proof.chip)?, LeaseId(proof.lease), proof.epoch))).collect();
    if rules.proof_names_no_lease {
        let leaving = |id: &ChipId| cluster.chip(id).map(|chip| chip.holds.clone()).unwrap_or_default();
        let any = |(id, ..): &(ChipId, LeaseId, u64)| {
            let id = id.clone();
            leaving(&id).into_iter().map(move |hold| (id.clone(), hold.lease, u64::MAX))
        };
        vacant = vacant.iter().flat_map(any).collect();
    }
    let refused = body.refused.iter().filter_map(|refused| {
        Some(RefusedGrant {
            lease: LeaseId(refused.lease),
            chip: chip(&refused.chip)?,
            epoch: refused.epoch,
            seen: refused.seen,
            seen_lease: refused.seen_lease.map(LeaseId),
        })
    });
    Report {
        node: node.clone(),
        session: SessionId(body.session),
        health: health.collect(),
        confirmed: body.confirmed.iter().map(|lease| LeaseId(*lease)).collect(),
        vacant,
        refused: refused.collect(),
        faults: Vec::new(),
        fenced: body.fenced.iter().map(|lease| LeaseId(*lease)).collect(),
        ladders: Vec::new(),
    }
}

/// What follows for a lease once all its replicas have ended.
pub(super) fn work_ended(
    cluster: &Cluster,
    id: LeaseId,
    said: impl Fn(&NodeId, u32) -> Option<WorkBody>,
    now: Timestamp,
) -> Option<Command> {
    let lease = cluster.lease(id).filter(|lease| lease.is_live())?;
    let job = cluster.job(lease.job).filter(|job| job.state.lease() == Some(id) && job.state != JobState::Pending)?;
    let end = |placement: &chiptide_model::Placement| {
        let end = said(&placement.node, placement.replica)?.end()?;
        Some(ReplicaEnd { replica: placement.replica, node: placement.node.clone(), at: now, end })
    };
    let ends: Vec<ReplicaEnd> = lease.placements.iter().filter_map(end).collect();
    let all = ends.len() == lease.placements.len();
    let failed = ends.iter().any(|end| !end.end.is_success());
    let verdict = match &lease.state {
        LeaseState::Revoking { .. } if all => Verdict::Left,
        LeaseState::Revoking { .. } => return None,
        _ if failed => Verdict::Failed { reason: "a replica failed".into() },
        _ if all => Verdict::Succeeded,
        _ => return None,
    };
    Some(Command::WorkEnded { lease: id, run: job.restarts, verdict, replicas: ends })
}
