//! The eviction ladder: the steps by which a lease under notice is emptied, as they are logged and told.

use crate::time::Timestamp;
use serde::{Deserialize, Serialize};

/// A step that a node's agent takes with the workload of a lease.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// The workload was told: its notice file is there, and its signal was sent if it asked for one.
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

impl Step {
    /// The word used on the wire and in SQL.
    pub fn as_str(self) -> &'static str {
        match self {
            Step::Told => "told",
            Step::Terminated => "terminated",
            Step::Killed => "killed",
            Step::Stuck => "stuck",
            Step::Empty => "empty",
        }
    }
}

/// One step and when it was taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LadderStep {
    /// The step.
    pub step: Step,
    /// When, as the agent counts it.
    pub at: Timestamp,
}
