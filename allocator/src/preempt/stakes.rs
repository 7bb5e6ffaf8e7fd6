//! The books of the search for victims: what each lease that may be taken holds, pool by pool, so that pricing a pool
//! reads a few numbers beside each other instead of chips, leases and jobs.
//!
//! Kept in step with every event, a node at a time. Everything here follows from the rest of the cluster: it is not
//! stored, and `check` counts it anew.

use super::cost::CostBasis;
use crate::cluster::Cluster;
use crate::fleet::{ChipHold, ChipIx, NodeIx, PoolIx, free_of};
use crate::rights::Band;
use chiptide_model::{Holder as Claimant, Lease, LeaseId, LeaseState, SLOTS_PER_CHIP, SlotCount, Slots, Timestamp};
use rustc_hash::FxHashMap;
use std::collections::{BTreeMap, BTreeSet};

/// Index of a holder; good until its lease is forgotten.
pub(crate) type HolderIx = u32;

/// How a lease stands towards those who look for chips.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Stand {
    /// May be taken by whoever its band admits.
    Takeable,
    /// Goes in any case, soon: its chips cost nothing.
    Leaving,
}

/// A lease that may be taken or is leaving.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Holder {
    pub lease: LeaseId,
    pub stand: Stand,
    /// CPU and memory on each of its nodes, in their order.
    pub parts: Vec<Part>,
}

/// A lease's share of one node.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Part {
    pub node: NodeIx,
    pub cpu: i64,
    pub memory: i64,
}

/// Who has what of one pool.
#[derive(Clone, PartialEq, Debug, Default)]
pub(crate) struct PoolStakes {
    /// Chips wholly free now, or once those are gone who are leaving.
    pub whole: u16,
    /// Memory of its smallest chip.
    pub memory_mib: u64,
    /// Leases that hold whole chips alone, and how many.
    pub sole: Vec<(HolderIx, u16)>,
    /// Chips that several share, or of which a part is free.
    pub mixed: Vec<MixedChip>,
}

/// A chip that is neither wholly free nor wholly one taker's.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct MixedChip {
    pub chip: ChipIx,
    /// Slots free now, or once those are gone who are leaving.
    pub free: SlotCount,
    /// Leases that may be taken, and their slots.
    pub held: Vec<(HolderIx, SlotCount)>,
}

impl MixedChip {
    /// A lease holds so many slots more: two replicas of a gang may share a chip.
    fn add(&mut self, holder: HolderIx, slots: SlotCount) {
        match self.held.iter_mut().find(|(known, _)| *known == holder) {
            Some((_, held)) => *held += slots,
            None => self.held.push((holder, slots)),
        }
    }

    /// Slots free once everyone is gone who may be taken.
    pub(crate) fn reach(&self, admitted: impl Fn(HolderIx) -> bool) -> SlotCount {
        self.held.iter().filter(|(holder, _)| admitted(*holder)).map(|(_, slots)| slots).sum::<SlotCount>() + self.free
    }
}

/// Changes of pools that are remembered for those who keep figures of their own about them.
const JOURNAL_MAX: usize = 1 << 16;

/// The books.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stakes {
    pub pools: Vec<PoolStakes>,
    /// The pools of each node: first, and one past the last.
    ranges: Vec<(u32, u32)>,
    /// CPU and memory of each node that are free now, or once those are gone who are leaving; negative where promises
    /// wait for more than that.
    pub spare: Vec<(i64, i64)>,
    pub holders: Vec<Holder>,
    /// What taking each holder costs; beside, not inside, [`Holder`]: pricing reads only this.
    pub bases: Vec<CostBasis>,
    pub bands: Vec<Band>,
    band_users: Vec<usize>,
    by_band: FxHashMap<Band, u32>,
    by_lease: FxHashMap<LeaseId, HolderIx>,
    vacant: Vec<HolderIx>,
    leaving: usize,
    /// Takeable extra replicas by priority.
    extras: BTreeMap<i32, usize>,
    journal: Vec<u32>,
    journal_from: u64,
}

impl Stakes {
    /// The holder of a lease that may be taken or is leaving.
    pub(crate) fn holder(&self, lease: LeaseId) -> Option<HolderIx> {
        self.by_lease.get(&lease).copied()
    }

    /// The band of a lease that may be taken.
    pub(crate) fn band_of(&self, lease: LeaseId) -> Option<&Band> {
        let ix = self.holder(lease)? as usize;
        (self.holders[ix].stand == Stand::Takeable).then(|| &self.bands[self.bases[ix].band as usize])
    }

    /// Whether there are extra replicas that a job of this priority may take.
    pub(crate) fn any_extra(&self, priority: i32) -> bool {
        self.extras.first_key_value().is_some_and(|(lowest, _)| *lowest <= priority)
    }

    /// The pools of a node.
    pub(crate) fn pools_of(&self, node: NodeIx) -> std::ops::Range<PoolIx> {
        let (first, end) = self.ranges[node];
        first as PoolIx..end as PoolIx
    }

    /// Whether any lease is leaving.
    pub(crate) fn any_leaving(&self) -> bool {
        self.leaving > 0
    }

    /// Where the journal of changed pools stands.
    pub(crate) fn tick(&self) -> u64 {
        self.journal_from + self.journal.len() as u64
    }

    /// Pools that changed since a tick, or `None` if that is too long ago to tell.
    pub(crate) fn changed_since(&self, tick: u64) -> Option<&[u32]> {
        let from = usize::try_from(tick.checked_sub(self.journal_from)?).ok()?;
        self.journal.get(from..)
    }

    /// Which bands are in use; those out of use may hold anything.
    pub(crate) fn bands_used(&self) -> impl Iterator<Item = Option<&Band>> {
        self.bands.iter().zip(&self.band_users).map(|(band, users)| (*users > 0).then_some(band))
    }

    fn band_ix(&mut self, band: Band) -> u32 {
        let at = match self.by_band.get(&band) {
            Some(&at) => at,
            None => {
                let spare = self.band_users.iter().position(|users| *users == 0);
                let at = spare.unwrap_or(self.bands.len());
                if at == self.bands.len() {
                    self.bands.push(band.clone());
                    self.band_users.push(0);
                } else {
                    self.by_band.remove(&self.bands[at]);
                    self.bands[at] = band.clone();
                    // Figures kept by band mean something else from here on.
                    self.forget_journal();
                }
                self.by_band.insert(band, at as u32);
                at as u32
            }
        };
        self.band_users[at as usize] += 1;
        at
    }

    fn forget_journal(&mut self) {
        self.journal_from = self.tick() + 1;
        self.journal.clear();
    }

    fn put(&mut self, holder: Holder, mut basis: CostBasis, band: Band) {
        self.remove(holder.lease);
        basis.band = self.band_ix(band);
        match holder.stand {
            Stand::Leaving => self.leaving += 1,
            Stand::Takeable if basis.extra => {
                *self.extras.entry(self.bands[basis.band as usize].priority).or_default() += 1;
            }
            Stand::Takeable => {}
        }
        let lease = holder.lease;
        let at = match self.vacant.pop() {
            Some(at) => {
                (self.holders[at as usize], self.bases[at as usize]) = (holder, basis);
                at
            }
            None => {
                self.holders.push(holder);
                self.bases.push(basis);
                (self.holders.len() - 1) as HolderIx
            }
        };
        self.by_lease.insert(lease, at);
    }

    /// Forgets a lease that holds nothing any more, or can no longer be taken.
    pub(crate) fn remove(&mut self, lease: LeaseId) {
        let Some(at) = self.by_lease.remove(&lease) else { return };
        let (holder, basis) = (&self.holders[at as usize], &self.bases[at as usize]);
        let band = basis.band as usize;
        match holder.stand {
            Stand::Leaving => self.leaving -= 1,
            Stand::Takeable if basis.extra => {
                let priority = self.bands[band].priority;
                if let Some(count) = self.extras.get_mut(&priority) {
                    *count -= 1;
                    if *count == 0 {
                        self.extras.remove(&priority);
                    }
                }
            }
            Stand::Takeable => {}
        }
        self.band_users[band] -= 1;
        self.vacant.push(at);
    }

    fn note_changed(&mut self, pool: PoolIx) {
        if self.journal.len() == JOURNAL_MAX {
            self.forget_journal();
        }
        self.journal.push(pool as u32);
    }
}

impl Cluster {
    /// Says anew how a lease stands, after it was granted, given notice or ended.
    pub(crate) fn restand_lease(&mut self, id: LeaseId) {
        self.set_stand(id);
        if let Some(lease) = self.leases.get(&id) {
            for node in self.nodes_of(lease) {
                self.recount_stakes_of(node);
            }
        }
    }

    fn set_stand(&mut self, id: LeaseId) {
        let Some(lease) = self.leases.get(&id) else { return self.stakes.remove(id) };
        let Some(job) = self.jobs.get(&lease.job) else { return self.stand_as(id, Some(Stand::Leaving)) };
        let (priority, protected_until) = (job.spec.priority, job.protected_until(lease.granted_at));
        let stand = match &lease.state {
            LeaseState::Active if lease.extra => Some(Stand::Takeable),
            LeaseState::Active if !job.spec.preemptible => None,
            LeaseState::Active if protected_until > lease.granted_at => {
                if protected_until < Timestamp::MAX {
                    self.ripening.insert((protected_until, id));
                }
                None
            }
            LeaseState::Active => {
                self.preemptible.insert((priority, id));
                Some(Stand::Takeable)
            }
            // Whoever is given long notice is not worth waiting for.
            LeaseState::Revoking { .. } if job.spec.grace > self.policy.bounds.claim => None,
            LeaseState::Revoking { .. } | LeaseState::Ended { .. } => Some(Stand::Leaving),
        };
        if !lease.is_active() {
            self.preemptible.remove(&(priority, id));
            self.ripening.remove(&(protected_until, id));
        }
        self.stand_as(id, stand);
    }

    fn stand_as(&mut self, id: LeaseId, stand: Option<Stand>) {
        let (Some(lease), Some(stand)) = (self.leases.get(&id), stand) else { return self.stakes.remove(id) };
        let job = self.jobs.get(&lease.job);
        let band = Band {
            queue: job.map(|job| job.spec.queue.clone()).unwrap_or_default(),
            priority: job.map_or(i32::MIN, |job| job.spec.priority),
            extra: lease.extra,
        };
        let holder = Holder { lease: id, stand, parts: self.parts_of(lease) };
        let basis = CostBasis::of(self, lease);
        self.stakes.put(holder, basis, band);
    }

    fn parts_of(&self, lease: &Lease) -> Vec<Part> {
        let mut parts: BTreeMap<NodeIx, (i64, i64)> = BTreeMap::new();
        for placement in &lease.placements {
            if let Some(&node) = self.nodes_by_id.get(&placement.node) {
                let (cpu, memory) = parts.entry(node).or_default();
                *cpu = cpu.saturating_add_unsigned(placement.cpu_milli);
                *memory = memory.saturating_add_unsigned(placement.memory_mib);
            }
        }
        parts.into_iter().map(|(node, (cpu, memory))| Part { node, cpu, memory }).collect()
    }

    /// Prices a job's base lease anew, after a checkpoint or a change of its extra replicas.
    pub(crate) fn reprice_base(&mut self, lease: LeaseId) {
        if let Some(at) = self.stakes.holder(lease)
            && let Some(record) = self.leases.get(&lease)
        {
            let mut basis = CostBasis::of(self, record);
            basis.band = self.stakes.bases[at as usize].band;
            self.stakes.bases[at as usize] = basis;
        }
    }

    /// Leases whose protection is over may be taken from now on: shapes that failed are worth trying again.
    pub(crate) fn ripen(&mut self, now: Timestamp) {
        while let Some(&(at, id)) = self.ripening.first()
            && at <= now
        {
            self.ripening.pop_first();
            let Some(job) = self.leases.get(&id).and_then(|lease| self.jobs.get(&lease.job)) else { continue };
            self.preemptible.insert((job.spec.priority, id));
            self.stand_as(id, Some(Stand::Takeable));
            self.recount_nodes_of(id);
            self.queue.supply_grew();
        }
    }

    fn recount_nodes_of(&mut self, id: LeaseId) {
        let nodes = self.leases.get(&id).map(|lease| self.nodes_of(lease)).unwrap_or_default();
        nodes.into_iter().for_each(|node| self.recount_stakes_of(node));
    }

    /// Builds the books anew: after a restore, or when pools or bounds changed.
    pub(crate) fn recount_stakes(&mut self) {
        let leases: Vec<LeaseId> = self.leases.keys().copied().collect();
        for id in leases {
            if self.is_ripe(id) { self.stand_as(id, Some(Stand::Takeable)) } else { self.set_stand(id) }
        }
        self.stakes.forget_journal();
        for node in 0..self.fleet.nodes.len() {
            self.recount_stakes_of(node);
        }
    }

    fn is_ripe(&self, id: LeaseId) -> bool {
        let job = self.leases.get(&id).and_then(|lease| self.jobs.get(&lease.job));
        job.is_some_and(|job| self.preemptible.contains(&(job.spec.priority, id)))
    }

    /// Counts who has what of a node's pools.
    pub(crate) fn recount_stakes_of(&mut self, node: NodeIx) {
        let mut stakes = std::mem::take(&mut self.stakes);
        stakes.pools.resize_with(self.fleet.pools.len(), PoolStakes::default);
        stakes.spare.resize(self.fleet.nodes.len(), (0, 0));
        stakes.ranges.resize(self.fleet.nodes.len(), (0, 0));
        let pools = self.fleet.pools_of(node);
        stakes.ranges[node] = (pools.start as u32, pools.end as u32);
        stakes.spare[node] = self.count_spare(&stakes, node, None);
        for pool in pools {
            let mut counted = std::mem::take(&mut stakes.pools[pool]);
            self.count_stakes(&stakes, pool, None, &mut counted);
            stakes.pools[pool] = counted;
            stakes.note_changed(pool);
        }
        self.stakes = stakes;
    }

    /// CPU and memory of a node that are free or leaving. Without `open`, as if nothing were reserved: an upper bound.
    fn count_spare(&self, stakes: &Stakes, node: NodeIx, open: Option<&[Claimant]>) -> (i64, i64) {
        let state = &self.fleet.nodes[node];
        let less = |free: u64, claimed: u64| 0i64.saturating_add_unsigned(free).saturating_sub_unsigned(claimed);
        let mut free = (less(state.cpu_free, state.cpu_claimed), less(state.memory_free, state.memory_claimed));
        if open.is_some_and(|open| self.is_kept(node, open)) {
            free.0 = free.0.saturating_sub_unsigned(state.cpu_reserved);
            free.1 = free.1.saturating_sub_unsigned(state.memory_reserved);
        }
        let leaving = state.leases.iter().filter_map(|lease| {
            let holder = &stakes.holders[stakes.holder(*lease)? as usize];
            (holder.stand == Stand::Leaving).then(|| holder.part(node)).flatten()
        });
        leaving.fold(free, |(cpu, memory), part| (cpu + part.cpu, memory + part.memory))
    }

    /// Whether anything on a node is reserved for a holder that is not open to the job.
    fn is_kept(&self, node: NodeIx, open: &[Claimant]) -> bool {
        let chips = self.fleet.nodes[node].chips.iter().map(|&chip| &self.fleet.chips[chip]);
        chips.flat_map(|chip| &chip.reserved).any(|(holder, _)| !open.contains(holder))
    }

    /// Counts who has what of a pool. Without `open`, as if nothing were reserved: an upper bound.
    fn count_stakes(&self, stakes: &Stakes, pool: PoolIx, open: Option<&[Claimant]>, counted: &mut PoolStakes) {
        counted.whole = 0;
        counted.sole.clear();
        counted.mixed.clear();
        counted.memory_mib = u64::MAX;
        if self.fleet.nodes[self.fleet.pools[pool].node].unknown_since.is_some() {
            return;
        }
        let stand = |hold: &ChipHold| stakes.holder(hold.lease).map(|ix| (ix, stakes.holders[ix as usize].stand));
        for &ix in &self.fleet.pool_chips[pool] {
            let chip = &self.fleet.chips[ix];
            if !chip.in_service() {
                continue;
            }
            counted.memory_mib = counted.memory_mib.min(chip.facts.memory_mib);
            let closed = chip.reserved.iter().filter(|(holder, _)| open.is_some_and(|open| !open.contains(holder)));
            let kept: Vec<Slots> = chip
                .claims
                .iter()
                .map(|(_, slots)| slots)
                .chain(closed.map(|(_, slots)| slots))
                .flatten()
                .copied()
                .collect();
            match (kept.as_slice(), chip.holds.as_slice()) {
                ([], []) => counted.whole += 1,
                ([], [hold]) if hold.slots.as_slice() == [Slots::WHOLE] => match stand(hold) {
                    Some((_, Stand::Leaving)) => counted.whole += 1,
                    Some((holder, Stand::Takeable)) => counted.add_sole(holder),
                    None => {}
                },
                _ => {
                    let stays = |hold: &&ChipHold| !matches!(stand(hold), Some((_, Stand::Leaving)));
                    let held = chip.holds.iter().filter(stays).flat_map(|hold| hold.slots.iter().copied());
                    let free = free_of(held.chain(kept.iter().copied()));
                    let mut mixed = MixedChip { chip: ix, free, held: Vec::new() };
                    for hold in &chip.holds {
                        // What is promised or reserved below a lease is nobody's when it goes.
                        let covered = hold.slots.iter().any(|slots| kept.iter().any(|kept| kept.overlaps(*slots)));
                        if let Some((holder, Stand::Takeable)) = stand(hold)
                            && !covered
                        {
                            mixed.add(holder, slots_of(hold));
                        }
                    }
                    counted.add_mixed(mixed);
                }
            }
        }
    }

    /// The books as a job sees them that may use what is reserved for `open`, and nothing else that is reserved.
    pub(crate) fn stakes_beside(&self, open: &[Claimant]) -> Stakes {
        let mut stakes = self.stakes.clone();
        let reserved = self.reservations().flat_map(|(_, reservation)| &reservation.placements);
        let nodes: BTreeSet<NodeIx> = reserved.filter_map(|placement| Some(self.node_at(&placement.node)?.0)).collect();
        for node in nodes {
            self.count_node(&mut stakes, node, open);
        }
        stakes
    }

    /// Books in which leases stand as `stand` says, whatever anybody's rights are: what would be if.
    pub(crate) fn stakes_if(&self, stand: impl Fn(&Lease) -> Option<(Stand, CostBasis)>) -> Stakes {
        let mut stakes = Stakes::default();
        for lease in self.leases.values() {
            if let Some((stand, basis)) = stand(lease) {
                let band = Band { queue: String::new(), priority: 0, extra: lease.extra };
                stakes.put(Holder { lease: lease.id, stand, parts: self.parts_of(lease) }, basis, band);
            }
        }
        stakes.pools.resize_with(self.fleet.pools.len(), PoolStakes::default);
        stakes.spare.resize(self.fleet.nodes.len(), (0, 0));
        stakes.ranges.resize(self.fleet.nodes.len(), (0, 0));
        for node in 0..self.fleet.nodes.len() {
            let pools = self.fleet.pools_of(node);
            stakes.ranges[node] = (pools.start as u32, pools.end as u32);
            self.count_node(&mut stakes, node, &[]);
        }
        stakes
    }

    fn count_node(&self, stakes: &mut Stakes, node: NodeIx, open: &[Claimant]) {
        stakes.spare[node] = self.count_spare(stakes, node, Some(open));
        for pool in self.fleet.pools_of(node) {
            let mut counted = std::mem::take(&mut stakes.pools[pool]);
            self.count_stakes(stakes, pool, Some(open), &mut counted);
            stakes.pools[pool] = counted;
        }
    }

    /// What the books say that a recount does not.
    pub(crate) fn stakes_fault(&self) -> Option<String> {
        let mut fresh = PoolStakes::default();
        for pool in 0..self.fleet.pools.len() {
            self.count_stakes(&self.stakes, pool, None, &mut fresh);
            if self.stakes.pools.get(pool) != Some(&fresh) {
                return Some(format!("the stakes of pool {pool} are out of step"));
            }
        }
        let takeable = self.stakes.by_lease.iter().filter(|(_, ix)| {
            let ix = **ix as usize;
            self.stakes.holders[ix].stand == Stand::Takeable && !self.stakes.bases[ix].extra
        });
        let (counted, known) = (takeable.count(), self.preemptible.len());
        (counted != known).then(|| format!("{counted} stakes may be taken, of {known} preemptible leases"))
    }
}

impl Holder {
    /// Its share of a node.
    pub(crate) fn part(&self, node: NodeIx) -> Option<&Part> {
        self.parts.binary_search_by_key(&node, |part| part.node).ok().map(|at| &self.parts[at])
    }
}

impl PoolStakes {
    fn add_sole(&mut self, holder: HolderIx) {
        match self.sole.iter_mut().find(|(known, _)| *known == holder) {
            Some((_, chips)) => *chips += 1,
            None => self.sole.push((holder, 1)),
        }
    }

    fn add_mixed(&mut self, chip: MixedChip) {
        if chip.free == SLOTS_PER_CHIP {
            self.whole += 1;
        } else if chip.free > 0 || !chip.held.is_empty() {
            self.mixed.push(chip);
        }
    }
}

fn slots_of(hold: &ChipHold) -> SlotCount {
    hold.slots.iter().map(|slots| slots.count()).sum()
}
