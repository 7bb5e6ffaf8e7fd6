//! Workloads on their way to an agent, and what it says of them.

use chiptide_model::work::signal_name;
use chiptide_model::{Millis, Step, WorkEnd};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::ToSchema;
use uuid::Uuid;

/// What an agent is to run under a lease.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct WorkOrder {
    /// Argument vector; never a shell string.
    pub command: Vec<String>,
    /// Environment added for the process.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Working directory; a folder of the replica's own when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub directory: Option<String>,
    /// Which run of the replicas this is: it grows when they are to be started anew on the chips they have.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub run: u32,
    /// Sent to each replica's first process once notice is given, by name (`SIGUSR1`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notice_signal: Option<String>,
    /// The user to run as; the agent's choice when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The node of every replica of the gang, in order of rank.
    pub nodes: Vec<String>,
    /// The replicas that run on this node.
    pub replicas: Vec<ReplicaOrder>,
}

/// One replica of a gang, on its node.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct ReplicaOrder {
    /// Its index in the gang, from 0.
    pub rank: u32,
    /// Its chips.
    pub chips: Vec<String>,
    /// CPU set aside for it, thousandths of a core; 0 sets no limit.
    pub cpu_milli: u64,
    /// Memory set aside for it, MiB; 0 sets no limit.
    pub memory_mib: u64,
}

/// One replica as its agent sees it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct WorkReport {
    /// The lease it runs under.
    pub lease: Uuid,
    /// Its index in the gang.
    pub rank: u32,
    /// Which run of it.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub run: u32,
    /// How it is.
    pub work: WorkBody,
    /// Once it has ended: how long ago, by the agent's own clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "1s")]
    pub ended_ago: Option<Millis>,
}

/// The steps an agent has taken with the workload of one lease.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LadderReport {
    /// The lease.
    pub lease: Uuid,
    /// The steps, in order: of several replicas, each step when the first of them took it, `empty` when the last did.
    pub steps: Vec<LadderStepBody>,
}

/// One step.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LadderStepBody {
    /// Which.
    pub step: StepBody,
    /// How long ago, by the agent's own clock.
    #[schema(value_type = String, example = "1s")]
    pub ago: Millis,
}

/// A step that an agent takes with a workload.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum StepBody {
    /// The workload was told.
    Told,
    /// SIGTERM was sent.
    Terminated,
    /// What was left was killed.
    Killed,
    /// Something is still there long after the kill.
    Stuck,
    /// Nothing of the workload is left.
    Empty,
}

impl StepBody {
    /// The model's word for it.
    pub fn step(self) -> Step {
        match self {
            StepBody::Told => Step::Told,
            StepBody::Terminated => Step::Terminated,
            StepBody::Killed => Step::Killed,
            StepBody::Stuck => Step::Stuck,
            StepBody::Empty => Step::Empty,
        }
    }
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// How a replica's work is.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize, ToSchema)]
#[serde(tag = "state", rename_all = "snake_case", deny_unknown_fields)]
pub enum WorkBody {
    /// It has been started and is not over.
    Running,
    /// It has exited by itself.
    Exited {
        /// Its exit code.
        code: i32,
    },
    /// A signal ended it.
    Killed {
        /// The signal.
        signal: i32,
        /// Whether the kernel did it for want of memory within the replica's limit.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        out_of_memory: bool,
    },
    /// It could not be started, or what became of it is not known.
    Failed {
        /// What happened.
        reason: String,
    },
}

impl WorkBody {
    /// How it ended; `None` while it runs.
    pub fn end(&self) -> Option<WorkEnd> {
        match self {
            WorkBody::Running => None,
            WorkBody::Exited { code } => Some(WorkEnd::Exited { code: *code }),
            WorkBody::Killed { signal, out_of_memory } => {
                Some(WorkEnd::Killed { signal: *signal, out_of_memory: *out_of_memory })
            }
            WorkBody::Failed { reason } => Some(WorkEnd::Failed { reason: reason.clone() }),
        }
    }
}

/// One run of a job's replicas: those of one attempt, from one start of all of them to the next.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct RunView {
    /// Which attempt of the job.
    pub attempt: u32,
    /// Which run, counted over the job's life from 0.
    pub run: u32,
    /// When the work was over, or a part of it had failed; absent while it goes on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<DateTime<Utc>>,
    /// Which replica failed first, where, and how.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
    /// The replicas, in order: of a run that goes on all of them, of one that is over those that had ended by then.
    pub replicas: Vec<ReplicaWorkView>,
}

/// One replica of a run.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct ReplicaWorkView {
    /// Index of the replica, from 0.
    pub replica: u32,
    /// Its node.
    pub node: String,
    /// `starting`, `running`, `exited`, `killed` or `failed`.
    pub state: String,
    /// Once it has exited: its exit code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// Once a signal has ended it: the signal, by name where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<String>,
    /// Whether the kernel ended it for want of memory within its limit.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub out_of_memory: bool,
    /// How it ended, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<DateTime<Utc>>,
}

impl ReplicaWorkView {
    /// A replica that has ended like this.
    pub fn ended(replica: u32, node: &str, end: &WorkEnd, at: DateTime<Utc>) -> ReplicaWorkView {
        let mut view = ReplicaWorkView {
            reason: Some(end.to_string()),
            ended_at: Some(at),
            ..ReplicaWorkView::going_on(replica, node, "failed")
        };
        match end {
            WorkEnd::Exited { code } => (view.state, view.exit_code) = ("exited".into(), Some(*code)),
            WorkEnd::Killed { signal, out_of_memory } => {
                view.state = "killed".into();
                view.signal = Some(signal_name(*signal).map_or_else(|| signal.to_string(), str::to_owned));
                view.out_of_memory = *out_of_memory;
            }
            WorkEnd::Failed { .. } => {}
        }
        view
    }

    /// A replica that is starting or running.
    pub fn going_on(replica: u32, node: &str, state: &str) -> ReplicaWorkView {
        ReplicaWorkView {
            replica,
            node: node.to_owned(),
            state: state.to_owned(),
            exit_code: None,
            signal: None,
            out_of_memory: false,
            reason: None,
            ended_at: None,
        }
    }
}
