//! What a job asks the agents to run.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// Most restarts that a job may ask for.
pub const RESTARTS_MAX: u64 = 1000;

/// What to run in each replica. The agents run it; without a workload the job's owner runs it.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct WorkloadBody {
    /// Argument vector; never a shell string.
    pub command: Vec<String>,
    /// Environment added for the process.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Working directory, absolute; a folder of the replica's own when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub directory: Option<String>,
    /// What to do when a replica fails while its lease lives: `never` (the job fails), or `{"on_failure": {"times": 3}}` (all
    /// replicas are started anew on the chips they have, at most so often in the job's life, after a pause that doubles).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restart: Option<RestartBody>,
    /// A signal for each replica's first process when notice is given, besides the notice file: `SIGHUP`, `SIGINT`, `SIGUSR1`,
    /// `SIGUSR2`, `SIGCONT`, `SIGURG` or `SIGWINCH`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "SIGUSR1")]
    pub notice_signal: Option<String>,
    /// The user to run as, of those that the node's agent allows; default the agent's choice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
}

/// What to do when a replica fails while its lease lives.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum RestartBody {
    /// The job fails.
    Never,
    /// All replicas are started anew.
    OnFailure(OnFailureBody),
}

/// How often all replicas are started anew.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct OnFailureBody {
    /// At most so often, 1 to 1000; then the job fails.
    #[schema(example = 3)]
    pub times: u32,
}
