//! Room below a limit: where a queue has all it may have, a job of higher priority takes from the jobs of that same
//! queue (or of those beside it under the queue whose limit it is), since chips that are free elsewhere are no help.

use super::standing::QuotaBlock;
use crate::cluster::Cluster;
use crate::place::find_within;
use crate::preempt::Plan;
use crate::queue::Shape;
use crate::rights::Rights;
use crate::room::Room;
use chiptide_model::{Cost, Lease, Placement, Timestamp};
use std::cmp::Reverse;

/// The cheapest leases under the limiting queue whose leaving lets the gang start within the limit, on any one class
/// it may use; `None` if there are none, or if no limit stands in its way.
pub(crate) fn make_room(cluster: &Cluster, shape: &Shape, now: Timestamp) -> Option<Plan> {
    let classes = cluster.classes_of(shape).into_iter();
    classes.filter_map(|class| on_class(cluster, shape, class, now)).min_by_key(|plan| plan.cost)
}

fn on_class(cluster: &Cluster, shape: &Shape, class: usize, now: Timestamp) -> Option<Plan> {
    let name = cluster.fleet.classes.get(class)?.clone();
    let shape = Shape { device_classes: vec![name], ..shape.clone() };
    block(cluster, &shape, class, &[])?.limit_of?;
    let victims = enough(cluster, &shape, class, now)?;
    let (placements, victims) = without_the_needless(cluster, &shape, class, victims, now)?;
    let cost = victims.iter().map(|lease| cluster.eviction_cost(lease, now)).fold(Cost::default(), Cost::plus);
    Some(Plan { placements, victims: victims.iter().map(|lease| lease.id).collect(), cost, runner_up: None })
}

fn block(cluster: &Cluster, shape: &Shape, class: usize, leaving: &[&Lease]) -> Option<QuotaBlock> {
    let asks = cluster.asks_on(shape, class)?;
    cluster.quota_against_amounts(shape, &asks, leaving)
}

/// Leases taken one by one, the cheapest first, each under the queue whose limit still stands in the way.
fn enough<'a>(cluster: &'a Cluster, shape: &Shape, class: usize, now: Timestamp) -> Option<Vec<&'a Lease>> {
    let mut rights = Rights::of(cluster, shape, now);
    let mut candidates: Vec<&Lease> =
        cluster.preemptible_leases().filter(|lease| rights.may_evict(lease).is_some()).collect();
    candidates.sort_by_key(|lease| Reverse((cluster.eviction_cost(lease, now), lease.id)));
    let mut victims: Vec<&Lease> = Vec::new();
    while let Some(still) = block(cluster, shape, class, &victims) {
        let limiting = still.limit_of?;
        let helps = |lease: &&Lease| {
            let under =
                cluster.queue_of(lease).is_some_and(|queue| cluster.ledger.accounts[queue].path.contains(&limiting));
            under
                && still
                    .class
                    .is_none_or(|class| cluster.amounts(&lease.placements).0.iter().any(|(c, _)| *c == class + 1))
        };
        let at = candidates.iter().rposition(helps)?;
        let lease = candidates.remove(at);
        if rights.take(lease) {
            victims.push(lease);
        }
    }
    Some(victims)
}

/// Drops every victim that is not needed after all, the dearest first, and places the gang.
fn without_the_needless<'a>(
    cluster: &'a Cluster,
    shape: &Shape,
    class: usize,
    victims: Vec<&'a Lease>,
    now: Timestamp,
) -> Option<(Vec<Placement>, Vec<&'a Lease>)> {
    let place = |victims: &[&Lease]| {
        let mut room = Room::of(cluster);
        for lease in cluster.leases().filter(|lease| !lease.is_live()).chain(victims.iter().copied()) {
            room.empty(lease);
        }
        let scope = crate::place::class_scopes(cluster, shape).into_iter().next()?;
        find_within(&room, shape, &scope)
    };
    let mut needed = victims.clone();
    let mut placements = place(&needed)?;
    let mut dearest = victims;
    dearest.sort_by_key(|lease| Reverse((cluster.eviction_cost(lease, now), lease.id)));
    for lease in dearest {
        let rest: Vec<&Lease> = needed.iter().copied().filter(|other| other.id != lease.id).collect();
        if block(cluster, shape, class, &rest).is_none()
            && let Some(found) = place(&rest)
        {
            (needed, placements) = (rest, found);
        }
    }
    Some((placements, needed))
}
