//! What a run of events has changed: the rows to write, and the watchers to wake.

use chiptide_model::{ChipId, Job, JobId, Lease, LeaseId, NodeId};
use std::collections::{BTreeMap, BTreeSet};

/// Ids whose state has changed since the last [`Touched`] was taken, with the last state of what has left memory.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Touched {
    /// Live jobs that changed.
    pub jobs: BTreeSet<JobId>,
    /// Jobs that ended, in their final state.
    pub ended_jobs: BTreeMap<JobId, Job>,
    /// Leases that changed and are still in memory.
    pub leases: BTreeSet<LeaseId>,
    /// Leases whose last chip was proven vacant.
    pub vacated_leases: BTreeMap<LeaseId, Lease>,
    /// Jobs whose claim was made or dropped.
    pub claims: BTreeSet<JobId>,
    /// Chips that changed.
    pub chips: BTreeSet<ChipId>,
    /// Nodes that changed, and those whose orders changed.
    pub nodes: BTreeSet<NodeId>,
    /// Whether a policy came into force.
    pub policy: bool,
}

impl Touched {
    /// Whether nothing has changed.
    pub fn is_empty(&self) -> bool {
        *self == Touched::default()
    }
}
