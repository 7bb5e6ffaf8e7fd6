//! When a pending job may start, as far as ends are known: a rehearsal of what the allocator would do as leases end.
//!
//! Known ends are upper bounds: whoever is done sooner makes everything sooner. Nothing is known of leases without a
//! longest duration, nor of jobs that are yet to come; both are why an estimate can be missing or overtaken.

use super::ahead::{Ahead, behind};
use super::quota::Leaving;
use crate::cluster::Cluster;
use crate::fleet::{Node, NodeIx, PoolIx};
use crate::place::{Scope, class_scopes, find_within};
use crate::queue::Shape;
use crate::reservations;
use crate::room::{Need, Room};
use chiptide_model::{Holder as ReservedFor, Job, JobId, Lease, LeaseId, LeaseState, Placement, SameLevel, Timestamp};
use rustc_hash::FxHashMap;
use std::collections::{BTreeMap, BTreeSet};

/// Ends looked at before a rehearsal gives up.
const ENDS_MAX: usize = 4096;
/// Placements tried before a rehearsal gives up.
const TRIES_MAX: usize = 256;

/// What an estimate rests on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Basis {
    /// Chips are promised; they come when their last holders have left.
    Claim,
    /// Chips are set aside, to be free by a time that is known.
    Reservation,
    /// Notices, longest durations and proofs that are due.
    KnownEnds,
    /// Nothing known would make room.
    None,
}

impl Basis {
    /// The word used on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Basis::Claim => "claim",
            Basis::Reservation => "reservation",
            Basis::KnownEnds => "known_ends",
            Basis::None => "none",
        }
    }
}

/// When a job may start.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StartEstimate {
    /// When there would be room if nobody were ahead.
    pub earliest: Option<Timestamp>,
    /// When its turn would come, with those ahead of it served first. They are taken to keep what they get.
    pub likely: Option<Timestamp>,
    /// When it has started, or lost what it waits for, at the latest.
    pub latest: Option<Timestamp>,
    /// What this rests on.
    pub basis: Basis,
    /// Jobs of the same chips that are served before it.
    pub ahead: u64,
}

/// An estimate, and the leases whose ends it waits for.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Rehearsal {
    pub estimate: StartEstimate,
    /// Leases whose known ends make room, and when the last of them has left.
    pub awaited: Option<(Timestamp, Vec<LeaseId>)>,
}

/// The estimate of a job whose chips are promised: it starts when the last of them is proven vacant.
pub(super) fn of_claim(cluster: &Cluster, job: JobId, now: Timestamp) -> Option<StartEstimate> {
    let claim = cluster.claim(job)?;
    let mut likely = now;
    for hold in claim.placements.iter().flat_map(|placement| &placement.holds) {
        for held in cluster.chip(&hold.chip).into_iter().flat_map(|chip| &chip.holds) {
            let overlaps = held.slots.iter().any(|held| hold.slots.iter().any(|slots| slots.overlaps(*held)));
            if overlaps && let Some(LeaseState::Revoking { deadline, .. }) = cluster.lease(held.lease).map(|l| &l.state)
            {
                likely = likely.max(*deadline);
            }
        }
    }
    let (earliest, likely, latest) = (Some(now), Some(likely), Some(claim.deadline));
    Some(StartEstimate { earliest, likely, latest, basis: Basis::Claim, ahead: 0 })
}

/// Lets known ends happen one by one until the job fits, first as if it were alone, then behind those ahead of it.
pub(super) fn rehearse(cluster: &Cluster, job: &Job, shape: &Shape, now: Timestamp) -> Rehearsal {
    let ahead = Ahead::of(cluster, job, shape, now);
    let room = reservations::room_for(cluster, job, shape, now);
    let awaited = alone(cluster, shape, &room);
    let earliest = awaited.as_ref().map(|(at, _)| (*at).max(now));
    let likely = match (earliest, ahead.count) {
        (None, _) => None,
        (earliest, 0) => earliest,
        _ => behind(cluster, shape, &ahead, room).map(|at| at.max(now)),
    };
    let basis = if earliest.is_some() { Basis::KnownEnds } else { Basis::None };
    if let Some(reserved) = cluster.reservation(&ReservedFor::Job(job.id)) {
        let by = reserved.starts_at.max(now);
        let earliest = earliest.map_or(by, |at| at.min(by));
        let (earliest, likely, latest) = (Some(earliest), Some(by), Some(by));
        let estimate = StartEstimate { earliest, likely, latest, basis: Basis::Reservation, ahead: ahead.count };
        return Rehearsal { estimate, awaited };
    }
    Rehearsal { estimate: StartEstimate { earliest, likely, latest: None, basis, ahead: ahead.count }, awaited }
}

/// Counts, pool by pool, the replicas that fit, so that a whole placement is only tried where the count allows it.
struct Counts<'s> {
    need: Need,
    scopes: &'s [Scope],
    /// The place of each node.
    places: Vec<Place>,
    /// Fitting replicas a pool.
    fits: Vec<u64>,
    /// Fitting replicas by scope and place.
    sums: BTreeMap<(usize, Place), u64>,
}

/// Where replicas count together: everywhere, on a node, or in a rack (by its first node).
type Place = Option<NodeIx>;

impl<'s> Counts<'s> {
    fn of(cluster: &'s Cluster, room: &Room<'_>, shape: &Shape, scopes: &'s [Scope]) -> Counts<'s> {
        let level = shape.same.filter(|same| same.required).map(|same| same.level);
        let mut racks: FxHashMap<&str, NodeIx> = FxHashMap::default();
        let place = |(ix, node): (NodeIx, &'s Node)| match (level, node.facts.rack.as_deref()) {
            (None, _) => None,
            (Some(SameLevel::Rack), Some(rack)) => Some(*racks.entry(rack).or_insert(ix)),
            _ => Some(ix),
        };
        let places = cluster.fleet.nodes.iter().enumerate().map(place).collect();
        let fits = vec![0; room.pools().len()];
        let mut counts = Counts { need: Need::of(shape), scopes, places, fits, sums: BTreeMap::new() };
        for pool in 0..room.pools().len() {
            counts.recount(room, pool);
        }
        counts
    }

    /// Counts a pool again; tells the largest sum it is now part of.
    fn recount(&mut self, room: &Room<'_>, pool: PoolIx) -> u64 {
        let state = &room.pools()[pool];
        let fits = match self.need.demand.is_share() {
            // A chip may hold several shares, which its counts do not tell: never too few.
            true if self.need.fits(&state.free) > 0 => self.need.fits_node(&state.free),
            _ => self.need.fits(&state.free),
        };
        let before = std::mem::replace(&mut self.fits[pool], fits);
        let place = self.places[state.node];
        let mut largest = 0;
        for scope in (0..self.scopes.len()).filter(|&scope| self.scopes[scope].admits(state)) {
            let sum = self.sums.entry((scope, place)).or_default();
            *sum = sum.saturating_sub(before).saturating_add(fits);
            largest = largest.max(*sum);
        }
        largest
    }
}

/// The first known end at which the shape fits if nobody else takes the room, and the leases it then waits for.
fn alone(cluster: &Cluster, shape: &Shape, start: &Room<'_>) -> Option<(Timestamp, Vec<LeaseId>)> {
    let scopes = class_scopes(cluster, shape);
    let mut room = start.clone();
    let mut counts = Counts::of(cluster, &room, shape, &scopes);
    let mut quota = Leaving::of(cluster, shape);
    let mut gone = Vec::new();
    let mut tries = 0;
    for (at, id) in cluster.reservations.leaving.iter().take(ENDS_MAX) {
        let Some(lease) = cluster.leases.get(&id) else { continue };
        room.empty(lease);
        quota.leave(lease);
        gone.push(id);
        let mut largest = 0;
        for node in cluster.nodes_of(lease) {
            largest = cluster.fleet.pools_of(node).map(|pool| counts.recount(&room, pool)).fold(largest, u64::max);
        }
        if largest >= u64::from(shape.replicas) {
            tries += 1;
            let mut placed = scopes.iter().filter_map(|scope| find_within(&room, shape, scope));
            if let Some(placed) = placed.find(|placed| quota.leaves(placed)) {
                return Some((at, needed(start.clone(), shape, &scopes, &gone, &placed)));
            }
            if tries >= TRIES_MAX {
                return None;
            }
        }
    }
    None
}

/// Of the leases gone, those without which the placement would not be there.
fn needed(mut room: Room<'_>, shape: &Shape, scopes: &[Scope], gone: &[LeaseId], placed: &[Placement]) -> Vec<LeaseId> {
    let cluster = room.cluster;
    let chips: BTreeSet<_> = placed.iter().flat_map(|placement| &placement.holds).map(|hold| &hold.chip).collect();
    let nodes: BTreeSet<_> = placed.iter().map(|placement| &placement.node).collect();
    let leases = || gone.iter().filter_map(|id| cluster.leases.get(id));
    let holds = |lease: &&Lease| lease.placements.iter().flat_map(|p| &p.holds).any(|hold| chips.contains(&hold.chip));
    let on_chips: Vec<LeaseId> = leases().filter(holds).map(|lease| lease.id).collect();
    on_chips.iter().filter_map(|id| cluster.leases.get(id)).for_each(|lease| room.empty(lease));
    if scopes.iter().any(|scope| find_within(&room, shape, scope).is_some()) {
        return on_chips;
    }
    // Their CPU or memory is needed as well.
    leases().filter(|lease| lease.placements.iter().any(|p| nodes.contains(&p.node))).map(|lease| lease.id).collect()
}
