//! Where a gang goes: the tightest fit that keeps whole chips and whole nodes free for those who need them.

use crate::cluster::Cluster;
use crate::fleet::{NodeIx, Pool, PoolFree, PoolIx};
use crate::queue::Shape;
use crate::room::{Need, Room};
use chiptide_model::{ChipDemand, Kind, Placement, SLOTS_PER_CHIP, Same, SameLevel};
use std::cmp::Reverse;
use std::collections::BTreeSet;

/// The part of the fleet a plan may use.
#[derive(Clone, Debug, Default)]
pub(crate) struct Scope {
    /// Indices of admitted device classes; `None` admits all.
    pub classes: Option<Vec<usize>>,
    /// Admitted nodes; `None` admits all.
    pub nodes: Option<BTreeSet<NodeIx>>,
}

impl Scope {
    pub(crate) fn admits(&self, pool: &Pool) -> bool {
        self.classes.as_ref().is_none_or(|classes| classes.contains(&pool.class))
            && self.nodes.as_ref().is_none_or(|nodes| nodes.contains(&pool.node))
    }
}

/// Finds room for the whole gang among what is free now, or `None`. Device classes are tried in the job's order of
/// preference; a training gang never mixes them. Deterministic: ties go to the node registered first.
pub(crate) fn find(cluster: &Cluster, shape: &Shape) -> Option<Vec<Placement>> {
    class_scopes(cluster, shape).into_iter().find_map(|scope| find_within(&Room::of(cluster), shape, &scope))
}

/// Finds room for the whole gang within one scope of classes, honouring its wish for nearness.
pub(crate) fn find_within(room: &Room<'_>, shape: &Shape, scope: &Scope) -> Option<Vec<Placement>> {
    let anywhere = || gather(&mut room.clone(), shape, scope);
    match shape.same {
        None => anywhere(),
        Some(Same { level, required }) => {
            let near =
                places(room.cluster, level, scope).into_iter().find_map(|near| gather(&mut room.clone(), shape, &near));
            if required { near } else { near.or_else(anywhere) }
        }
    }
}

/// The scopes of device classes a job may use, best first.
pub(crate) fn class_scopes(cluster: &Cluster, shape: &Shape) -> Vec<Scope> {
    let known = &cluster.fleet.classes;
    let index = |class| known.iter().position(|known| known == class);
    let wanted: Vec<usize> = match shape.device_classes.as_slice() {
        [] => (0..known.len()).collect(),
        classes => classes.iter().filter_map(index).collect(),
    };
    let may_mix = shape.kind == Kind::Inference || shape.replicas == 1;
    if shape.device_classes.is_empty() && may_mix {
        return vec![Scope::default()];
    }
    let mut scopes: Vec<Scope> =
        wanted.iter().map(|&class| Scope { classes: Some(vec![class]), nodes: None }).collect();
    if may_mix && wanted.len() > 1 {
        scopes.push(Scope { classes: Some(wanted), nodes: None });
    }
    scopes
}

/// Every node, or every rack, of a scope, each as a scope of its own. A node without a rack is a rack of its own.
pub(crate) fn places(cluster: &Cluster, level: SameLevel, scope: &Scope) -> Vec<Scope> {
    let mut racks: Vec<(Option<&str>, BTreeSet<NodeIx>)> = Vec::new();
    for pool in cluster.fleet.pools.iter().filter(|pool| scope.admits(pool)) {
        let rack = match level {
            SameLevel::Node => None,
            SameLevel::Rack => cluster.fleet.nodes[pool.node].facts.rack.as_deref(),
        };
        match racks.iter_mut().find(|(known, nodes)| nodes.contains(&pool.node) || (rack.is_some() && *known == rack)) {
            Some((_, nodes)) => drop(nodes.insert(pool.node)),
            None => racks.push((rack, [pool.node].into())),
        }
    }
    racks.into_iter().map(|(_, nodes)| Scope { classes: scope.classes.clone(), nodes: Some(nodes) }).collect()
}

/// Takes the whole gang from the room, each time from the pool it fits most tightly.
fn gather(room: &mut Room<'_>, shape: &Shape, scope: &Scope) -> Option<Vec<Placement>> {
    let need = Need::of(shape);
    if !need.demand.is_share() && fitting(room.pools(), &need, scope) < u64::from(shape.replicas) {
        return None;
    }
    let mut placements = Vec::new();
    while let Some(left) = shape.replicas.checked_sub(placements.len() as u32).filter(|left| *left > 0) {
        let (pool, replicas) = tightest(room, &need, scope, left)?;
        for _ in 0..replicas {
            placements.push(room.take(pool, &need, placements.len() as u32)?);
        }
    }
    Some(placements)
}

/// How many replicas the pools of a scope hold.
pub(crate) fn fitting(pools: &[Pool], need: &Need, scope: &Scope) -> u64 {
    pools.iter().filter(|pool| scope.admits(pool)).map(|pool| need.fits(&pool.free)).fold(0, u64::saturating_add)
}

/// The pool that the next replicas fit most tightly, and how many of them go there.
fn tightest(room: &Room<'_>, need: &Need, scope: &Scope, left: u32) -> Option<(PoolIx, u32)> {
    let candidates =
        room.pools().iter().enumerate().filter(|(_, pool)| scope.admits(pool) && need.fits(&pool.free) > 0);
    match need.demand {
        ChipDemand::Chips(chips) => candidates
            .map(|(ix, pool)| {
                let here = need.fits(&pool.free).min(u64::from(left)) as u32;
                let chips_left = u32::from(pool.free.whole) - here * u32::from(chips);
                let cpu_left = pool.free.cpu - u64::from(here) * need.cpu;
                (chips_left, Reverse(here), cpu_left, ix)
            })
            .min()
            .map(|(_, Reverse(here), _, ix)| (ix, here)),
        _ => candidates
            .filter_map(|(ix, pool)| {
                let (slots_left, _, slots) = room.tightest_chip(ix, need)?;
                // Those that follow find the same chip, fuller, tightest still.
                let on_chip = 1 + u64::from(slots_left / slots.max(1));
                let here = on_chip.min(need.fits_node(&pool.free)).min(u64::from(left)) as u32;
                Some((slots_left, pool.free.whole, pool.free.cpu, ix, here))
            })
            .min()
            .map(|(_, _, _, ix, here)| (ix, here)),
    }
}

/// How many replicas of a shape the whole fleet could hold if it were empty and every node were up.
pub(crate) fn capacity(cluster: &Cluster, shape: &Shape) -> u64 {
    let need = Need::of(shape);
    let within = |scope: &Scope| -> u64 {
        let pools = cluster.fleet.pools.iter().enumerate().filter(|(_, pool)| scope.admits(pool));
        pools.map(|(ix, pool)| empty_fit(cluster, ix, pool, &need)).fold(0, u64::saturating_add)
    };
    let best = |scope: Scope| match shape.same {
        Some(Same { level, required: true }) => places(cluster, level, &scope).iter().map(within).max().unwrap_or(0),
        _ => within(&scope),
    };
    class_scopes(cluster, shape).into_iter().map(best).max().unwrap_or(0)
}

/// How many replicas one pool would hold if it were empty.
fn empty_fit(cluster: &Cluster, ix: PoolIx, pool: &Pool, need: &Need) -> u64 {
    let node = &cluster.fleet.nodes[pool.node].facts;
    let chips = &cluster.fleet.pool_chips[ix];
    let whole = u16::try_from(chips.len()).unwrap_or(u16::MAX);
    let free = PoolFree { whole, most: SLOTS_PER_CHIP, cpu: node.cpu_milli, memory: node.memory_mib };
    if !need.demand.is_share() {
        return need.fits(&free);
    }
    let on_chip = |&chip: &usize| {
        let slots = need.demand.slots_of(cluster.fleet.chips[chip].facts.memory_mib);
        slots.map_or(0, |slots| u64::from(SLOTS_PER_CHIP / slots.max(1)))
    };
    let by_chips: u64 = chips.iter().map(on_chip).sum();
    by_chips.min(need.fits_node(&free))
}
