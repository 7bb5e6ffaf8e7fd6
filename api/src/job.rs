//! Jobs: what a scheduler sends, and how the API shows a job.

use crate::lease::LeaseView;
use crate::problem::Invalid;
use crate::reason::Reason;
use chiptide_model::{
    ChipDemand, DeviceClass, JobSpec, Kind, Millis, Policy, SLOTS_PER_CHIP, Same, SameLevel, SlotCount, Unfit, Workload,
};
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

/// The place all replicas of a gang share.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SameBody {
    /// One node, or one rack.
    pub level: SameLevelBody,
    /// Wait rather than spread, or only try.
    #[serde(default)]
    pub strength: Strength,
}

/// Node or rack.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SameLevelBody {
    /// One node.
    Node,
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

/// What to run in each replica. Carried with the job.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct WorkloadBody {
    /// Argument vector; never a shell string.
    pub command: Vec<String>,
    /// Environment added for the process.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
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
    /// Gang size: all replicas start together or none does.
    #[serde(default = "one")]
    #[schema(example = 4)]
    pub replicas: u64,
    /// Whole chips of one replica, all on one node. Give this or `share`.
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
    /// Acceptable device classes, best first; empty or absent means any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub device_classes: Vec<String>,
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
    /// If given, the holder must renew the lease within this time or it is ended and the job fails.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "60s")]
    pub lease_ttl: Option<Millis>,
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
fn one() -> u64 {
    1
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
    /// While preempting: when its lease ends at the latest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<DateTime<Utc>>,
    /// The live lease.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<LeaseView>,
    /// How many leases it has had.
    pub attempt: u32,
    /// How often its chips were taken by others.
    pub preemptions: u32,
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

impl JobBody {
    /// Parses the body into the model under `policy`, or names the field at fault.
    ///
    /// Codes: `invalid_field`, `out_of_range`, `unknown_queue`, `unknown_priority_class`.
    pub fn into_spec(self, policy: &Policy) -> Result<JobSpec, Invalid> {
        if !chiptide_model::id::is_name(&self.name) {
            return Err(Invalid::new("invalid_field", "name", "1 to 128 of A-Z a-z 0-9 . _ : -"));
        }
        if !policy.queues.contains(&self.queue) {
            let known: Vec<&str> = policy.queues.iter().map(String::as_str).collect();
            let detail = format!("there is no queue {:?}; known: {}", clip(&self.queue), known.join(", "));
            return Err(Invalid::new("unknown_queue", "queue", detail));
        }
        let kind = match self.kind {
            KindBody::Training => Kind::Training,
            KindBody::Inference => Kind::Inference,
        };
        let (priority_class, priority, class_preemptible) = priority(self.priority_class, kind, policy)?;
        let replicas = within("replicas", self.replicas, 1, REPLICAS_MAX)?;
        let demand = demand(self.chips, self.share)?;
        let grace = self.grace.unwrap_or(Millis::from_secs(30));
        if grace > policy.bounds.grace_max {
            return Err(Invalid::new("out_of_range", "grace", format!("at most {}", policy.bounds.grace_max)));
        }
        for (field, span) in [
            ("max_duration", self.max_duration),
            ("checkpoint_every", self.checkpoint_every),
            ("lease_ttl", self.lease_ttl),
        ] {
            if span.is_some_and(|span| span.0 < 1000) {
                return Err(Invalid::new("out_of_range", field, "at least 1s"));
            }
        }
        check_labels(&self.labels)?;
        Ok(JobSpec {
            kind,
            name: self.name,
            queue: self.queue,
            priority_class,
            priority,
            replicas: u32::try_from(replicas).unwrap_or(u32::MAX),
            demand,
            cpu_milli: within("cpu_milli", self.cpu_milli, 0, 10_000_000)?,
            memory_mib: within("memory_mib", self.memory_mib, 0, 1_000_000_000)?,
            device_classes: device_classes(&self.device_classes)?,
            same: self.same.map(|same| Same {
                level: match same.level {
                    SameLevelBody::Node => SameLevel::Node,
                    SameLevelBody::Rack => SameLevel::Rack,
                },
                required: same.strength == Strength::Required,
            }),
            max_duration: self.max_duration,
            preemptible: self.preemptible.unwrap_or(class_preemptible),
            grace,
            checkpoint_every: self.checkpoint_every,
            lease_ttl: self.lease_ttl,
            unfit: match self.unfit {
                UnfitBody::Wait => Unfit::Wait,
                UnfitBody::Refuse => Unfit::Refuse,
            },
            labels: self.labels,
            workload: self.workload.map(workload).transpose()?,
        })
    }

    /// The body that would submit `spec` again.
    pub fn of(spec: &JobSpec) -> JobBody {
        let (chips, share) = match spec.demand {
            ChipDemand::Chips(n) => (Some(u64::from(n)), None),
            ChipDemand::ShareSlots(slots) => {
                let fraction = Some(f64::from(slots) / f64::from(SLOTS_PER_CHIP));
                (None, Some(ShareBody { fraction, memory_mib: None }))
            }
            ChipDemand::ShareMemory(mib) => (None, Some(ShareBody { fraction: None, memory_mib: Some(mib) })),
        };
        JobBody {
            kind: match spec.kind {
                Kind::Training => KindBody::Training,
                Kind::Inference => KindBody::Inference,
            },
            name: spec.name.clone(),
            queue: spec.queue.clone(),
            priority_class: Some(match &spec.priority_class {
                Some(class) => PriorityBody::Class(class.clone()),
                None => PriorityBody::Value(spec.priority),
            }),
            replicas: u64::from(spec.replicas),
            chips,
            share,
            cpu_milli: spec.cpu_milli,
            memory_mib: spec.memory_mib,
            device_classes: spec.device_classes.iter().map(ToString::to_string).collect(),
            same: spec.same.map(|same| SameBody {
                level: match same.level {
                    SameLevel::Node => SameLevelBody::Node,
                    SameLevel::Rack => SameLevelBody::Rack,
                },
                strength: if same.required { Strength::Required } else { Strength::Preferred },
            }),
            max_duration: spec.max_duration,
            preemptible: Some(spec.preemptible),
            grace: Some(spec.grace),
            checkpoint_every: spec.checkpoint_every,
            lease_ttl: spec.lease_ttl,
            unfit: match spec.unfit {
                Unfit::Wait => UnfitBody::Wait,
                Unfit::Refuse => UnfitBody::Refuse,
            },
            labels: spec.labels.clone(),
            workload: spec.workload.as_ref().map(|w| WorkloadBody { command: w.command.clone(), env: w.env.clone() }),
        }
    }
}

fn clip(text: &str) -> String {
    text.chars().take(64).collect()
}

fn within(field: &'static str, value: u64, min: u64, max: u64) -> Result<u64, Invalid> {
    if (min..=max).contains(&value) {
        Ok(value)
    } else {
        Err(Invalid::new("out_of_range", field, format!("{value} is not between {min} and {max}")))
    }
}

fn priority(body: Option<PriorityBody>, kind: Kind, policy: &Policy) -> Result<(Option<String>, i32, bool), Invalid> {
    let name = match body {
        Some(PriorityBody::Value(value)) if (-1_000_000..=1_000_000).contains(&value) => {
            return Ok((None, value, kind == Kind::Training));
        }
        Some(PriorityBody::Value(value)) => {
            let detail = format!("{value} is not between -1000000 and 1000000");
            return Err(Invalid::new("out_of_range", "priority_class", detail));
        }
        Some(PriorityBody::Class(name)) => name,
        None => if kind == Kind::Training { "standard" } else { "serving" }.to_owned(),
    };
    match policy.priority_classes.get(&name) {
        Some(class) => Ok((Some(name), class.value, class.preemptible)),
        None => {
            let known: Vec<&str> = policy.priority_classes.keys().map(String::as_str).collect();
            let detail = format!("there is no priority class {:?}; known: {}", clip(&name), known.join(", "));
            Err(Invalid::new("unknown_priority_class", "priority_class", detail))
        }
    }
}

fn demand(chips: Option<u64>, share: Option<ShareBody>) -> Result<ChipDemand, Invalid> {
    match (chips, share) {
        (Some(_), Some(_)) => Err(Invalid::new("invalid_field", "share", "give chips or share, not both")),
        (None, None) => Err(Invalid::new("invalid_field", "chips", "give chips or share")),
        (Some(chips), None) => {
            let chips = within("chips", chips, 1, CHIPS_PER_REPLICA_MAX)?;
            Ok(ChipDemand::Chips(u16::try_from(chips).unwrap_or(u16::MAX)))
        }
        (None, Some(ShareBody { fraction: Some(part), memory_mib: None })) => {
            if !(part > 0.0 && part <= 1.0) {
                return Err(Invalid::new("out_of_range", "share.fraction", "above 0 and at most 1"));
            }
            // A part in (0, 1] times 1000, rounded up (but for float noise), lies in 1..=1000.
            let slots = (part * f64::from(SLOTS_PER_CHIP) - 1e-6).ceil().max(1.0) as SlotCount;
            Ok(ChipDemand::ShareSlots(slots.min(SLOTS_PER_CHIP)))
        }
        (None, Some(ShareBody { fraction: None, memory_mib: Some(mib) })) => {
            Ok(ChipDemand::ShareMemory(within("share.memory_mib", mib, 1, 10_000_000)?))
        }
        (None, Some(_)) => Err(Invalid::new("invalid_field", "share", "give exactly one of fraction and memory_mib")),
    }
}

fn device_classes(names: &[String]) -> Result<Vec<DeviceClass>, Invalid> {
    if names.len() > 32 {
        return Err(Invalid::new("out_of_range", "device_classes", "at most 32"));
    }
    let mut classes: Vec<DeviceClass> = Vec::with_capacity(names.len());
    for (i, name) in names.iter().enumerate() {
        let class = DeviceClass::new(name)
            .map_err(|e| Invalid::new("invalid_field", format!("device_classes[{i}]"), e.to_string()))?;
        if !classes.contains(&class) {
            classes.push(class);
        }
    }
    Ok(classes)
}

fn check_labels(labels: &BTreeMap<String, String>) -> Result<(), Invalid> {
    if labels.len() > LABELS_MAX {
        return Err(Invalid::new("out_of_range", "labels", format!("at most {LABELS_MAX} labels")));
    }
    for (key, value) in labels {
        if key.is_empty() || key.len() > 63 || value.len() > 255 {
            let detail = "a key has 1 to 63 bytes, a value at most 255";
            return Err(Invalid::new("out_of_range", format!("labels.{}", clip(key)), detail));
        }
        if key.contains(['\0', '=', ',']) || value.contains('\0') {
            let detail = "a key holds no '=' or ',', and neither part a NUL";
            return Err(Invalid::new("invalid_field", format!("labels.{}", clip(key)), detail));
        }
    }
    Ok(())
}

fn workload(body: WorkloadBody) -> Result<Workload, Invalid> {
    let bytes: usize = body.command.iter().map(String::len).sum::<usize>()
        + body.env.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>();
    if body.command.first().is_none_or(String::is_empty) {
        return Err(Invalid::new("invalid_field", "workload.command", "must name a program"));
    }
    if bytes > 32 * 1024 || body.command.len() > 1024 || body.env.len() > 1024 {
        return Err(Invalid::new("out_of_range", "workload", "at most 32 KiB of command and environment"));
    }
    let has_nul = body.command.iter().chain(body.env.keys()).chain(body.env.values()).any(|text| text.contains('\0'));
    if has_nul {
        return Err(Invalid::new("invalid_field", "workload", "holds a NUL byte"));
    }
    Ok(Workload { command: body.command, env: body.env })
}
