//! Jobs: what a scheduler sends, and how the API shows a job.

use crate::lease::{EvictionView, LeaseView};
use crate::reason::Reason;
use crate::work::RunView;
pub use crate::workload::WorkloadBody;
use chiptide_model::Millis;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::ToSchema;
use uuid::Uuid;

/// Most replicas of one gang.
pub const REPLICAS_MAX: u64 = 10_000;
/// Most chips of one replica.
pub const CHIPS_PER_REPLICA_MAX: u64 = 64;
/// Most labels of a job; keys are at most 63 bytes, values 255.
pub const LABELS_MAX: usize = 32;
/// Most jobs in one create call.
pub const JOBS_PER_CALL_MAX: usize = 1000;

/// What a job wants done when one of its nodes is no longer heard.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum NodeLossActionBody {
    /// Wait for the node, however long that takes.
    Wait,
    /// The node ends the work by itself once its lease has not been renewed for `ttl`; when that is certain the job is placed
    /// again. Only for work that the agent runs (`workload`).
    Fence,
    /// The job is placed again soon after the node has fallen silent, whatever the old attempt may still do. For replicas that
    /// share no state.
    Duplicate,
}

/// A rule for the loss of a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct OnNodeLossBody {
    /// What to do.
    pub action: NodeLossActionBody,
    /// With `fence`: how long the work outlives the last renewal; default as the policy says (`node_loss.ttl`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "20s")]
    pub ttl: Option<Millis>,
}

/// Which kind of work.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum KindBody {
    /// Large gangs, hours to weeks, can checkpoint.
    Training,
    /// Live requests.
    Inference,
}

/// A priority class by name, or a bare number.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub enum PriorityBody {
    /// A number; higher goes first.
    Value(i32),
    /// The name of a priority class of the policy.
    Class(String),
}

impl<'de> Deserialize<'de> for PriorityBody {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = PriorityBody;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("the name of a priority class, or a whole number")
            }
            fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<PriorityBody, E> {
                i32::try_from(value).map(PriorityBody::Value).map_err(|_| E::custom("out of range for a priority"))
            }
            fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<PriorityBody, E> {
                i32::try_from(value).map(PriorityBody::Value).map_err(|_| E::custom("out of range for a priority"))
            }
            fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<PriorityBody, E> {
                Ok(PriorityBody::Class(value.to_owned()))
            }
        }
        d.deserialize_any(Visitor)
    }
}

/// A part of one chip: give exactly one of the two.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ShareBody {
    /// Fraction of the chip, above 0 and below or equal to 1, in steps of a thousandth (rounded up).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fraction: Option<f64>,
    /// Memory of the chip, MiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_mib: Option<u64>,
}

/// A device class a job accepts: its name, or its name with how fast the job runs there.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum ClassBody {
    /// The name; the speed is the policy's for the class, else 1.
    Name(String),
    /// Name and speed.
    Rated(RatedClassBody),
}

/// A device class and how fast a job runs there.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RatedClassBody {
    /// The name.
    #[schema(example = "ascend-910b")]
    pub class: String,
    /// Speed against the other classes the job accepts, above 0 and at most 1000, in steps of a thousandth.
    #[schema(example = 0.8)]
    pub speed: f64,
}

impl ClassBody {
    /// Its name.
    pub fn name(&self) -> &str {
        match self {
            ClassBody::Name(name) => name,
            ClassBody::Rated(rated) => &rated.class,
        }
    }
}

/// The place all replicas of a gang share.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SameBody {
    /// One node, one link fabric, or one rack.
    pub level: SameLevelBody,
    /// Wait rather than spread, or only try.
    #[serde(default)]
    pub strength: Strength,
}

/// Node, link fabric or rack.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SameLevelBody {
    /// One node.
    Node,
    /// One link fabric (an NVLink or HCCS domain of several nodes); a node without one is a fabric of its own.
    Link,
    /// One rack.
    Rack,
}

/// How much a wish weighs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Strength {
    /// Wait until it can be had.
    #[default]
    Required,
    /// Try, then do without.
    Preferred,
}

/// What to do with a job that the whole fleet, empty, could not hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum UnfitBody {
    /// Accept it; it waits and says what is missing.
    #[default]
    Wait,
    /// Refuse it, naming what is missing.
    Refuse,
}

/// How often a job's chips may be taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BudgetBody {
    /// At most so many times within 24 hours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_day: Option<u32>,
    /// At least this long from one time to the next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "2h")]
    pub cool_down: Option<Millis>,
}

/// A job as a scheduler submits it (YAML in files, JSON on the wire).
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct JobBody {
    /// `training` or `inference`.
    pub kind: KindBody,
    /// A name for people: 1 to 128 of `A-Z a-z 0-9 . _ : -`.
    #[schema(example = "llm-pretrain")]
    pub name: String,
    /// A queue of the policy; default `default`.
    #[serde(default = "default_queue")]
    pub queue: String,
    /// A priority class of the policy, or a number; default `standard` for training, `serving` for inference.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority_class: Option<PriorityBody>,
    /// Gang size: all replicas start together or none does. Default 1. Of an elastic job give `replicas_min` and
    /// `replicas_max` instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = 4)]
    pub replicas: Option<u64>,
    /// Makes the job elastic: so many replicas start together or not at all, further ones come and go with what is free.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas_min: Option<u64>,
    /// The most replicas an elastic job may grow to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas_max: Option<u64>,
    /// Whole chips of one replica, all on one node; 0 for work that needs only CPU or memory. Give this or `share`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = 8)]
    pub chips: Option<u64>,
    /// A part of one chip. Give this or `chips`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share: Option<ShareBody>,
    /// CPU of one replica, thousandths of a core.
    #[serde(default)]
    pub cpu_milli: u64,
    /// Memory of one replica, MiB.
    #[serde(default)]
    pub memory_mib: u64,
    /// Acceptable device classes: the fastest is tried first, of equals the one named first. Empty or absent means any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub device_classes: Vec<ClassBody>,
    /// Nearness of the replicas.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub same: Option<SameBody>,
    /// Longest time a lease may last (`"6h"`); then the job fails.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "6h")]
    pub max_duration: Option<Millis>,
    /// Whether a higher priority may take its chips; default as the priority class says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preemptible: Option<bool>,
    /// Time between notice and the end of its lease; default `"30s"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "30s")]
    pub grace: Option<Millis>,
    /// How often it checkpoints: what an eviction loses is at most this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "1h")]
    pub checkpoint_every: Option<Millis>,
    /// What a restart costs each of its chips besides the work lost: loading, compiling, warming up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "40s")]
    pub restart_cost: Option<Millis>,
    /// No lease of it is taken before it has lasted this long; default as the priority class says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "10m")]
    pub min_runtime: Option<Millis>,
    /// How often its chips may be taken; default as the priority class says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preemption_budget: Option<BudgetBody>,
    /// If given, the holder must renew the lease within this time or it is ended and the job fails.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "60s")]
    pub lease_ttl: Option<Millis>,
    /// What becomes of its lease when one of its nodes is no longer heard; default as the policy says for its kind
    /// (`wait`, unless an admin has changed that).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_node_loss: Option<OnNodeLossBody>,
    /// What to do if the fleet could never hold it.
    #[serde(default)]
    pub unfit: UnfitBody,
    /// Labels: at most 32, keys to 63 bytes, values to 255.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// What to run, if the node's agent is to run it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workload: Option<WorkloadBody>,
}

fn default_queue() -> String {
    "default".into()
}

/// One job, or up to 1,000 in one call.
#[derive(Clone, PartialEq, Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub enum CreateBody {
    /// One job; answered by the job.
    One(Box<JobBody>),
    /// Several jobs, accepted all or none; answered by a list.
    Many(Vec<JobBody>),
}

/// The answer to a create call with several jobs, in their order.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
pub struct CreatedView {
    /// The jobs.
    pub jobs: Vec<JobView>,
}

/// Reports a job's end.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DoneBody {
    /// How it ended.
    pub outcome: DoneOutcome,
    /// Why it failed; at most 1,000 characters are kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// How a job ended, as its owner says.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum DoneOutcome {
    /// It did what it should.
    Succeeded,
    /// It did not.
    Failed,
}

/// One job as the API shows it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
pub struct JobView {
    /// Its id.
    pub id: Uuid,
    /// `pending`, `leased`, `running`, `preempting`, `succeeded`, `failed` or `cancelled`.
    pub state: String,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// While pending: everything that keeps it from starting.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reasons: Vec<Reason>,
    /// While pending: the chips kept for it while others vacate them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub promise: Option<PromiseView>,
    /// While pending: the chips reserved for it, and when it starts on them at the latest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reservation: Option<ReservationView>,
    /// While preempting: when its lease ends at the latest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<DateTime<Utc>>,
    /// The live lease.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<LeaseView>,
    /// The live leases of its extra replicas.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub extras: Vec<LeaseView>,
    /// Replicas it holds now, extra ones included.
    #[serde(default)]
    pub replicas_held: u32,
    /// The last checkpoint it reported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpointed_at: Option<DateTime<Utc>>,
    /// How many leases it has had.
    pub attempt: u32,
    /// How often its chips were taken by others.
    pub preemptions: u32,
    /// How often its replicas were started anew on the chips they had, after a failure.
    #[serde(default)]
    pub restarts: u32,
    /// How its replicas are and were, run by run, the newest first; of a job that the agents run, and only where one job is
    /// asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub runs: Vec<RunView>,
    /// How its chips were taken the last time, or are being taken; only where one job is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eviction: Option<EvictionView>,
    /// When it was accepted.
    pub submitted_at: DateTime<Utc>,
    /// When its state last changed.
    pub changed_at: DateTime<Utc>,
    /// Counts up with every change; pass as `after` to wait for the next.
    pub revision: u64,
    /// The priority in force.
    pub priority: i32,
    /// What was asked for.
    pub spec: JobBody,
}

impl JobView {
    /// Whether the job is over.
    pub fn is_ended(&self) -> bool {
        matches!(self.state.as_str(), "succeeded" | "failed" | "cancelled")
    }
}

/// Chips set aside for a job that waits for the known ends of others.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct ReservationView {
    /// Chips reserved.
    pub chips: u32,
    /// When it starts at the latest, as long as no chip of them is lost and nothing of higher priority comes first.
    pub starts_at: DateTime<Utc>,
}

/// Chips kept for a job while their last holders leave.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct PromiseView {
    /// Chips promised.
    pub chips: u32,
    /// How many of them are still to be proven vacant.
    pub waiting_for: u32,
    /// When the promise is given up and planned anew.
    pub deadline: DateTime<Utc>,
}
