//! Chips as the log tells of them: who holds which slots, what is promised, what may be granted.

use super::findings::{Findings, Rule};
use chiptide_model::{
    ChipFacts, ChipId, DeviceClass, Health, Hold, JobId, LeaseId, NodeFacts, NodeId, Placement, Slots,
};
use std::collections::BTreeMap;

/// Slots of one chip under one lease, from the grant to the proof of vacancy.
#[derive(Debug)]
struct Held {
    lease: LeaseId,
    slots: Vec<Slots>,
    epoch: u64,
    ended: bool,
}

#[derive(Debug)]
struct ChipSeen {
    node: NodeId,
    class: DeviceClass,
    memory_mib: u64,
    healthy: bool,
    quarantined: bool,
    epoch: u64,
    held: Vec<Held>,
    promised: Vec<(JobId, Vec<Slots>)>,
}

#[derive(Debug, Default)]
struct NodeSeen {
    heard: bool,
    rack: Option<String>,
    link_domain: Option<String>,
    cpu_milli: u64,
    memory_mib: u64,
    cpu_milli_used: u64,
    memory_mib_used: u64,
}

/// Every node and chip the log has named.
#[derive(Debug, Default)]
pub(super) struct Chips {
    nodes: BTreeMap<NodeId, NodeSeen>,
    chips: BTreeMap<ChipId, ChipSeen>,
    /// Chips of every lease not yet proven gone, and of every promise: what an end has to look at.
    leased: BTreeMap<LeaseId, Vec<Placement>>,
    promised: BTreeMap<JobId, Vec<Placement>>,
}

impl Chips {
    pub(super) fn size(&self) -> (u64, u64) {
        (self.nodes.len() as u64, self.chips.len() as u64)
    }

    /// Device class and memory of a chip.
    pub(super) fn facts(&self, chip: &ChipId) -> Option<(&DeviceClass, u64)> {
        self.chips.get(chip).map(|seen| (&seen.class, seen.memory_mib))
    }

    /// The link fabric of a node; a node without one counts as a fabric of its own.
    pub(super) fn link_domain(&self, node: &NodeId) -> String {
        let domain = self.nodes.get(node).and_then(|seen| seen.link_domain.clone());
        domain.unwrap_or_else(|| format!("links of {node}"))
    }

    /// The rack of a node; a node without one counts as a rack of its own.
    pub(super) fn rack(&self, node: &NodeId) -> String {
        let rack = self.nodes.get(node).and_then(|seen| seen.rack.clone());
        rack.unwrap_or_else(|| format!("rack of {node}"))
    }

    pub(super) fn nobody_heard(&mut self) {
        self.nodes.values_mut().for_each(|node| node.heard = false);
    }

    pub(super) fn heard(&mut self, node: &NodeId, heard: bool) {
        self.nodes.entry(node.clone()).or_default().heard = heard;
    }

    pub(super) fn registered(&mut self, node: &NodeId, facts: &NodeFacts, chips: &[(ChipFacts, Health)]) {
        let seen = self.nodes.entry(node.clone()).or_default();
        seen.heard = true;
        (seen.rack, seen.link_domain) = (facts.rack.clone(), facts.link_domain.clone());
        (seen.cpu_milli, seen.memory_mib) = (facts.cpu_milli, facts.memory_mib);
        for (chip, health) in chips {
            let seen = self.chips.entry(chip.id.clone()).or_insert_with(|| ChipSeen {
                node: node.clone(),
                class: chip.class.clone(),
                memory_mib: chip.memory_mib,
                healthy: true,
                quarantined: false,
                epoch: 0,
                held: Vec::new(),
                promised: Vec::new(),
            });
            (seen.node, seen.class, seen.memory_mib) = (node.clone(), chip.class.clone(), chip.memory_mib);
            seen.healthy = health.is_healthy();
        }
    }

    pub(super) fn health(&mut self, chip: &ChipId, health: &Health) {
        if let Some(seen) = self.chips.get_mut(chip) {
            seen.healthy = health.is_healthy();
        }
    }

    /// The epoch went above what the node has seen of grants that the log does not have.
    pub(super) fn epoch_raised(&mut self, chip: &ChipId, epoch: u64, findings: &mut Findings) {
        let Some(seen) = self.chips.get_mut(chip) else { return };
        if epoch <= seen.epoch {
            findings.add(Rule::EpochNotGrown, format!("chip {chip}: raised to epoch {epoch} from {}", seen.epoch));
        }
        seen.epoch = seen.epoch.max(epoch);
    }

    pub(super) fn quarantined(&mut self, chip: &ChipId, quarantined: bool) {
        if let Some(seen) = self.chips.get_mut(chip) {
            seen.quarantined = quarantined;
        }
    }

    /// A grant: every hold against every other hold and promise of its chip.
    pub(super) fn granted(&mut self, lease: LeaseId, job: JobId, placements: &[Placement], findings: &mut Findings) {
        if let Some(promised) = self.unpromise(job)
            && slots_of(&promised) != slots_of(placements)
        {
            findings.add(Rule::PromiseBroken, format!("job {job} was granted other slots than it was promised"));
        }
        for placement in placements {
            self.take_from_node(placement, findings);
            for hold in &placement.holds {
                self.hold(lease, job, &placement.node, hold, findings);
            }
        }
        self.leased.insert(lease, placements.to_vec());
    }

    fn take_from_node(&mut self, placement: &Placement, findings: &mut Findings) {
        let Placement { node, cpu_milli, memory_mib, .. } = placement;
        let seen = self.nodes.entry(node.clone()).or_default();
        seen.cpu_milli_used += cpu_milli;
        seen.memory_mib_used += memory_mib;
        if !seen.heard {
            findings.add(Rule::GrantedUnavailable, format!("node {node} was not heard"));
        }
        if seen.cpu_milli_used > seen.cpu_milli || seen.memory_mib_used > seen.memory_mib {
            let (cpu, memory) = (seen.cpu_milli_used, seen.memory_mib_used);
            findings.add(Rule::NodeOvercommitted, format!("{cpu} milli-CPU and {memory} MiB set aside on {node}"));
        }
    }

    fn hold(&mut self, lease: LeaseId, job: JobId, node: &NodeId, hold: &Hold, findings: &mut Findings) {
        let chip = &hold.chip;
        let Some(seen) = self.chips.get_mut(chip) else {
            return findings.add(Rule::WrongChip, format!("chip {chip} is of no node"));
        };
        if seen.node != *node {
            findings.add(Rule::WrongChip, format!("chip {chip} is on {}, not on {node}", seen.node));
        }
        if !seen.healthy || seen.quarantined {
            findings.add(Rule::GrantedUnavailable, format!("chip {chip} was unhealthy or quarantined"));
        }
        if let Some(other) = seen.held.iter().find(|held| overlap(&held.slots, &hold.slots)) {
            let detail = format!("chip {chip}: slots of lease {lease} are held by lease {}", other.lease);
            findings.add(Rule::SlotHeldTwice, detail);
        }
        if hold.slots.iter().enumerate().any(|(i, slots)| hold.slots[..i].iter().any(|s| s.overlaps(*slots))) {
            findings.add(Rule::SlotHeldTwice, format!("chip {chip}: lease {lease} holds a slot twice"));
        }
        if let Some((other, _)) = seen.promised.iter().find(|(_, slots)| overlap(slots, &hold.slots)) {
            findings.add(Rule::PromiseBroken, format!("chip {chip} was promised to job {other}, granted to {job}"));
        }
        // Two replicas of one gang may share a chip: one grant, one epoch.
        let same_grant = seen.held.iter().any(|held| held.lease == lease && held.epoch == hold.epoch);
        if hold.epoch <= seen.epoch && !same_grant {
            findings.add(Rule::EpochNotGrown, format!("chip {chip}: epoch {} after {}", hold.epoch, seen.epoch));
        }
        seen.epoch = seen.epoch.max(hold.epoch);
        seen.held.push(Held { lease, slots: hold.slots.clone(), epoch: hold.epoch, ended: false });
    }

    /// The lease is over. Its slots stay held until proven vacant; its CPU and memory are free.
    pub(super) fn lease_ended(&mut self, lease: LeaseId) {
        for placement in self.leased.remove(&lease).unwrap_or_default() {
            if let Some(node) = self.nodes.get_mut(&placement.node) {
                node.cpu_milli_used = node.cpu_milli_used.saturating_sub(placement.cpu_milli);
                node.memory_mib_used = node.memory_mib_used.saturating_sub(placement.memory_mib);
            }
            for hold in &placement.holds {
                let held = self.chips.get_mut(&hold.chip).into_iter().flat_map(|chip| chip.held.iter_mut());
                held.filter(|held| held.lease == lease).for_each(|held| held.ended = true);
            }
        }
    }

    /// A proof of vacancy frees what the lease held on the chip. One that frees nothing is harmless.
    pub(super) fn vacated(&mut self, chip: &ChipId, lease: LeaseId, epoch: u64, findings: &mut Findings) {
        let Some(seen) = self.chips.get_mut(chip) else {
            return findings.add(Rule::BadProof, format!("chip {chip} is of no node"));
        };
        for held in seen.held.iter().filter(|held| held.lease == lease) {
            if !held.ended {
                findings.add(Rule::BadProof, format!("chip {chip}: lease {lease} had not ended"));
            }
            if epoch < held.epoch {
                findings.add(Rule::BadProof, format!("chip {chip}: proof saw epoch {epoch}, not {}", held.epoch));
            }
        }
        seen.held.retain(|held| held.lease != lease);
    }

    pub(super) fn promise(&mut self, job: JobId, placements: &[Placement], findings: &mut Findings) {
        for hold in placements.iter().flat_map(|placement| &placement.holds) {
            let Some(seen) = self.chips.get_mut(&hold.chip) else {
                findings.add(Rule::WrongChip, format!("chip {} is of no node", hold.chip));
                continue;
            };
            if let Some((other, _)) = seen.promised.iter().find(|(_, slots)| overlap(slots, &hold.slots)) {
                findings.add(Rule::PromiseBroken, format!("chip {} is promised to {other} and {job}", hold.chip));
            }
            seen.promised.push((job, hold.slots.clone()));
        }
        self.promised.insert(job, placements.to_vec());
    }

    /// Takes a promise back, if there is one.
    pub(super) fn unpromise(&mut self, job: JobId) -> Option<Vec<Placement>> {
        let placements = self.promised.remove(&job)?;
        for hold in placements.iter().flat_map(|placement| &placement.holds) {
            if let Some(chip) = self.chips.get_mut(&hold.chip) {
                chip.promised.retain(|(holder, _)| *holder != job);
            }
        }
        Some(placements)
    }
}

fn overlap(some: &[Slots], others: &[Slots]) -> bool {
    some.iter().any(|a| others.iter().any(|b| a.overlaps(*b)))
}

/// Every slot range of a set of placements, in order.
fn slots_of(placements: &[Placement]) -> Vec<(&ChipId, Slots)> {
    let holds = placements.iter().flat_map(|placement| &placement.holds);
    let mut slots: Vec<_> = holds.flat_map(|hold| hold.slots.iter().map(|slots| (&hold.chip, *slots))).collect();
    slots.sort_unstable();
    slots
}
