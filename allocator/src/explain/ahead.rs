//! The jobs that are served before one, and the rehearsal of their turns.

use super::quota::Leaving;
use crate::cluster::Cluster;
use crate::fleet::NodeIx;
use crate::place::{Scope, class_scopes, find_within, fitting};
use crate::queue::Shape;
use crate::room::{Need, Room};
use chiptide_model::{Job, Lease, Placement, Timestamp};
use std::cmp::Ordering;
use std::collections::BTreeSet;

/// Ends looked at before a rehearsal gives up.
const ENDS_MAX: usize = 4096;
/// Pools that a rehearsal looks at before it gives up: in a large fleet it tries fewer placements than in a small one.
const POOLS_MAX: usize = 640_000;
/// Jobs ahead within one shape that are counted.
const AHEAD_MAX: usize = 10_000;

/// The jobs that are served before one, by shape, as far as they want the same chips.
pub(super) struct Ahead {
    /// Each shape with the number of its jobs, in order of service.
    lines: Vec<(Shape, usize)>,
    pub(super) count: u64,
}

impl Ahead {
    pub(super) fn of(cluster: &Cluster, job: &Job, shape: &Shape, now: Timestamp) -> Ahead {
        let competes = |other: &Shape| {
            let open = other.device_classes.is_empty() || shape.device_classes.is_empty();
            open || other.device_classes.iter().any(|class| shape.device_classes.contains(class))
        };
        let own = cluster.rank(shape, now);
        let (mut lines, mut count) = (Vec::new(), 0);
        for (other, jobs) in cluster.queue.shapes().filter(|(other, _)| competes(other)) {
            let rank = cluster.rank(other, now);
            let places: Vec<u64> = match rank.cmp(&own) {
                Ordering::Greater => jobs.keys().take(AHEAD_MAX).copied().collect(),
                // Counting a range walks it; past the bound it does not matter any more.
                Ordering::Equal => jobs.range(..job.place).take(AHEAD_MAX).map(|(at, _)| *at).collect(),
                Ordering::Less => continue,
            };
            count += if rank > own { jobs.len() as u64 } else { places.len() as u64 };
            if !places.is_empty() {
                lines.push((rank, other.clone(), places));
            }
        }
        lines.sort_by(|(a, _, first), (b, _, second)| b.cmp(a).then(first[0].cmp(&second[0])));
        Ahead { lines: lines.into_iter().map(|(_, shape, places)| (shape, places.len())).collect(), count }
    }
}

/// The first known end at which the shape fits behind those ahead of it, who take what they can at each end.
pub(super) fn behind(cluster: &Cluster, shape: &Shape, ahead: &Ahead, room: Room<'_>) -> Option<Timestamp> {
    let scopes = class_scopes(cluster, shape);
    let mut quota = Leaving::of(cluster, shape);
    let mut left: Vec<usize> = ahead.lines.iter().map(|(_, jobs)| *jobs).collect();
    let mut stage = Stage::of(room);
    for (at, id) in cluster.reservations.leaving.iter().take(ENDS_MAX) {
        let Some(lease) = cluster.leases.get(&id) else { continue };
        stage.leave(lease);
        quota.leave(lease);
        for (line, (other, _)) in ahead.lines.iter().enumerate() {
            while left[line] > 0 && stage.may_fit(other) {
                let placed = stage.find(other, &class_scopes(cluster, other));
                let Some(placed) = placed else { break };
                stage.occupy(&placed);
                left[line] -= 1;
            }
        }
        let placed = if stage.may_fit(shape) { stage.find(shape, &scopes) } else { None };
        if placed.is_some_and(|placed| quota.leaves(&placed)) {
            return Some(at);
        }
        if stage.tries_left == 0 {
            return None;
        }
    }
    None
}

/// The room of a rehearsal, with a count of its free chips: most of those who wait want more than there are, which the
/// count tells at no cost.
struct Stage<'a> {
    room: Room<'a>,
    whole: u64,
    tries_left: usize,
}

impl<'a> Stage<'a> {
    fn of(room: Room<'a>) -> Stage<'a> {
        let whole = room.pools().iter().map(|pool| u64::from(pool.free.whole)).sum();
        let tries_left = (POOLS_MAX / room.pools().len().max(1)).clamp(16, 1024);
        Stage { room, whole, tries_left }
    }

    fn change(&mut self, nodes: BTreeSet<NodeIx>, change: impl FnOnce(&mut Room<'a>)) {
        let cluster = self.room.cluster;
        let whole = |room: &Room<'_>| -> u64 {
            let pools = nodes.iter().flat_map(|&node| cluster.fleet.pools_of(node));
            pools.map(|pool| u64::from(room.pools()[pool].free.whole)).sum()
        };
        let before = whole(&self.room);
        change(&mut self.room);
        self.whole = (self.whole + whole(&self.room)).saturating_sub(before);
    }

    fn leave(&mut self, lease: &Lease) {
        self.change(self.room.cluster.nodes_of(lease), |room| room.empty(lease));
    }

    fn occupy(&mut self, placed: &[Placement]) {
        let cluster = self.room.cluster;
        let nodes = placed.iter().filter_map(|placement| Some(cluster.node_at(&placement.node)?.0)).collect();
        self.change(nodes, |room| placed.iter().for_each(|placement| room.occupy(placement)));
    }

    /// Whether there are chips enough, wherever they are, and another try is allowed.
    fn may_fit(&self, shape: &Shape) -> bool {
        let chips = u64::from(shape.replicas) * u64::from(shape.demand.chips());
        self.tries_left > 0 && (shape.demand.is_share() || self.whole >= chips)
    }

    /// What a plan finds; a count by pool comes first.
    fn find(&mut self, shape: &Shape, scopes: &[Scope]) -> Option<Vec<Placement>> {
        self.tries_left = self.tries_left.saturating_sub(1);
        let (need, room) = (Need::of(shape), &self.room);
        let enough =
            |scope: &&Scope| need.demand.is_share() || fitting(room.pools(), &need, scope) >= u64::from(shape.replicas);
        scopes.iter().filter(enough).find_map(|scope| find_within(room, shape, scope))
    }
}
