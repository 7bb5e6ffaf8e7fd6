//! Serving: whoever waits, in order of service, gets chips that are free, or chips that are taken for it, or goes on
//! waiting without being tried again until something it could use is freed.

use crate::cluster::Cluster;
use crate::draft::Draft;
use crate::preempt::{self, Plan, Searches};
use crate::queue::{Shape, Step};
use crate::quota::below_limit;
use crate::rights::Rights;
use crate::{consolidate, promise, reservations, reserve};
use chiptide_model::{JobId, Kind, Lease, LeaseId, Placement, Timestamp};
use std::borrow::Cow;
use std::collections::BTreeSet;

/// How a job can have its chips.
enum Way {
    /// They are free.
    Free(Vec<Placement>),
    /// They have to be taken, or vacated.
    Taken(Plan),
}

/// Serves the queue.
pub(crate) fn waiting(draft: &mut Draft<'_>) {
    let now = draft.now();
    let released = draft.cluster.next_release();
    if released.is_some_and(|at| at <= now) {
        draft.cluster.queue.supply_grew();
    }
    draft.cluster.looked_at = now;
    let freed = draft.cluster.reservations.freed;
    walk(draft);
    // A reservation given up on the way may be of use to some who were tried before.
    if draft.cluster.reservations.freed != freed {
        walk(draft);
    }
}

fn walk(draft: &mut Draft<'_>) {
    let now = draft.now();
    reservations::note_barren(draft.cluster);
    let mut turns = reservations::Turns::of(draft.cluster, now);
    let mut walk = draft.cluster.queue.walk(|shape| draft.cluster.rank(shape, now));
    while let Some(step) = walk.step(&draft.cluster.queue, |shape| draft.cluster.rank(shape, now)) {
        turns.start_before(draft, step.job);
        if !draft.cluster.waits(step.job) || serve(draft, &step) {
            walk.next_of_shape(&draft.cluster.queue, &step, |shape| draft.cluster.rank(shape, now));
        }
    }
    turns.start_rest(draft);
}

/// Serves one job that waits; `false` when it has to wait on, with a reservation if it may have one.
fn serve(draft: &mut Draft<'_>, step: &Step) -> bool {
    let (job, now) = (step.job, draft.now());
    let mut searches = std::mem::take(&mut draft.cluster.searches);
    let shape = draft.cluster.queue.shape(step);
    let way = way(draft.cluster, &mut searches, job, shape, now);
    let shape = shape.clone();
    draft.cluster.searches = searches;
    match way {
        Some(Way::Free(placements)) => draft.grant(job, placements),
        Some(Way::Taken(plan)) => promise::make(draft, job, plan),
        None => {
            if !consolidate::make_room(draft, job, &shape) {
                draft.cluster.queue.shape_failed(&shape);
                // Those who ask for the same are not tried, but may have reservations of their own.
                let most = draft.cluster.policy.backfill.reservations_max as usize;
                let others = draft.cluster.queue.following(step, most);
                for job in std::iter::once(job).chain(others) {
                    reservations::consider(draft, job, &shape);
                }
                return false;
            }
        }
    }
    true
}

fn way(cluster: &Cluster, searches: &mut Searches, job: JobId, shape: &Shape, now: Timestamp) -> Option<Way> {
    let free = within_quota(cluster, shape)
        .and_then(|open| {
            reservations::find_first(cluster, job, &open, now)
                .or_else(|| reserve::find(cluster, &open))
                .or_else(|| reservations::find(cluster, job, &open, now))
        })
        .filter(|placements| cluster.quota_against(shape, placements, &[]).is_none())
        .filter(|placements| reserve::against(cluster, shape, placements).is_none());
    if let Some(placements) = free {
        return Some(Way::Free(placements));
    }
    if !cluster.anyone_below(shape.priority) && !cluster.rank(shape, now).entitled {
        return None;
    }
    let open = reservations::open_for_eviction(cluster, job, shape, now);
    let plan = preempt::choose(cluster, searches, shape, now, &open)
        .filter(|plan| is_rightful(cluster, shape, plan, now))
        .filter(|plan| reserve::against(cluster, shape, &plan.placements).is_none());
    plan.or_else(|| below_limit::make_room(cluster, shape, now)).map(Way::Taken)
}

/// Whether every victim may be taken, after those before it, and what is left is within quota. Extra replicas that go
/// with their job's lease go without being asked for.
fn is_rightful(cluster: &Cluster, shape: &Shape, plan: &Plan, now: Timestamp) -> bool {
    let leaving: Vec<&Lease> = plan.victims.iter().filter_map(|id| cluster.lease(*id)).collect();
    let along: BTreeSet<LeaseId> = plan.victims.iter().flat_map(|id| cluster.extras_of(*id)).collect();
    let mut rights = Rights::of(cluster, shape, now);
    let mut asked = leaving.iter().filter(|lease| !along.contains(&lease.id));
    asked.all(|lease| rights.take(lease)) && cluster.quota_against(shape, &plan.placements, &leaving).is_none()
}

/// The shape, asking only for classes of which its queue may hold a gang more (a replica more, where classes mix);
/// `None` where there is no such class.
pub(crate) fn within_quota<'s>(cluster: &Cluster, shape: &'s Shape) -> Option<Cow<'s, Shape>> {
    let Some(queue) = cluster.ledger.find(&shape.queue).filter(|queue| cluster.ledger.is_bound(*queue)) else {
        return Some(Cow::Borrowed(shape));
    };
    let one = Shape { replicas: 1, ..shape.clone() };
    let asking = if shape.kind == Kind::Inference { &one } else { shape };
    let standing = cluster.standing();
    let wanted = cluster.classes_of(shape);
    let may = |class: &usize| {
        let asks = cluster.asks_on(asking, *class);
        asks.is_some_and(|asks| standing.block(queue, &asks, !shape.preemptible).is_none())
    };
    let open: Vec<usize> = wanted.iter().copied().filter(may).collect();
    if open.len() == wanted.len() {
        return Some(Cow::Borrowed(shape));
    }
    let device_classes = open.iter().map(|&class| cluster.fleet.classes[class].clone()).collect();
    (!open.is_empty()).then(|| Cow::Owned(Shape { device_classes, ..shape.clone() }))
}
