//! A node: a machine with chips, seen through its agent.

use crate::time::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What a node is: facts that hold for one boot, as its agent registered them.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct NodeFacts {
    /// CPU the node offers to jobs, in thousandths of a core.
    pub cpu_milli: u64,
    /// Memory the node offers to jobs, in MiB.
    pub memory_mib: u64,
    /// The rack, for jobs that ask for nearness; `None` counts as a rack of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rack: Option<String>,
    /// The link fabric (NVLink, HCCS) that joins this node's chips with those of other nodes; `None` where it ends at
    /// the node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link_domain: Option<String>,
    /// Version of the agent that registered.
    pub agent_version: String,
    /// Version of the vendor driver, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub driver_version: Option<String>,
    /// Free-form labels from the agent's configuration.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

/// Why nothing more is granted on a node, at an admin's word.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Cordon {
    /// Who said so.
    pub who: String,
    /// Why, in their words.
    pub reason: String,
    /// Since when.
    pub since: Timestamp,
    /// While it is drained: by when its leases have to leave, if their own grace ends before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain_by: Option<Timestamp>,
}
