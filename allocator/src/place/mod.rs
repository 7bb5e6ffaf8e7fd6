//! Where a gang goes: to chips where it wastes least of what others will want, and there as tightly as possible.

use crate::cluster::Cluster;
use crate::fleet::PoolIx;
use crate::queue::Shape;
use crate::room::{Need, Pools, Room};
use chiptide_model::{ChipDemand, JobSpec, Placement, Same, SameLevel};

mod capacity;
mod chips;
mod gaps;
mod index;
mod rules;
mod scope;
mod wholes;
mod worth;

pub(crate) use capacity::capacity;
pub(crate) use chips::choose as choose_chips;
pub use index::Index;
pub(crate) use index::{Kept, Seen};
pub use rules::{RuledFree, Rules};
pub(crate) use scope::{Scope, class_scopes, places};

/// Where a job would go if it were served now, among what is free; `None` where there is no room. Quota is not looked
/// at: it says who may have chips, not where.
pub fn would_go(cluster: &Cluster, spec: &JobSpec) -> Option<Vec<Placement>> {
    find(cluster, &Shape::of(spec))
}

/// Finds room for the whole gang among what is free now, or `None`. Device classes are tried in the job's order of
/// preference; a training gang never mixes them. Deterministic: ties go to the node registered first.
pub(crate) fn find(cluster: &Cluster, shape: &Shape) -> Option<Vec<Placement>> {
    let room = Room::of(cluster);
    class_scopes(cluster, shape).into_iter().find_map(|scope| find_within(&room, shape, &scope))
}

/// Finds room for the whole gang within one scope of classes, honouring its wish for nearness.
pub(crate) fn find_within(room: &Room<'_>, shape: &Shape, scope: &Scope) -> Option<Vec<Placement>> {
    let anywhere = || gather(&mut room.clone(), shape, scope);
    match shape.same {
        None => anywhere(),
        Some(Same { level, required }) => {
            let near = || {
                let places = places(room.cluster, level, scope);
                places.into_iter().find_map(|near| gather(&mut room.clone(), shape, &near))
            };
            let on_a_node = || if level == SameLevel::Node { on_one_node(room, shape, scope) } else { None };
            let near = on_a_node().or_else(near);
            if required { near } else { near.or_else(anywhere) }
        }
    }
}

/// The whole gang in one pool: the best way to have it on one node.
fn on_one_node(room: &Room<'_>, shape: &Shape, scope: &Scope) -> Option<Vec<Placement>> {
    let need = Need::of(shape);
    if need.demand.is_share() {
        return None;
    }
    let pool = best(room, &Need { together: shape.replicas, ..need }, scope)?;
    let mut room = room.clone();
    (0..shape.replicas).map(|replica| room.take(pool, &need, replica)).collect()
}

/// Takes the whole gang from the room, replica by replica, each from the pool that is best for it then.
fn gather(room: &mut Room<'_>, shape: &Shape, scope: &Scope) -> Option<Vec<Placement>> {
    let need = Need::of(shape);
    let is_large = shape.replicas > 1 && !need.demand.is_share();
    // Of what a plan has emptied the counts of the fleet know nothing.
    let untouched = room.touched().is_empty();
    if untouched && !room.cluster.fleet.index.could_hold(&need, shape.replicas, scope.classes.as_deref()) {
        return None;
    }
    if is_large && fitting(room.pools(), &need, scope) < u64::from(shape.replicas) {
        return None;
    }
    let mut placements = Vec::new();
    for replica in 0..shape.replicas {
        placements.push(room.take(best(room, &need, scope)?, &need, replica)?);
    }
    Some(placements)
}

/// How many replicas the pools of a scope hold.
pub(crate) fn fitting(pools: Pools<'_>, need: &Need, scope: &Scope) -> u64 {
    pools.iter().filter(|pool| scope.admits(pool)).map(|pool| need.fits(&pool.free)).fold(0, u64::saturating_add)
}

/// The best pool of a scope for a need, of the first of its classes that has one.
fn best(room: &Room<'_>, need: &Need, scope: &Scope) -> Option<PoolIx> {
    match scope.classes.as_deref() {
        None | Some([_]) => best_of_all(room, need, scope),
        Some(classes) => classes.iter().find_map(|class| {
            let of_class = Scope { classes: Some(vec![*class]), nodes: scope.nodes.clone() };
            best_of_all(room, need, &of_class)
        }),
    }
}

/// The best pool of a scope for a need: from the ranking of all pools where the scope is all nodes, with those that the
/// plan has touched seen as it left them.
fn best_of_all(room: &Room<'_>, need: &Need, scope: &Scope) -> Option<PoolIx> {
    let fleet = &room.cluster.fleet;
    let key = |ix: PoolIx| {
        let seen = room.seen(ix);
        let key = if scope.admits(&seen.pool) { fleet.key(ix, &seen, need) } else { u64::MAX };
        (key != u64::MAX).then_some((key, ix))
    };
    let best = match &scope.nodes {
        Some(nodes) => nodes.iter().flat_map(|&node| fleet.pools_of(node)).filter_map(key).min(),
        None => {
            let untouched = fleet.best_pool(need, scope.classes.as_deref(), room.touched());
            let touched = room.touched().keys().filter_map(|&ix| key(ix)).min();
            untouched.into_iter().chain(touched).min()
        }
    };
    best.map(|(_, ix)| ix)
}

/// The best pool of a scope by looking at every pool: what [`best_of_all`] must agree with.
#[cfg(test)]
pub(crate) fn best_by_scan(room: &Room<'_>, need: &Need, scope: &Scope) -> Option<PoolIx> {
    let fleet = &room.cluster.fleet;
    let pools = (0..fleet.pools.len()).filter(|&ix| scope.admits(&fleet.pools[ix]));
    let keys = pools.map(|ix| (fleet.key(ix, &room.seen(ix), need), ix));
    keys.filter(|(key, _)| *key != u64::MAX).min().map(|(_, ix)| ix)
}

#[cfg(test)]
pub(crate) fn best_by_index(room: &Room<'_>, need: &Need, scope: &Scope) -> Option<PoolIx> {
    best_of_all(room, need, scope)
}

/// Slots of one chip a share takes on the first class it may run on, for counting demand.
pub(crate) fn share_of(cluster: &Cluster, shape: &[chiptide_model::DeviceClass], demand: ChipDemand) -> Option<u16> {
    match demand {
        ChipDemand::Chips(_) => None,
        ChipDemand::ShareSlots(slots) => Some(slots),
        ChipDemand::ShareMemory(_) => {
            let known = &cluster.fleet.classes;
            let admitted = |at: &usize| shape.is_empty() || shape.contains(&known[*at]);
            let memory = (0..known.len()).filter(admitted).find_map(|at| cluster.fleet.index.chip_memory(at))?;
            demand.slots_of(memory)
        }
    }
}
