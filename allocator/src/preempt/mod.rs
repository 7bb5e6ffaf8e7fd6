//! Whom to evict: the cheapest set of leases that makes room for one job, and the room it makes.
//!
//! The [`stakes`] say what each lease that may be taken holds; the [`reach`] says in no time when even all of them would
//! not do. Otherwise, for every class and place the job may use, a [`greedy`] search takes leases where one more
//! replica costs least ([`price`]) until the gang fits ([`field`]), and drops every victim that turns out not to be
//! needed. Sets of few leases are compared with every other ([`exact`]). A plan is only made if it places the whole
//! gang: nobody is evicted in vain.

mod cost;
mod exact;
mod field;
mod greedy;
mod plan;
mod price;
mod reach;
mod stakes;

pub(crate) use cost::CostBasis;
pub(crate) use plan::Plan;
pub(crate) use reach::Searches;
pub(crate) use stakes::{Stakes, Stand};

use crate::cluster::Cluster;
use crate::fleet::NodeIx;
use crate::place::{Scope, class_scopes};
use crate::queue::Shape;
use crate::rights::Rights;
use crate::room::Need;
use chiptide_model::{ChipDemand, Holder, Lease, Same, SameLevel, Timestamp};
use field::Question;
use plan::{Found, Gang};
use reach::Reach;
use rustc_hash::FxHashMap;
use std::collections::BTreeSet;

/// Most places of which each is searched to the last set; where there are more, each is small or many are alike.
const PLACES_SEARCHED_WELL: usize = 64;

/// Finds the cheapest way to make room for a gang by taking leases that it has a right to, or `None`. Chips of leases
/// that are leaving anyway cost nothing; those reserved for the holders in `open` count as free.
pub(crate) fn choose(
    cluster: &Cluster,
    searches: &mut Searches,
    shape: &Shape,
    now: Timestamp,
    open: &[Holder],
) -> Option<Plan> {
    choose_by(cluster, searches, shape, now, open, true)
}

/// As [`choose`]; without `search_well` as it is where leases are too many to compare every set of them.
pub(crate) fn choose_by(
    cluster: &Cluster,
    searches: &mut Searches,
    shape: &Shape,
    now: Timestamp,
    open: &[Holder],
    search_well: bool,
) -> Option<Plan> {
    // Whoever needs no chip takes none.
    if shape.demand == ChipDemand::Chips(0) {
        return None;
    }
    let rights = Rights::of(cluster, shape, now);
    let admitted = admitted(&cluster.stakes, &rights);
    if !admitted.contains(&true) && !cluster.stakes.any_leaving() {
        return None;
    }
    // The reach counts what is reserved as well: where even that would not do, nothing will.
    let reach = searches.reach(cluster, &admitted);
    let hopeful = |scope: &Scope| reach.could_hold(scope, &Need::of(shape), shape.replicas);
    if !class_scopes(cluster, shape).iter().any(hopeful) {
        return None;
    }
    let beside = cluster.reservations().next().map(|_| cluster.stakes_beside(open));
    let stakes = beside.as_ref().unwrap_or(&cluster.stakes);
    search(Question { cluster, stakes, rights, admitted, need: Need::of(shape), now, open }, reach, shape, search_well)
}

/// The cheapest leases whose end would make room for a gang, among those that `stand` prices, whatever the rights are.
pub(crate) fn cheapest(
    cluster: &Cluster,
    shape: &Shape,
    now: Timestamp,
    stand: impl Fn(&Lease) -> Option<(Stand, CostBasis)>,
) -> Option<Plan> {
    let stakes = &cluster.stakes_if(stand);
    let rights = Rights::over_anyone(cluster, shape, now);
    let admitted = admitted(stakes, &rights);
    let reach = Reach::of(cluster, stakes, &admitted);
    search(Question { cluster, stakes, rights, admitted, need: Need::of(shape), now, open: &[] }, &reach, shape, true)
}

fn admitted(stakes: &Stakes, rights: &Rights<'_>) -> Vec<bool> {
    stakes.bands_used().map(|band| band.is_some_and(|band| rights.admits(band))).collect()
}

fn search(question: Question<'_>, reach: &Reach, shape: &Shape, search_well: bool) -> Option<Plan> {
    let gang = Gang { shape, need: question.need, replicas: shape.replicas };
    let mut found: Vec<Found> = Vec::new();
    for scope in class_scopes(question.cluster, shape) {
        if !reach.could_hold(&scope, &gang.need, gang.replicas) {
            continue;
        }
        match shape.same {
            Some(Same { level, required: true }) => found.extend(in_one_place(&question, reach, &gang, level, &scope)),
            _ => found.extend(plan::find(&question, reach, &gang, &scope, None, search_well)),
        }
    }
    // Stable: among equals the class that the job prefers.
    found.sort_by_key(|found| found.cost);
    plan::settle(&question, reach, found)
}

/// The plans for each node or rack that could hold the whole gang.
fn in_one_place(
    question: &Question<'_>,
    reach: &Reach,
    gang: &Gang<'_>,
    level: SameLevel,
    scope: &Scope,
) -> Vec<Found> {
    let mut found: Vec<Found> = Vec::new();
    if level == SameLevel::Node
        && let Some(whole) = as_one_replica(gang)
        && scope.classes.as_ref().is_some_and(|classes| classes.len() == 1)
    {
        let question = Question { rights: question.rights.clone(), admitted: question.admitted.clone(), ..*question };
        let question = Question { need: whole.need, ..question };
        let as_one = plan::find(&question, reach, &whole, scope, None, true);
        return as_one.into_iter().map(|found| found.of_gang(gang.need, gang.replicas)).collect();
    }
    let places = places(question.cluster, level, scope);
    let search_well = places.len() <= PLACES_SEARCHED_WELL;
    for nodes in places {
        let near = Scope { nodes: Some(nodes), ..scope.clone() };
        let at_most = found.iter().map(|found| found.cost).min();
        found.extend(plan::find(question, reach, gang, &near, at_most, search_well));
    }
    found
}

/// A gang of whole chips on one node is one big replica.
fn as_one_replica<'a>(gang: &Gang<'a>) -> Option<Gang<'a>> {
    let ChipDemand::Chips(chips) = gang.need.demand else { return None };
    let chips = u16::try_from(u32::from(chips) * gang.replicas).ok()?;
    let replicas = u64::from(gang.replicas);
    let need = Need {
        demand: ChipDemand::Chips(chips),
        cpu: gang.need.cpu.saturating_mul(replicas),
        memory: gang.need.memory.saturating_mul(replicas),
        together: 1,
    };
    Some(Gang { need, replicas: 1, ..*gang })
}

/// The nodes of every place of a scope. A node without a rack is a rack of its own.
fn places(cluster: &Cluster, level: SameLevel, scope: &Scope) -> Vec<BTreeSet<NodeIx>> {
    let fleet = &cluster.fleet;
    let mut places: Vec<BTreeSet<NodeIx>> = Vec::new();
    let mut by_rack: FxHashMap<&str, usize> = FxHashMap::default();
    for pool in fleet.pools.iter().filter(|pool| scope.admits(pool)) {
        let rack = fleet.nodes[pool.node].facts.rack.as_deref().filter(|_| level == SameLevel::Rack);
        let known = match rack {
            Some(rack) => by_rack.get(rack).copied(),
            None => places.iter().rposition(|nodes| nodes.contains(&pool.node)).filter(|at| at + 1 == places.len()),
        };
        match known {
            Some(at) => drop(places[at].insert(pool.node)),
            None => {
                by_rack.extend(rack.map(|rack| (rack, places.len())));
                places.push([pool.node].into());
            }
        }
    }
    places
}
