//! The event log as the wire shows it. Every type has a body of its own here, apart from what the log keeps for itself: that
//! may change, this is a contract. `docs/events.md` tells when each is written.

use crate::lease::PlacementView;
use crate::work::ReplicaWorkView;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::ToSchema;
use uuid::Uuid;

/// One thing that happened.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
pub struct EventView {
    /// Its position in the log: starts at 1, without gaps. Send the last one seen as `Last-Event-ID` to go on after it.
    pub seq: u64,
    /// When it was decided, by the clock of the daemon that led.
    pub at: DateTime<Utc>,
    /// The job it is about, where it is about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<Uuid>,
    /// That job's queue.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<String>,
    /// The lease it is about, where it is about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<Uuid>,
    /// The chip it is about, where it is about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chip: Option<String>,
    /// The nodes it is about: of a lease, those it spans.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nodes: Vec<String>,
    /// What happened.
    #[serde(flatten)]
    pub body: EventBody,
}

/// What happened: its type, and what belongs to that type.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", content = "data", rename_all = "snake_case")]
pub enum EventBody {
    /// A daemon took the lead.
    LeaderTookOver {
        /// Its epoch: every takeover has a higher one.
        epoch: u64,
    },
    /// A policy came into force.
    PolicyApplied {
        /// Its version.
        version: u64,
        /// Who.
        author: String,
        /// Why.
        reason: String,
    },
    /// A node registered.
    NodeRegistered {
        /// Its boot id.
        boot_id: String,
        /// The version of its agent.
        agent_version: String,
        /// Its chips.
        chips: Vec<String>,
    },
    /// A node reports again.
    NodeHeard,
    /// A node has not reported for too long; its chips are unknown.
    NodeSilent,
    /// An admin has declared the machine off.
    NodeDeclaredOff {
        /// Who.
        by: String,
        /// Why.
        reason: String,
    },
    /// An operator wants nothing more granted on the node; with `drain_by`, nobody left on it.
    NodeCordoned {
        /// Who.
        who: String,
        /// Why.
        reason: String,
        /// While it is drained: by when its leases have to leave, if their own grace ends before.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        drain_by: Option<DateTime<Utc>>,
    },
    /// The node may be granted again.
    NodeUncordoned {
        /// Who.
        who: String,
        /// Why.
        reason: String,
    },
    /// The database was replaced by one that may have forgotten something: every node has to register anew.
    DatabaseReplaced {
        /// What is known of the old one and the new one.
        detail: String,
    },
    /// A chip's lease epoch was raised to what its node has seen.
    ChipEpochRaised {
        /// Its epoch now.
        epoch: u64,
    },
    /// A chip's health changed.
    ChipHealthChanged {
        /// `healthy`, `unreadable` or `unhealthy`.
        health: String,
        /// What is wrong.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        detail: Option<String>,
    },
    /// A chip was proven vacant of an ended lease.
    ChipVacated {
        /// The lease epoch its node had seen.
        epoch: u64,
    },
    /// A chip was taken out of service.
    ChipQuarantined {
        /// `not_vacated`, `fault`, `node_fault`, `admin` or `orphaned`.
        reason: String,
        /// The evidence.
        detail: String,
    },
    /// A chip came back into service.
    ChipRestored,
    /// A fault of a chip was seen.
    ChipFaulted {
        /// Where: `xid`, `ecc`, `row_remap`, `lost`, `link`, `recovery` or `foreign_process`.
        dimension: String,
        /// The XID, or the pid of a foreign process; 0 where there are no codes.
        code: u32,
        /// How grave.
        class: String,
        /// What was seen.
        detail: String,
    },
    /// A fault of a chip is over.
    ChipFaultEnded {
        /// Where it was seen.
        dimension: String,
        /// Its code.
        code: u32,
        /// What ended it.
        ended: String,
    },
    /// An admin brought a chip back into service.
    ChipReleased {
        /// Who.
        by: String,
        /// Why.
        reason: String,
    },
    /// A job was accepted.
    JobSubmitted {
        /// Its name.
        name: String,
        /// `training` or `inference`.
        kind: String,
        /// Its priority.
        priority: i32,
        /// How many replicas it wants.
        replicas: u32,
        /// Its labels.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        labels: BTreeMap<String, String>,
    },
    /// Every node of the job's lease has confirmed it.
    JobStarted,
    /// The job reported a checkpoint.
    JobCheckpointed {
        /// The step that was saved.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        step: Option<u64>,
    },
    /// The work of a lease is over, or part of it has failed.
    WorkEnded {
        /// Which run of the replicas, from 0.
        run: u32,
        /// `succeeded`, `failed` or `left`.
        verdict: String,
        /// Why it failed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
        /// How each replica ended that has.
        replicas: Vec<ReplicaWorkView>,
    },
    /// All replicas of a job are started anew on the chips they have.
    JobRestarted {
        /// The number of the new run.
        run: u32,
    },
    /// A job that held no lease ended.
    JobEnded {
        /// `succeeded`, `failed` or `cancelled`.
        outcome: String,
        /// Why it failed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
    /// Chips were promised to a job.
    ClaimMade {
        /// Leases evicted for it.
        victims: Vec<Uuid>,
        /// When the promise is given up.
        deadline: DateTime<Utc>,
        /// Where its replicas will run.
        placements: Vec<PlacementView>,
    },
    /// A promise was given up; the job keeps its place.
    ClaimDropped {
        /// `overdue`, `chip_lost` or `cancelled`.
        why: String,
    },
    /// Chips were set aside for later.
    ReservationMade {
        /// The entry of the policy's calendar, where it is not for a job.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        calendar: Option<String>,
        /// From when on.
        starts_at: DateTime<Utc>,
        /// Until when, for an entry of the calendar.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        ends_at: Option<DateTime<Utc>>,
        /// The chips.
        placements: Vec<PlacementView>,
    },
    /// The window of a calendar's reservation began.
    ReservationOpened {
        /// The entry of the policy's calendar, where it is not for a job.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        calendar: Option<String>,
    },
    /// Chips are no longer set aside.
    ReservationDropped {
        /// The entry of the policy's calendar, where it is not for a job.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        calendar: Option<String>,
        /// `started`, `promised`, `cancelled`, `chip_lost`, `overrun`, `outranked`, `over` or `withdrawn`.
        why: String,
    },
    /// A lease was granted.
    LeaseGranted {
        /// Which attempt of the job.
        attempt: u32,
        /// Whether it is an extra replica of an elastic job.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        extra: bool,
        /// When it lapses unless renewed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        expires_at: Option<DateTime<Utc>>,
        /// When it ends whatever happens.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        ends_at: Option<DateTime<Utc>>,
        /// Where each replica runs.
        placements: Vec<PlacementView>,
    },
    /// A node's agent confirmed its part of a lease: the node in `nodes`.
    LeaseConfirmed,
    /// A lease was renewed.
    LeaseRenewed {
        /// When it lapses now.
        expires_at: DateTime<Utc>,
    },
    /// Notice was given: the lease ends at the deadline.
    LeaseRevoked {
        /// Why: `preempt`, `reclaim`, `consolidate` or `max_duration`.
        cause: String,
        /// The job that gets the chips.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        for_job: Option<Uuid>,
        /// The end at the latest.
        deadline: DateTime<Utc>,
    },
    /// The holder of a lease under notice got more time.
    LeaseExtended {
        /// The end at the latest, now.
        deadline: DateTime<Utc>,
        /// What for.
        reason: String,
    },
    /// How far a node has come with emptying a lease under notice.
    LadderClimbed {
        /// The steps taken so far.
        steps: Vec<StepView>,
    },
    /// A lease ended.
    LeaseEnded {
        /// Why: a cause of `lease_revoked`, or `expired`, `cancelled`, `done`, `released`, `node_lost`, `fenced`, `fault`.
        cause: String,
        /// The job that gets the chips.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        for_job: Option<Uuid>,
        /// What happened, where the cause is a node's.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        detail: Option<String>,
        /// What becomes of the job: `pending`, `succeeded`, `failed`, `cancelled`, or `unchanged` (only an extra replica is
        /// gone).
        next: String,
    },
}

/// One step of an eviction.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
pub struct StepView {
    /// `told`, `terminated`, `killed`, `stuck` or `empty`.
    pub step: String,
    /// When.
    pub at: DateTime<Utc>,
}

/// Every type of event, for filters and documents.
pub const EVENT_TYPES: [&str; 35] = [
    "chip_epoch_raised",
    "chip_fault_ended",
    "chip_faulted",
    "chip_health_changed",
    "chip_quarantined",
    "chip_released",
    "chip_restored",
    "chip_vacated",
    "claim_dropped",
    "claim_made",
    "database_replaced",
    "job_checkpointed",
    "job_ended",
    "job_restarted",
    "job_started",
    "job_submitted",
    "ladder_climbed",
    "leader_took_over",
    "lease_confirmed",
    "lease_ended",
    "lease_extended",
    "lease_granted",
    "lease_renewed",
    "lease_revoked",
    "node_cordoned",
    "node_declared_off",
    "node_heard",
    "node_registered",
    "node_silent",
    "node_uncordoned",
    "policy_applied",
    "reservation_dropped",
    "reservation_made",
    "reservation_opened",
    "work_ended",
];

#[cfg(test)]
mod tests {
    use super::*;
    use utoipa::PartialSchema;

    #[test]
    fn the_list_of_types_is_what_the_bodies_are() {
        let schema = serde_json::to_value(EventBody::schema()).expect("a schema");
        let variants = schema["oneOf"].as_array().expect("variants");
        let mut types: Vec<&str> =
            variants.iter().map(|body| body["properties"]["type"]["enum"][0].as_str().expect("a type")).collect();
        types.sort_unstable();
        assert_eq!(types, EVENT_TYPES);
    }
}
