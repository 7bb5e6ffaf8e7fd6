//! Events as the wire shows them.

use crate::event_log::About;
use chiptide_api::event::{EventBody, EventView, StepView};
use chiptide_api::lease::PlacementView;
use chiptide_api::time::to_utc;
use chiptide_api::work::ReplicaWorkView;
use chiptide_model::{
    Cause, ClaimDrop, Event, FaultEnd, Health, Holder, Next, Outcome, Placement, Quarantine, ReplicaEnd,
    ReservationDrop, Timestamp, Verdict,
};

/// One event with what it is about.
pub fn event(seq: u64, at: Timestamp, event: &Event, about: About) -> EventView {
    EventView {
        seq,
        at: to_utc(at),
        job: about.job.map(|job| job.0),
        queue: about.queue.map(|queue| queue.to_string()),
        lease: about.lease.map(|lease| lease.0),
        chip: about.chip.map(|chip| chip.to_string()),
        nodes: about.nodes.iter().map(ToString::to_string).collect(),
        body: body(event),
    }
}

fn body(event: &Event) -> EventBody {
    match event {
        Event::LeaderTookOver { epoch } => EventBody::LeaderTookOver { epoch: *epoch },
        Event::PolicyApplied { policy, author, reason } => {
            EventBody::PolicyApplied { version: policy.version, author: author.clone(), reason: reason.clone() }
        }
        Event::NodeRegistered { boot_id, facts, chips, .. } => EventBody::NodeRegistered {
            boot_id: boot_id.clone(),
            agent_version: facts.agent_version.clone(),
            chips: chips.iter().map(|(chip, _)| chip.id.to_string()).collect(),
        },
        Event::NodeHeard { .. } => EventBody::NodeHeard,
        Event::NodeSilent { .. } => EventBody::NodeSilent,
        Event::NodeDeclaredOff { by, reason, .. } => {
            EventBody::NodeDeclaredOff { by: by.clone(), reason: reason.clone() }
        }
        Event::NodeCordoned { cordon, .. } => EventBody::NodeCordoned {
            who: cordon.who.clone(),
            reason: cordon.reason.clone(),
            drain_by: cordon.drain_by.map(to_utc),
        },
        Event::NodeUncordoned { who, reason, .. } => {
            EventBody::NodeUncordoned { who: who.clone(), reason: reason.clone() }
        }
        Event::DatabaseReplaced { detail } => EventBody::DatabaseReplaced { detail: detail.clone() },
        Event::ChipEpochRaised { epoch, .. } => EventBody::ChipEpochRaised { epoch: *epoch },
        Event::ChipVacated { epoch, .. } => EventBody::ChipVacated { epoch: *epoch },
        Event::ChipRestored { .. } => EventBody::ChipRestored,
        Event::ChipHealthChanged { health, .. } => health_changed(health),
        Event::ChipQuarantined { quarantine, .. } => quarantined(quarantine),
        Event::ChipFaulted { fault, .. } => EventBody::ChipFaulted {
            dimension: fault.key.dimension.as_str().into(),
            code: fault.key.code,
            class: fault.class.as_str().into(),
            detail: fault.detail.clone(),
        },
        Event::ChipFaultEnded { fault, end, .. } => EventBody::ChipFaultEnded {
            dimension: fault.dimension.as_str().into(),
            code: fault.code,
            ended: match end {
                FaultEnd::Evidence { detail } => detail.clone(),
                FaultEnd::Admin { who, reason } => format!("{who}: {reason}"),
            },
        },
        Event::ChipReleased { who, reason, .. } => EventBody::ChipReleased { by: who.clone(), reason: reason.clone() },
        Event::JobSubmitted { spec, .. } => EventBody::JobSubmitted {
            name: spec.name.clone(),
            kind: spec.kind.as_str().into(),
            priority: spec.priority,
            replicas: spec.replicas,
            labels: spec.labels.clone(),
        },
        Event::JobStarted { .. } => EventBody::JobStarted,
        Event::JobCheckpointed { step, .. } => EventBody::JobCheckpointed { step: *step },
        Event::JobRestarted { run, .. } => EventBody::JobRestarted { run: *run },
        Event::JobEnded { outcome, .. } => {
            let (outcome, reason) = outcome_of(outcome);
            EventBody::JobEnded { outcome: outcome.into(), reason }
        }
        Event::WorkEnded { run, verdict, replicas, .. } => work_ended(*run, verdict, replicas),
        Event::ClaimMade { victims, deadline, placements, .. } => EventBody::ClaimMade {
            victims: victims.iter().map(|lease| lease.0).collect(),
            deadline: to_utc(*deadline),
            placements: placements_of(placements),
        },
        Event::ClaimDropped { why, .. } => EventBody::ClaimDropped { why: claim_word(*why).into() },
        Event::ReservationMade { holder, starts_at, ends_at, placements } => EventBody::ReservationMade {
            calendar: calendar_of(holder),
            starts_at: to_utc(*starts_at),
            ends_at: ends_at.map(to_utc),
            placements: placements_of(placements),
        },
        Event::ReservationOpened { holder } => EventBody::ReservationOpened { calendar: calendar_of(holder) },
        Event::ReservationDropped { holder, why } => {
            EventBody::ReservationDropped { calendar: calendar_of(holder), why: reservation_word(why).into() }
        }
        Event::LeaseGranted { attempt, placements, expires_at, ends_at, extra, .. } => EventBody::LeaseGranted {
            attempt: *attempt,
            extra: *extra,
            expires_at: expires_at.map(to_utc),
            ends_at: ends_at.map(to_utc),
            placements: placements_of(placements),
        },
        Event::LeaseConfirmed { .. } => EventBody::LeaseConfirmed,
        Event::LeaseRenewed { expires_at, .. } => EventBody::LeaseRenewed { expires_at: to_utc(*expires_at) },
        Event::LeaseRevoked { cause, deadline, .. } => EventBody::LeaseRevoked {
            cause: cause.as_str().into(),
            for_job: cause.for_job().map(|job| job.0),
            deadline: to_utc(*deadline),
        },
        Event::LeaseExtended { deadline, reason, .. } => {
            EventBody::LeaseExtended { deadline: to_utc(*deadline), reason: reason.clone() }
        }
        Event::LadderClimbed { steps, .. } => EventBody::LadderClimbed {
            steps: steps.iter().map(|s| StepView { step: s.step.as_str().into(), at: to_utc(s.at) }).collect(),
        },
        Event::LeaseEnded { cause, next, .. } => lease_ended(cause, next),
    }
}

fn health_changed(health: &Health) -> EventBody {
    let (health, detail) = match health {
        Health::Healthy => ("healthy", None),
        Health::Unreadable { detail } => ("unreadable", Some(detail.clone())),
        Health::Unhealthy { detail } => ("unhealthy", Some(detail.clone())),
    };
    EventBody::ChipHealthChanged { health: health.into(), detail }
}

fn quarantined(quarantine: &Quarantine) -> EventBody {
    let reason = match quarantine {
        Quarantine::NotVacated { .. } => "not_vacated",
        Quarantine::Fault { .. } => "fault",
        Quarantine::NodeFault { .. } => "node_fault",
        Quarantine::Admin { .. } => "admin",
        Quarantine::Orphaned { .. } => "orphaned",
    };
    EventBody::ChipQuarantined { reason: reason.into(), detail: quarantine.to_string() }
}

fn work_ended(run: u32, verdict: &Verdict, replicas: &[ReplicaEnd]) -> EventBody {
    let (verdict, reason) = match verdict {
        Verdict::Succeeded => ("succeeded", None),
        Verdict::Failed { reason } => ("failed", Some(reason.clone())),
        Verdict::Left => ("left", None),
    };
    let replica =
        |ended: &ReplicaEnd| ReplicaWorkView::ended(ended.replica, ended.node.as_str(), &ended.end, to_utc(ended.at));
    EventBody::WorkEnded { run, verdict: verdict.into(), reason, replicas: replicas.iter().map(replica).collect() }
}

fn lease_ended(cause: &Cause, next: &Next) -> EventBody {
    EventBody::LeaseEnded {
        cause: cause.as_str().into(),
        for_job: cause.for_job().map(|job| job.0),
        detail: match cause {
            Cause::Fault { node, detail } => Some(format!("{node}: {detail}")),
            Cause::NodeLost { node } | Cause::Fenced { node } | Cause::Drain { node } => Some(node.to_string()),
            _ => None,
        },
        next: match next {
            Next::Pending => "pending",
            Next::Unchanged => "unchanged",
            Next::Ended(outcome) => outcome_of(outcome).0,
        }
        .into(),
    }
}

fn placements_of(placements: &[Placement]) -> Vec<PlacementView> {
    placements.iter().map(PlacementView::of).collect()
}

fn outcome_of(outcome: &Outcome) -> (&'static str, Option<String>) {
    match outcome {
        Outcome::Succeeded => ("succeeded", None),
        Outcome::Failed { reason } => ("failed", Some(reason.clone())),
        Outcome::Cancelled => ("cancelled", None),
    }
}

fn calendar_of(holder: &Holder) -> Option<String> {
    match holder {
        Holder::Calendar(name) => Some(name.clone()),
        Holder::Job(_) => None,
    }
}

fn claim_word(why: ClaimDrop) -> &'static str {
    match why {
        ClaimDrop::Overdue => "overdue",
        ClaimDrop::ChipLost => "chip_lost",
        ClaimDrop::Cancelled => "cancelled",
    }
}

fn reservation_word(why: &ReservationDrop) -> &'static str {
    match why {
        ReservationDrop::Started => "started",
        ReservationDrop::Promised => "promised",
        ReservationDrop::Cancelled => "cancelled",
        ReservationDrop::ChipLost => "chip_lost",
        ReservationDrop::Overrun => "overrun",
        ReservationDrop::Outranked { .. } => "outranked",
        ReservationDrop::Over => "over",
        ReservationDrop::Withdrawn => "withdrawn",
    }
}
