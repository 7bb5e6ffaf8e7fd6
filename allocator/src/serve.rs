//! Serving: whoever waits, in order of service, gets chips that are free, or chips that are taken for it, or goes on
//! waiting without being tried again until something it could use is freed.

use crate::cluster::Cluster;
use crate::draft::Draft;
use crate::preempt::{self, Plan};
use crate::queue::{Shape, Step};
use crate::quota::below_limit;
use crate::rights::Rights;
use crate::{consolidate, promise, reservations, reserve};
use chiptide_model::{JobId, Kind, Lease, Placement, Timestamp};
use std::borrow::Cow;

/// How a job can have its chips.
enum Way {
    /// They are free.
    Free(Vec<Placement>),
    /// They have to be taken, or vacated.
    Taken(Plan),
}

/// Serves the queue; once more if that set something free that was reserved.
pub(crate) fn all(draft: &mut Draft<'_>) {
    let now = draft.now();
    let released = draft.cluster.ledger.next_release(draft.cluster.looked_at);
    if released.is_some_and(|at| at <= now) {
        draft.cluster.queue.supply_grew();
    }
    draft.cluster.looked_at = now;
    let freed = draft.cluster.reservations.freed;
    waiting(draft, now);
    if draft.cluster.reservations.freed != freed {
        waiting(draft, now);
    }
}

/// Serves whoever waits, in order, those whose reserved chips are free by now at their turn.
fn waiting(draft: &mut Draft<'_>, now: Timestamp) {
    let mut turns = reservations::Turns::of(draft.cluster, now);
    let mut walk = draft.cluster.queue.walk(|shape| draft.cluster.rank(shape, now));
    while let Some(step) = walk.step(&draft.cluster.queue, |shape| draft.cluster.rank(shape, now)) {
        turns.start_before(draft, step.job);
        if !draft.cluster.waits(step.job) || serve(draft, &step, now) {
            walk.next_of_shape(&draft.cluster.queue, &step, |shape| draft.cluster.rank(shape, now));
        }
    }
    turns.start_rest(draft);
}

/// Serves one waiting job; `false` when it has to wait on.
fn serve(draft: &mut Draft<'_>, step: &Step, now: Timestamp) -> bool {
    let shape = draft.cluster.queue.shape(step);
    match way(draft.cluster, step.job, shape, now) {
        Some(Way::Free(placements)) => draft.grant(step.job, placements),
        Some(Way::Taken(plan)) => promise::make(draft, step.job, plan),
        None => {
            let shape = shape.clone();
            // No move and no reservation helps a job that its quota keeps from starting.
            let open = within_quota(draft.cluster, &shape).is_some();
            if open && consolidate::make_room(draft, step.job, &shape) {
                return true;
            }
            draft.cluster.queue.shape_failed(&shape);
            if open {
                reservations::consider(draft, step.job, &shape);
            }
            return false;
        }
    }
    true
}

fn way(cluster: &Cluster, job: JobId, shape: &Shape, now: Timestamp) -> Option<Way> {
    let free = within_quota(cluster, shape).and_then(|open| {
        reservations::find_first(cluster, job, &open, now)
            .or_else(|| reserve::find(cluster, &open))
            .or_else(|| reservations::find(cluster, job, &open, now))
    });
    if let Some(placements) = free.filter(|placements| {
        cluster.quota_against(shape, placements, &[]).is_none()
            && reserve::against(cluster, shape, placements).is_none()
    }) {
        return Some(Way::Free(placements));
    }
    if !cluster.anyone_below(shape.priority) && !cluster.rank(shape, now).entitled {
        return None;
    }
    let reserved = reservations::open_for_eviction(cluster, job, shape, now);
    let plan = preempt::choose_with(cluster, shape, now, &reserved);
    let plan = plan.filter(|plan| {
        is_rightful(cluster, shape, plan, now) && reserve::against(cluster, shape, &plan.placements).is_none()
    });
    plan.or_else(|| below_limit::make_room(cluster, shape, now)).map(Way::Taken)
}

/// Whether every victim may be taken, after those before it, and what is left is within quota.
fn is_rightful(cluster: &Cluster, shape: &Shape, plan: &Plan, now: Timestamp) -> bool {
    let leaving: Vec<&Lease> = plan.victims.iter().filter_map(|id| cluster.lease(*id)).collect();
    let mut rights = Rights::of(cluster, shape, now);
    leaving.iter().all(|lease| rights.take(lease)) && cluster.quota_against(shape, &plan.placements, &leaving).is_none()
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
