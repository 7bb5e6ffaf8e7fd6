//! Dry runs: what a policy or jobs would do now, without doing it.

use crate::job::JobView;
use crate::policy::{EffectView, WarningView};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

/// The header that asks for exactly the plan of a dry run: `Chiptide-Plan: <plan>`.
pub const PLAN_HEADER: &str = "chiptide-plan";

/// Most evictions, and most starts, that are told one by one.
pub const TOLD_MAX: usize = 1000;

/// What would happen.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
pub struct DryRunView {
    /// Names this very plan. Sent back as `Chiptide-Plan` with the same document, it is done if it is still what would be
    /// decided, and refused (`plan_stale`) otherwise.
    pub plan: String,
    /// The policy version it was worked out under.
    pub policy_version: u64,
    /// What the policy changes, and from when each change counts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<EffectView>,
    /// What its author should know.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<WarningView>,
    /// How many leases would be taken.
    pub evictions_total: u64,
    /// Those leases, at most 1000.
    pub evictions: Vec<DryRunEvictionView>,
    /// How many jobs would start, at once or on promised chips.
    pub starts_total: u64,
    /// Those jobs, at most 1000.
    pub starts: Vec<DryRunStartView>,
    /// Every queue whose waiting jobs or chips would change.
    pub queues: Vec<DryRunQueueView>,
    /// The jobs that were asked about, as they would stand.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub jobs: Vec<JobView>,
}

/// A lease that would be taken.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
pub struct DryRunEvictionView {
    /// The lease.
    pub lease: Uuid,
    /// Its job.
    pub job: Uuid,
    /// The job's name.
    pub name: String,
    /// The job's queue.
    pub queue: String,
    /// `preempt`, `reclaim` or `consolidate`.
    pub cause: String,
    /// The job it would make room for; absent where that is one of those asked about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub for_job: Option<Uuid>,
    /// By when it would have to leave.
    pub deadline: DateTime<Utc>,
    /// Chips it holds.
    pub chips: f64,
    /// Work it would lose: chips times seconds since its last checkpoint or start.
    pub lost_chip_seconds: f64,
}

/// A job that would start.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
pub struct DryRunStartView {
    /// The job.
    pub job: Uuid,
    /// Its name.
    pub name: String,
    /// Its queue.
    pub queue: String,
    /// Chips it would get.
    pub chips: f64,
    /// How long it has waited.
    #[schema(value_type = String, example = "5m")]
    pub waited: chiptide_model::Millis,
    /// Until when its chips would be left; absent where they are free now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub promised_by: Option<DateTime<Utc>>,
}

/// One queue, now and afterwards.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
pub struct DryRunQueueView {
    /// Its name.
    pub name: String,
    /// Now.
    pub before: DryRunQueueState,
    /// Afterwards, those who would leave gone and those who are promised chips started.
    pub after: DryRunQueueState,
}

/// How a queue stands.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct DryRunQueueState {
    /// Normalised chips it holds or is promised, without those under notice.
    pub used: f64,
    /// Normalised chips guaranteed to it.
    pub guaranteed: f64,
    /// Normalised chips it never exceeds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<f64>,
    /// Normalised chips it holds beyond its guarantee.
    pub borrowed: f64,
    /// Its own jobs that wait and are promised nothing.
    pub waiting: u64,
    /// How long the one that has waited longest has.
    #[schema(value_type = String, example = "5m")]
    pub longest_wait: chiptide_model::Millis,
}
