//! Why a job waits, who is in its way, what would help, when it may start, and why it was evicted.

use crate::job::PromiseView;
use crate::reason::Reason;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

/// All there is to say about one job, live or over.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
pub struct ExplainView {
    /// The job.
    pub job: Uuid,
    /// Its name.
    pub name: String,
    /// Its queue.
    pub queue: String,
    /// Its priority.
    pub priority: i32,
    /// Its state, as in the job itself.
    pub state: String,
    /// Where it stands, in one sentence.
    pub message: String,
    /// While pending: everything that keeps it from starting.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub blockers: Vec<BlockerView>,
    /// While pending: ways out that were found, what costs least first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ways: Vec<WayView>,
    /// While pending: when it may start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<StartView>,
    /// While pending: the chips kept for it, and the leases taken for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub promise: Option<PromisedView>,
    /// While it holds chips: what it holds, and who may take it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub standing: Option<StandingView>,
    /// Every time its chips were taken or lost, newest first; at most 100.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub evictions: Vec<EvictionView>,
}

/// One thing that keeps a job from starting.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
pub struct BlockerView {
    /// What it is, with its numbers.
    #[serde(flatten)]
    pub reason: Reason,
    /// Who has what the job lacks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holders: Option<HoldersView>,
    /// The cheapest thing that would end it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unblock: Option<WayView>,
}

/// Everybody who has chips of one kind.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
pub struct HoldersView {
    /// How many there are.
    pub count: u64,
    /// Chips that all of them hold together.
    pub chips: f64,
    /// Those who hold most, the largest first; at most five.
    pub largest: Vec<JobHolderView>,
}

/// Somebody who has chips.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
pub struct JobHolderView {
    /// The job.
    pub job: Uuid,
    /// Its name.
    pub name: String,
    /// Its queue.
    pub queue: String,
    /// Its priority.
    pub priority: i32,
    /// `training` or `inference`.
    pub kind: String,
    /// Its lease; absent while its chips are only promised.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<Uuid>,
    /// Chips it holds, parts of chips included.
    pub chips: f64,
    /// By when it leaves at the latest, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leaves_by: Option<DateTime<Utc>>,
    /// Why it is not taken: `leaving`, `not_preemptible`, `priority_not_lower`, `protected`, `budget`, `guaranteed`,
    /// `not_enough`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spared: Option<String>,
    /// `protected`: until when; absent for ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protected_until: Option<DateTime<Utc>>,
}

/// One way to let a pending job start.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct WayView {
    /// Stable: `wait`, `other_class`, `fewer_replicas`, `raise_limit`, `be_preemptible`, `hear_nodes`, `consolidate`,
    /// `end_leases`, `add_chips`.
    #[schema(example = "wait")]
    pub code: String,
    /// One sentence.
    pub message: String,
    /// `wait`: until when at the latest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<DateTime<Utc>>,
    /// `fewer_replicas`: how many would start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<u32>,
    /// `other_class`, `raise_limit`: the device class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_class: Option<String>,
    /// `raise_limit`: the queue.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<String>,
    /// `raise_limit`, `add_chips`: by so many chips.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chips: Option<u64>,
    /// `hear_nodes`: the nodes, at most five.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nodes: Vec<String>,
    /// `wait`, `consolidate`, `end_leases`: the leases, at most five.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub leases: Vec<JobHolderView>,
    /// How many nodes or leases there are in all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    /// `end_leases`: what that would lose.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost: Option<CostView>,
    /// `consolidate`: work that the moves would lose, in chip-seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost_chip_seconds: Option<f64>,
    /// `consolidate`: whether the policy allows moves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allowed: Option<bool>,
}

/// What evictions cost: lost work first, then gangs, then age.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
pub struct CostView {
    /// Work since the last checkpoint, in chip-seconds.
    pub lost_chip_seconds: f64,
    /// Gangs broken.
    pub gangs: u32,
    /// Sum of the leases' ages, in seconds; among equals the newest go.
    pub age_seconds: f64,
}

/// When a pending job may start. Known ends are upper bounds: whoever is done sooner makes it sooner.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct StartView {
    /// When there would be room if nobody were ahead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub earliest: Option<DateTime<Utc>>,
    /// When its turn would come, those ahead of it served first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub likely: Option<DateTime<Utc>>,
    /// When it has started, or is planned anew, at the latest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latest: Option<DateTime<Utc>>,
    /// What this rests on: `claim`, `reservation`, `known_ends`, or `none` where nothing is known that would make room.
    pub basis: String,
    /// Jobs that want the same chips and are served first.
    pub ahead: u64,
}

/// Chips kept for a job, and what was done for it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
pub struct PromisedView {
    /// How far it is.
    #[serde(flatten)]
    pub progress: PromiseView,
    /// When it was made.
    pub since: DateTime<Utc>,
    /// The leases taken for it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub victims: Vec<Uuid>,
    /// Why these and no others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub choice: Option<ChoiceView>,
}

/// The weighing behind a set of victims.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
pub struct ChoiceView {
    /// What the victims cost together.
    pub cost: CostView,
    /// The next best plan, where there was another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runner_up: Option<RunnerUpView>,
}

/// Another way to make room that was weighed and found dearer.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
pub struct RunnerUpView {
    /// The leases it would have taken.
    pub victims: Vec<Uuid>,
    /// What that would have cost.
    pub cost: CostView,
}

/// What a job holds, and who may take it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
pub struct StandingView {
    /// Its lease.
    pub lease: Uuid,
    /// Chips it holds, those of extra replicas included.
    pub chips: f64,
    /// Replicas it holds.
    #[serde(default)]
    pub replicas: u32,
    /// Of those, extra ones: the first to go and the last to come back.
    #[serde(default)]
    pub extras: u32,
    /// Nodes it spans.
    pub nodes: u64,
    /// Since when.
    pub since: DateTime<Utc>,
    /// When it ends whatever happens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ends_at: Option<DateTime<Utc>>,
    /// When it lapses unless renewed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<DateTime<Utc>>,
    /// `safe`: nobody may take it by priority; `preemptible`: others may; `leaving`: it is being taken.
    pub exposure: String,
    /// `preemptible`: by jobs of a priority above this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub above_priority: Option<i32>,
    /// `preemptible`: not before this, by its `min_runtime` or a preemption budget.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<DateTime<Utc>>,
    /// `preemptible`: its queue borrows, so the chips may be asked back by whoever is guaranteed them.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub reclaimable: bool,
    /// `preemptible`: what taking it now would cost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost: Option<CostView>,
}

/// One time that a job's chips were taken or lost.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
pub struct EvictionView {
    /// The lease.
    pub lease: Uuid,
    /// Which attempt of the job it was.
    pub attempt: u32,
    /// Whether only an extra replica went, so that the job ran on.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub extra: bool,
    /// Version of the policy it was decided under; absent where that was not recorded yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy_version: Option<u64>,
    /// When notice was given, or the lease was lost.
    pub at: DateTime<Utc>,
    /// By when it had to leave.
    pub deadline: DateTime<Utc>,
    /// `preempt`, `reclaim`, `consolidate`, `max_duration`, `expired`, `fault`.
    #[schema(example = "preempt")]
    pub cause: String,
    /// What a fault was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// The job it made room for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub for_job: Option<Uuid>,
    /// That job's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub for_name: Option<String>,
    /// Chips it held.
    pub chips: f64,
    /// Work it lost, in chip-seconds.
    pub lost_chip_seconds: f64,
    /// What taking this lease cost, in the order in which it counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost: Option<CostView>,
    /// The weighing behind the plan it was part of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub choice: Option<ChoiceView>,
    /// The same in a sentence or two.
    pub message: String,
}
