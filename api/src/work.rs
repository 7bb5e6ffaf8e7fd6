//! Workloads on their way to an agent, and what it says of them.

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
    /// How it is.
    pub work: WorkBody,
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
    },
    /// It could not be started, or what became of it is not known.
    Failed {
        /// What happened.
        reason: String,
    },
}
