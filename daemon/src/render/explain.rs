//! Explanations as the wire shows them.

use super::reason_view;
use crate::store::evictions::Eviction;
use chiptide_allocator::Claim;
use chiptide_allocator::explain::{
    self, Blocker, EvictedFor, Explanation, Exposure, Holder, Holders, InTheWay, Standing, StartEstimate, Unblocker,
};
use chiptide_api::explain::{
    BlockerView, ChoiceView, CostView, EvictionView, ExplainView, HoldersView, JobHolderView, PromisedView,
    RunnerUpView, StandingView, StartView, WayView,
};
use chiptide_api::job::PromiseView;
use chiptide_api::time::to_utc;
use chiptide_model::{Choice, Cost, Job, JobState, Outcome, SLOTS_PER_CHIP};

/// All there is to say about a job: what the cluster knows of a live one, and the evictions that are stored.
pub fn explanation(
    job: &Job,
    claim: Option<&Claim>,
    live: Option<Explanation>,
    evictions: &[(Eviction, Option<EvictedFor>)],
) -> ExplainView {
    let live = live.unwrap_or(Explanation { blockers: Vec::new(), ways: Vec::new(), start: None, standing: None });
    let promise = live.blockers.iter().find_map(|blocker| promised(blocker, claim?));
    ExplainView {
        job: job.id.0,
        name: job.spec.name.clone(),
        queue: job.spec.queue.clone(),
        priority: job.spec.priority,
        state: job.state.as_str().into(),
        message: message(job, &live),
        blockers: live.blockers.iter().map(blocker).collect(),
        ways: live.ways.iter().map(way).collect(),
        start: live.start.as_ref().map(start),
        promise,
        standing: live.standing.as_ref().map(standing),
        evictions: evictions.iter().map(|(told, for_whom)| eviction(told, for_whom.as_ref())).collect(),
    }
}

fn message(job: &Job, live: &Explanation) -> String {
    match (&job.state, live.blockers.first(), &live.standing) {
        (JobState::Ended(Outcome::Failed { reason }), ..) => format!("it failed: {reason}"),
        (JobState::Ended(_), ..) => format!("it is over: {}", job.state.as_str()),
        (_, _, Some(standing)) => standing.to_string(),
        (_, Some(first), _) => {
            let more = live.blockers.len() - 1;
            let more = if more == 0 { String::new() } else { format!(" (and {more} more)") };
            format!("it waits: {}{more}", first.reason)
        }
        _ => format!("it is {}", job.state.as_str()),
    }
}

fn promised(blocker: &Blocker, claim: &Claim) -> Option<PromisedView> {
    Some(PromisedView {
        progress: promise(&blocker.reason)?,
        since: to_utc(claim.since),
        victims: claim.victims.iter().map(|lease| lease.0).collect(),
        choice: (!claim.victims.is_empty()).then(|| choice(&claim.choice)),
    })
}

/// How far a promise is.
pub(super) fn promise(reason: &explain::Reason) -> Option<PromiseView> {
    let explain::Reason::AwaitingVacancy { chips, waiting_for, deadline } = reason else { return None };
    Some(PromiseView {
        chips: u32::try_from(*chips).unwrap_or(u32::MAX),
        waiting_for: u32::try_from(*waiting_for).unwrap_or(u32::MAX),
        deadline: to_utc(*deadline),
    })
}

fn blocker(blocker: &Blocker) -> BlockerView {
    BlockerView {
        reason: reason_view(&blocker.reason),
        holders: blocker.holders.as_ref().map(holders),
        unblock: blocker.unblock.as_ref().map(way),
    }
}

fn holders(holders: &Holders) -> HoldersView {
    HoldersView {
        count: holders.count,
        chips: chips(holders.slots),
        largest: holders.named.iter().map(holder).collect(),
    }
}

fn holder(holder: &Holder) -> JobHolderView {
    JobHolderView {
        job: holder.job.0,
        name: holder.name.clone(),
        queue: holder.queue.clone(),
        priority: holder.priority,
        kind: holder.kind.as_str().into(),
        lease: holder.lease.map(|lease| lease.0),
        chips: chips(holder.slots),
        leaves_by: holder.leaves_by.map(to_utc),
        spared: None,
        protected_until: None,
    }
}

fn in_the_way(lease: &InTheWay) -> JobHolderView {
    let protected_until = match lease.spared {
        explain::Spared::Protected { until } => until.map(to_utc),
        _ => None,
    };
    JobHolderView { spared: Some(lease.spared.as_str().into()), protected_until, ..holder(&lease.holder) }
}

fn way(way: &Unblocker) -> WayView {
    let bare = WayView { code: way.code().into(), message: way.to_string(), ..WayView::default() };
    match way {
        Unblocker::Wait { until, leases, count, .. } => WayView {
            until: Some(to_utc(*until)),
            leases: leases.iter().map(holder).collect(),
            count: Some(*count),
            ..bare
        },
        Unblocker::OtherClass { class } => WayView { device_class: Some(class.to_string()), ..bare },
        Unblocker::FewerReplicas { replicas } => WayView { replicas: Some(*replicas), ..bare },
        Unblocker::HearNodes { nodes, count } => {
            WayView { nodes: nodes.iter().map(ToString::to_string).collect(), count: Some(*count), ..bare }
        }
        Unblocker::Consolidate { leases, count, lost_slot_ms, allowed } => WayView {
            leases: leases.iter().map(holder).collect(),
            count: Some(*count),
            lost_chip_seconds: Some(chip_seconds(*lost_slot_ms)),
            allowed: Some(*allowed),
            ..bare
        },
        Unblocker::EndLeases { leases, count, cost } => WayView {
            leases: leases.iter().map(in_the_way).collect(),
            count: Some(*count),
            cost: Some(cost_view(*cost)),
            ..bare
        },
        Unblocker::RaiseLimit { queue, class, chips } => WayView {
            queue: Some(queue.clone()),
            device_class: class.as_ref().map(ToString::to_string),
            chips: Some(*chips),
            ..bare
        },
        Unblocker::BePreemptible => bare,
        Unblocker::AddChips { chips } => WayView { chips: Some(*chips), ..bare },
    }
}

fn start(start: &StartEstimate) -> StartView {
    StartView {
        earliest: start.earliest.map(to_utc),
        likely: start.likely.map(to_utc),
        latest: start.latest.map(to_utc),
        basis: start.basis.as_str().into(),
        ahead: start.ahead,
    }
}

fn standing(standing: &Standing) -> StandingView {
    let bare = StandingView {
        lease: standing.lease.0,
        chips: chips(standing.slots),
        replicas: standing.replicas,
        extras: standing.extras,
        nodes: standing.nodes,
        since: to_utc(standing.since),
        ends_at: standing.ends_at.map(to_utc),
        expires_at: standing.expires_at.map(to_utc),
        exposure: standing.exposure.as_str().into(),
        above_priority: None,
        not_before: None,
        reclaimable: false,
        cost: None,
    };
    match &standing.exposure {
        Exposure::Preemptible { above, not_before, reclaimable, cost } => StandingView {
            above_priority: Some(*above),
            not_before: not_before.map(to_utc),
            reclaimable: *reclaimable,
            cost: Some(cost_view(*cost)),
            ..bare
        },
        Exposure::Leaving { .. } | Exposure::Safe => bare,
    }
}

fn eviction(told: &Eviction, for_whom: Option<&EvictedFor>) -> EvictionView {
    let sentence = explain::Eviction {
        lease: told.lease,
        cause: &told.cause,
        for_job: for_whom,
        extra: told.extra,
        slots: told.slots,
        lost_slot_ms: told.lost_slot_ms,
        notice: told.deadline.since(told.at),
        choice: told.choice.as_ref(),
    };
    EvictionView {
        lease: told.lease.0,
        attempt: told.attempt,
        extra: told.extra,
        policy_version: (told.policy_version > 0).then_some(told.policy_version),
        at: to_utc(told.at),
        deadline: to_utc(told.deadline),
        cause: told.cause.clone(),
        detail: told.detail.clone(),
        for_job: told.for_job.map(|job| job.0),
        for_name: for_whom.map(|job| job.name.clone()),
        chips: chips(told.slots),
        lost_chip_seconds: chip_seconds(told.lost_slot_ms),
        cost: told.choice.as_ref().and_then(|choice| choice.cost_of(told.lease)).map(cost_view),
        choice: told.choice.as_ref().map(choice),
        message: sentence.to_string(),
    }
}

fn choice(choice: &Choice) -> ChoiceView {
    let runner_up = choice.runner_up.as_ref().map(|other| RunnerUpView {
        victims: other.victims.iter().map(|lease| lease.0).collect(),
        cost: cost_view(other.cost),
    });
    ChoiceView { cost: cost_view(choice.cost), runner_up }
}

fn cost_view(cost: Cost) -> CostView {
    CostView {
        lost_chip_seconds: chip_seconds(cost.lost_slot_ms),
        gangs: cost.gangs,
        age_seconds: cost.age_ms as f64 / 1000.0,
    }
}

fn chips(slots: u64) -> f64 {
    slots as f64 / f64::from(SLOTS_PER_CHIP)
}

fn chip_seconds(slot_ms: u64) -> f64 {
    chips(slot_ms) / 1000.0
}
