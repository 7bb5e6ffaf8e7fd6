//! The reservations in force, and what they set aside on each node.

use super::Reservation;
use super::leaving::Leaving;
use crate::cluster::Cluster;
use crate::fleet::{ChipIx, NodeIx};
use chiptide_model::{CalendarReservation, Hold, Holder, JobId, Lease, LeaseId, Placement, Timestamp};
use std::collections::{BTreeMap, BTreeSet};

/// Every reservation in force.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reservations {
    pub by_holder: BTreeMap<Holder, Reservation>,
    /// Leases with a known end.
    pub leaving: Leaving,
    /// Holders to look at in the next round: something about their chips has changed.
    pub to_check: BTreeSet<Holder>,
    /// When an earlier start was last looked for, and how many looks for a first start the present span has had.
    pub looked_at: BTreeMap<JobId, Timestamp>,
    pub looks: (Timestamp, u32),
    /// Counts up when a reservation sets something free, or one is made that may start at once: whoever was tried in
    /// vain is then worth another look in the same round.
    pub freed: u64,
    /// Holders of whose chips none lay idle when the queue was last walked. Nothing comes free during a walk.
    pub barren: BTreeSet<Holder>,
    /// The supply at which a short calendar reservation was last filled up in vain.
    pub filled_at: Option<u64>,
}

impl PartialEq for Reservations {
    /// Equal in what the log determines; when something was last tried does not count.
    fn eq(&self, other: &Reservations) -> bool {
        self.by_holder == other.by_holder && self.leaving == other.leaving
    }
}

impl Reservations {
    /// Has a holder looked at in the next round, if it has a reservation.
    pub(crate) fn check(&mut self, holder: &Holder) {
        if self.by_holder.contains_key(holder) {
            self.to_check.insert(holder.clone());
        }
    }

    pub(crate) fn jobs(&self) -> impl Iterator<Item = (JobId, &Reservation)> {
        self.by_holder.iter().filter_map(|(holder, reservation)| match holder {
            Holder::Job(job) => Some((*job, reservation)),
            Holder::Calendar(_) => None,
        })
    }
}

impl Cluster {
    /// What is set aside for a holder.
    pub fn reservation(&self, holder: &Holder) -> Option<&Reservation> {
        self.reservations.by_holder.get(holder)
    }

    /// Every reservation, by holder.
    pub fn reservations(&self) -> impl Iterator<Item = (&Holder, &Reservation)> {
        self.reservations.by_holder.iter()
    }

    /// What the calendar of the policy says under this name.
    pub(crate) fn calendar(&self, name: &str) -> Option<&CalendarReservation> {
        self.policy.calendar.iter().find(|entry| entry.name == name)
    }

    /// When a reservation next wants something done.
    pub(crate) fn next_reservation_due(&self) -> Option<Timestamp> {
        let jobs = self.reservations.jobs().map(|(_, reservation)| reservation.starts_at);
        let calendar = self.policy.calendar.iter().filter_map(|entry| self.calendar_due(entry));
        jobs.chain(calendar).min()
    }

    /// When a calendar entry next wants something done: its chips chosen, its window opened or closed. `None` when its
    /// window has passed, which the last event tells.
    pub(super) fn calendar_due(&self, entry: &CalendarReservation) -> Option<Timestamp> {
        match self.reservation(&Holder::Calendar(entry.name.clone())) {
            _ if entry.to <= self.at => None,
            None => Some(entry.from - self.policy.backfill.calendar_lead),
            Some(reservation) if reservation.open => Some(entry.to),
            Some(_) => Some(entry.from),
        }
    }

    /// CPU and memory kept for a holder on each node, beyond what those who sit on its chips will give back. Were it
    /// the whole from the start, chips beside the reserved ones would lie idle for want of CPU that is not needed yet.
    pub(crate) fn set_aside(&self, holder: &Holder) -> BTreeMap<NodeIx, (u64, u64)> {
        let mut nodes: BTreeMap<NodeIx, (u64, u64)> = BTreeMap::new();
        let Some(reservation) = self.reservation(holder) else { return nodes };
        for placement in &reservation.placements {
            if let Some((node, _)) = self.node_at(&placement.node) {
                let (cpu, memory) = nodes.entry(node).or_default();
                (*cpu, *memory) = (*cpu + placement.cpu_milli, *memory + placement.memory_mib);
            }
        }
        for (&node, (cpu, memory)) in &mut nodes {
            for placement in self.sitting_on(node, holder).iter().flat_map(|lease| &lease.placements) {
                if placement.node == self.fleet.nodes[node].id {
                    *cpu = cpu.saturating_sub(placement.cpu_milli);
                    *memory = memory.saturating_sub(placement.memory_mib);
                }
            }
        }
        nodes
    }

    /// The leases that sit on chips of a node which are reserved for a holder.
    fn sitting_on(&self, node: NodeIx, holder: &Holder) -> Vec<&Lease> {
        let chips = self.fleet.nodes[node].chips.iter().map(|&chip| &self.fleet.chips[chip]);
        let reserved = chips.filter(|chip| chip.reserved.iter().any(|(owner, _)| owner == holder));
        let leases: BTreeSet<LeaseId> = reserved.flat_map(|chip| &chip.holds).map(|hold| hold.lease).collect();
        leases.iter().filter_map(|id| self.leases.get(id)).collect()
    }

    /// Counts anew what is set aside on a node, after its reservations or its leases have changed.
    pub(crate) fn settle_reserved(&mut self, node: NodeIx) {
        let (cpu, memory) = self.reserved_on(node);
        let state = &mut self.fleet.nodes[node];
        if (state.cpu_reserved, state.memory_reserved) != (cpu, memory) {
            (state.cpu_reserved, state.memory_reserved) = (cpu, memory);
            self.fleet.recount_node(node);
        }
    }

    /// CPU and memory set aside on a node for all holders.
    pub(crate) fn reserved_on(&self, node: NodeIx) -> (u64, u64) {
        let chips = self.fleet.nodes[node].chips.iter().map(|&chip| &self.fleet.chips[chip]);
        let holders: BTreeSet<&Holder> =
            chips.flat_map(|chip| chip.reserved.iter().map(|(holder, _)| holder)).collect();
        holders
            .into_iter()
            .filter_map(|holder| self.set_aside(holder).get(&node).copied())
            .fold((0, 0), |(cpu, memory), (more_cpu, more_memory)| (cpu + more_cpu, memory + more_memory))
    }
}

/// Every chip of a reservation, with its slots.
pub(super) fn holds(placements: &[Placement]) -> impl Iterator<Item = &Hold> {
    placements.iter().flat_map(|placement| &placement.holds)
}

/// Whether any slot is in both.
pub(super) fn overlap(cluster: &Cluster, placements: &[Placement], holder: &Holder) -> bool {
    let shared = |hold: &Hold, chip: ChipIx| {
        let reserved = cluster.fleet.chips[chip].reserved.iter().filter(|(owner, _)| owner == holder);
        reserved.flat_map(|(_, slots)| slots).any(|slots| hold.slots.iter().any(|held| held.overlaps(*slots)))
    };
    holds(placements).any(|hold| cluster.chip_at(&hold.chip).is_some_and(|(chip, _)| shared(hold, chip)))
}
