//! The reserve: jobs of low priority start only where they leave enough free chips for those of high priority.
//!
//! Two things are kept. In all, so many chips stay free. And of these, as many as there are in whole blocks: most jobs
//! that find no room although chips are free find them scattered, so a start that would break a block the reserve needs
//! goes beside the blocks or waits. Chips of victims are not free, and taking them is none of the reserve's business.

use crate::cluster::Cluster;
use crate::fleet::{Pool, PoolIx};
use crate::place::{self, Scope};
use crate::queue::Shape;
use crate::room::Room;
use chiptide_model::{ChipDemand, DeviceClass, Placement, Reserve, SLOTS_PER_CHIP};
use std::collections::BTreeMap;

/// What the reserve has against a grant.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Reserved {
    /// The device class.
    pub class: DeviceClass,
    /// Chips to be kept free.
    pub kept: u64,
    /// Chips that would be left: all that are free, or those in whole blocks if the grant broke one.
    pub left: u64,
}

/// Finds room among free chips that the reserve leaves to this shape: the tightest, else what lies beside its blocks.
pub(crate) fn find(cluster: &Cluster, shape: &Shape) -> Option<Vec<Placement>> {
    let tightest = place::find(cluster, shape)?;
    if against(cluster, shape, &tightest).is_none() {
        return Some(tightest);
    }
    let beside = beside_blocks(cluster, shape)?;
    against(cluster, shape, &beside).is_none().then_some(beside)
}

/// What the reserve has against granting these chips to a job of this shape; `None` if nothing.
pub(crate) fn against(cluster: &Cluster, shape: &Shape, placements: &[Placement]) -> Option<Reserved> {
    let reserve = binding(cluster, shape)?;
    let taken = free_chips_taken(cluster, placements);
    reserve.chips.iter().find_map(|(class, kept)| {
        let ix = cluster.fleet.classes.iter().position(|known| known == class)?;
        let pools = || cluster.fleet.pools.iter().enumerate().filter(|(_, pool)| pool.class == ix);
        let takes = |at: &PoolIx| taken.get(at).copied().unwrap_or(0);
        if pools().all(|(at, _)| takes(&at) == 0) {
            return None;
        }
        let (mut left, mut in_blocks, mut broken) = (0, 0, false);
        for (at, pool) in pools() {
            let free = pool.free.whole.saturating_sub(takes(&at));
            left += u64::from(free);
            in_blocks += reserve.in_blocks(free);
            broken |= reserve.in_blocks(free) < reserve.in_blocks(pool.free.whole);
        }
        let kept = u64::from(*kept);
        let left = if broken { in_blocks } else { left };
        (left < kept).then(|| Reserved { class: class.clone(), kept, left })
    })
}

/// The reserve, if jobs of this shape have to leave it alone.
fn binding<'a>(cluster: &'a Cluster, shape: &Shape) -> Option<&'a Reserve> {
    cluster.policy.reserve.as_ref().filter(|reserve| shape.priority < reserve.min_priority)
}

/// How many wholly free chips of each pool these placements take or take part of.
fn free_chips_taken(cluster: &Cluster, placements: &[Placement]) -> BTreeMap<PoolIx, u16> {
    let mut taken = BTreeMap::new();
    let holds = placements.iter().flat_map(|placement| &placement.holds);
    for (ix, chip) in holds.filter_map(|hold| cluster.chip_at(&hold.chip)) {
        let pool = cluster.fleet.pools_of(chip.node).find(|&pool| cluster.fleet.pool_chips[pool].contains(&ix));
        if let Some(pool) = pool.filter(|_| chip.free_slots() == SLOTS_PER_CHIP) {
            *taken.entry(pool).or_default() += 1;
        }
    }
    taken
}

/// Room on nodes whose free chips beside whole blocks hold a replica.
fn beside_blocks(cluster: &Cluster, shape: &Shape) -> Option<Vec<Placement>> {
    let reserve = binding(cluster, shape)?;
    let holds = |pool: &&Pool| match shape.demand {
        ChipDemand::Chips(chips) => reserve.beside_blocks(pool.free.whole) >= chips,
        // A chip that is shared already is not free; one beside the blocks may be cut up.
        _ => reserve.beside_blocks(pool.free.whole) > 0 || (1..SLOTS_PER_CHIP).contains(&pool.free.most),
    };
    place::class_scopes(cluster, shape).into_iter().find_map(|scope| {
        let pools = cluster.fleet.pools.iter().filter(|pool| scope.admits(pool));
        let nodes = pools.filter(holds).map(|pool| pool.node).collect();
        place::find_within(&Room::of(cluster), shape, &Scope { nodes: Some(nodes), ..scope })
    })
}
