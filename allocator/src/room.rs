//! Room: what a plan may take, seen on top of the cluster without changing it.
//!
//! A room starts as the fleet's free chips. A plan takes replicas from it, and may first empty chips of leases it
//! would evict. Only the nodes it touches are copied.

use crate::cluster::Cluster;
use crate::fleet::{ChipIx, Fleet, NodeIx, Pool, PoolFree, PoolIx, free_of, gaps};
use crate::place::{self, Kept, Seen};
use crate::queue::Shape;
use chiptide_model::{ChipDemand, Hold, Holder, Lease, LeaseId, Placement, SlotCount, Slots};
use std::collections::BTreeMap;
use std::ops::Index;

/// What is free under a plan in the making.
#[derive(Clone)]
pub(crate) struct Room<'a> {
    pub cluster: &'a Cluster,
    /// The pools of nodes this plan has touched, as it leaves them.
    pools: BTreeMap<PoolIx, Touched>,
    /// Taken ranges of the chips this plan has touched.
    chips: BTreeMap<ChipIx, Vec<Slots>>,
    /// Free CPU and memory of the nodes this plan has touched; negative where claims wait for others to leave.
    nodes: BTreeMap<NodeIx, (i64, i64)>,
    /// Holders whose reservations this plan may use.
    open: Vec<Holder>,
}

/// A pool as a plan leaves it.
#[derive(Clone)]
pub(crate) struct Touched {
    pool: Pool,
    slots: Vec<SlotCount>,
    kept: Kept,
}

/// The pools of a room, by their index.
#[derive(Clone, Copy)]
pub(crate) struct Pools<'r> {
    fleet: &'r Fleet,
    touched: &'r BTreeMap<PoolIx, Touched>,
}

impl<'r> Pools<'r> {
    pub(crate) fn len(&self) -> usize {
        self.fleet.pools.len()
    }

    pub(crate) fn iter(self) -> impl Iterator<Item = &'r Pool> {
        let touched = |ix: &PoolIx| self.touched.get(ix).map(|touched| &touched.pool);
        self.fleet.pools.iter().enumerate().map(move |(ix, pool)| touched(&ix).unwrap_or(pool))
    }
}

impl Index<PoolIx> for Pools<'_> {
    type Output = Pool;
    fn index(&self, pool: PoolIx) -> &Pool {
        self.touched.get(&pool).map_or(&self.fleet.pools[pool], |touched| &touched.pool)
    }
}

/// What one replica needs.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Need {
    pub demand: ChipDemand,
    pub cpu: u64,
    pub memory: u64,
    /// So many replicas in one pool, or none.
    pub together: u32,
}

impl Need {
    pub(crate) fn of(shape: &Shape) -> Need {
        Need { demand: shape.demand, cpu: shape.cpu_milli, memory: shape.memory_mib, together: 1 }
    }

    /// How many such replicas fit a pool, as far as its counts tell (a share may be too large for one chip's memory).
    pub(crate) fn fits(&self, free: &PoolFree) -> u64 {
        let chips = match self.demand {
            ChipDemand::Chips(0) if self.cpu == 0 && self.memory == 0 => 0,
            ChipDemand::Chips(0) => u64::MAX,
            ChipDemand::Chips(n) => free.rule.replicas(n, free.whole),
            ChipDemand::ShareSlots(slots) => u64::from(free.most >= slots),
            ChipDemand::ShareMemory(_) => u64::from(free.most > 0),
        };
        // Most pools have no chip left, so CPU and memory are looked at last.
        if chips == 0 { 0 } else { chips.min(self.fits_node(free)) / u64::from(self.together.max(1)) }
    }

    /// Whether they fit at all: the same question without a division, for it is asked of every pool.
    pub(crate) fn has_room(&self, free: &PoolFree) -> bool {
        match self.demand {
            _ if self.together != 1 => self.fits(free) > 0,
            ChipDemand::Chips(0) => self.fits(free) > 0,
            ChipDemand::Chips(n) if free.whole < n || (free.rule.binds() && free.rule.replicas(n, free.whole) == 0) => {
                false
            }
            ChipDemand::ShareSlots(slots) if free.most < slots => false,
            ChipDemand::ShareMemory(_) if free.most == 0 => false,
            _ => free.cpu >= self.cpu && free.memory >= self.memory,
        }
    }

    /// How many such replicas the CPU and memory of a node hold.
    pub(crate) fn fits_node(&self, free: &PoolFree) -> u64 {
        let by = |have: u64, want: u64| have.checked_div(want).unwrap_or(u64::MAX);
        by(free.cpu, self.cpu).min(by(free.memory, self.memory))
    }
}

impl<'a> Room<'a> {
    pub(crate) fn of(cluster: &'a Cluster) -> Room<'a> {
        Room { cluster, pools: BTreeMap::new(), chips: BTreeMap::new(), nodes: BTreeMap::new(), open: Vec::new() }
    }

    pub(crate) fn pools(&self) -> Pools<'_> {
        Pools { fleet: &self.cluster.fleet, touched: &self.pools }
    }

    /// The pools this plan has touched.
    pub(crate) fn touched(&self) -> &BTreeMap<PoolIx, Touched> {
        &self.pools
    }

    /// A pool as this plan leaves it.
    pub(crate) fn seen(&self, pool: PoolIx) -> Seen<'_> {
        match self.pools.get(&pool) {
            Some(Touched { pool, slots, kept }) => Seen { pool: *pool, slots, kept: *kept },
            None => self.cluster.fleet.seen(pool),
        }
    }

    /// Ranges of a chip that the plan cannot take, or `None` if the chip is out of service.
    pub(crate) fn taken(&self, chip: ChipIx) -> Option<Vec<Slots>> {
        let state = &self.cluster.fleet.chips[chip];
        if !state.in_service() {
            return None;
        }
        Some(self.chips.get(&chip).cloned().unwrap_or_else(|| state.taken().collect()))
    }

    /// Free slots of a chip; 0 when it is out of service.
    pub(crate) fn free_slots(&self, chip: ChipIx) -> SlotCount {
        let state = &self.cluster.fleet.chips[chip];
        match self.chips.get(&chip) {
            _ if !state.in_service() => 0,
            Some(taken) => free_of(taken.iter().copied()),
            None => state.free_slots(),
        }
    }

    /// Takes one replica from a pool, or `None` if it does not fit after all.
    pub(crate) fn take(&mut self, pool: PoolIx, need: &Need, replica: u32) -> Option<Placement> {
        if need.fits(&self.pools()[pool].free) == 0 {
            return None;
        }
        let chosen: Vec<(ChipIx, Vec<Slots>)> = match need.demand {
            ChipDemand::Chips(n) => {
                let chips = place::choose_chips(&self.cluster.fleet, pool, self.seen(pool).slots, n)?;
                chips.into_iter().map(|chip| (chip, vec![Slots::WHOLE])).collect()
            }
            _ => {
                let (_, _, at) = self.cluster.fleet.best_chip(pool, &self.seen(pool), need)?;
                let chip = self.cluster.fleet.pool_chips[pool][at];
                let slots = need.demand.slots_of(self.cluster.fleet.chips[chip].facts.memory_mib)?;
                vec![(chip, pieces(&self.taken(chip)?, slots))]
            }
        };
        for (chip, slots) in &chosen {
            let mut taken = self.taken(*chip)?;
            taken.extend(slots);
            self.chips.insert(*chip, taken);
        }
        let node = self.cluster.fleet.pools[pool].node;
        let (cpu, memory) = self.node_free(node);
        self.nodes.insert(node, (cpu.saturating_sub_unsigned(need.cpu), memory.saturating_sub_unsigned(need.memory)));
        self.recount(node);
        let fleet = &self.cluster.fleet;
        Some(Placement {
            replica,
            node: fleet.nodes[node].id.clone(),
            holds: chosen
                .into_iter()
                .map(|(chip, slots)| Hold { chip: fleet.chips[chip].facts.id.clone(), slots, epoch: 0 })
                .collect(),
            cpu_milli: need.cpu,
            memory_mib: need.memory,
        })
    }

    /// Empties the chips of a lease (one that would be evicted, or has ended), on nodes that are known.
    pub(crate) fn empty(&mut self, lease: &Lease) {
        for node in self.cluster.nodes_of(lease) {
            let state = &self.cluster.fleet.nodes[node];
            if !state.takes_work() || !state.leases.contains(&lease.id) {
                continue;
            }
            for &chip in &state.chips {
                self.empty_chip(chip, lease.id);
            }
            let (mut cpu, mut memory) = self.node_free(node);
            // Who sits on reserved chips leaves CPU and memory to those they are reserved for.
            let bequeaths = self.sits_on_reserved(node, lease.id);
            for placement in lease.placements.iter().filter(|placement| placement.node == state.id && !bequeaths) {
                cpu = cpu.saturating_add_unsigned(placement.cpu_milli);
                memory = memory.saturating_add_unsigned(placement.memory_mib);
            }
            self.nodes.insert(node, (cpu, memory));
            self.recount(node);
        }
    }

    /// Takes the very slots of a placement.
    pub(crate) fn occupy(&mut self, placement: &Placement) {
        let Some((node, _)) = self.cluster.node_at(&placement.node) else { return };
        for hold in &placement.holds {
            let Some((chip, state)) = self.cluster.chip_at(&hold.chip) else { continue };
            self.chips.entry(chip).or_insert_with(|| state.taken().collect()).extend(&hold.slots);
        }
        let (cpu, memory) = self.node_free(node);
        let (cpu, memory) =
            (cpu.saturating_sub_unsigned(placement.cpu_milli), memory.saturating_sub_unsigned(placement.memory_mib));
        self.nodes.insert(node, (cpu, memory));
        self.recount(node);
    }

    /// Gives what is reserved for a holder to this plan.
    pub(crate) fn open(&mut self, holder: &Holder) {
        self.open.push(holder.clone());
        for (node, (cpu, memory)) in self.cluster.set_aside(holder) {
            if !self.cluster.fleet.nodes[node].takes_work() {
                continue;
            }
            for &chip in &self.cluster.fleet.nodes[node].chips {
                self.open_chip(chip, holder);
            }
            let (free_cpu, free_memory) = self.node_free(node);
            let (cpu, memory) = (free_cpu.saturating_add_unsigned(cpu), free_memory.saturating_add_unsigned(memory));
            self.nodes.insert(node, (cpu, memory));
            self.recount(node);
        }
    }

    fn sits_on_reserved(&self, node: NodeIx, lease: LeaseId) -> bool {
        let closed = |(holder, _): &(Holder, Vec<Slots>)| !self.open.contains(holder);
        self.cluster.fleet.nodes[node]
            .chips
            .iter()
            .map(|&chip| &self.cluster.fleet.chips[chip])
            .any(|chip| chip.reserved.iter().any(closed) && chip.holds.iter().any(|hold| hold.lease == lease))
    }

    fn open_chip(&mut self, chip: ChipIx, holder: &Holder) {
        let state = &self.cluster.fleet.chips[chip];
        for slots in state.reserved.iter().filter(|(owner, _)| owner == holder).flat_map(|(_, slots)| slots) {
            let taken = self.chips.entry(chip).or_insert_with(|| state.taken().collect());
            if let Some(at) = taken.iter().position(|reserved| reserved == slots) {
                taken.swap_remove(at);
            }
        }
    }

    fn empty_chip(&mut self, chip: ChipIx, lease: LeaseId) {
        let state = &self.cluster.fleet.chips[chip];
        for slots in state.holds.iter().filter(|hold| hold.lease == lease).flat_map(|hold| &hold.slots) {
            let taken = self.chips.entry(chip).or_insert_with(|| state.taken().collect());
            if let Some(at) = taken.iter().position(|held| held == slots) {
                taken.swap_remove(at);
            }
        }
    }

    /// CPU and memory that this plan finds free on a node.
    pub(crate) fn free_on(&self, node: NodeIx) -> (u64, u64) {
        let (cpu, memory) = self.node_free(node);
        (u64::try_from(cpu).unwrap_or(0), u64::try_from(memory).unwrap_or(0))
    }

    fn node_free(&self, node: NodeIx) -> (i64, i64) {
        self.nodes.get(&node).copied().unwrap_or_else(|| {
            let state = &self.cluster.fleet.nodes[node];
            let less = |free: u64, claimed: u64| 0i64.saturating_add_unsigned(free).saturating_sub_unsigned(claimed);
            (
                less(state.cpu_free, state.cpu_claimed + state.cpu_reserved),
                less(state.memory_free, state.memory_claimed + state.memory_reserved),
            )
        })
    }

    fn recount(&mut self, node: NodeIx) {
        let (cpu, memory) = self.node_free(node);
        let fleet = &self.cluster.fleet;
        let positive = |n: i64| u64::try_from(n).unwrap_or(0);
        for ix in fleet.pools_of(node) {
            let slots: Vec<SlotCount> = fleet.pool_chips[ix].iter().map(|&chip| self.free_slots(chip)).collect();
            let free = fleet.pool_free(ix, &slots, positive(cpu), positive(memory));
            let kept = fleet.index.keep(&free, &slots);
            self.pools.insert(ix, Touched { pool: Pool { free, ..fleet.pools[ix] }, slots, kept });
        }
    }
}

/// Slots for a share of a chip: the smallest gap that holds it, else as few gaps as it takes.
fn pieces(taken: &[Slots], want: SlotCount) -> Vec<Slots> {
    let mut gaps = gaps(taken.iter().copied());
    if let Some(gap) = gaps.iter().filter(|gap| gap.count() >= want).min_by_key(|gap| gap.count()) {
        return Slots::new(gap.start(), gap.start() + want).into_iter().collect();
    }
    gaps.sort_by_key(|gap| (std::cmp::Reverse(gap.count()), gap.start()));
    let (mut left, mut chosen) = (want, Vec::new());
    for gap in gaps {
        let part = gap.count().min(left);
        chosen.extend(Slots::new(gap.start(), gap.start() + part));
        left -= part;
    }
    chosen
}
