//! The price of a pool: the cheapest leases to take so that one more replica fits there.
//!
//! Whole chips: a 0/1 knapsack by dynamic programming over the leases of the pool, exact while no two offers share a
//! lease; where they do (chips shared by several jobs), every set of leases is tried if they are few. A share: the
//! cheapest set on one chip, every set if they are few. CPU and memory are made up for with the cheapest leases of the
//! node. Nothing is allocated once the scratch has grown to the size of a pool.

use super::field::Field;
use super::stakes::HolderIx;
use crate::fleet::{NodeIx, PoolIx};
use chiptide_model::{ChipDemand, Cost, LeaseId, SLOTS_PER_CHIP, SlotCount};
use rustc_hash::FxHashSet;

/// Most leases on a pool of which every set is tried: 4,096 sets.
const TRIED_ON_POOL: usize = 12;
/// Most leases on a shared chip of which every set is tried.
const TRIED_ON_CHIP: usize = 8;

/// Chips that come free when these leases go: `holders[from..to]` of the scratch.
#[derive(Clone, Copy, Debug)]
struct Offer {
    cost: Cost,
    chips: u32,
    from: usize,
    to: usize,
}

/// Working memory of a search, used again for every pool.
#[derive(Default)]
pub(crate) struct Scratch {
    /// The answer: whom to take.
    pub victims: Vec<HolderIx>,
    offers: Vec<Offer>,
    holders: Vec<HolderIx>,
    best: Vec<Option<Cost>>,
    /// For each offer and number of chips freed with it: how many are freed without it, if it is taken.
    taken_from: Vec<Option<u32>>,
}

/// Finds the cheapest leases whose going lets one more replica fit the pool, into `scratch.victims`; `None` if no set
/// of them does.
pub(crate) fn price(field: &Field<'_>, pool: PoolIx, scratch: &mut Scratch) -> Option<Cost> {
    scratch.victims.clear();
    let node = field.question.cluster.fleet.pools[pool].node;
    let chips_here: u64 = field.pools_of(node).map(|pool| field.chips_fit(pool)).sum();
    let wanted = chips_here.min(field.node_fit(node)) + 1;
    let mut cost = Cost::default();
    if chips_here < wanted {
        cost = match field.question.need.demand {
            ChipDemand::Chips(chips) => {
                let chips = u32::from(chips.max(1));
                whole_chips(field, pool, chips - field.whole(pool) % chips, scratch)?
            }
            _ => share(field, pool, scratch)?,
        };
    }
    make_up_for_node(field, node, wanted, &mut cost, scratch)?;
    Some(cost)
}

/// The cheapest leases that together free at least `missing` chips of a pool.
fn whole_chips(field: &Field<'_>, pool: PoolIx, missing: u32, scratch: &mut Scratch) -> Option<Cost> {
    let stakes = &field.question.stakes.pools[pool];
    scratch.offers.clear();
    scratch.holders.clear();
    let mut offered = 0;
    for &(holder, chips) in stakes.sole.iter().filter(|(holder, _)| field.may_choose(*holder)) {
        scratch.offer(field, u32::from(chips), std::iter::once(holder));
        offered += u32::from(chips);
    }
    let mut is_disjoint = true;
    for chip in &stakes.mixed {
        let left = || chip.held.iter().map(|(holder, _)| *holder).filter(|&holder| !field.is_gone(holder));
        let frees = chip.reach(|holder| field.is_gone(holder) || field.may_choose(holder)) == SLOTS_PER_CHIP;
        if frees && left().next().is_some() {
            is_disjoint &= left().all(|holder| !scratch.holders.contains(&holder));
            scratch.offer(field, 1, left());
            offered += 1;
        }
    }
    if offered < missing {
        return None;
    }
    if !is_disjoint {
        return scratch.overlapping(field, missing);
    }
    if offered == missing {
        scratch.victims.extend(&scratch.holders);
        return Some(scratch.offers.iter().fold(Cost::default(), |sum, offer| sum.plus(offer.cost)));
    }
    scratch.knapsack(missing)
}

impl Scratch {
    fn offer(&mut self, field: &Field<'_>, chips: u32, holders: impl Iterator<Item = HolderIx>) {
        let from = self.holders.len();
        self.holders.extend(holders);
        let to = self.holders.len();
        let costs = self.holders[from..to].iter().map(|&holder| field.question.cost(holder));
        let cost = costs.fold(Cost::default(), Cost::plus);
        self.offers.push(Offer { cost, chips, from, to });
    }

    /// 0/1 knapsack: the cheapest offers that free at least `missing` chips.
    fn knapsack(&mut self, missing: u32) -> Option<Cost> {
        let (missing, columns) = (missing as usize, missing as usize + 1);
        if missing == 1 {
            let (cost, at) = self.offers.iter().enumerate().map(|(at, offer)| (offer.cost, at)).min()?;
            self.take_offer(at);
            return Some(cost);
        }
        self.best.clear();
        self.best.resize(columns, None);
        self.best[0] = Some(Cost::default());
        self.taken_from.clear();
        self.taken_from.resize(self.offers.len() * columns, None);
        for (at, offer) in self.offers.iter().enumerate() {
            // From the top, so that an offer is taken once. What frees more than is missing counts as enough.
            for freed in (0..missing).rev() {
                let Some(before) = self.best[freed] else { continue };
                let (to, cost) = ((freed + offer.chips as usize).min(missing), before.plus(offer.cost));
                if self.best[to].is_none_or(|known| cost < known) {
                    self.best[to] = Some(cost);
                    self.taken_from[at * columns + to] = Some(freed as u32);
                }
            }
        }
        let cost = self.best[missing]?;
        let mut to = missing;
        for at in (0..self.offers.len()).rev() {
            if let Some(from) = self.taken_from[at * columns + to] {
                self.take_offer(at);
                to = from as usize;
            }
        }
        Some(cost)
    }

    fn take_offer(&mut self, at: usize) {
        let Offer { from, to, .. } = self.offers[at];
        self.victims.extend(&self.holders[from..to]);
    }

    /// Offers that share leases: what a lease costs must not be counted twice, so every set of leases is tried; where
    /// they are too many, the offers are treated as if they shared none, which is dearer but frees no less.
    fn overlapping(&mut self, field: &Field<'_>, missing: u32) -> Option<Cost> {
        let mut leases: Vec<HolderIx> = Vec::new();
        for holder in &self.holders {
            if !leases.contains(holder) {
                leases.push(*holder);
            }
        }
        if leases.len() > TRIED_ON_POOL {
            self.knapsack(missing)?;
            let mut seen = FxHashSet::default();
            self.victims.retain(|victim| seen.insert(*victim));
            return Some(total(field, &self.victims));
        }
        let bits = |holders: &[HolderIx]| -> u32 {
            let at = |holder: &HolderIx| leases.iter().position(|lease| lease == holder);
            holders.iter().filter_map(at).fold(0, |set, at| set | 1 << at)
        };
        let wants: Vec<(u32, u32)> =
            self.offers.iter().map(|offer| (bits(&self.holders[offer.from..offer.to]), offer.chips)).collect();
        let costs: Vec<Cost> = leases.iter().map(|&lease| field.question.cost(lease)).collect();
        let frees = |set: u32| {
            wants.iter().filter(|(want, _)| want & set == *want).map(|(_, chips)| chips).sum::<u32>() >= missing
        };
        let (cost, set) = cheapest_set(&costs, frees)?;
        self.victims.extend(members(set, &leases));
        Some(cost)
    }
}

/// The cheapest set that will do, among all of them.
fn cheapest_set(costs: &[Cost], will_do: impl Fn(u32) -> bool) -> Option<(Cost, u32)> {
    let cost = |set: u32| {
        let inside = costs.iter().enumerate().filter(|(at, _)| set & (1 << at) != 0);
        inside.fold(Cost::default(), |sum, (_, cost)| sum.plus(*cost))
    };
    (0..1u32 << costs.len()).filter(|set| will_do(*set)).map(|set| (cost(set), set)).min()
}

fn members(set: u32, leases: &[HolderIx]) -> impl Iterator<Item = HolderIx> {
    leases.iter().enumerate().filter(move |(at, _)| set & (1 << at) != 0).map(|(_, lease)| *lease)
}

fn total(field: &Field<'_>, holders: &[HolderIx]) -> Cost {
    holders.iter().map(|&holder| field.question.cost(holder)).fold(Cost::default(), Cost::plus)
}

/// The cheapest leases whose going lets one more share fit a chip of the pool.
fn share(field: &Field<'_>, pool: PoolIx, scratch: &mut Scratch) -> Option<Cost> {
    let stakes = &field.question.stakes.pools[pool];
    let mut best: Option<Cost> = None;
    if field.question.slots(stakes.memory_mib).is_some() {
        for &(holder, _) in stakes.sole.iter().filter(|(holder, _)| field.may_choose(*holder)) {
            let cost = field.question.cost(holder);
            if best.is_none_or(|known| cost < known) {
                best = Some(cost);
                scratch.victims.clear();
                scratch.victims.push(holder);
            }
        }
    }
    for chip in &stakes.mixed {
        let memory_mib = field.question.cluster.fleet.chips[chip.chip].facts.memory_mib;
        let Some(slots) = field.question.slots(memory_mib) else { continue };
        let free = chip.reach(|holder| field.is_gone(holder));
        let missing = slots.max(1) - free % slots.max(1);
        let mut offers: Vec<(Cost, HolderIx, SlotCount)> = Vec::new();
        for &(holder, held) in chip.held.iter().filter(|(holder, _)| field.may_choose(*holder)) {
            offers.push((field.question.cost(holder), holder, held));
        }
        if let Some((cost, victims)) = cheapest_share(offers, missing)
            && best.is_none_or(|known| cost < known)
        {
            best = Some(cost);
            scratch.victims = victims;
        }
    }
    best
}

/// The cheapest of the holders of one chip that free so many slots.
fn cheapest_share(mut offers: Vec<(Cost, HolderIx, SlotCount)>, missing: SlotCount) -> Option<(Cost, Vec<HolderIx>)> {
    if offers.iter().map(|(.., slots)| slots).sum::<SlotCount>() < missing {
        return None;
    }
    offers.sort_by_key(|(cost, ..)| *cost);
    let leases: Vec<HolderIx> = offers.iter().map(|(_, holder, _)| *holder).collect();
    if offers.len() <= TRIED_ON_CHIP {
        let costs: Vec<Cost> = offers.iter().map(|(cost, ..)| *cost).collect();
        let slots = |set: u32| {
            let inside = offers.iter().enumerate().filter(|(at, _)| set & (1 << at) != 0);
            inside.map(|(_, (.., slots))| slots).sum::<SlotCount>()
        };
        let (cost, set) = cheapest_set(&costs, |set| slots(set) >= missing)?;
        return Some((cost, members(set, &leases).collect()));
    }
    let (mut cost, mut freed, mut victims) = (Cost::default(), 0, Vec::new());
    for (price, holder, slots) in offers {
        if freed >= missing {
            break;
        }
        (cost, freed) = (cost.plus(price), freed + slots);
        victims.push(holder);
    }
    Some((cost, victims))
}

/// Adds the cheapest further leases of the node until its CPU and memory hold so many replicas.
fn make_up_for_node(
    field: &Field<'_>,
    node: NodeIx,
    wanted: u64,
    cost: &mut Cost,
    scratch: &mut Scratch,
) -> Option<()> {
    let need = field.question.need;
    let stakes = field.question.stakes;
    let enough = |have: i64, each: u64| u64::try_from(have).unwrap_or(0) >= each.saturating_mul(wanted);
    let (mut cpu, mut memory) = field.spare(node);
    if enough(cpu, need.cpu) && enough(memory, need.memory) {
        return Some(());
    }
    let part =
        |holder: HolderIx| stakes.holders[holder as usize].part(node).map_or((0, 0), |part| (part.cpu, part.memory));
    for &victim in &scratch.victims {
        let (more_cpu, more_memory) = part(victim);
        (cpu, memory) = (cpu + more_cpu, memory + more_memory);
    }
    let mut others: Vec<(Cost, LeaseId, HolderIx)> = Vec::new();
    for pool in stakes.pools_of(node) {
        let pool = &stakes.pools[pool];
        let sole = pool.sole.iter().map(|(holder, _)| *holder);
        let mixed = pool.mixed.iter().flat_map(|chip| chip.held.iter().map(|(holder, _)| *holder));
        for holder in sole.chain(mixed) {
            if field.may_choose(holder) && !scratch.victims.contains(&holder) {
                others.push((field.question.cost(holder), stakes.holders[holder as usize].lease, holder));
            }
        }
    }
    others.sort_unstable();
    others.dedup();
    let mut others = others.into_iter();
    while !(enough(cpu, need.cpu) && enough(memory, need.memory)) {
        let (price, _, holder) = others.next()?;
        let (more_cpu, more_memory) = part(holder);
        if more_cpu > 0 || more_memory > 0 {
            (cpu, memory) = (cpu + more_cpu, memory + more_memory);
            *cost = cost.plus(price);
            scratch.victims.push(holder);
        }
    }
    Some(())
}
