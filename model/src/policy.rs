//! What an admin decides: the queues and priority classes that exist, and the bounds of waiting.

use crate::job::PreemptionBudget;
use crate::time::Millis;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// A named priority.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct PriorityClass {
    /// Higher goes first.
    pub value: i32,
    /// Whether jobs of the class may be preempted unless they say otherwise.
    pub preemptible: bool,
    /// `min_runtime` of its jobs that name none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_runtime: Option<Millis>,
    /// `preemption_budget` of its jobs that name none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preemption_budget: Option<PreemptionBudget>,
}

/// How long the allocator waits before it gives up on something.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Bounds {
    /// A claim whose chips are not all proven vacant this long after the last grace ended is given up whole.
    pub claim: Millis,
    /// A chip not proven vacant this long after its lease ended is quarantined.
    pub vacate: Millis,
    /// Longest grace a job may ask for.
    pub grace_max: Millis,
}

/// The policy in force.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Policy {
    /// Counts up with every change.
    pub version: u64,
    /// Queues a job may name.
    pub queues: BTreeSet<String>,
    /// Priority classes a job may name.
    pub priority_classes: BTreeMap<String, PriorityClass>,
    /// Bounds of waiting.
    pub bounds: Bounds,
}

impl Default for Policy {
    /// What a new cluster starts with: three queues, four classes from `best-effort` to `urgent`.
    fn default() -> Self {
        let class = |value, preemptible| PriorityClass { value, preemptible, ..PriorityClass::default() };
        Policy {
            version: 1,
            queues: ["default", "training", "inference"].map(String::from).into(),
            priority_classes: [
                ("best-effort", class(100, true)),
                ("standard", class(500, true)),
                ("serving", class(800, false)),
                ("urgent", class(1000, false)),
            ]
            .map(|(name, class)| (name.to_owned(), class))
            .into(),
            bounds: Bounds {
                claim: Millis::from_secs(90),
                vacate: Millis::from_secs(60),
                grace_max: Millis::from_secs(3600),
            },
        }
    }
}
