//! Which chips of a node a replica gets: inside the best-connected set there is, the smallest that suffices, and by the
//! vendor's rule.

use crate::fleet::{ChipIx, Fleet, PoolIx};
use chiptide_model::{SLOTS_PER_CHIP, SlotCount};
use std::cmp::Reverse;
use std::collections::BTreeMap;

/// Chooses `n` whole free chips of a pool whose chips have these slots free, or `None` where the rule leaves no room.
pub(crate) fn choose(fleet: &Fleet, pool: PoolIx, slots: &[SlotCount], n: u16) -> Option<Vec<ChipIx>> {
    let chips = &fleet.pool_chips[pool];
    let free: Vec<usize> = (0..chips.len()).filter(|&at| slots[at] == SLOTS_PER_CHIP).collect();
    let n = usize::from(n);
    let chosen = match fleet.rules.set_size(fleet, pool).map(usize::from) {
        None => linked(fleet, chips, &free, n)?,
        Some(set) => within_sets(fleet, pool, &free, n, set)?,
    };
    Some(chosen.into_iter().map(|at| chips[at]).collect())
}

/// Inside one set if it holds the replica, the fullest of those; else in whole sets.
fn within_sets(fleet: &Fleet, pool: PoolIx, free: &[usize], n: usize, set: usize) -> Option<Vec<usize>> {
    let of = fleet.rules.sets(fleet, pool);
    let mut sets: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    free.iter().for_each(|&at| sets.entry(of[at]).or_default().push(at));
    if n <= set {
        let tightest = sets.into_values().filter(|free| free.len() >= n).min_by_key(|free| (free.len(), free[0]))?;
        return linked(fleet, &fleet.pool_chips[pool], &tightest, n);
    }
    let whole: Vec<usize> = sets.into_values().filter(|free| free.len() == set).flatten().take(n).collect();
    (whole.len() == n).then_some(whole)
}

/// The smallest set of linked free chips that holds `n`, and of it those with most links among them; the largest sets
/// together where none does. In order of position where no links are known.
fn linked(fleet: &Fleet, chips: &[ChipIx], free: &[usize], n: usize) -> Option<Vec<usize>> {
    if free.len() < n {
        return None;
    }
    let facts = |at: usize| &fleet.chips[chips[at]].facts;
    if free.len() == n || free.iter().all(|&at| facts(at).link_peers.is_empty()) {
        return Some(free[..n].to_vec());
    }
    let are_linked =
        |a: usize, b: usize| facts(a).link_peers.contains(&facts(b).id) || facts(b).link_peers.contains(&facts(a).id);
    let mut sets = connected(free, &are_linked);
    sets.sort_by_key(|set| {
        (set.len() < n, if set.len() < n { Reverse(set.len()) } else { Reverse(usize::MAX - set.len()) }, set[0])
    });
    let mut chosen = Vec::with_capacity(n);
    for set in sets {
        chosen.extend(best_connected(&set, n - chosen.len(), &are_linked));
        if chosen.len() == n {
            break;
        }
    }
    chosen.sort_unstable();
    Some(chosen)
}

/// The free chips, split into sets that are linked among themselves, in order of position.
fn connected(free: &[usize], are_linked: &impl Fn(usize, usize) -> bool) -> Vec<Vec<usize>> {
    let mut left = free.to_vec();
    let mut sets = Vec::new();
    while !left.is_empty() {
        let mut set = vec![left.remove(0)];
        let mut looked = 0;
        while looked < set.len() {
            let (near, far): (Vec<usize>, Vec<usize>) = left.iter().partition(|&&at| are_linked(set[looked], at));
            set.extend(near);
            left = far;
            looked += 1;
        }
        set.sort_unstable();
        sets.push(set);
    }
    sets
}

/// Up to `n` chips of a connected set with many links among them: grown from each chip in turn by the chip with most
/// links to those chosen and fewest to the others, the best growth kept.
fn best_connected(set: &[usize], n: usize, are_linked: &impl Fn(usize, usize) -> bool) -> Vec<usize> {
    if set.len() <= n {
        return set.to_vec();
    }
    let links = |at: usize, to: &[usize]| to.iter().filter(|&&other| other != at && are_linked(at, other)).count();
    let grown = set.iter().map(|&seed| {
        let (mut chosen, mut inside) = (vec![seed], 0);
        while chosen.len() < n {
            let rest = set.iter().copied().filter(|at| !chosen.contains(at));
            let best = rest.map(|at| (Reverse(links(at, &chosen)), links(at, set), at)).min();
            let Some((Reverse(more), _, at)) = best else { break };
            inside += more;
            chosen.push(at);
        }
        let outside: usize = chosen.iter().map(|&at| links(at, set)).sum::<usize>() - 2 * inside;
        chosen.sort_unstable();
        (Reverse(inside), outside, chosen)
    });
    grown.min().map(|(_, _, chosen)| chosen).unwrap_or_default()
}
