//! The cheapest leases found whose end would make room for a gang, whether or not they may be taken.
//!
//! Where leases are few it is the planner's own search. That one rates every lease of the fleet anew when all of them
//! count, which takes tens of milliseconds where they are many, and an explanation is given on demand while a round waits
//! to apply. There it is a greedy search over a bounded number of nodes: each replica goes where the leases to end cost
//! least; whoever turns out not to be needed is struck off.

use crate::cluster::Cluster;
use crate::fleet::{ChipIx, NodeIx, PoolIx};
use crate::place::{Scope, class_scopes, find_within};
use crate::preempt::{self, CostBasis, Stand};
use crate::queue::Shape;
use crate::room::{Need, Room};
use chiptide_model::{ChipDemand, Cost, Lease, LeaseId, SLOTS_PER_CHIP, SameLevel, Timestamp};
use rustc_hash::FxHashMap;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

/// Leases up to which the planner's search is made.
const EXACT_MAX: usize = 1000;
/// Pools looked at in one scope.
const POOLS_MAX: usize = 256;
/// Victims tried to be struck off.
const STRUCK_MAX: usize = 32;

/// The cheapest leases found, in order of their ids, and what their end would cost. Leases that are leaving already
/// cost nothing.
pub(super) fn cheapest(cluster: &Cluster, shape: &Shape, now: Timestamp) -> Option<(Vec<LeaseId>, Cost)> {
    if cluster.leases.len() <= EXACT_MAX {
        return exactly(cluster, shape, now);
    }
    let mut best: Option<(Cost, Vec<LeaseId>)> = None;
    for scope in class_scopes(cluster, shape) {
        for pools in places(cluster, shape, candidates(cluster, shape, &scope)) {
            let mut search = Search::of(cluster, shape, now);
            let Some(found) = search.gather(&pools) else { continue };
            let found = search.strike(found, &scope);
            let found = (search.sum(&found), found);
            if best.as_ref().is_none_or(|known| found < *known) {
                best = Some(found);
            }
        }
    }
    best.map(|(cost, leases)| (leases, cost))
}

fn exactly(cluster: &Cluster, shape: &Shape, now: Timestamp) -> Option<(Vec<LeaseId>, Cost)> {
    let stand = |lease: &Lease| {
        let stand = if lease.is_active() { Stand::Takeable } else { Stand::Leaving };
        Some((stand, CostBasis::of(cluster, lease)))
    };
    let plan = preempt::cheapest(cluster, shape, now, stand)?;
    Some((plan.victims.into_iter().collect(), plan.cost))
}

/// Pools of a scope on nodes that report and could hold a replica if they were empty: those with most free chips, and of
/// the rest some from everywhere.
fn candidates(cluster: &Cluster, shape: &Shape, scope: &Scope) -> Vec<PoolIx> {
    let fleet = &cluster.fleet;
    let could = |ix: &PoolIx| {
        let (pool, chips) = (&fleet.pools[*ix], &fleet.pool_chips[*ix]);
        let node = &fleet.nodes[pool.node];
        let enough = chips.len() >= usize::from(shape.demand.chips());
        let roomy = node.facts.cpu_milli >= shape.cpu_milli && node.facts.memory_mib >= shape.memory_mib;
        scope.admits(pool) && node.takes_work() && enough && roomy
    };
    let mut pools: Vec<PoolIx> = (0..fleet.pools.len()).filter(could).collect();
    if pools.len() > POOLS_MAX {
        pools.sort_by_key(|&ix| (Reverse((fleet.pools[ix].free.whole, fleet.pools[ix].free.most)), ix));
        let rest = pools.split_off(POOLS_MAX / 2);
        let step = rest.len().div_ceil(POOLS_MAX / 2);
        pools.extend(rest.into_iter().step_by(step));
    }
    pools
}

/// The pools by the place that all replicas must share, if they must.
fn places(cluster: &Cluster, shape: &Shape, pools: Vec<PoolIx>) -> Vec<Vec<PoolIx>> {
    let Some(level) = shape.same.filter(|same| same.required).map(|same| same.level) else { return vec![pools] };
    let mut places: BTreeMap<(Option<&str>, Option<NodeIx>), Vec<PoolIx>> = BTreeMap::new();
    for ix in pools {
        let node = cluster.fleet.pools[ix].node;
        let facts = &cluster.fleet.nodes[node].facts;
        let named = match level {
            SameLevel::Node => None,
            SameLevel::Link => facts.link_domain.as_deref(),
            SameLevel::Rack => facts.rack.as_deref(),
        };
        let place = (named, named.is_none().then_some(node));
        places.entry(place).or_default().push(ix);
    }
    places.into_values().collect()
}

struct Search<'a> {
    cluster: &'a Cluster,
    shape: &'a Shape,
    need: Need,
    now: Timestamp,
    room: Room<'a>,
    gone: BTreeSet<LeaseId>,
    costs: FxHashMap<LeaseId, Cost>,
}

type Price = (Cost, Vec<LeaseId>);

impl<'a> Search<'a> {
    fn of(cluster: &'a Cluster, shape: &'a Shape, now: Timestamp) -> Search<'a> {
        let room = Room::of(cluster);
        let (gone, costs) = (BTreeSet::new(), FxHashMap::default());
        Search { cluster, shape, need: Need::of(shape), now, room, gone, costs }
    }

    fn cost(&mut self, id: LeaseId) -> Cost {
        let (cluster, now) = (self.cluster, self.now);
        let of = |lease: &Lease| if lease.is_active() { cluster.eviction_cost(lease, now) } else { Cost::default() };
        *self.costs.entry(id).or_insert_with(|| cluster.lease(id).map(of).unwrap_or_default())
    }

    fn sum(&mut self, leases: &[LeaseId]) -> Cost {
        leases.iter().fold(Cost::default(), |sum, id| sum.plus(self.cost(*id)))
    }

    /// Ends leases until the whole gang fits, each replica in the pool where that costs least.
    fn gather(&mut self, pools: &[PoolIx]) -> Option<Vec<LeaseId>> {
        let mut prices: BTreeMap<PoolIx, Price> = BTreeMap::new();
        let mut heap: BinaryHeap<Reverse<(Cost, PoolIx)>> = BinaryHeap::new();
        let mut open: BTreeSet<PoolIx> = pools.iter().copied().collect();
        for &pool in pools {
            self.offer(pool, &mut prices, &mut heap);
        }
        let mut placed = 0;
        while placed < self.shape.replicas {
            let Reverse((cost, pool)) = heap.pop()?;
            // An older price of a pool that has changed since.
            let Some((_, leases)) = prices.get(&pool).filter(|(known, _)| *known == cost).cloned() else { continue };
            prices.remove(&pool);
            let mut nodes = BTreeSet::from([self.cluster.fleet.pools[pool].node]);
            for lease in leases.iter().filter_map(|id| self.cluster.lease(*id)) {
                self.room.empty(lease);
                nodes.extend(self.cluster.nodes_of(lease));
            }
            self.gone.extend(leases);
            match self.room.take(pool, &self.need, placed) {
                Some(_) => placed += 1,
                // Something that has no price stands in the way there.
                None => drop(open.remove(&pool)),
            }
            let changed = nodes.into_iter().flat_map(|node| self.cluster.fleet.pools_of(node));
            for pool in changed.filter(|pool| open.contains(pool)).collect::<Vec<_>>() {
                self.offer(pool, &mut prices, &mut heap);
            }
        }
        Some(self.gone.iter().copied().collect())
    }

    /// Prices one more replica in a pool anew.
    fn offer(
        &mut self,
        pool: PoolIx,
        prices: &mut BTreeMap<PoolIx, Price>,
        heap: &mut BinaryHeap<Reverse<(Cost, PoolIx)>>,
    ) {
        match self.price(pool) {
            Some(price) => {
                heap.push(Reverse((price.0, pool)));
                prices.insert(pool, price);
            }
            None => drop(prices.remove(&pool)),
        }
    }

    fn price(&mut self, pool: PoolIx) -> Option<Price> {
        let mut leases = match self.need.demand {
            ChipDemand::Chips(chips) => self.for_chips(pool, usize::from(chips))?,
            _ => self.for_share(pool)?,
        };
        self.add_for_node(pool, &mut leases)?;
        Some((self.sum(&leases), leases))
    }

    /// The leases to end on one chip so that it is wholly free; `None` if that is not enough.
    fn holders(&self, chip: ChipIx) -> Option<Vec<LeaseId>> {
        let state = &self.cluster.fleet.chips[chip];
        if !state.in_service() || !state.claims.is_empty() || !state.reserved.is_empty() {
            return None;
        }
        let left = state.holds.iter().map(|hold| hold.lease).filter(|lease| !self.gone.contains(lease));
        let holders: BTreeSet<LeaseId> = left.collect();
        (!holders.is_empty()).then(|| holders.into_iter().collect())
    }

    /// The cheapest leases to end so that so many chips of a pool are wholly free.
    fn for_chips(&mut self, pool: PoolIx, chips: usize) -> Option<Vec<LeaseId>> {
        let mut offers: BTreeMap<Vec<LeaseId>, usize> = BTreeMap::new();
        let mut free = 0;
        for &chip in &self.cluster.fleet.pool_chips[pool] {
            if self.room.free_slots(chip) == SLOTS_PER_CHIP {
                free += 1;
            } else if let Some(holders) = self.holders(chip) {
                *offers.entry(holders).or_default() += 1;
            }
        }
        let missing = chips.saturating_sub(free);
        let mut offers: Vec<(Cost, usize, Vec<LeaseId>)> =
            offers.into_iter().map(|(leases, chips)| (self.sum(&leases), chips, leases)).collect();
        offers.sort();
        let alone = offers.iter().find(|(_, chips, _)| *chips >= missing).cloned();
        let mut together = Vec::new();
        let mut freed = 0;
        while freed < missing {
            let (cost, chips, leases) = offers.get(together.len()).cloned()?;
            freed += chips;
            together.push((cost, chips, leases));
        }
        // The dearest first: whoever is not needed after those that came later stays.
        for at in (0..together.len()).rev() {
            if freed - together[at].1 >= missing {
                freed -= together.remove(at).1;
            }
        }
        let sum = together.iter().fold(Cost::default(), |sum, (cost, ..)| sum.plus(*cost));
        match alone {
            Some((cost, _, leases)) if missing > 0 && cost < sum => Some(leases),
            _ => Some(together.into_iter().flat_map(|(_, _, leases)| leases).collect()),
        }
    }

    /// The cheapest leases to end so that one chip of a pool has room for a share.
    fn for_share(&mut self, pool: PoolIx) -> Option<Vec<LeaseId>> {
        let mut best: Option<Price> = None;
        for &chip in &self.cluster.fleet.pool_chips[pool] {
            let state = &self.cluster.fleet.chips[chip];
            let Some(want) = self.need.demand.slots_of(state.facts.memory_mib).filter(|_| state.in_service()) else {
                continue;
            };
            let mut free = self.room.free_slots(chip);
            let holds = state.holds.iter().filter(|hold| !self.gone.contains(&hold.lease));
            let holds: Vec<(LeaseId, u16)> =
                holds.map(|hold| (hold.lease, hold.slots.iter().map(|slots| slots.count()).sum())).collect();
            let mut holds: Vec<(Cost, LeaseId, u16)> =
                holds.into_iter().map(|(lease, slots)| (self.cost(lease), lease, slots)).collect();
            holds.sort_unstable();
            let mut leases = Vec::new();
            for (_, lease, slots) in holds {
                if free >= want {
                    break;
                }
                free = free.saturating_add(slots).min(SLOTS_PER_CHIP);
                leases.push(lease);
            }
            let price = (self.sum(&leases), leases);
            if free >= want && best.as_ref().is_none_or(|known| price < *known) {
                best = Some(price);
            }
        }
        best.map(|(_, leases)| leases)
    }

    /// Adds the cheapest further leases of the node until its CPU and memory suffice as well.
    fn add_for_node(&mut self, pool: PoolIx, leases: &mut Vec<LeaseId>) -> Option<()> {
        let node = &self.cluster.fleet.nodes[self.cluster.fleet.pools[pool].node];
        let gives = |cluster: &Cluster, id: LeaseId| {
            let here = cluster.lease(id).into_iter().flat_map(|lease| &lease.placements);
            here.filter(|placement| placement.node == node.id)
                .fold((0u64, 0u64), |(cpu, memory), p| (cpu + p.cpu_milli, memory + p.memory_mib))
        };
        let add = |(cpu, memory): (u64, u64), (more, more_memory): (u64, u64)| (cpu + more, memory + more_memory);
        let mut have = self.room.free_on(self.cluster.fleet.pools[pool].node);
        have = leases.iter().map(|id| gives(self.cluster, *id)).fold(have, add);
        if have.0 >= self.need.cpu && have.1 >= self.need.memory {
            return Some(());
        }
        let others = node.leases.iter().copied().filter(|id| !self.gone.contains(id) && !leases.contains(id));
        let others: Vec<LeaseId> = others.collect();
        let mut others: Vec<(Cost, LeaseId)> = others.into_iter().map(|id| (self.cost(id), id)).collect();
        others.sort_unstable();
        let mut others = others.into_iter();
        while have.0 < self.need.cpu || have.1 < self.need.memory {
            let (_, id) = others.next()?;
            have = add(have, gives(self.cluster, id));
            leases.push(id);
        }
        Some(())
    }

    /// Strikes off whoever is not needed, the dearest first, on the nodes of those found.
    fn strike(&mut self, found: Vec<LeaseId>, scope: &Scope) -> Vec<LeaseId> {
        let leases = found.iter().filter_map(|id| self.cluster.lease(*id));
        let nodes: BTreeSet<NodeIx> = leases.flat_map(|lease| self.cluster.nodes_of(lease)).collect();
        let near = Scope { nodes: Some(nodes), ..scope.clone() };
        let (cluster, shape) = (self.cluster, self.shape);
        let fits = |leases: &[LeaseId]| {
            let mut room = Room::of(cluster);
            leases.iter().filter_map(|id| cluster.lease(*id)).for_each(|lease| room.empty(lease));
            find_within(&room, shape, &near).is_some()
        };
        let mut needed = found;
        // Free chips elsewhere may be part of the plan: then no smaller set can be judged on these nodes alone.
        if needed.len() > STRUCK_MAX || !fits(&needed) {
            return needed;
        }
        let mut dearest: Vec<(Cost, LeaseId)> = needed.clone().into_iter().map(|id| (self.cost(id), id)).collect();
        dearest.sort_unstable_by_key(|price| Reverse(*price));
        for (_, id) in dearest {
            let rest: Vec<LeaseId> = needed.iter().copied().filter(|other| *other != id).collect();
            if fits(&rest) {
                needed = rest;
            }
        }
        needed
    }
}
