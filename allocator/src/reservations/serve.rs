//! Jobs with reservations take their turn, and jobs that cannot start get one.

use super::book::holds;
use super::openings::{Use, make_way, precedes};
use super::plan::earliest;
use crate::cluster::Cluster;
use crate::draft::Draft;
use crate::place::{Scope, class_scopes};
use crate::queue::Shape;
use crate::quota::Rank;
use crate::serve::within_quota;
use chiptide_model::{ChipDemand, Event, Holder, JobId, Placement, ReservationDrop, SLOTS_PER_CHIP, Timestamp};
use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::VecDeque;

/// Jobs whose reserved chips are all free, to be started in the order of service among those the queue is walked for.
pub(crate) struct Turns {
    ready: VecDeque<JobId>,
}

/// Where a job stands in the order of service; the least goes first.
type Turn = (Reverse<Rank>, u64);

fn turn(cluster: &Cluster, job: JobId, now: Timestamp) -> Option<Turn> {
    cluster.job(job).map(|job| (Reverse(cluster.rank(&Shape::of(&job.spec), now)), job.place))
}

impl Turns {
    pub(crate) fn of(cluster: &Cluster, now: Timestamp) -> Turns {
        let jobs = cluster.reservations.jobs().map(|(job, _)| job);
        let mut ready: Vec<JobId> = jobs.filter(|job| ready(cluster, *job).is_some()).collect();
        ready.sort_by_key(|job| turn(cluster, *job, now));
        Turns { ready: ready.into() }
    }

    /// Starts those who go before a job, or are that job.
    pub(crate) fn start_before(&mut self, draft: &mut Draft<'_>, job: JobId) {
        if self.ready.is_empty() {
            return;
        }
        let now = draft.now();
        let until = turn(draft.cluster, job, now);
        while let Some(first) = self.ready.pop_front_if(|first| turn(draft.cluster, *first, now) <= until) {
            start(draft, first);
        }
    }

    /// Starts all who are left.
    pub(crate) fn start_rest(self, draft: &mut Draft<'_>) {
        self.ready.into_iter().for_each(|job| start(draft, job));
    }
}

/// What happened since may have taken the chips, or have started the job elsewhere.
fn start(draft: &mut Draft<'_>, job: JobId) {
    if let Some(placements) = ready(draft.cluster, job).map(<[Placement]>::to_vec) {
        draft.grant(job, placements);
    }
}

/// What is reserved for a waiting job, if all of it is free.
pub(super) fn ready(cluster: &Cluster, job: JobId) -> Option<&[Placement]> {
    let placements = cluster.reservation(&Holder::Job(job))?.placements.as_slice();
    let chip_free = |hold: &chiptide_model::Hold| {
        cluster.chip(&hold.chip).is_some_and(|chip| {
            let held = chip.holds.iter().flat_map(|held| &held.slots);
            let mut taken = held.chain(chip.claims.iter().flat_map(|(_, slots)| slots));
            chip.in_service() && !taken.any(|taken| hold.slots.iter().any(|slots| slots.overlaps(*taken)))
        })
    };
    let node_free = |placement: &Placement| {
        let here = || placements.iter().filter(|other| other.node == placement.node);
        cluster.node(&placement.node).is_some_and(|node| {
            node.takes_work()
                && here().map(|p| p.cpu_milli).sum::<u64>() + node.cpu_claimed <= node.cpu_free
                && here().map(|p| p.memory_mib).sum::<u64>() + node.memory_claimed <= node.memory_free
        })
    };
    let in_quota = || {
        let spec = cluster.job(job).map(|job| &job.spec);
        spec.is_some_and(|spec| cluster.quota_against(&Shape::of(spec), placements, &[]).is_none())
    };
    let free = cluster.waits(job) && holds(placements).all(chip_free) && placements.iter().all(node_free) && in_quota();
    free.then_some(placements)
}

/// A job has been tried in vain: gives it a reservation if it is among the first, or an earlier one.
pub(crate) fn consider(draft: &mut Draft<'_>, id: JobId, shape: &Shape) {
    let (cluster, now) = (&*draft.cluster, draft.now());
    let policy = &cluster.policy.backfill;
    if policy.reservations_max == 0 || slots_wanted(shape) < u64::from(policy.chips_min) * u64::from(SLOTS_PER_CHIP) {
        return;
    }
    if cluster.reservation(&Holder::Job(id)).is_none() && !may_be_given(cluster, shape, now) {
        return;
    }
    // What is short must be room: chips kept for a queue that may not have them would be wasted.
    let Some(open) = within_quota(cluster, shape).map(Cow::into_owned) else { return };
    let shape = &open;
    match cluster.reservation(&Holder::Job(id)).map(|held| held.starts_at) {
        Some(starts_at) => make_earlier(draft, id, shape, starts_at),
        None => make_first(draft, id, shape),
    }
}

fn slots_wanted(shape: &Shape) -> u64 {
    let each = match shape.demand {
        ChipDemand::Chips(n) => u64::from(n) * u64::from(SLOTS_PER_CHIP),
        ChipDemand::ShareSlots(slots) => u64::from(slots),
        ChipDemand::ShareMemory(_) => 1,
    };
    each * u64::from(shape.replicas)
}

/// Whether as many slots are free in all as a job wants, in the best of its classes: what is short then is order.
pub(crate) fn enough_free(cluster: &Cluster, shape: &Shape) -> bool {
    let free = |scope: Scope| -> u64 {
        let pools = cluster.fleet.pools.iter().filter(|pool| scope.admits(pool));
        let slots = pools.map(|pool| match shape.demand.is_share() {
            true => u64::from(pool.free.most),
            false => u64::from(pool.free.whole) * u64::from(SLOTS_PER_CHIP),
        });
        slots.sum()
    };
    class_scopes(cluster, shape).into_iter().any(|scope| free(scope) >= slots_wanted(shape))
}

fn make_earlier(draft: &mut Draft<'_>, id: JobId, shape: &Shape, starts_at: Timestamp) {
    let (now, every) = (draft.now(), draft.cluster.policy.backfill.replan_every);
    if draft.cluster.reservations.looked_at.get(&id).is_some_and(|last| now.since(*last) < every) {
        return;
    }
    draft.cluster.reservations.looked_at.insert(id, now);
    make(draft, id, shape, Some(starts_at), None);
}

/// Whether one more reservation may be made, or one be displaced, for a job of this shape.
fn may_be_given(cluster: &Cluster, shape: &Shape, now: Timestamp) -> bool {
    let last = displaced(cluster, now);
    last.is_none_or(|last| cluster.job(last).is_some_and(|last| precedes(cluster, shape, last, now)))
}

/// Who gives its reservation up if one more is made: the last of the waiting jobs that hold one, once there are as many
/// as there may be. Jobs on the move have theirs beside.
fn displaced(cluster: &Cluster, now: Timestamp) -> Option<JobId> {
    let waiting = cluster.reservations.jobs().map(|(job, _)| job).filter(|job| cluster.waits(*job));
    let holders: Vec<JobId> = waiting.collect();
    let full = holders.len() >= cluster.policy.backfill.reservations_max as usize;
    holders.into_iter().filter(|_| full).max_by_key(|job| turn(cluster, *job, now))
}

fn make_first(draft: &mut Draft<'_>, id: JobId, shape: &Shape) {
    let now = draft.now();
    let backfill = &draft.cluster.policy.backfill;
    let (most, every) = (backfill.reservations_max, backfill.replan_every);
    let displaced = displaced(draft.cluster, now);
    // Where many jobs wait that no known end helps, each would be looked at in vain in every round.
    let (since, looks) = &mut draft.cluster.reservations.looks;
    if now.since(*since) >= every {
        (*since, *looks) = (now, 0);
    }
    if *looks >= most.saturating_mul(2) {
        return;
    }
    *looks += 1;
    draft.cluster.reservations.looked_at.insert(id, now);
    make(draft, id, shape, None, displaced);
}

fn make(draft: &mut Draft<'_>, id: JobId, shape: &Shape, before: Option<Timestamp>, displaced: Option<JobId>) {
    let Some(job) = draft.cluster.job(id) else { return };
    let Some(plan) = earliest(draft.cluster, job, shape, draft.now(), before) else { return };
    if draft.cluster.quota_against(shape, &plan.placements, &[]).is_some() {
        return;
    }
    if let Some(job) = displaced {
        let why = ReservationDrop::Outranked { by: id };
        draft.emit(Event::ReservationDropped { holder: Holder::Job(job), why });
    }
    make_way(draft, id, &plan.placements, Use::Later);
    let (starts_at, placements) = (plan.starts_at, plan.placements);
    draft.emit(Event::ReservationMade { holder: Holder::Job(id), starts_at, ends_at: None, placements });
}
