//! Leases as the API shows them.

use crate::time::to_utc;
use chiptide_model::{Cause, Lease, LeaseState, Millis, Placement};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

/// One lease, live or ended.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct LeaseView {
    /// Its id.
    pub id: Uuid,
    /// The job that holds it.
    pub job: Uuid,
    /// Which attempt of the job, from 1.
    pub attempt: u32,
    /// Whether it holds one extra replica of an elastic job, beside the job's own lease.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub extra: bool,
    /// `active`, `revoking` or `ended`.
    pub state: String,
    /// Why it is being taken, or was ended: `preempt`, `max_duration`, `expired`, `cancelled`, `done`, `released`, `fault`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// What the fault was, where the cause is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The job it is being taken for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub for_job: Option<Uuid>,
    /// While revoking: when it ends at the latest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<DateTime<Utc>>,
    /// Whether its holder has had the one extension that a notice allows.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub extended: bool,
    /// How it is being taken, or was, step by step; only where one lease is asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<EvictionStepView>,
    /// When it was granted.
    pub granted_at: DateTime<Utc>,
    /// When it lapses unless renewed; absent without a `lease_ttl`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<DateTime<Utc>>,
    /// When it ends whatever happens; absent without a `max_duration`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ends_at: Option<DateTime<Utc>>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<DateTime<Utc>>,
    /// Version of the policy it was granted under; absent where that was not recorded yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy_version: Option<u64>,
    /// Where each replica runs.
    pub placements: Vec<PlacementView>,
}

/// Where one replica runs.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct PlacementView {
    /// Index of the replica, from 0.
    pub replica: u32,
    /// The node.
    pub node: String,
    /// Its chips.
    pub chips: Vec<HoldView>,
}

/// Slots of one chip held under a lease.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct HoldView {
    /// The chip.
    pub chip: String,
    /// How many of its 1000 slots.
    pub slots: u16,
    /// The chip's lease epoch at the grant: pass it to a store that must refuse a late writer.
    pub epoch: u64,
}

/// Asks for the end of a lease.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ReleaseBody {
    /// Put the job back to pending instead of ending it. A lease being preempted always puts its job back.
    pub requeue: bool,
}

/// Says that the holder's work is saved.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CheckpointBody {
    /// The step of the work that was saved, as the holder counts them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step: Option<u64>,
    /// If notice has been given: the holder needs no more of its grace, and the lease ends now.
    pub leave: bool,
}

/// Asks for more time under notice.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ExtensionBody {
    /// How much; at most the policy's `bounds.extension_max` is given.
    #[schema(value_type = String, example = "10s")]
    pub by: Millis,
    /// What for; at most 200 characters are kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// How a job's chips were taken the last time, step by step.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct EvictionView {
    /// The lease.
    pub lease: Uuid,
    /// Which attempt of the job it was.
    pub attempt: u32,
    /// Why: `preempt`, `reclaim`, `consolidate`, `max_duration`, `expired` or `fault`.
    pub cause: String,
    /// The job that got the chips.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub for_job: Option<Uuid>,
    /// The steps, in order of time.
    pub steps: Vec<EvictionStepView>,
}

/// One step of an eviction.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct EvictionStepView {
    /// `notice`, `told` (the workload has its notice file and signal), `extension`, `checkpoint`, `terminated` (SIGTERM was
    /// sent), `killed`, `stuck` (something does not die), `empty` (nothing of the workload is left), `ended` (the lease),
    /// `vacant` (its last chip was proven vacant) or `quarantined` (a chip was not, in time).
    pub step: String,
    /// When.
    pub at: DateTime<Utc>,
    /// The node that took it, where one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// More about it, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

impl LeaseView {
    /// A lease as the wire shows it.
    pub fn of(lease: &Lease) -> LeaseView {
        let (state, cause, deadline, ended_at) = match &lease.state {
            LeaseState::Active => ("active", None, None, None),
            LeaseState::Revoking { cause, deadline } => ("revoking", Some(cause), Some(*deadline), None),
            LeaseState::Ended { cause, at } => ("ended", Some(cause), None, Some(*at)),
        };
        LeaseView {
            id: lease.id.0,
            job: lease.job.0,
            attempt: lease.attempt,
            extra: lease.extra,
            state: state.into(),
            cause: cause.map(|c| c.as_str().into()),
            reason: cause.and_then(|cause| match cause {
                Cause::Fault { node, detail } => Some(format!("{node}: {detail}")),
                _ => None,
            }),
            for_job: cause.and_then(Cause::for_job).map(|job| job.0),
            deadline: deadline.map(to_utc),
            extended: lease.extended,
            steps: Vec::new(),
            granted_at: to_utc(lease.granted_at),
            expires_at: lease.expires_at.map(to_utc),
            ends_at: lease.ends_at.map(to_utc),
            ended_at: ended_at.map(to_utc),
            policy_version: (lease.policy_version > 0).then_some(lease.policy_version),
            placements: lease.placements.iter().map(PlacementView::of).collect(),
        }
    }
}

impl PlacementView {
    /// A placement as the wire shows it.
    pub fn of(placement: &Placement) -> PlacementView {
        PlacementView {
            replica: placement.replica,
            node: placement.node.to_string(),
            chips: placement
                .holds
                .iter()
                .map(|hold| HoldView {
                    chip: hold.chip.to_string(),
                    slots: hold.slots.iter().map(|s| s.count()).sum(),
                    epoch: hold.epoch,
                })
                .collect(),
        }
    }
}
