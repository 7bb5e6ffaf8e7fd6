//! The cluster as the wire shows it: jobs, chips, nodes, queues, reasons and explanations.

mod dry_run;
mod event;
mod eviction;
mod explain;
mod policy;
mod queues;
mod runs;

pub use dry_run::{dry_run, plan_name};
pub use event::event;
pub use eviction::{eviction, steps};
pub use explain::explanation;
pub use policy::{policy_applied, policy_changed, policy_version, policy_view};
pub use queues::queues;
pub use runs::{run_ended, run_now};

use crate::telemetry::Telemetry;
use chiptide_allocator::explain::Explainer;
use chiptide_allocator::fleet::{Chip, Node};
use chiptide_allocator::{Cluster, Reason};
use chiptide_api::chip::{ChipView, HolderView};
use chiptide_api::fault::FaultView;
use chiptide_api::job::{JobBody, JobView, ReservationView};
use chiptide_api::lease::LeaseView;
use chiptide_api::node::{CordonView, NodeView};
use chiptide_api::reason::Reason as ReasonView;
use chiptide_api::time::to_utc;
use chiptide_model::{
    ChipState, Cordon, Health, Holder, Job, JobState, Lease, LeaseState, Outcome, SLOTS_PER_CHIP, Timestamp,
};
use std::collections::BTreeSet;

/// A job, live or over.
pub fn job(explainer: &mut Explainer<'_>, job: &Job) -> JobView {
    let reasons = explainer.explain(job);
    let cluster = explainer.cluster();
    let promise = reasons.iter().find_map(explain::promise);
    JobView {
        id: job.id.0,
        state: job.state.as_str().into(),
        reason: match &job.state {
            JobState::Ended(Outcome::Failed { reason }) => Some(reason.clone()),
            _ => None,
        },
        reasons: reasons.iter().map(reason_view).collect(),
        promise,
        reservation: cluster.reservation(&Holder::Job(job.id)).map(|reservation| ReservationView {
            chips: reservation.placements.iter().map(|placement| placement.holds.len() as u32).sum(),
            starts_at: to_utc(reservation.starts_at),
        }),
        deadline: match &job.state {
            JobState::Preempting { deadline, .. } => Some(to_utc(*deadline)),
            _ => None,
        },
        lease: job.state.lease().and_then(|lease| cluster.lease(lease)).map(LeaseView::of),
        extras: job.extras.iter().filter_map(|lease| cluster.lease(*lease)).map(LeaseView::of).collect(),
        replicas_held: job.replicas_held(),
        checkpointed_at: job.checkpointed_at.map(to_utc),
        attempt: job.attempt,
        preemptions: job.preemptions,
        restarts: job.restarts,
        runs: Vec::new(),
        eviction: None,
        submitted_at: to_utc(job.submitted_at),
        changed_at: to_utc(job.changed_at),
        revision: job.revision,
        priority: job.spec.priority,
        spec: JobBody::of(&job.spec),
    }
}

/// A reason: its code and numbers for programs, its sentence for people.
fn reason_view(reason: &Reason) -> ReasonView {
    let shortage = reason.shortage();
    let numbers = shortage.map(|(_, shortage)| shortage);
    ReasonView {
        code: reason.code().into(),
        device_class: reason.device_class().map(ToString::to_string),
        queue: reason.queue().map(str::to_owned),
        unit: shortage.map(|(unit, _)| unit.as_str().into()),
        requested: numbers.map(|shortage| shortage.requested),
        available: numbers.map_or_else(|| reason.unusable(), |shortage| Some(shortage.available)),
        over_by: reason.over_by().map(to_utc),
        shortfall: numbers.map(|shortage| shortage.shortfall()),
        message: reason.to_string(),
    }
}

/// A chip with its newest reading.
pub fn chip(node: &Node, chip: &Chip, telemetry: &Telemetry) -> ChipView {
    let state = chip.state(node);
    let (health, fault) = match &chip.health {
        Health::Healthy => ("healthy", None),
        Health::Unreadable { detail } => ("unreadable", Some(detail.clone())),
        Health::Unhealthy { detail } => ("unhealthy", Some(detail.clone())),
    };
    ChipView {
        id: chip.facts.id.to_string(),
        node: node.id.to_string(),
        device_class: chip.facts.class.to_string(),
        product: chip.facts.product.clone(),
        memory_mib: chip.facts.memory_mib,
        state: state.to_string(),
        reason: match &state {
            ChipState::Quarantined(quarantine) => Some(quarantine.to_string()),
            _ => fault,
        },
        unknown_since: node.unknown_since.map(to_utc),
        health: health.into(),
        lease_epoch: chip.epoch,
        free_slots: if chip.in_service() && node.unknown_since.is_none() { chip.free_slots() } else { 0 },
        holders: chip
            .holds
            .iter()
            .map(|hold| HolderView {
                lease: hold.lease.0,
                job: hold.job.0,
                slots: hold.slots.iter().map(|slots| slots.count()).sum(),
                epoch: hold.epoch,
                reclaiming: hold.vacate_by.is_some(),
            })
            .collect(),
        promised_to: chip.claims.first().map(|(job, _)| job.0),
        serial: chip.facts.serial.clone(),
        pci_bus_id: chip.facts.pci_bus_id.clone(),
        numa_node: chip.facts.numa_node,
        link_peers: chip.facts.link_peers.iter().map(ToString::to_string).collect(),
        faults: chip.faults.all().iter().map(FaultView::of).collect(),
        // A chip that cannot be read has no reading worth showing.
        reading: telemetry.reading(&node.id, chip.facts.id.as_str()).filter(|_| health != "unreadable"),
    }
}

/// A node.
pub fn node(cluster: &Cluster, node: &Node, telemetry: &Telemetry) -> NodeView {
    let chips = || node.chips.iter().map(|&ix| &cluster.fleet.chips[ix]);
    let free = |chip: &&Chip| chip.in_service() && chip.free_slots() == SLOTS_PER_CHIP;
    let known = node.takes_work();
    let classes: BTreeSet<String> = chips().map(|chip| chip.facts.class.to_string()).collect();
    NodeView {
        id: node.id.to_string(),
        state: if node.unknown_since.is_none() { "up" } else { "unknown" }.into(),
        unknown_since: node.unknown_since.map(to_utc),
        cordon: node.cordon.as_ref().map(|cordon| cordon_view(cluster, node, cordon)),
        reported_at: telemetry.reported_at(&node.id).map(to_utc),
        rack: node.facts.rack.clone(),
        link_domain: node.facts.link_domain.clone(),
        labels: node.facts.labels.clone(),
        agent_version: node.facts.agent_version.clone(),
        driver_version: node.facts.driver_version.clone(),
        cpu_milli: node.facts.cpu_milli,
        cpu_milli_free: node.cpu_free,
        memory_mib: node.facts.memory_mib,
        memory_mib_free: node.memory_free,
        chips: u32::try_from(node.chips.len()).unwrap_or(u32::MAX),
        chips_free: if known { u32::try_from(chips().filter(free).count()).unwrap_or(u32::MAX) } else { 0 },
        device_classes: classes.into_iter().collect(),
    }
}

fn cordon_view(cluster: &Cluster, node: &Node, cordon: &Cordon) -> CordonView {
    let leases = || node.leases.iter().filter_map(|lease| cluster.lease(*lease));
    let end = |lease: &Lease| match &lease.state {
        LeaseState::Revoking { deadline, .. } => Some(*deadline),
        LeaseState::Ended { at, .. } => Some(*at),
        LeaseState::Active => lease.ends_at,
    };
    let ends: Option<Vec<Timestamp>> = leases().map(end).collect();
    CordonView {
        who: cordon.who.clone(),
        reason: cordon.reason.clone(),
        since: to_utc(cordon.since),
        drain_by: cordon.drain_by.map(to_utc),
        leases: u32::try_from(node.leases.len()).unwrap_or(u32::MAX),
        empty_by: ends.and_then(|ends| ends.into_iter().max()).map(to_utc),
    }
}
