//! Leases as the API shows them.

use crate::time::to_utc;
use chiptide_model::{Cause, Lease, LeaseState, Placement};
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
            granted_at: to_utc(lease.granted_at),
            expires_at: lease.expires_at.map(to_utc),
            ends_at: lease.ends_at.map(to_utc),
            ended_at: ended_at.map(to_utc),
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
