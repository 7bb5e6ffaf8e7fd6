//! What the fleet could hold if it were empty.

use super::scope::{Scope, class_scopes, places};
use crate::cluster::Cluster;
use crate::fleet::{Pool, PoolIx};
use crate::queue::Shape;
use crate::room::Need;
use chiptide_model::{SLOTS_PER_CHIP, Same};

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
    let free = cluster.fleet.pool_free(ix, &vec![SLOTS_PER_CHIP; chips.len()], node.cpu_milli, node.memory_mib);
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
