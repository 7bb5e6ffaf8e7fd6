//! The greedy search: pool after pool, each time the one where one more replica costs least, until the gang fits.
//!
//! A gang that runs on many nodes frees all of them at once. So a price is also looked at per replica it makes room
//! for (the greedy rule of weighted set cover: Chvátal, "A Greedy Heuristic for the Set-Covering Problem", 1979). How
//! many that are is guessed at first and counted when the pool's turn comes, as in lazy greedy (Minoux, 1978).

use super::field::Field;
use super::price::{Scratch, price};
use super::stakes::HolderIx;
use crate::fleet::PoolIx;
use crate::rights::Rights;
use chiptide_model::{ChipDemand, Cost, SLOTS_PER_CHIP};
use rustc_hash::FxHashMap;
use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

/// How a price is looked at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum By {
    /// What the next replica costs.
    Price,
    /// What each of the replicas costs that it makes room for.
    PricePerReplica,
}

/// A pool in the order of prices.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Bid {
    cost: Cost,
    /// Replicas that it makes room for.
    replicas: u32,
    /// Whether that was counted.
    counted: bool,
    pool: PoolIx,
    /// How often the pool had changed when this was said.
    changes: u32,
}

impl Bid {
    /// Whether taking what it names may make room for several replicas.
    pub(crate) fn frees_many(&self) -> bool {
        self.replicas > 1
    }
}

impl Ord for Bid {
    /// By cost per replica, compared as fractions, key by key; the pool registered first among equals.
    fn cmp(&self, other: &Bid) -> Ordering {
        let (mine, others) = (u128::from(self.replicas), u128::from(other.replicas));
        let part = |a: u64, b: u64| (u128::from(a) * others).cmp(&(u128::from(b) * mine));
        part(self.cost.lost_slot_ms, other.cost.lost_slot_ms)
            .then_with(|| part(self.cost.gangs.into(), other.cost.gangs.into()))
            .then_with(|| part(self.cost.age_ms, other.cost.age_ms))
            .then_with(|| self.pool.cmp(&other.pool))
            .then_with(|| (self.changes, self.replicas).cmp(&(other.changes, other.replicas)))
    }
}

impl PartialOrd for Bid {
    fn partial_cmp(&self, other: &Bid) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// The bids of all pools as long as nobody is gone: the start of every search of one question.
pub(crate) fn opening_bids(
    field: &Field<'_>,
    pools: impl Iterator<Item = PoolIx>,
    replicas: u64,
    scratch: &mut Scratch,
) -> Vec<Reverse<Bid>> {
    let most = u32::try_from(replicas.saturating_sub(field.total)).unwrap_or(u32::MAX);
    let opening = pools.filter_map(|pool| bid(field, pool, By::PricePerReplica, 0, scratch));
    opening.map(|bid| Reverse(Bid { replicas: bid.replicas.min(most), ..bid })).collect()
}

fn bid(field: &Field<'_>, pool: PoolIx, by: By, changes: u32, scratch: &mut Scratch) -> Option<Bid> {
    let cost = price(field, pool, scratch)?;
    let replicas = match by {
        By::Price => 1,
        By::PricePerReplica => guess(field, &scratch.victims),
    };
    Some(Bid { cost, replicas, counted: false, pool, changes })
}

/// How many replicas would fit the chips of these leases, were they side by side.
fn guess(field: &Field<'_>, victims: &[HolderIx]) -> u32 {
    let slots: u64 = victims.iter().map(|&holder| field.question.stakes.bases[holder as usize].slots_in_all()).sum();
    let each = match field.question.need.demand {
        ChipDemand::Chips(chips) => u64::from(chips) * u64::from(SLOTS_PER_CHIP),
        ChipDemand::ShareSlots(slots) => slots.into(),
        ChipDemand::ShareMemory(_) => SLOTS_PER_CHIP.into(),
    };
    u32::try_from(slots / each.max(1)).unwrap_or(u32::MAX).max(1)
}

/// Takes leases until the gang fits. Answers them in the order they were chosen; `None` if it cannot fit, or only for
/// more than `at_most`.
pub(crate) fn gather(
    field: &mut Field<'_>,
    rights: &mut Rights<'_>,
    opening: &[Reverse<Bid>],
    by: By,
    replicas: u64,
    at_most: Option<Cost>,
    scratch: &mut Scratch,
) -> Option<Vec<HolderIx>> {
    let as_seen = |Reverse(bid): &Reverse<Bid>| {
        Reverse(if by == By::Price { Bid { replicas: 1, counted: true, ..*bid } } else { *bid })
    };
    let mut bids: BinaryHeap<Reverse<Bid>> = opening.iter().map(as_seen).collect();
    let mut changes: FxHashMap<PoolIx, u32> = FxHashMap::default();
    let (mut chosen, mut spent) = (Vec::new(), Cost::default());
    while field.total < replicas {
        let Reverse(next) = bids.pop()?;
        if next.changes != changes.get(&next.pool).copied().unwrap_or(0) {
            continue;
        }
        let missing = u32::try_from(replicas - field.total).unwrap_or(u32::MAX);
        if next.replicas > missing {
            // More than is missing is no use.
            bids.push(Reverse(Bid { replicas: missing, ..next }));
            continue;
        }
        let Some(cost) = price(field, next.pool, scratch) else { continue };
        if cost != next.cost {
            // Somebody became forbidden.
            bids.extend(bid(field, next.pool, by, next.changes, scratch).map(Reverse));
            continue;
        }
        let real = if next.counted { next.replicas } else { count(field, &scratch.victims) };
        let real = real.min(missing);
        if real == 0 {
            continue;
        }
        if real < next.replicas {
            bids.push(Reverse(Bid { replicas: real, counted: true, ..next }));
            continue;
        }
        let victims = std::mem::take(&mut scratch.victims);
        if !take_all(field, rights, &victims) {
            bids.extend(bid(field, next.pool, by, next.changes, scratch).map(Reverse));
            continue;
        }
        spent = spent.plus(cost);
        if at_most.is_some_and(|most| spent.lost_slot_ms > most.lost_slot_ms) {
            return None;
        }
        chosen.extend(&victims);
        for pool in pools_touched(field, &victims) {
            let change = changes.entry(pool).or_default();
            *change += 1;
            bids.extend(bid(field, pool, by, *change, scratch).map(Reverse));
        }
    }
    Some(chosen)
}

/// How many more replicas fit once these are gone.
fn count(field: &mut Field<'_>, victims: &[HolderIx]) -> u32 {
    let before = field.total;
    victims.iter().for_each(|&victim| field.evict(victim));
    let more = field.total - before;
    victims.iter().for_each(|&victim| field.spare_holder(victim));
    u32::try_from(more).unwrap_or(u32::MAX)
}

/// Takes all of these, or none: then whoever may not be taken is forbidden from here on.
fn take_all(field: &mut Field<'_>, rights: &mut Rights<'_>, victims: &[HolderIx]) -> bool {
    let mut asked = rights.clone();
    for &victim in victims {
        let lease = field.question.cluster.lease(field.question.stakes.holders[victim as usize].lease);
        if !lease.is_some_and(|lease| asked.take(lease)) {
            field.forbidden.insert(victim);
            return false;
        }
    }
    *rights = asked;
    victims.iter().for_each(|&victim| field.evict(victim));
    true
}

fn pools_touched(field: &Field<'_>, victims: &[HolderIx]) -> Vec<PoolIx> {
    let stakes = field.question.stakes;
    let all = victims.iter().flat_map(|&victim| field.with_extras(victim));
    let nodes = all.flat_map(|holder| stakes.holders[holder as usize].parts.iter().map(|part| part.node));
    let mut nodes: Vec<_> = nodes.collect();
    nodes.sort_unstable();
    nodes.dedup();
    nodes.into_iter().flat_map(|node| field.pools_of(node)).collect()
}
