//! A node's orders: its whole wanted state, read off the cluster.

use crate::log_desk::LogDesk;
use chiptide_allocator::Cluster;
use chiptide_allocator::fleet::Node;
use chiptide_api::node::{ChipOrder, FenceOrder, LeaseOrder, OrdersView, VacateOrder};
use chiptide_api::time::to_utc;
use chiptide_api::work::{ReplicaOrder, WorkOrder};
use chiptide_model::{Lease, LeaseState, Placement, Quarantine, Timestamp};

/// The revision of a node's orders. It names the leader too, whose count starts anew, and the last wish for output.
pub fn revision(cluster: &Cluster, node: &Node, logs: &LogDesk) -> String {
    match logs.revision(&node.id) {
        0 => format!("{}.{}", cluster.leader_epoch, node.orders_revision),
        wished => format!("{}.{}.{wished}", cluster.leader_epoch, node.orders_revision),
    }
}

/// Everything wanted of a node now. `now` only tells how far away deadlines are.
pub fn of(cluster: &Cluster, node: &Node, logs: &LogDesk, now: Timestamp) -> OrdersView {
    // The revision first: a wish that comes in between is told again with the next.
    let revision = revision(cluster, node, logs);
    let mut view = OrdersView { revision, wanted_logs: logs.wanted(&node.id), ..OrdersView::default() };
    for lease in node.leases.iter().filter_map(|id| cluster.lease(*id)) {
        if lease.is_live() {
            view.leases.push(lease_order(cluster, lease, node, now));
        }
    }
    for chip in node.chips.iter().map(|&ix| &cluster.fleet.chips[ix]) {
        let vacating = chip.holds.iter().filter(|hold| hold.vacate_by.is_some());
        view.vacate.extend(vacating.map(|hold| VacateOrder {
            chip: chip.facts.id.to_string(),
            lease: hold.lease.0,
            epoch: hold.epoch,
        }));
        // A lease that the ledger has forgotten is to be proven gone like any other that is over.
        if let Some(Quarantine::Orphaned { lease, epoch }) = chip.quarantine {
            view.vacate.push(VacateOrder { chip: chip.facts.id.to_string(), lease: lease.0, epoch });
        }
    }
    view
}

fn lease_order(cluster: &Cluster, lease: &Lease, node: &Node, now: Timestamp) -> LeaseOrder {
    let here = lease.placements.iter().filter(|placement| placement.node == node.id);
    let deadline = match &lease.state {
        LeaseState::Revoking { deadline, .. } => Some(*deadline),
        _ => None,
    };
    LeaseOrder {
        lease: lease.id.0,
        job: lease.job.0,
        confirmed: lease.confirmed.contains(&node.id),
        deadline: deadline.map(to_utc),
        ends_in: deadline.map(|deadline| deadline.since(now)),
        fence: fence_order(cluster, lease),
        work: work_order(cluster, lease, node),
        chips: here
            .flat_map(|placement| &placement.holds)
            .map(|hold| ChipOrder {
                chip: hold.chip.to_string(),
                slots: hold.slots.iter().map(|slots| slots.count()).sum(),
                epoch: hold.epoch,
            })
            .collect(),
    }
}

/// When the node is to end the work by itself, if its job says so.
fn fence_order(cluster: &Cluster, lease: &Lease) -> Option<FenceOrder> {
    let fence = cluster.job(lease.job)?.spec.on_node_loss.fence()?;
    Some(FenceOrder { ttl: fence.ttl, kill: fence.kill })
}

/// What the node is to run under a lease, if its job says so.
fn work_order(cluster: &Cluster, lease: &Lease, node: &Node) -> Option<WorkOrder> {
    let job = cluster.job(lease.job)?;
    let workload = job.spec.workload.clone()?;
    let mut gang: Vec<&Placement> = lease.placements.iter().collect();
    gang.sort_by_key(|placement| placement.replica);
    let here = gang.iter().filter(|placement| placement.node == node.id);
    let replica = |placement: &&Placement| ReplicaOrder {
        rank: placement.replica,
        chips: placement.holds.iter().map(|hold| hold.chip.to_string()).collect(),
        cpu_milli: placement.cpu_milli,
        memory_mib: placement.memory_mib,
    };
    Some(WorkOrder {
        command: workload.command,
        env: workload.env,
        directory: workload.directory,
        run: job.restarts,
        notice_signal: workload.notice_signal.map(|signal| signal.name().to_owned()),
        user: workload.user,
        nodes: gang.iter().map(|placement| placement.node.to_string()).collect(),
        replicas: here.map(replica).collect(),
    })
}
