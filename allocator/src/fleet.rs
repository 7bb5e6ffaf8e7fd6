//! Nodes, chips and pools: what the fleet has, and what of it is free.

use crate::demand::Mix;
use crate::place::{Index, RuledFree, Rules};
use chiptide_model::{
    ChipFacts, ChipState, Cordon, Faults, Health, Holder, JobId, LeaseId, NodeFacts, NodeId, Policy, Quarantine,
    SLOTS_PER_CHIP, SessionId, SlotCount, Slots, Timestamp,
};
use std::collections::BTreeSet;

/// Index of a node in [`Fleet::nodes`]. Nodes are never removed, so an index stays good.
pub type NodeIx = usize;
/// Index of a chip in [`Fleet::chips`]. Chips are never removed, so an index stays good.
pub type ChipIx = usize;
/// Index of a pool in [`Fleet::pools`]; good until the next registration of its node.
pub type PoolIx = usize;

/// A node and what is free on it.
#[derive(Clone, PartialEq, Debug)]
pub struct Node {
    /// Its name.
    pub id: NodeId,
    /// What it is.
    pub facts: NodeFacts,
    /// The agent's session.
    pub session: SessionId,
    /// The boot its agent registered under.
    pub boot_id: String,
    /// `None` while it reports to this leader, else since when it is unknown.
    pub unknown_since: Option<Timestamp>,
    /// Why nothing more is granted on it; its chips say so too.
    pub cordon: Option<Cordon>,
    /// Its chips, in the order of registration.
    pub chips: Vec<ChipIx>,
    /// CPU not set aside for a lease, thousandths of a core.
    pub cpu_free: u64,
    /// Memory not set aside for a lease, MiB.
    pub memory_free: u64,
    /// CPU promised to claims.
    pub cpu_claimed: u64,
    /// Memory promised to claims.
    pub memory_claimed: u64,
    /// CPU set aside for reservations, beyond what those who sit on the reserved chips will give back.
    pub cpu_reserved: u64,
    /// Memory set aside for reservations, likewise.
    pub memory_reserved: u64,
    /// Leases that have a replica here, live or not yet proven gone.
    pub leases: BTreeSet<LeaseId>,
    /// Counts up whenever the node's orders change.
    pub orders_revision: u64,
}

impl Node {
    /// Whether anything may be granted on it: it reports, and nobody has cordoned it.
    pub fn takes_work(&self) -> bool {
        self.unknown_since.is_none() && self.cordon.is_none()
    }
}

/// Slots of a chip under one lease.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ChipHold {
    /// The lease.
    pub lease: LeaseId,
    /// Its job.
    pub job: JobId,
    /// The slots.
    pub slots: Vec<Slots>,
    /// The chip's lease epoch at the grant.
    pub epoch: u64,
    /// Set when the lease has ended: by then the node must have proven the slots vacant.
    pub vacate_by: Option<Timestamp>,
}

/// A chip and who has it.
#[derive(Clone, PartialEq, Debug)]
pub struct Chip {
    /// What it is.
    pub facts: ChipFacts,
    /// Its node.
    pub node: NodeIx,
    /// Grows with every grant.
    pub epoch: u64,
    /// Its health as last reported.
    pub health: Health,
    /// Why it is out of service.
    pub quarantine: Option<Quarantine>,
    /// Whether its node is cordoned.
    pub cordoned: bool,
    /// Its faults, open and past.
    pub faults: Faults,
    /// Its holders.
    pub holds: Vec<ChipHold>,
    /// Slots promised to jobs.
    pub claims: Vec<(JobId, Vec<Slots>)>,
    /// Slots set aside for later.
    pub reserved: Vec<(Holder, Vec<Slots>)>,
}

impl Chip {
    /// Slots that are neither held nor promised nor reserved, whatever the chip's health.
    pub fn free_slots(&self) -> SlotCount {
        // Claims and reservations may lie on slots still held, so only without them is the sum what is taken.
        if !self.claims.is_empty() || !self.reserved.is_empty() {
            return free_of(self.taken());
        }
        let taken: u32 = self.taken().map(|slots| u32::from(slots.count())).sum();
        SLOTS_PER_CHIP.saturating_sub(taken as SlotCount)
    }

    /// Ranges held, promised or reserved, in no order, perhaps overlapping.
    pub fn taken(&self) -> impl Iterator<Item = Slots> + '_ {
        let held = self.holds.iter().flat_map(|hold| hold.slots.iter().copied());
        let promised = self.claims.iter().flat_map(|(_, slots)| slots.iter().copied());
        held.chain(promised).chain(self.reserved.iter().flat_map(|(_, slots)| slots.iter().copied()))
    }

    /// Whether the chip itself may be granted; its node must also be known.
    pub fn in_service(&self) -> bool {
        self.health.is_healthy() && self.quarantine.is_none() && !self.cordoned
    }

    /// The state people see.
    pub fn state(&self, node: &Node) -> ChipState {
        if let Some(quarantine) = &self.quarantine {
            ChipState::Quarantined(quarantine.clone())
        } else if let Some(since) = node.unknown_since {
            ChipState::Unknown(since)
        } else if self.holds.iter().any(|hold| hold.vacate_by.is_some()) {
            ChipState::Reclaiming
        } else if self.holds.is_empty() {
            ChipState::Free
        } else {
            ChipState::Held
        }
    }
}

/// Slots of one chip outside the given ranges.
pub fn free_of(taken: impl Iterator<Item = Slots>) -> SlotCount {
    gaps(taken).iter().map(|gap| gap.count()).sum()
}

/// The free ranges of a chip, in order, given the taken ones.
pub fn gaps(taken: impl Iterator<Item = Slots>) -> Vec<Slots> {
    let mut taken: Vec<Slots> = taken.collect();
    taken.sort_unstable();
    let (mut gaps, mut from) = (Vec::new(), 0);
    for slots in taken {
        gaps.extend(Slots::new(from, slots.start()));
        from = from.max(slots.end());
    }
    gaps.extend(Slots::new(from, SLOTS_PER_CHIP));
    gaps
}

/// The class of the pool of a node that has no chips: such a node takes work without chips.
pub const NO_CLASS: usize = usize::MAX;

/// The chips of one class on one node, with what is free on them: the unit that placement scans. Kept small and
/// `Copy`, its chips apart in [`Fleet::pool_chips`], because every placement reads all of them.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Pool {
    /// Its node.
    pub node: NodeIx,
    /// Index of its device class in [`Fleet::classes`], or [`NO_CLASS`].
    pub class: usize,
    /// What is free, as a placement sees it.
    pub free: PoolFree,
}

/// What a placement may take from a pool. All zero while the node is unknown.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PoolFree {
    /// Chips of which every slot is free.
    pub whole: u16,
    /// Free slots of the chip that has most.
    pub most: SlotCount,
    /// Free slots of all chips.
    pub slots: u32,
    /// CPU, thousandths of a core.
    pub cpu: u64,
    /// Memory, MiB.
    pub memory: u64,
    /// The whole chips under the vendor's rule for their class.
    pub rule: RuledFree,
}

/// All nodes, chips and pools.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Fleet {
    /// Nodes, in the order of their first registration.
    pub nodes: Vec<Node>,
    /// Chips.
    pub chips: Vec<Chip>,
    /// Pools, ordered by node.
    pub pools: Vec<Pool>,
    /// The chips of each pool.
    pub pool_chips: Vec<Vec<ChipIx>>,
    /// Device classes seen.
    pub classes: Vec<chiptide_model::DeviceClass>,
    /// Free slots of the chips of each pool, in the same order; none on a chip that may not be granted.
    pub(crate) pool_slots: Vec<Vec<SlotCount>>,
    /// Rules for the chips of a replica, by device class.
    pub(crate) rules: Rules,
    /// What placement keeps about the pools.
    pub(crate) index: Index,
}

impl Fleet {
    /// Builds the pools anew after the chips of a known node changed.
    pub fn rebuild_pools(&mut self) {
        self.pools.clear();
        self.pool_chips.clear();
        self.pool_slots.clear();
        self.index.forget_pools();
        for node in 0..self.nodes.len() {
            self.append_pools(node);
        }
    }

    /// Builds the pools of the last node.
    pub fn append_pools(&mut self, node: NodeIx) {
        let first = self.pools.len();
        for &chip in &self.nodes[node].chips {
            let facts = &self.chips[chip].facts;
            let class = self.classes.iter().position(|known| *known == facts.class).unwrap_or_else(|| {
                self.classes.push(facts.class.clone());
                self.classes.len() - 1
            });
            match self.pools[first..].iter().position(|pool| pool.class == class) {
                Some(at) => self.pool_chips[first + at].push(chip),
                None => {
                    self.pools.push(Pool { node, class, free: PoolFree::default() });
                    self.pool_chips.push(vec![chip]);
                }
            }
            self.index.met(class, facts.memory_mib);
        }
        if self.pools.len() == first {
            self.pools.push(Pool { node, class: NO_CLASS, free: PoolFree::default() });
            self.pool_chips.push(Vec::new());
        }
        self.pool_slots.resize(self.pools.len(), Vec::new());
        self.index.rate_classes(&self.classes);
        self.recount_node(node);
    }

    /// Free slots of each chip of a pool, counted anew; none on a chip that may not be granted.
    pub fn count_slots(&self, pool: PoolIx) -> Vec<SlotCount> {
        let known = self.nodes[self.pools[pool].node].unknown_since.is_none();
        let free = |chip: &Chip| if known && chip.in_service() { chip.free_slots() } else { 0 };
        self.pool_chips[pool].iter().map(|&ix| free(&self.chips[ix])).collect()
    }

    /// Counts what is free in a pool from its chips and node.
    pub fn count_free(&self, pool: PoolIx) -> PoolFree {
        self.free_with(pool, &self.count_slots(pool))
    }

    fn free_with(&self, pool: PoolIx, slots: &[SlotCount]) -> PoolFree {
        let node = &self.nodes[self.pools[pool].node];
        if !node.takes_work() {
            return PoolFree::default();
        }
        let cpu = node.cpu_free.saturating_sub(node.cpu_claimed + node.cpu_reserved);
        let memory = node.memory_free.saturating_sub(node.memory_claimed + node.memory_reserved);
        self.pool_free(pool, slots, cpu, memory)
    }

    /// What is free in a pool whose chips have so many slots free, on a node with so much CPU and memory.
    pub(crate) fn pool_free(&self, pool: PoolIx, slots: &[SlotCount], cpu: u64, memory: u64) -> PoolFree {
        let whole = slots.iter().filter(|slots| **slots == SLOTS_PER_CHIP).count();
        PoolFree {
            whole: u16::try_from(whole).unwrap_or(u16::MAX),
            most: slots.iter().copied().max().unwrap_or(0),
            slots: slots.iter().map(|slots| u32::from(*slots)).sum(),
            cpu,
            memory,
            rule: self.rules.free(self, pool, slots),
        }
    }

    /// The pools of a node.
    pub fn pools_of(&self, node: NodeIx) -> std::ops::Range<PoolIx> {
        let first = self.pools.partition_point(|pool| pool.node < node);
        let last = first + self.pools[first..].iter().take_while(|pool| pool.node == node).count();
        first..last
    }

    /// Counts the pools of a node again after something on it changed.
    pub fn recount_node(&mut self, node: NodeIx) {
        for pool in self.pools_of(node) {
            let slots = self.count_slots(pool);
            self.pools[pool].free = self.free_with(pool, &slots);
            self.index.pool_changed(pool, &self.pools[pool], &slots);
            self.pool_slots[pool] = slots;
        }
    }

    /// Placement learns what demand is like.
    pub(crate) fn learn(&mut self, mix: &Mix) {
        self.index.learn(mix, &self.classes);
        for pool in 0..self.pools.len() {
            self.index.pool_changed(pool, &self.pools[pool], &self.pool_slots[pool]);
        }
    }

    /// Chips are handed out by these rules from now on.
    pub(crate) fn obey(&mut self, policy: &Policy) {
        let rules = Rules::of(policy);
        if self.rules != rules {
            self.rules = rules;
            self.index.forget_rankings();
            (0..self.nodes.len()).for_each(|node| self.recount_node(node));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(start: u16, end: u16) -> Slots {
        Slots::new(start, end).expect("a range")
    }

    #[test]
    fn gaps_survive_overlap_and_disorder() {
        let taken = [range(500, 600), range(0, 100), range(50, 200)];
        assert_eq!(gaps(taken.into_iter()), vec![range(200, 500), range(600, 1000)]);
        assert_eq!(free_of([Slots::WHOLE].into_iter()), 0);
        assert_eq!(gaps([].into_iter()), vec![Slots::WHOLE]);
    }
}
