//! Counting the stakes: who has what of each pool, anew for every node that an event has changed, and as a job sees
//! them that may use what is reserved, or that asks what would be if.

use super::cost::CostBasis;
use super::stakes::{Holder, MixedChip, Part, PoolStakes, Stakes, Stand};
use crate::cluster::Cluster;
use crate::fleet::{ChipHold, NodeIx, PoolIx, free_of};
use crate::rights::Band;
use chiptide_model::{Holder as Claimant, Lease, LeaseId, LeaseState, SlotCount, Slots, Timestamp};
use std::collections::{BTreeMap, BTreeSet};
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
        if !self.fleet.nodes[self.fleet.pools[pool].node].takes_work() {
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

fn slots_of(hold: &ChipHold) -> SlotCount {
    hold.slots.iter().map(|slots| slots.count()).sum()
}
