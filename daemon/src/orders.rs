//! A node's orders: its whole wanted state, read off the cluster.

use chiptide_allocator::Cluster;
use chiptide_allocator::fleet::Node;
use chiptide_api::node::{ChipOrder, LeaseOrder, OrdersView, VacateOrder};
use chiptide_api::time::to_utc;
use chiptide_model::{Lease, LeaseState};

/// The revision of a node's orders. It names the leader too, whose count starts anew.
pub fn revision(cluster: &Cluster, node: &Node) -> String {
    format!("{}.{}", cluster.leader_epoch, node.orders_revision)
}

/// Everything wanted of a node now.
pub fn of(cluster: &Cluster, node: &Node) -> OrdersView {
    let mut view = OrdersView { revision: revision(cluster, node), ..OrdersView::default() };
    for lease in node.leases.iter().filter_map(|id| cluster.lease(*id)) {
        if lease.is_live() {
            view.leases.push(lease_order(lease, node));
        }
    }
    for chip in node.chips.iter().map(|&ix| &cluster.fleet.chips[ix]) {
        let vacating = chip.holds.iter().filter(|hold| hold.vacate_by.is_some());
        view.vacate.extend(vacating.map(|hold| VacateOrder {
            chip: chip.facts.id.to_string(),
            lease: hold.lease.0,
            epoch: hold.epoch,
        }));
    }
    view
}

fn lease_order(lease: &Lease, node: &Node) -> LeaseOrder {
    let here = lease.placements.iter().filter(|placement| placement.node == node.id);
    LeaseOrder {
        lease: lease.id.0,
        job: lease.job.0,
        confirmed: lease.confirmed.contains(&node.id),
        deadline: match &lease.state {
            LeaseState::Revoking { deadline, .. } => Some(to_utc(*deadline)),
            _ => None,
        },
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
