//! What a run of events has changed: the rows to write, and the watchers to wake.

use chiptide_model::{ChipId, Holder, Job, JobId, Lease, LeaseId, NodeId};
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
    /// Chips that changed in any way: a hold or claim, health, epoch.
    pub chips: BTreeSet<ChipId>,
    /// Chips met for the first time.
    pub new_chips: BTreeSet<ChipId>,
    /// Chips whose facts, health or quarantine changed.
    pub chip_facts: BTreeSet<ChipId>,
    /// Chips whose lease epoch rose, with the epoch it rose from.
    pub epochs: BTreeMap<ChipId, u64>,
    /// Nodes whose session, facts or being known changed.
    pub nodes: BTreeSet<NodeId>,
    /// Nodes whose orders changed.
    pub orders: BTreeSet<NodeId>,
    /// Queues whose use changed.
    pub queues: BTreeSet<String>,
    /// Queues of which a job was preempted.
    pub preempted_queues: BTreeSet<String>,
    /// Holders whose reservation was made, opened or dropped.
    pub reservations: BTreeSet<Holder>,
    /// Jobs whose gang others were moved for.
    pub consolidations: BTreeSet<JobId>,
    /// Whether the count of what jobs ask for changed.
    pub demand: bool,
    /// Whether a policy came into force.
    pub policy: bool,
}

impl Touched {
    /// Every node that changed in any way.
    pub fn nodes_to_wake(&self) -> impl Iterator<Item = &NodeId> {
        self.nodes.iter().chain(&self.orders)
    }
}
