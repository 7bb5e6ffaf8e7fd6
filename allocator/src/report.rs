//! An agent's report: which of it changes a decision, and what it changes. Everything else is telemetry.

use crate::cluster::Cluster;
use crate::command::{Ack, Refusal, Report};
use crate::draft::Draft;
use crate::faults;
use crate::forgotten;
use crate::node_loss::next_of;
use chiptide_model::{Cause, ChipId, Event, JobState, LeaseId, LeaseState, NodeId, Quarantine};

/// Keeps of a report only what would change the cluster; `None` when nothing would. What a peer may send that does not
/// fit (chips of others, unknown leases, proofs that are too old) is dropped here: such facts are stale, not wrong.
pub fn news(cluster: &Cluster, mut report: Report) -> Option<Report> {
    let node = cluster.node(&report.node)?;
    report.health.retain(|(id, health)| {
        on_node(cluster, &report.node, id) && cluster.chip(id).is_some_and(|chip| chip.health != *health)
    });
    report.confirmed.retain(|lease| is_unconfirmed(cluster, *lease, &report.node));
    report.ladders.retain(|(lease, _)| is_on_the_ladder(cluster, *lease, &report.node));
    report.vacant.retain(|(chip, lease, epoch)| is_proof(cluster, &report.node, chip, *lease, *epoch));
    report.faults.retain(|told| on_node(cluster, &report.node, &told.0) && faults::is_news(cluster, told));
    report.refused.retain(|refused| forgotten::is_refusal(cluster, &report.node, refused));
    report.fenced.retain(|lease| is_fenced(cluster, *lease, &report.node));
    let changes = node.unknown_since.is_some()
        || !(report.health.is_empty() && report.confirmed.is_empty() && report.vacant.is_empty())
        || !(report.refused.is_empty() && report.fenced.is_empty())
        || !(report.faults.is_empty() && report.ladders.is_empty());
    changes.then_some(report)
}

/// Whether the lease is being taken or was, and this node has to do with it.
fn is_on_the_ladder(cluster: &Cluster, lease: LeaseId, node: &NodeId) -> bool {
    cluster.lease(lease).is_some_and(|lease| {
        let cause = match &lease.state {
            LeaseState::Active => None,
            LeaseState::Revoking { cause, .. } | LeaseState::Ended { cause, .. } => Some(cause),
        };
        cause.is_some_and(Cause::gives_notice) && lease.placements.iter().any(|placement| placement.node == *node)
    })
}

fn on_node(cluster: &Cluster, node: &NodeId, chip: &ChipId) -> bool {
    cluster.chip(chip).is_some_and(|chip| cluster.fleet.nodes[chip.node].id == *node)
}

fn is_unconfirmed(cluster: &Cluster, lease: LeaseId, node: &NodeId) -> bool {
    cluster.lease(lease).is_some_and(|lease| {
        lease.is_live() && !lease.confirmed.contains(node) && lease.placements.iter().any(|p| p.node == *node)
    })
}

/// Whether this proves the chip vacant of an ended lease: the agent must have seen at least the epoch of that grant.
fn is_proof(cluster: &Cluster, node: &NodeId, chip: &ChipId, lease: LeaseId, seen: u64) -> bool {
    if on_node(cluster, node, chip) && forgotten::is_proof(cluster, chip, lease, seen) {
        return true;
    }
    let held = cluster.chip(chip).filter(|_| on_node(cluster, node, chip)).map(|chip| chip.holds.as_slice());
    let mut holds = held.unwrap_or_default().iter().filter(|hold| hold.lease == lease).peekable();
    holds.peek().is_some() && holds.all(|hold| hold.vacate_by.is_some() && seen >= hold.epoch)
}

/// Applies a report of the node's current session.
pub(crate) fn accept(draft: &mut Draft<'_>, report: Report) -> Result<Ack, Refusal> {
    let node = draft.cluster.node(&report.node).ok_or_else(|| Refusal::NotRegistered(report.node.clone()))?;
    // A session that was withdrawn matches nobody.
    if node.session != report.session || node.session.0.is_nil() {
        return Err(Refusal::StaleSession(report.node));
    }
    if node.unknown_since.is_some() {
        draft.emit(Event::NodeHeard { node: report.node.clone() });
    }
    let Some(report) = news(draft.cluster, report) else { return Ok(Ack::Done) };
    for (chip, health) in report.health {
        draft.emit(Event::ChipHealthChanged { chip, health });
    }
    for (lease, steps) in report.ladders {
        draft.emit(Event::LadderClimbed { lease, node: report.node.clone(), steps });
    }
    for (chip, lease, epoch) in report.vacant {
        // Earlier facts of the same report may have said it already.
        if forgotten::is_proof(draft.cluster, &chip, lease, epoch) {
            draft.emit(Event::ChipRestored { chip: chip.clone() });
            faults::settle(draft, &chip);
        } else if is_proof(draft.cluster, &report.node, &chip, lease, epoch) {
            draft.emit(Event::ChipVacated { chip: chip.clone(), lease, epoch });
            restore_if_proven(draft, chip);
        }
    }
    for refused in &report.refused {
        forgotten::tear_down(draft, &report.node, refused);
    }
    for lease in report.fenced {
        end_fenced(draft, lease, &report.node);
    }
    for lease in report.confirmed {
        confirm(draft, lease, &report.node);
    }
    faults::accept(draft, report.faults);
    Ok(Ack::Done)
}

/// Whether the node may have ended the work of this lease by itself.
fn is_fenced(cluster: &Cluster, lease: LeaseId, node: &NodeId) -> bool {
    cluster.lease(lease).is_some_and(|lease| {
        let fence = cluster.job(lease.job).and_then(|job| job.spec.on_node_loss.fence());
        lease.is_live() && fence.is_some() && lease.placements.iter().any(|placement| placement.node == *node)
    })
}

fn end_fenced(draft: &mut Draft<'_>, id: LeaseId, node: &NodeId) {
    if let Some(lease) = draft.cluster.lease(id).filter(|_| is_fenced(draft.cluster, id, node)) {
        let next = next_of(lease);
        draft.end_lease(id, Cause::Fenced { node: node.clone() }, next);
    }
}

/// A chip quarantined for want of a proof comes back with the last proof it owed.
fn restore_if_proven(draft: &mut Draft<'_>, chip: ChipId) {
    let proven = draft.cluster.chip(&chip).is_some_and(|state| {
        matches!(state.quarantine, Some(Quarantine::NotVacated { .. }))
            && state.holds.iter().all(|hold| hold.vacate_by.is_none())
    });
    if proven {
        draft.emit(Event::ChipRestored { chip });
    }
}

fn confirm(draft: &mut Draft<'_>, lease: LeaseId, node: &NodeId) {
    if !is_unconfirmed(draft.cluster, lease, node) {
        return;
    }
    draft.emit(Event::LeaseConfirmed { lease, node: node.clone() });
    let Some(record) = draft.cluster.lease(lease) else { return };
    let job = record.job;
    let all = record.nodes().iter().all(|node| record.confirmed.contains(node));
    let leased = draft.cluster.job(job).is_some_and(|job| job.state == JobState::Leased { lease });
    if all && leased {
        draft.emit(Event::JobStarted { job });
    }
}
