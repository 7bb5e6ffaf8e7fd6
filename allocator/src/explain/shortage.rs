//! What a shape is short of: chips, CPU, memory, nearness, each counted over the whole fleet.

use super::quota;
use super::reason::{Reason, Shortage};
use super::survey::Survey;
use crate::cluster::Cluster;
use crate::fleet::{Pool, PoolFree, PoolIx};
use crate::place::{self, Scope};
use crate::queue::Shape;
use crate::reserve;
use crate::room::Need;
use crate::serve::within_quota;
use chiptide_model::{ChipDemand, DeviceClass, SLOTS_PER_CHIP};

/// Everything that keeps a shape from starting now; never empty.
pub(super) fn blockers(cluster: &Cluster, survey: &Survey, shape: &Shape) -> Vec<Reason> {
    let mut reasons = Vec::new();
    let absent = |class: &&DeviceClass| !cluster.fleet.classes.contains(class);
    reasons.extend(shape.device_classes.iter().filter(absent).map(|class| Reason::NoSuchClass(class.clone())));
    let requested = u64::from(shape.replicas);
    let capacity = place::capacity(cluster, shape);
    if capacity < requested {
        reasons.push(Reason::NeverFits(Shortage { requested, available: capacity }));
        return reasons;
    }
    let (open, blocked) = quota::within(cluster, shape);
    // Where the quota leaves no class at all, room is counted as if it did: every blocker is told at once.
    let counted = open.as_deref().unwrap_or(shape);
    let short = shortages(cluster, survey, counted);
    let room = if short.is_empty() { place::find(cluster, counted) } else { None };
    match (&room, &open) {
        (Some(placements), Some(_)) => match cluster.quota_against(shape, placements, &[]) {
            None => match reserve::against(cluster, shape, placements) {
                Some(kept) if reserve::find(cluster, counted).is_none() => reasons.push(Reason::Reserve {
                    class: kept.class,
                    chips: Shortage { requested: kept.kept, available: kept.left },
                }),
                _ => return vec![Reason::NextRound],
            },
            Some(block) => reasons.push(quota::reason(cluster, &block)),
        },
        _ => reasons.extend(blocked),
    }
    // Each thing suffices by itself, and still no place has room: the wish for nearness is what remains.
    let nowhere = short.is_empty() && room.is_none();
    reasons.extend(short);
    if nowhere && shape.same.is_some() {
        reasons.push(Reason::Topology);
    } else if nowhere {
        let available = replicas_that_fit(cluster, shape).into();
        reasons.push(Reason::Fragmented(Shortage { requested, available }));
    }
    let (unknown, broken) = survey.unusable(&cluster.classes_of(shape));
    if unknown > 0 {
        reasons.push(Reason::NodesUnknown { chips: unknown });
    }
    if broken > 0 {
        reasons.push(Reason::OutOfService { chips: broken });
    }
    reasons
}

/// Whether a job of this shape would start now, within its quota.
pub(super) fn would_start(cluster: &Cluster, shape: &Shape) -> bool {
    let placements = within_quota(cluster, shape).and_then(|open| reserve::find(cluster, &open));
    placements.is_some_and(|placements| cluster.quota_against(shape, &placements, &[]).is_none())
}

/// The largest gang of this shape that would start now; 0 if none would.
pub(super) fn replicas_that_fit(cluster: &Cluster, shape: &Shape) -> u32 {
    let fits = |replicas: u32| would_start(cluster, &Shape { replicas, ..shape.clone() });
    let (mut fit, mut too_many) = (0, shape.replicas);
    while too_many - fit > 1 {
        let middle = fit + (too_many - fit) / 2;
        if fits(middle) { fit = middle } else { too_many = middle }
    }
    fit
}

/// Replicas that fit, by what is looked at.
#[derive(Clone, Copy, Default)]
struct Fits {
    chips: u64,
    with_cpu: u64,
    with_memory: u64,
    all: u64,
}

/// What is short now, in the best of the scopes the job may use.
fn shortages(cluster: &Cluster, survey: &Survey, shape: &Shape) -> Vec<Reason> {
    let scopes = place::class_scopes(cluster, shape);
    let need = Need::of(shape);
    let fits: Vec<Fits> = scopes.iter().map(|scope| count(cluster, scope, &need)).collect();
    let best = |of: &dyn Fn(&Fits) -> u64| fits.iter().map(of).max().unwrap_or(0);
    let (by_chips, by_all) = (best(&|fits| fits.chips), best(&|fits| fits.all));
    let (by_cpu, by_memory) = (best(&|fits| fits.with_cpu), best(&|fits| fits.with_memory));
    let requested = u64::from(shape.replicas);
    let short = |available| Shortage { requested, available };
    let mut reasons = Vec::new();
    if by_chips < requested {
        let slots = scopes.iter().map(|scope| survey.free_slots(scope)).max().unwrap_or(0);
        let wanted = requested * wanted_slots(shape);
        let chips = |slots: u64| slots / u64::from(SLOTS_PER_CHIP);
        reasons.push(if slots < wanted && shape.demand.is_share() {
            Reason::InsufficientSlots(Shortage { requested: wanted, available: slots })
        } else if slots < wanted {
            Reason::InsufficientChips(Shortage { requested: chips(wanted), available: chips(slots) })
        } else {
            Reason::Fragmented(short(by_chips))
        });
    }
    if by_cpu < by_chips.min(requested) {
        reasons.push(Reason::InsufficientCpu(short(by_cpu)));
    }
    if by_memory < by_chips.min(requested) {
        reasons.push(Reason::InsufficientMemory(short(by_memory)));
    }
    // Each may suffice where the other does not: then no single one is short, and still no node has all.
    if reasons.is_empty() && by_all < requested {
        reasons.push(Reason::Scattered(short(by_all)));
    }
    reasons
}

/// Slots of one replica; a share by memory counts as the least it could take.
fn wanted_slots(shape: &Shape) -> u64 {
    match shape.demand {
        ChipDemand::Chips(n) => u64::from(n) * u64::from(SLOTS_PER_CHIP),
        ChipDemand::ShareSlots(slots) => u64::from(slots),
        ChipDemand::ShareMemory(_) => 1,
    }
}

/// Counts the replicas that fit the pools of a scope.
fn count(cluster: &Cluster, scope: &Scope, need: &Need) -> Fits {
    let mut sum = Fits::default();
    for (ix, pool) in cluster.fleet.pools.iter().enumerate().filter(|(_, pool)| scope.admits(pool)) {
        let chips = by_chips(cluster, ix, pool, need);
        if chips == 0 {
            continue;
        }
        let cpu = need.fits_node(&PoolFree { memory: u64::MAX, ..pool.free });
        let memory = need.fits_node(&PoolFree { cpu: u64::MAX, ..pool.free });
        sum.chips = sum.chips.saturating_add(chips);
        sum.with_cpu = sum.with_cpu.saturating_add(chips.min(cpu));
        sum.with_memory = sum.with_memory.saturating_add(chips.min(memory));
        sum.all = sum.all.saturating_add(chips.min(cpu).min(memory));
    }
    sum
}

/// Replicas that the chips of a pool hold, whatever its node has of CPU and memory.
fn by_chips(cluster: &Cluster, ix: PoolIx, pool: &Pool, need: &Need) -> u64 {
    let plenty = PoolFree { cpu: u64::MAX, memory: u64::MAX, ..pool.free };
    let at_all = need.fits(&plenty);
    if at_all == 0 || !need.demand.is_share() {
        return at_all;
    }
    let on_chip = |&chip: &usize| {
        let state = &cluster.fleet.chips[chip];
        let slots = need.demand.slots_of(state.facts.memory_mib)?;
        state.in_service().then(|| u64::from(state.free_slots() / slots.max(1)))
    };
    cluster.fleet.pool_chips[ix].iter().filter_map(on_chip).sum()
}
