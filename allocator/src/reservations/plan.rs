//! The earliest time at which the known ends make room for a gang, and the room.
//!
//! A sweep: those who are known to leave leave one after another, in order, in a view of the fleet. Each time only the
//! pools they leave are counted again; a full search for the gang is made only when the counts say that enough room may
//! be there. So the cost grows with those who have to leave, not with the fleet times the ends.

use super::openings::room_for;
use crate::cluster::Cluster;
use crate::fleet::{ChipIx, PoolIx};
use crate::place::{Scope, class_scopes, find_within, places};
use crate::queue::Shape;
use crate::room::{Need, Room};
use chiptide_model::{Job, Lease, Placement, Same, Timestamp};
use std::collections::BTreeSet;

/// Full searches made in one sweep at most; where counts mislead so often, the gang gets no reservation for now.
const SEARCHES_MAX: usize = 32;

/// When and where a gang could start.
pub(super) struct Plan {
    pub starts_at: Timestamp,
    pub placements: Vec<Placement>,
}

/// The earliest start for a gang that finds no room now, before `before` if that is given.
pub(super) fn earliest(
    cluster: &Cluster,
    job: &Job,
    shape: &Shape,
    now: Timestamp,
    before: Option<Timestamp>,
) -> Option<Plan> {
    let mut leaving = cluster.reservations.leaving.iter().peekable();
    leaving.peek()?;
    let mut sweep = Sweep::of(cluster, job, shape, now);
    while let Some((at, id)) = leaving.next() {
        if before.is_some_and(|before| at >= before) {
            return None;
        }
        if let Some(lease) = cluster.leases.get(&id) {
            sweep.leave(lease);
        }
        let together = leaving.peek().is_some_and(|(next, _)| *next == at);
        if !together && at > now {
            if let Some(placements) = sweep.search() {
                return Some(Plan { starts_at: at, placements });
            }
            if sweep.searches >= SEARCHES_MAX {
                return None;
            }
        }
    }
    None
}

struct Sweep<'a> {
    room: Room<'a>,
    shape: &'a Shape,
    need: Need,
    /// Where the gang may go, best first, each with how many replicas its pools hold.
    scopes: Vec<(Scope, u64)>,
    /// The scopes each pool belongs to, and how many replicas it holds.
    pools: Vec<(Vec<usize>, u64)>,
    /// Scopes that have grown since the last search.
    grown: BTreeSet<usize>,
    searches: usize,
}

impl<'a> Sweep<'a> {
    fn of(cluster: &'a Cluster, job: &Job, shape: &'a Shape, now: Timestamp) -> Sweep<'a> {
        let room = room_for(cluster, job, shape, now);
        let mut sweep = Sweep {
            need: Need::of(shape),
            scopes: scopes(cluster, shape).into_iter().map(|scope| (scope, 0)).collect(),
            pools: vec![(Vec::new(), 0); room.pools().len()],
            grown: BTreeSet::new(),
            searches: 0,
            shape,
            room,
        };
        for scope in 0..sweep.scopes.len() {
            for pool in sweep.pools_of_scope(scope) {
                sweep.pools[pool].0.push(scope);
            }
        }
        (0..sweep.pools.len()).for_each(|pool| sweep.count(pool));
        sweep
    }

    fn pools_of_scope(&self, scope: usize) -> Vec<PoolIx> {
        let scope = &self.scopes[scope].0;
        let admitted = |pool: &PoolIx| scope.admits(&self.room.pools()[*pool]);
        match &scope.nodes {
            Some(nodes) => {
                let fleet = &self.room.cluster.fleet;
                nodes.iter().flat_map(|&node| fleet.pools_of(node)).filter(admitted).collect()
            }
            None => (0..self.room.pools().len()).filter(admitted).collect(),
        }
    }

    /// Lets a lease leave.
    fn leave(&mut self, lease: &Lease) {
        self.room.empty(lease);
        for node in self.room.cluster.nodes_of(lease) {
            for pool in self.room.cluster.fleet.pools_of(node) {
                self.count(pool);
            }
        }
    }

    fn count(&mut self, pool: PoolIx) {
        let holds = self.holds_up_to(pool);
        let (scopes, held) = &mut self.pools[pool];
        for &scope in scopes.iter().filter(|_| holds != *held) {
            let total = &mut self.scopes[scope].1;
            *total = total.saturating_sub(*held).saturating_add(holds);
            self.grown.insert(scope);
        }
        *held = holds;
    }

    /// At most so many replicas find room in a pool.
    fn holds_up_to(&self, pool: PoolIx) -> u64 {
        let free = &self.room.pools()[pool].free;
        if !self.need.demand.is_share() {
            return self.need.fits(free);
        }
        let fleet = &self.room.cluster.fleet;
        let on_chip = |&chip: &ChipIx| {
            let slots = self.need.demand.slots_of(fleet.chips[chip].facts.memory_mib)?;
            Some(u64::from(self.room.free_slots(chip) / slots.max(1)))
        };
        let chips: u64 = fleet.pool_chips[pool].iter().filter_map(on_chip).sum();
        chips.min(self.need.fits_node(free))
    }

    /// Searches for the gang where there may be enough room by now.
    fn search(&mut self) -> Option<Vec<Placement>> {
        for scope in std::mem::take(&mut self.grown) {
            let (scope, total) = &self.scopes[scope];
            if *total < u64::from(self.shape.replicas) {
                continue;
            }
            self.searches += 1;
            if let Some(placements) = find_within(&self.room, self.shape, scope) {
                return Some(placements);
            }
        }
        None
    }
}

fn scopes(cluster: &Cluster, shape: &Shape) -> Vec<Scope> {
    let classes = class_scopes(cluster, shape).into_iter();
    match shape.same {
        Some(Same { level, required: true }) => classes.flat_map(|scope| places(cluster, level, &scope)).collect(),
        _ => classes.collect(),
    }
}
