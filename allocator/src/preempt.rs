//! Whom to evict: the cheapest set of lower-priority leases that makes room for one job, and the room it makes.
//!
//! Greedy with a prune. For every class and place the job may use, replicas are placed one after another where they
//! cost least; the price of a pool is the smallest total of lost work that frees enough chips there (a knapsack over the
//! leases of the pool, or every set of them where they share chips). Then every victim that turns out not to be needed
//! is dropped, dearest first. A plan is only made if it places the whole gang: nobody is evicted in vain.

use crate::cluster::Cluster;
use crate::fleet::{ChipIx, PoolIx};
use crate::place::{Scope, class_scopes, find_within, places};
use crate::queue::Shape;
use crate::rights::Rights;
use crate::room::{Need, Room};
use chiptide_model::{ChipDemand, Holder, Lease, LeaseId, Placement, SLOTS_PER_CHIP, Same, Timestamp};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

/// Most leases on a pool of which every set is tried: 4,096 sets.
const TRIED_MAX: usize = 12;

/// What an eviction costs: lost work first, then the number of leases, then their age (newest first).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub(crate) struct Cost {
    /// Slot-milliseconds of work lost.
    pub lost: u64,
    /// Leases evicted.
    pub leases: u32,
    /// Sum of ages, milliseconds: among equals the newest go.
    pub age: u64,
}

impl Cost {
    pub(crate) fn plus(self, other: Cost) -> Cost {
        Cost {
            lost: self.lost.saturating_add(other.lost),
            leases: self.leases + other.leases,
            age: self.age.saturating_add(other.age),
        }
    }
}

/// What evicting a lease now would cost.
pub(crate) fn cost_of(cluster: &Cluster, lease: &Lease, now: Timestamp) -> Cost {
    Cost { lost: cluster.lost_work(lease, now), leases: 1, age: now.since(lease.granted_at).0 }
}

/// A way to make room.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Plan {
    pub placements: Vec<Placement>,
    pub victims: BTreeSet<LeaseId>,
    pub cost: Cost,
}

/// Finds the cheapest way to make room for a gang by evicting leases of strictly lower priority, or `None`. Chips that
/// ended leases have yet to vacate cost nothing.
#[cfg(test)]
pub(crate) fn choose(cluster: &Cluster, shape: &Shape, now: Timestamp) -> Option<Plan> {
    choose_with(cluster, shape, now, &[])
}

/// The same, with the reserved chips of some holders open to the plan.
pub(crate) fn choose_with(cluster: &Cluster, shape: &Shape, now: Timestamp, open: &[Holder]) -> Option<Plan> {
    cheapest(cluster, shape, &Victims::of(cluster, shape, now).costs, open)
}

/// The cheapest way to make room for a gang by evicting leases that have a price.
pub(crate) fn cheapest(
    cluster: &Cluster,
    shape: &Shape,
    costs: &BTreeMap<LeaseId, Cost>,
    open: &[Holder],
) -> Option<Plan> {
    let victims = Victims { cluster, costs: costs.clone() };
    if victims.costs.is_empty() && cluster.vacating == 0 {
        return None;
    }
    let mut room = Room::of(cluster);
    open.iter().for_each(|holder| room.open(holder));
    for lease in cluster.leases.values().filter(|lease| !lease.is_live()) {
        room.empty(lease);
    }
    let scopes = class_scopes(cluster, shape).into_iter().flat_map(|scope| match shape.same {
        Some(Same { level, required: true }) => places(cluster, level, &scope),
        _ => vec![scope],
    });
    scopes.filter_map(|scope| victims.plan(&room, shape, &scope)).min_by_key(|plan| plan.cost)
}

/// The leases that may be evicted, with their prices.
struct Victims<'a> {
    cluster: &'a Cluster,
    costs: BTreeMap<LeaseId, Cost>,
}

impl<'a> Victims<'a> {
    fn of(cluster: &'a Cluster, shape: &Shape, now: Timestamp) -> Victims<'a> {
        let rights = Rights::of(cluster, shape, now);
        let below = cluster.preemptible.iter();
        let costs = below
            .filter_map(|(_, id)| cluster.leases.get(id))
            .filter(|lease| rights.may_evict(lease).is_some())
            .map(|lease| (lease.id, cost_of(cluster, lease, now)))
            .collect();
        Victims { cluster, costs }
    }

    /// Makes room within one scope: replica by replica where it is cheapest, then without whoever is not needed.
    fn plan(&self, room: &Room<'_>, shape: &Shape, scope: &Scope) -> Option<Plan> {
        let chosen = self.gather(room.clone(), shape, scope)?;
        let mut victims: Vec<LeaseId> = chosen.into_iter().collect();
        victims.sort_by_key(|id| Reverse((self.costs.get(id).copied(), *id)));
        let mut placements = None;
        for victim in victims.clone() {
            let rest: Vec<LeaseId> = victims.iter().copied().filter(|id| *id != victim).collect();
            if let Some(found) = self.place_without(room, shape, scope, &rest) {
                (placements, victims) = (Some(found), rest);
            }
        }
        let placements = match placements {
            Some(placements) => placements,
            None => self.place_without(room, shape, scope, &victims)?,
        };
        let cost =
            victims.iter().filter_map(|id| self.costs.get(id)).fold(Cost::default(), |sum, cost| sum.plus(*cost));
        Some(Plan { placements, victims: victims.into_iter().collect(), cost })
    }

    fn place_without(
        &self,
        room: &Room<'_>,
        shape: &Shape,
        scope: &Scope,
        victims: &[LeaseId],
    ) -> Option<Vec<Placement>> {
        let mut room = room.clone();
        for lease in victims.iter().filter_map(|id| self.cluster.leases.get(id)) {
            room.empty(lease);
        }
        find_within(&room, shape, scope)
    }

    /// The victims of a greedy plan: each replica goes to the pool where it costs least.
    fn gather(&self, mut room: Room<'_>, shape: &Shape, scope: &Scope) -> Option<BTreeSet<LeaseId>> {
        let need = Need::of(shape);
        let mut chosen = BTreeSet::new();
        let admitted: Vec<PoolIx> = (0..room.pools().len()).filter(|&ix| scope.admits(&room.pools()[ix])).collect();
        let mut prices: BTreeMap<PoolIx, Option<(Cost, Vec<LeaseId>)>> = BTreeMap::new();
        for replica in 0..shape.replicas {
            for &pool in &admitted {
                prices.entry(pool).or_insert_with(|| self.price(&room, pool, &need, &chosen));
            }
            let priced = prices.iter().filter_map(|(&pool, price)| Some((price.as_ref()?, pool)));
            let tightness = |pool: PoolIx| (room.pools()[pool].free.whole, pool);
            let ((_, evicted), pool) = priced.min_by_key(|((cost, _), pool)| (*cost, tightness(*pool)))?;
            let evicted = evicted.clone();
            let mut nodes = BTreeSet::from([room.pools()[pool].node]);
            for lease in evicted.iter().filter_map(|id| self.cluster.leases.get(id)) {
                room.empty(lease);
                nodes.extend(self.cluster.nodes_of(lease));
            }
            chosen.extend(evicted);
            room.take(pool, &need, replica)?;
            for node in nodes {
                self.cluster.fleet.pools_of(node).for_each(|pool| drop(prices.remove(&pool)));
            }
        }
        Some(chosen)
    }

    /// The cheapest leases to evict so that one more replica fits the pool; none if it fits already.
    fn price(
        &self,
        room: &Room<'_>,
        pool: PoolIx,
        need: &Need,
        chosen: &BTreeSet<LeaseId>,
    ) -> Option<(Cost, Vec<LeaseId>)> {
        if self.cluster.fleet.nodes[room.pools()[pool].node].unknown_since.is_some() {
            return None;
        }
        let mut price = match need.demand {
            ChipDemand::Chips(n) => {
                let missing = n.saturating_sub(room.pools()[pool].free.whole);
                self.cheapest(&self.offers(room, pool, chosen), usize::from(missing))?
            }
            _ => self.price_of_share(room, pool, need, chosen)?,
        };
        self.add_for_node(room, pool, need, chosen, &mut price)?;
        Some(price)
    }

    /// Sets of leases on a pool and how many whole chips evicting each set frees.
    fn offers(&self, room: &Room<'_>, pool: PoolIx, chosen: &BTreeSet<LeaseId>) -> Vec<Offer> {
        let mut offers: BTreeMap<Vec<LeaseId>, u16> = BTreeMap::new();
        for &chip in &self.cluster.fleet.pool_chips[pool] {
            if let Some(holders) = self.holders(room, chip, chosen)
                && !holders.is_empty()
            {
                *offers.entry(holders).or_default() += 1;
            }
        }
        let offer = |(leases, chips): (Vec<LeaseId>, u16)| {
            let cost = leases.iter().filter_map(|id| self.costs.get(id)).fold(Cost::default(), |sum, c| sum.plus(*c));
            Offer { cost, leases, chips }
        };
        offers.into_iter().map(offer).collect()
    }

    /// The cheapest leases that together free at least `missing` chips. Where a lease shares several chips with others,
    /// what it costs must not be counted twice: then every set of leases is tried, if they are few.
    fn cheapest(&self, offers: &[Offer], missing: usize) -> Option<(Cost, Vec<LeaseId>)> {
        let leases: BTreeSet<LeaseId> = offers.iter().flat_map(|offer| offer.leases.iter().copied()).collect();
        let disjoint = leases.len() == offers.iter().map(|offer| offer.leases.len()).sum::<usize>();
        if disjoint || leases.len() > TRIED_MAX {
            return knapsack(offers, missing);
        }
        let leases: Vec<LeaseId> = leases.into_iter().collect();
        let cost = |set: &[LeaseId]| {
            set.iter().filter_map(|id| self.costs.get(id)).fold(Cost::default(), |sum, c| sum.plus(*c))
        };
        let sets = (0..1u32 << leases.len()).map(|set| -> Vec<LeaseId> {
            leases.iter().enumerate().filter(|(at, _)| set & (1 << at) != 0).map(|(_, lease)| *lease).collect()
        });
        let frees = |set: &Vec<LeaseId>| {
            let freed = offers.iter().filter(|offer| offer.leases.iter().all(|lease| set.contains(lease)));
            freed.map(|offer| usize::from(offer.chips)).sum::<usize>() >= missing
        };
        sets.filter(frees).map(|set| (cost(&set), set)).min()
    }

    /// The leases whose eviction would free the whole chip, or `None` if others hold, claim or took part of it.
    fn holders(&self, room: &Room<'_>, chip: ChipIx, chosen: &BTreeSet<LeaseId>) -> Option<Vec<LeaseId>> {
        let state = &self.cluster.fleet.chips[chip];
        let taken: u32 = room.taken(chip)?.iter().map(|slots| u32::from(slots.count())).sum();
        let mut holders = BTreeSet::new();
        let mut evictable = 0;
        for hold in state.holds.iter().filter(|hold| hold.vacate_by.is_none() && !chosen.contains(&hold.lease)) {
            self.costs.get(&hold.lease)?;
            evictable += hold.slots.iter().map(|slots| u32::from(slots.count())).sum::<u32>();
            holders.insert(hold.lease);
        }
        (taken == evictable).then(|| holders.into_iter().collect())
    }

    /// The cheapest leases to evict so that a share fits one chip of the pool.
    fn price_of_share(
        &self,
        room: &Room<'_>,
        pool: PoolIx,
        need: &Need,
        chosen: &BTreeSet<LeaseId>,
    ) -> Option<(Cost, Vec<LeaseId>)> {
        let on_chip = |&chip: &ChipIx| {
            let state = &self.cluster.fleet.chips[chip];
            let want = need.demand.slots_of(state.facts.memory_mib)?;
            room.taken(chip)?;
            let mut free = room.free_slots(chip);
            let mut offers: Vec<(Cost, LeaseId, u16)> = Vec::new();
            for hold in state.holds.iter().filter(|hold| hold.vacate_by.is_none() && !chosen.contains(&hold.lease)) {
                if let Some(cost) = self.costs.get(&hold.lease) {
                    offers.push((*cost, hold.lease, hold.slots.iter().map(|slots| slots.count()).sum()));
                }
            }
            offers.sort_unstable();
            let (mut cost, mut evicted) = (Cost::default(), Vec::new());
            for (price, lease, slots) in offers {
                if free >= want {
                    break;
                }
                free = free.saturating_add(slots).min(SLOTS_PER_CHIP);
                if !evicted.contains(&lease) {
                    (cost, evicted) = (cost.plus(price), [evicted, vec![lease]].concat());
                }
            }
            (free >= want).then_some((cost, evicted))
        };
        self.cluster.fleet.pool_chips[pool].iter().filter_map(on_chip).min()
    }

    /// Adds the cheapest further leases of the node until its CPU and memory suffice too.
    fn add_for_node(
        &self,
        room: &Room<'_>,
        pool: PoolIx,
        need: &Need,
        chosen: &BTreeSet<LeaseId>,
        price: &mut (Cost, Vec<LeaseId>),
    ) -> Option<()> {
        let free = room.pools()[pool].free;
        let node = &self.cluster.fleet.nodes[room.pools()[pool].node];
        let gives = |id: &LeaseId| {
            let here = self.cluster.leases.get(id).into_iter().flat_map(|lease| &lease.placements);
            here.filter(|placement| placement.node == node.id).fold((0u64, 0u64), |(cpu, memory), placement| {
                (cpu + placement.cpu_milli, memory + placement.memory_mib)
            })
        };
        let add =
            |(cpu, memory): (u64, u64), (more_cpu, more_memory): (u64, u64)| (cpu + more_cpu, memory + more_memory);
        let mut have = price.1.iter().map(gives).fold((free.cpu, free.memory), add);
        let mut others: Vec<(Cost, LeaseId)> = node
            .leases
            .iter()
            .filter(|id| !chosen.contains(id) && !price.1.contains(id))
            .filter_map(|id| Some((*self.costs.get(id)?, *id)))
            .collect();
        others.sort_unstable();
        let mut others = others.into_iter();
        while have.0 < need.cpu || have.1 < need.memory {
            let (cost, lease) = others.next()?;
            have = add(have, gives(&lease));
            price.0 = price.0.plus(cost);
            price.1.push(lease);
        }
        Some(())
    }
}

struct Offer {
    cost: Cost,
    leases: Vec<LeaseId>,
    chips: u16,
}

/// The cheapest offers that together free at least `missing` chips (0/1 knapsack by dynamic programming).
fn knapsack(offers: &[Offer], missing: usize) -> Option<(Cost, Vec<LeaseId>)> {
    let mut best: Vec<Option<(Cost, Vec<usize>)>> = vec![None; missing + 1];
    best[0] = Some((Cost::default(), Vec::new()));
    for (ix, offer) in offers.iter().enumerate() {
        for freed in (0..missing).rev() {
            let Some((cost, taken)) = &best[freed] else { continue };
            let (to, cost) = ((freed + usize::from(offer.chips)).min(missing), cost.plus(offer.cost));
            if best[to].as_ref().is_none_or(|(known, _)| cost < *known) {
                best[to] = Some((cost, [taken.as_slice(), &[ix]].concat()));
            }
        }
    }
    let (cost, taken) = best.swap_remove(missing)?;
    let leases: BTreeSet<LeaseId> = taken.iter().flat_map(|&ix| offers[ix].leases.iter().copied()).collect();
    Some((cost, leases.into_iter().collect()))
}
