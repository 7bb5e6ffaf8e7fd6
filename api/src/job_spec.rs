//! From a job's body to the model and back: every rule a body must keep, each refusal with its field.

use crate::job::{
    BudgetBody, CHIPS_PER_REPLICA_MAX, ClassBody, JobBody, KindBody, LABELS_MAX, NodeLossActionBody, OnNodeLossBody,
    PriorityBody, REPLICAS_MAX, RatedClassBody, SameBody, SameLevelBody, ShareBody, Strength, UnfitBody,
};
use crate::problem::Invalid;
use crate::workload::{OnFailureBody, RESTARTS_MAX, RestartBody, WorkloadBody};
use chiptide_model::node_loss::FENCE_TTL_MIN;
use chiptide_model::policy_fault::BUDGET_MAX;
use chiptide_model::{
    ChipDemand, ClassChoice, DeviceClass, JobSpec, Kind, Millis, NodeLossAction, OnNodeLoss, Policy, PreemptionBudget,
    PriorityClass, Restart, SLOTS_PER_CHIP, Same, SameLevel, Signal, SlotCount, Unfit, Workload,
};
use std::collections::BTreeMap;

impl JobBody {
    /// Parses the body into the model under `policy`, or names the field at fault.
    ///
    /// Codes: `invalid_field`, `out_of_range`, `unknown_queue`, `unknown_priority_class`.
    pub fn into_spec(self, policy: &Policy) -> Result<JobSpec, Invalid> {
        if !chiptide_model::id::is_name(&self.name) {
            return Err(Invalid::new("invalid_field", "name", "1 to 128 of A-Z a-z 0-9 . _ : -"));
        }
        if !policy.takes_jobs(&self.queue) {
            let known: Vec<&str> = policy.leaves().collect();
            let wrong = if policy.queues.contains_key(&self.queue) {
                "takes no jobs, queues lie below it"
            } else {
                "does not exist"
            };
            let detail = format!("queue {:?} {wrong}; jobs may name: {}", clip(&self.queue), known.join(", "));
            return Err(Invalid::new("unknown_queue", "queue", detail));
        }
        let kind = match self.kind {
            KindBody::Training => Kind::Training,
            KindBody::Inference => Kind::Inference,
        };
        let (priority_class, priority, defaults) = priority(self.priority_class, kind, policy)?;
        let (replicas_min, replicas) = replicas(self.replicas, self.replicas_min, self.replicas_max)?;
        let demand = demand(self.chips, self.share)?;
        if demand == ChipDemand::Chips(0) && self.cpu_milli == 0 && self.memory_mib == 0 {
            return Err(Invalid::new("invalid_field", "chips", "0 only with cpu_milli or memory_mib"));
        }
        let grace = self.grace.or(defaults.grace).unwrap_or(Millis::from_secs(30));
        if grace > policy.bounds.grace_max {
            return Err(Invalid::new("out_of_range", "grace", format!("at most {}", policy.bounds.grace_max)));
        }
        for (field, span) in [
            ("max_duration", self.max_duration),
            ("checkpoint_every", self.checkpoint_every),
            ("lease_ttl", self.lease_ttl),
            ("restart_cost", self.restart_cost),
            ("min_runtime", self.min_runtime),
            ("preemption_budget.cool_down", self.preemption_budget.and_then(|budget| budget.cool_down)),
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
            replicas,
            replicas_min,
            demand,
            cpu_milli: within("cpu_milli", self.cpu_milli, 0, 10_000_000)?,
            memory_mib: within("memory_mib", self.memory_mib, 0, 1_000_000_000)?,
            device_classes: device_classes(&self.device_classes, policy)?,
            same: self.same.map(|same| Same {
                level: match same.level {
                    SameLevelBody::Node => SameLevel::Node,
                    SameLevelBody::Link => SameLevel::Link,
                    SameLevelBody::Rack => SameLevel::Rack,
                },
                required: same.strength == Strength::Required,
            }),
            max_duration: self.max_duration,
            preemptible: self.preemptible.unwrap_or(defaults.preemptible),
            grace,
            checkpoint_every: self.checkpoint_every,
            restart_cost: self.restart_cost,
            min_runtime: self.min_runtime.or(defaults.min_runtime),
            preemption_budget: budget(self.preemption_budget)?.or(defaults.preemption_budget),
            lease_ttl: self.lease_ttl,
            on_node_loss: on_node_loss(self.on_node_loss, kind, self.workload.is_some(), policy)?,
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
            replicas: spec.replicas_min.is_none().then(|| u64::from(spec.replicas)),
            replicas_min: spec.replicas_min.map(u64::from),
            replicas_max: spec.replicas_min.map(|_| u64::from(spec.replicas)),
            chips,
            share,
            cpu_milli: spec.cpu_milli,
            memory_mib: spec.memory_mib,
            device_classes: spec.device_classes.iter().map(class_body).collect(),
            same: spec.same.map(|same| SameBody {
                level: match same.level {
                    SameLevel::Node => SameLevelBody::Node,
                    SameLevel::Link => SameLevelBody::Link,
                    SameLevel::Rack => SameLevelBody::Rack,
                },
                strength: if same.required { Strength::Required } else { Strength::Preferred },
            }),
            max_duration: spec.max_duration,
            preemptible: Some(spec.preemptible),
            grace: Some(spec.grace),
            checkpoint_every: spec.checkpoint_every,
            restart_cost: spec.restart_cost,
            min_runtime: spec.min_runtime,
            preemption_budget: spec
                .preemption_budget
                .map(|budget| BudgetBody { per_day: budget.per_day, cool_down: budget.cool_down }),
            lease_ttl: spec.lease_ttl,
            on_node_loss: Some(OnNodeLossBody {
                action: match spec.on_node_loss.action() {
                    NodeLossAction::Wait => NodeLossActionBody::Wait,
                    NodeLossAction::Fence => NodeLossActionBody::Fence,
                    NodeLossAction::Duplicate => NodeLossActionBody::Duplicate,
                },
                ttl: spec.on_node_loss.fence().map(|fence| fence.ttl),
            }),
            unfit: match spec.unfit {
                Unfit::Wait => UnfitBody::Wait,
                Unfit::Refuse => UnfitBody::Refuse,
            },
            labels: spec.labels.clone(),
            workload: spec.workload.as_ref().map(|w| WorkloadBody {
                command: w.command.clone(),
                env: w.env.clone(),
                directory: w.directory.clone(),
                restart: match w.restart {
                    Restart::Never => None,
                    Restart::OnFailure { times } => Some(RestartBody::OnFailure(OnFailureBody { times })),
                },
                notice_signal: w.notice_signal.map(|signal| signal.name().to_owned()),
                user: w.user.clone(),
            }),
        }
    }
}

/// The rule for the loss of a node. Nobody can fence work that no agent runs, and a ttl is a fence's.
fn on_node_loss(
    body: Option<OnNodeLossBody>,
    kind: Kind,
    is_run: bool,
    policy: &Policy,
) -> Result<OnNodeLoss, Invalid> {
    let action = body.map(|body| match body.action {
        NodeLossActionBody::Wait => NodeLossAction::Wait,
        NodeLossActionBody::Fence => NodeLossAction::Fence,
        NodeLossActionBody::Duplicate => NodeLossAction::Duplicate,
    });
    if action == Some(NodeLossAction::Fence) && !is_run {
        let detail = "fence needs a workload: an agent can only end what it runs";
        return Err(Invalid::new("invalid_field", "on_node_loss.action", detail));
    }
    match body.and_then(|body| body.ttl) {
        Some(_) if action != Some(NodeLossAction::Fence) => {
            Err(Invalid::new("invalid_field", "on_node_loss.ttl", "only with the action fence"))
        }
        Some(ttl) if ttl < FENCE_TTL_MIN => {
            Err(Invalid::new("out_of_range", "on_node_loss.ttl", format!("at least {FENCE_TTL_MIN}")))
        }
        ttl => Ok(policy.node_loss.rule(kind, action, ttl, is_run)),
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

/// The least replicas of an elastic job, and the gang size, or the most replicas of an elastic one.
fn replicas(fixed: Option<u64>, min: Option<u64>, max: Option<u64>) -> Result<(Option<u32>, u32), Invalid> {
    let count = |field, value| Ok(u32::try_from(within(field, value, 1, REPLICAS_MAX)?).unwrap_or(u32::MAX));
    let invalid = |field, detail: &str| Err(Invalid::new("invalid_field", field, detail));
    match (fixed, min, max) {
        (fixed, None, None) => Ok((None, count("replicas", fixed.unwrap_or(1))?)),
        (Some(_), _, _) => invalid("replicas", "give replicas, or replicas_min and replicas_max, not both"),
        (None, Some(_), None) => invalid("replicas_max", "an elastic job needs both replicas_min and replicas_max"),
        (None, None, Some(_)) => invalid("replicas_min", "an elastic job needs both replicas_min and replicas_max"),
        (None, Some(min), Some(max)) => {
            let (least, most) = (count("replicas_min", min)?, count("replicas_max", max)?);
            if least > most {
                return invalid("replicas_max", "must be at least replicas_min");
            }
            Ok((Some(least), most))
        }
    }
}

fn budget(body: Option<BudgetBody>) -> Result<Option<PreemptionBudget>, Invalid> {
    let Some(BudgetBody { per_day, cool_down }) = body else { return Ok(None) };
    if per_day.is_some_and(|most| most > BUDGET_MAX) {
        return Err(Invalid::new("out_of_range", "preemption_budget.per_day", format!("at most {BUDGET_MAX}")));
    }
    Ok(Some(PreemptionBudget { per_day, cool_down }))
}

/// The class by name, the priority, and what the class says where the job does not.
fn priority(
    body: Option<PriorityBody>,
    kind: Kind,
    policy: &Policy,
) -> Result<(Option<String>, i32, PriorityClass), Invalid> {
    let name = match body {
        Some(PriorityBody::Value(value)) if (-1_000_000..=1_000_000).contains(&value) => {
            let preemptible = kind == Kind::Training;
            return Ok((None, value, PriorityClass { value, preemptible, ..PriorityClass::default() }));
        }
        Some(PriorityBody::Value(value)) => {
            let detail = format!("{value} is not between -1000000 and 1000000");
            return Err(Invalid::new("out_of_range", "priority_class", detail));
        }
        Some(PriorityBody::Class(name)) => name,
        None => if kind == Kind::Training { "standard" } else { "serving" }.to_owned(),
    };
    match policy.priority_classes.get(&name) {
        Some(class) => Ok((Some(name), class.value, class.clone())),
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
            let chips = within("chips", chips, 0, CHIPS_PER_REPLICA_MAX)?;
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

fn device_classes(bodies: &[ClassBody], policy: &Policy) -> Result<Vec<ClassChoice>, Invalid> {
    if bodies.len() > 32 {
        return Err(Invalid::new("out_of_range", "device_classes", "at most 32"));
    }
    let mut choices: Vec<ClassChoice> = Vec::with_capacity(bodies.len());
    for (i, body) in bodies.iter().enumerate() {
        let class = DeviceClass::new(body.name())
            .map_err(|e| Invalid::new("invalid_field", format!("device_classes[{i}]"), e.to_string()))?;
        let speed_permille = match body {
            ClassBody::Name(_) => policy.speed_permille(&class),
            // A speed in (0, 1000] times 1000 lies in 1..=1,000,000.
            ClassBody::Rated(rated) if rated.speed > 0.0 && rated.speed <= 1000.0 => {
                (rated.speed * 1000.0).round().max(1.0) as u32
            }
            ClassBody::Rated(_) => {
                let field = format!("device_classes[{i}].speed");
                return Err(Invalid::new("out_of_range", field, "above 0 and at most 1000"));
            }
        };
        if choices.iter().all(|known| known.class != class) {
            choices.push(ClassChoice { class, speed_permille });
        }
    }
    Ok(choices)
}

fn class_body(choice: &ClassChoice) -> ClassBody {
    let class = choice.class.to_string();
    match choice.speed_permille {
        1000 => ClassBody::Name(class),
        permille => ClassBody::Rated(RatedClassBody { class, speed: f64::from(permille) / 1000.0 }),
    }
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
    let texts = body.command.iter().chain(body.env.keys()).chain(body.env.values()).chain(&body.directory);
    if texts.into_iter().any(|text| text.contains('\0')) {
        return Err(Invalid::new("invalid_field", "workload", "holds a NUL byte"));
    }
    if body.env.keys().any(|name| name.is_empty() || name.contains('=')) {
        return Err(Invalid::new("invalid_field", "workload.env", "a variable's name is not empty and holds no '='"));
    }
    if body.directory.as_ref().is_some_and(|path| !path.starts_with('/') || path.len() > 4096) {
        return Err(Invalid::new("invalid_field", "workload.directory", "must be an absolute path"));
    }
    let restart = match body.restart {
        None | Some(RestartBody::Never) => Restart::Never,
        Some(RestartBody::OnFailure(OnFailureBody { times })) => {
            let times = within("workload.restart.on_failure.times", times.into(), 1, RESTARTS_MAX)?;
            Restart::OnFailure { times: u32::try_from(times).unwrap_or(u32::MAX) }
        }
    };
    let signal = |name: String| {
        let refused = |error: chiptide_model::work::NoSuchSignal| {
            Invalid::new("invalid_field", "workload.notice_signal", error.to_string())
        };
        name.parse::<Signal>().map_err(refused)
    };
    if body.user.as_ref().is_some_and(|user| !is_user_name(user)) {
        return Err(Invalid::new(
            "invalid_field",
            "workload.user",
            "1 to 32 of a-z 0-9 _ -, not starting with a digit or -",
        ));
    }
    Ok(Workload {
        command: body.command,
        env: body.env,
        directory: body.directory,
        restart,
        notice_signal: body.notice_signal.map(signal).transpose()?,
        user: body.user,
    })
}

/// What systems take for the name of a user; which users there are is for the node's agent to say.
fn is_user_name(name: &str) -> bool {
    let first = name.bytes().next().is_some_and(|byte| byte.is_ascii_lowercase() || byte == b'_');
    first
        && name.len() <= 32
        && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-".contains(&byte))
}
