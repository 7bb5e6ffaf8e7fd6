//! Consolidation: running jobs moved to other chips, so that a waiting gang finds the room that is free, but scattered.
//!
//! A move is an eviction whose victim has its new chips already: all of them are free now, and reserved for it until it
//! has left. Only leases that may be preempted are moved, and none of higher priority than the gang: a move costs its
//! job the work since its last checkpoint, and nobody pays that for someone who goes after. Equals may be moved, since
//! they lose no chip by it. The set that loses least work goes first, then the fewest chips.

use crate::cluster::Cluster;
use crate::draft::Draft;
use crate::place::{class_scopes, find_within};
use crate::preempt::{self, CostBasis, Plan, Stand};
use crate::promise;
use crate::queue::Shape;
use crate::reservations;
use crate::room::Room;
use chiptide_model::{Cause, Cost, Event, Holder, JobId, Lease, LeaseId, LeaseState, Placement, Timestamp};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

/// How many victims that fit nowhere else are struck off before a gang is given up for now.
const TRIED_MAX: usize = 8;
/// Slot-milliseconds in a chip-millisecond.
const SLOTS: u64 = chiptide_model::SLOTS_PER_CHIP as u64;

/// A lease to be moved.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Move {
    /// The lease.
    pub lease: LeaseId,
    /// Where it is.
    pub from: Vec<Placement>,
    /// Where its job goes on; all of it is free now.
    pub to: Vec<Placement>,
}

/// A way to make room for a gang by moving others.
#[derive(Clone, PartialEq, Debug)]
pub struct Proposal {
    /// The moves.
    pub moves: Vec<Move>,
    /// Where the gang goes.
    pub placements: Vec<Placement>,
    /// Work lost by the moves, in chip-milliseconds.
    pub lost_chip_ms: u64,
    cost: Cost,
}

/// Who was moved for whom. A job is moved once for the same gang, so nothing is moved to and fro.
#[derive(Clone, Debug, Default)]
pub(crate) struct Consolidations {
    /// Jobs moved for each live gang.
    pub moved: BTreeMap<JobId, BTreeSet<JobId>>,
    /// When the last move was ordered.
    pub last: Option<Timestamp>,
    /// When moves were last looked for in vain.
    looked: Option<Timestamp>,
}

impl PartialEq for Consolidations {
    /// Equal in what the log determines; what was tried in vain does not count.
    fn eq(&self, other: &Consolidations) -> bool {
        self.moved == other.moved && self.last == other.last
    }
}

impl Consolidations {
    pub(crate) fn note(&mut self, at: Timestamp, gang: JobId, moved: JobId) {
        self.moved.entry(gang).or_default().insert(moved);
        self.last = Some(at);
    }
}

impl Cluster {
    /// When others may be moved again.
    pub(crate) fn cooled_at(&self) -> Option<Timestamp> {
        let policy = self.policy.consolidation.as_ref()?;
        self.consolidations.last.map(|last| last + policy.cool_down)
    }

    /// Jobs that were moved for a live gang.
    pub fn moved_for(&self, gang: JobId) -> impl Iterator<Item = JobId> + '_ {
        self.consolidations.moved.get(&gang).into_iter().flatten().copied()
    }

    /// When a move was last ordered.
    pub fn moved_at(&self) -> Option<Timestamp> {
        self.consolidations.last
    }
}

/// How a waiting gang could start if others were moved, within the limit of the policy if it has one. `None` also for a
/// job that needs no such help.
pub fn propose(cluster: &Cluster, job: JobId, now: Timestamp) -> Option<Proposal> {
    let shape = Shape::of(&cluster.job(job).filter(|_| cluster.waits(job))?.spec);
    search(cluster, job, &shape, now)
}

fn search(cluster: &Cluster, gang: JobId, shape: &Shape, now: Timestamp) -> Option<Proposal> {
    let policy = cluster.policy.consolidation.as_ref();
    let limit = policy.map_or(u64::MAX, |policy| policy.lost_chip_ms_max.saturating_mul(SLOTS));
    let mut fixed: BTreeSet<LeaseId> = BTreeSet::new();
    for _ in 0..TRIED_MAX {
        let plan = preempt::cheapest(cluster, shape, now, movable(cluster, gang, shape, &fixed))?;
        let over_quota = || cluster.quota_against(shape, &plan.placements, &[]).is_some();
        if plan.victims.is_empty() || plan.cost.lost_slot_ms > limit || over_quota() {
            return None;
        }
        match rehouse(cluster, &plan) {
            Ok(moves) => {
                let (placements, cost) = (plan.placements, plan.cost);
                return Some(Proposal { moves, placements, lost_chip_ms: cost.lost_slot_ms / SLOTS, cost });
            }
            Err(homeless) => fixed.insert(homeless),
        };
    }
    None
}

/// What may be moved for a gang, and what that costs: lost work first, then chips. An elastic job moves with its base
/// lease; its extra replicas go, and come back where there is room.
fn movable<'a>(
    cluster: &'a Cluster,
    gang: JobId,
    shape: &'a Shape,
    fixed: &'a BTreeSet<LeaseId>,
) -> impl Fn(&Lease) -> Option<(Stand, CostBasis)> + 'a {
    let moved: BTreeSet<JobId> = cluster.moved_for(gang).collect();
    move |lease| {
        let priority = cluster.job(lease.job)?.spec.priority;
        let may = cluster.preemptible.contains(&(priority, lease.id)) && priority <= shape.priority;
        let chips = lease.placements.iter().map(|placement| placement.holds.len() as u32).sum();
        let stays = fixed.contains(&lease.id) || moved.contains(&lease.job);
        (may && !stays).then(|| (Stand::Takeable, CostBasis::of(cluster, lease).counting(chips)))
    }
}

/// New chips for every victim of a plan, all free now, or the victim that finds none. The largest chooses first.
fn rehouse(cluster: &Cluster, plan: &Plan) -> Result<Vec<Move>, LeaseId> {
    let mut room = Room::of(cluster);
    plan.placements.iter().for_each(|placement| room.occupy(placement));
    let victims = plan.victims.iter().filter_map(|id| cluster.leases.get(id));
    let mut victims: Vec<&Lease> = victims.filter(|lease| !lease.extra).collect();
    victims.sort_by_key(|lease| (Reverse(lease.slot_total()), lease.id));
    let mut moves = Vec::new();
    for lease in victims {
        let shape = Shape::of(&cluster.job(lease.job).ok_or(lease.id)?.spec);
        let mut scopes = class_scopes(cluster, &shape).into_iter();
        let to = scopes.find_map(|scope| find_within(&room, &shape, &scope)).ok_or(lease.id)?;
        if cluster.quota_against(&shape, &to, &[lease]).is_some() {
            return Err(lease.id);
        }
        to.iter().for_each(|placement| room.occupy(placement));
        moves.push(Move { lease: lease.id, from: lease.placements.clone(), to });
    }
    Ok(moves)
}

/// Makes room for a gang that could neither be placed nor preempt, if the policy wants it and no other consolidation is
/// under way.
pub(crate) fn make_room(draft: &mut Draft<'_>, gang: JobId, shape: &Shape) -> bool {
    let (cluster, now) = (&*draft.cluster, draft.now());
    if cluster.policy.consolidation.is_none() {
        return false;
    }
    let (done, every) = (&cluster.consolidations, cluster.policy.backfill.replan_every);
    let cooling = cluster.cooled_at().is_some_and(|at| now < at);
    let just_looked = done.looked.is_some_and(|looked| now.since(looked) < every);
    if cooling || just_looked || under_way(cluster) || !reservations::enough_free(cluster, shape) {
        return false;
    }
    let Some(proposal) = search(cluster, gang, shape, now) else {
        draft.cluster.consolidations.looked = Some(now);
        return false;
    };
    let victims: BTreeSet<LeaseId> = proposal.moves.iter().map(|mv| mv.lease).collect();
    let cost = Cost { gangs: victims.len() as u32, ..proposal.cost };
    promise::make_by_moving(draft, gang, Plan { placements: proposal.placements, victims, cost, runner_up: None });
    for mv in proposal.moves {
        keep_for(draft, mv, now);
    }
    true
}

/// Reserves a moved job's new chips until it has left its old ones.
fn keep_for(draft: &mut Draft<'_>, mv: Move, now: Timestamp) {
    let Some(lease) = draft.cluster.lease(mv.lease) else { return };
    let starts_at = match &lease.state {
        LeaseState::Revoking { deadline, .. } => *deadline,
        _ => now,
    };
    let holder = Holder::Job(lease.job);
    draft.emit(Event::ReservationMade { holder, starts_at, ends_at: None, placements: mv.to });
    draft.cluster.reservations.freed += 1;
}

/// Whether somebody is still on the move.
fn under_way(cluster: &Cluster) -> bool {
    cluster.consolidations.moved.iter().any(|(gang, moved)| {
        let moving = |job: &JobId| {
            let lease = cluster.job(*job).and_then(|job| job.state.lease()).and_then(|lease| cluster.lease(lease));
            lease.is_some_and(|lease| is_moving(lease, *gang)) || cluster.reservation(&Holder::Job(*job)).is_some()
        };
        cluster.claim(*gang).is_some() || moved.iter().any(moving)
    })
}

fn is_moving(lease: &Lease, gang: JobId) -> bool {
    matches!(lease.state, LeaseState::Revoking { cause: Cause::Consolidate { for_job }, .. } if for_job == gang)
}
