//! What would fit if some leases were gone: counts only, kept in step as leases are taken and given back.
//!
//! A site is what one node offers within the scope: its pools there share its CPU and memory. The field knows how many
//! replicas fit each site, and how many in all; a gang has room when that is its size. Which chips it gets is decided
//! later, once it is known who leaves.

use super::stakes::{HolderIx, Stakes};
use crate::cluster::Cluster;
use crate::fleet::{NodeIx, PoolIx};
use crate::place::Scope;
use crate::rights::Rights;
use crate::room::Need;
use chiptide_model::{ChipDemand, Cost, Holder as Claimant, SLOTS_PER_CHIP, Timestamp};
use rustc_hash::{FxHashMap, FxHashSet};

/// One job's question: who must go so that it fits?
pub(crate) struct Question<'a> {
    pub cluster: &'a Cluster,
    pub stakes: &'a Stakes,
    pub rights: Rights<'a>,
    /// Which bands the job may take.
    pub admitted: Vec<bool>,
    pub need: Need,
    pub now: Timestamp,
    /// Whose reserved chips the job may use.
    pub open: &'a [Claimant],
}

impl Question<'_> {
    /// Whether the job may take this holder.
    pub(crate) fn admits(&self, holder: HolderIx) -> bool {
        self.admitted[self.stakes.bases[holder as usize].band as usize]
    }

    pub(crate) fn cost(&self, holder: HolderIx) -> Cost {
        self.stakes.bases[holder as usize].cost(self.now)
    }

    /// Slots that one replica takes of a chip of this size.
    pub(crate) fn slots(&self, memory_mib: u64) -> Option<u16> {
        self.need.demand.slots_of(memory_mib)
    }
}

/// A scope with some leases gone.
#[derive(Clone)]
pub(crate) struct Field<'a> {
    pub question: &'a Question<'a>,
    pub scope: &'a Scope,
    /// Holders gone, with how many of the chosen take them along.
    gone: FxHashMap<HolderIx, u32>,
    /// Holders that must stay.
    pub forbidden: FxHashSet<HolderIx>,
    /// What the chosen ones free on each node: CPU and memory.
    gained: FxHashMap<NodeIx, (i64, i64)>,
    /// Replicas that fit now.
    pub total: u64,
}

impl<'a> Field<'a> {
    /// A scope with nobody gone but those who are leaving. `nodes` are its nodes.
    pub(crate) fn of(question: &'a Question<'a>, scope: &'a Scope, nodes: impl Iterator<Item = NodeIx>) -> Field<'a> {
        let mut field = Field {
            question,
            scope,
            gone: FxHashMap::default(),
            forbidden: FxHashSet::default(),
            gained: FxHashMap::default(),
            total: 0,
        };
        field.total = nodes.map(|node| field.fits(node)).fold(0, u64::saturating_add);
        field
    }

    /// The pools of a node that belong to the scope.
    pub(crate) fn pools_of(&self, node: NodeIx) -> impl Iterator<Item = PoolIx> {
        let fleet = &self.question.cluster.fleet;
        self.question.stakes.pools_of(node).filter(|&pool| self.scope.admits(&fleet.pools[pool]))
    }

    /// How many replicas fit a node.
    pub(crate) fn fits(&self, node: NodeIx) -> u64 {
        let chips: u64 = self.pools_of(node).map(|pool| self.chips_fit(pool)).sum();
        if chips == 0 { 0 } else { chips.min(self.node_fit(node)) }
    }

    /// How many replicas the CPU and memory of a node hold.
    pub(crate) fn node_fit(&self, node: NodeIx) -> u64 {
        let (cpu, memory) = self.spare(node);
        let by = |have: i64, want: u64| u64::try_from(have).unwrap_or(0).checked_div(want).unwrap_or(u64::MAX);
        by(cpu, self.question.need.cpu).min(by(memory, self.question.need.memory))
    }

    /// Free CPU and memory of a node.
    pub(crate) fn spare(&self, node: NodeIx) -> (i64, i64) {
        let (cpu, memory) = self.question.stakes.spare[node];
        let (more_cpu, more_memory) = self.gained.get(&node).copied().unwrap_or_default();
        (cpu.saturating_add(more_cpu), memory.saturating_add(more_memory))
    }

    /// How many replicas the chips of a pool hold.
    pub(crate) fn chips_fit(&self, pool: PoolIx) -> u64 {
        if let ChipDemand::Chips(chips) = self.question.need.demand {
            return u64::from(self.whole(pool)) / u64::from(chips.max(1));
        }
        let stakes = &self.question.stakes.pools[pool];
        let fleet = &self.question.cluster.fleet;
        let per_whole = self.question.slots(stakes.memory_mib).map_or(0, |slots| SLOTS_PER_CHIP / slots.max(1));
        let on_whole = u64::from(per_whole) * u64::from(self.whole_unmixed(pool));
        let on_mixed = stakes.mixed.iter().filter_map(|chip| {
            let slots = self.question.slots(fleet.chips[chip.chip].facts.memory_mib)?;
            Some(u64::from(chip.reach(|holder| self.is_gone(holder)) / slots.max(1)))
        });
        on_whole + on_mixed.sum::<u64>()
    }

    /// Chips of a pool that are wholly free.
    pub(crate) fn whole(&self, pool: PoolIx) -> u32 {
        let mixed = &self.question.stakes.pools[pool].mixed;
        let freed = mixed.iter().filter(|chip| chip.reach(|holder| self.is_gone(holder)) == SLOTS_PER_CHIP);
        self.whole_unmixed(pool) + freed.count() as u32
    }

    fn whole_unmixed(&self, pool: PoolIx) -> u32 {
        let stakes = &self.question.stakes.pools[pool];
        let freed = stakes.sole.iter().filter(|(holder, _)| self.is_gone(*holder)).map(|(_, chips)| u32::from(*chips));
        u32::from(stakes.whole) + if self.gone.is_empty() { 0 } else { freed.sum::<u32>() }
    }

    /// Whole chips that remain when as many replicas as fit are placed; a share leaves nothing whole to count.
    pub(crate) fn left_over(&self, pool: PoolIx) -> u32 {
        match self.question.need.demand {
            ChipDemand::Chips(chips) => self.whole(pool) % u32::from(chips.max(1)),
            _ => self.whole(pool),
        }
    }

    /// Whether a holder is among those gone.
    pub(crate) fn is_gone(&self, holder: HolderIx) -> bool {
        !self.gone.is_empty() && self.gone.contains_key(&holder)
    }

    /// Whether a holder can still be chosen.
    pub(crate) fn may_choose(&self, holder: HolderIx) -> bool {
        self.question.admits(holder)
            && !self.is_gone(holder)
            && (self.forbidden.is_empty() || !self.forbidden.contains(&holder))
    }

    /// A holder with the extra replicas that go with it.
    pub(crate) fn with_extras(&self, holder: HolderIx) -> impl Iterator<Item = HolderIx> + use<'a> {
        let stakes = self.question.stakes;
        let extras = stakes.bases[holder as usize].extras.iter().filter_map(|extra| stakes.holder(extra.lease));
        std::iter::once(holder).chain(extras)
    }

    /// Lets a holder go, with its extra replicas.
    pub(crate) fn evict(&mut self, holder: HolderIx) {
        for one in self.with_extras(holder) {
            let count = self.gone.get(&one).copied().unwrap_or(0);
            if count == 0 {
                self.change(one, |gone| _ = gone.insert(one, 1), 1);
            } else {
                self.gone.insert(one, count + 1);
            }
        }
    }

    /// Takes an eviction back.
    pub(crate) fn spare_holder(&mut self, holder: HolderIx) {
        for one in self.with_extras(holder) {
            match self.gone.get(&one).copied().unwrap_or(0) {
                0 => {}
                1 => self.change(one, |gone| _ = gone.remove(&one), -1),
                count => _ = self.gone.insert(one, count - 1),
            }
        }
    }

    fn change(&mut self, holder: HolderIx, change: impl FnOnce(&mut FxHashMap<HolderIx, u32>), sign: i64) {
        let parts = &self.question.stakes.holders[holder as usize].parts;
        let inside = |field: &Self, node: NodeIx| field.scope.nodes.as_ref().is_none_or(|nodes| nodes.contains(&node));
        let before: u64 = parts.iter().filter(|part| inside(self, part.node)).map(|part| self.fits(part.node)).sum();
        change(&mut self.gone);
        for part in parts {
            let (cpu, memory) = self.gained.entry(part.node).or_default();
            (*cpu, *memory) = (*cpu + sign * part.cpu, *memory + sign * part.memory);
        }
        let after: u64 = parts.iter().filter(|part| inside(self, part.node)).map(|part| self.fits(part.node)).sum();
        self.total = self.total - before + after;
    }

    /// The cost of these evictions: an extra replica that goes with its base costs nothing beside it.
    pub(crate) fn cost_of(&self, chosen: &[HolderIx]) -> Cost {
        let along: FxHashSet<HolderIx> = chosen.iter().flat_map(|&holder| self.with_extras(holder).skip(1)).collect();
        let counted = chosen.iter().filter(|holder| !along.contains(holder));
        counted.map(|&holder| self.question.cost(holder)).fold(Cost::default(), Cost::plus)
    }
}
