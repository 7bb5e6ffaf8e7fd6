//! The chips of a calendar reservation: those that are free, or will be known to be, when it begins.

use super::book::holds;
use crate::cluster::Cluster;
use crate::fleet::{Chip, ChipIx, PoolIx};
use chiptide_model::{CalendarReservation, ChipId, Hold, Holder, Placement, Slots, Timestamp};
use std::cmp::Reverse;
use std::collections::BTreeSet;

/// Chips that a calendar reservation asks for and could not keep: their holders have no known end.
pub fn calendar_shortfall(cluster: &Cluster, entry: &CalendarReservation) -> u64 {
    let reservation = cluster.reservation(&Holder::Calendar(entry.name.clone()));
    reservation
        .map_or(0, |reservation| u64::from(entry.chips).saturating_sub(holds(&reservation.placements).count() as u64))
}

/// The chips for a calendar entry: what it has, and what can be added. Nodes that give most of what is missing come
/// first, so that the window is of use to gangs; among them those with most chips free by now.
pub(super) fn choose(cluster: &Cluster, entry: &CalendarReservation, had: Vec<Placement>) -> Vec<Placement> {
    let mut placements = had;
    let kept: BTreeSet<ChipId> = holds(&placements).map(|hold| hold.chip.clone()).collect();
    let mut missing = (entry.chips as usize).saturating_sub(kept.len());
    let group = entry.per_node.map_or(1, usize::from).max(1);
    let mut offers: Vec<(Vec<ChipIx>, PoolIx)> =
        (0..cluster.fleet.pools.len()).map(|pool| (offer(cluster, entry, pool, &kept), pool)).collect();
    while missing > 0 {
        let usable =
            |chips: usize| if missing < group { chips.min(missing) } else { chips.min(missing) / group * group };
        let best = offers.iter_mut().max_by_key(|(chips, pool)| {
            let idle = chips.iter().filter(|&&chip| cluster.fleet.chips[chip].holds.is_empty()).count();
            // Of those that give as much, the one with least to spare: larger ones stay whole.
            (usable(chips.len()), Reverse(chips.len()), idle, Reverse(*pool))
        });
        let Some((chips, pool)) = best.filter(|(chips, _)| usable(chips.len()) > 0) else { break };
        let taken: Vec<ChipIx> = chips.drain(..usable(chips.len())).collect();
        chips.clear();
        missing -= taken.len();
        placements.push(placement(cluster, *pool, &taken));
    }
    for (replica, placement) in placements.iter_mut().enumerate() {
        placement.replica = replica as u32;
    }
    placements
}

/// The chips of a pool that an entry may have, those free now first, then those that come free first.
fn offer(cluster: &Cluster, entry: &CalendarReservation, pool: PoolIx, kept: &BTreeSet<ChipId>) -> Vec<ChipIx> {
    let (state, fleet) = (&cluster.fleet.pools[pool], &cluster.fleet);
    let wanted = entry.device_class.as_ref().is_none_or(|class| fleet.classes[state.class] == *class);
    if !wanted || !fleet.nodes[state.node].takes_work() {
        return Vec::new();
    }
    let vacant_by = |chip: &Chip| -> Option<Timestamp> {
        let unreserved = chip.in_service() && chip.claims.is_empty() && chip.reserved.is_empty();
        let leaving = chip.holds.iter().map(|hold| cluster.reservations.leaving.by(hold.lease));
        let last = leaving.collect::<Option<Vec<_>>>()?.into_iter().max().unwrap_or_default();
        (unreserved && last <= entry.from && !kept.contains(&chip.facts.id)).then_some(last)
    };
    let chips = fleet.pool_chips[pool].iter();
    let mut offer: Vec<(Timestamp, ChipIx)> =
        chips.filter_map(|&chip| Some((vacant_by(&fleet.chips[chip])?, chip))).collect();
    offer.sort_unstable();
    offer.into_iter().map(|(_, chip)| chip).collect()
}

/// Chips of one node, with their part of its CPU and memory.
fn placement(cluster: &Cluster, pool: PoolIx, chips: &[ChipIx]) -> Placement {
    let node = &cluster.fleet.nodes[cluster.fleet.pools[pool].node];
    let part = |total: u64| total * chips.len() as u64 / node.chips.len().max(1) as u64;
    let hold =
        |&chip: &ChipIx| Hold { chip: cluster.fleet.chips[chip].facts.id.clone(), slots: vec![Slots::WHOLE], epoch: 0 };
    Placement {
        replica: 0,
        node: node.id.clone(),
        holds: chips.iter().map(hold).collect(),
        cpu_milli: part(node.facts.cpu_milli),
        memory_mib: part(node.facts.memory_mib),
    }
}
