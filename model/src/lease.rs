//! A lease: the right of one job to use named chips, renewable, revocable with notice.

use crate::chip::Slots;
use crate::id::{ChipId, JobId, LeaseId, NodeId};
use crate::time::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// Slots of one chip held under a lease (or wanted by a claim).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct Hold {
    /// The chip.
    pub chip: ChipId,
    /// Which of its slots; several ranges when a share had to be pieced together.
    pub slots: Vec<Slots>,
    /// The lease epoch of the chip at this grant; 0 in a claim, which grants nothing yet.
    pub epoch: u64,
}

/// Where one replica runs.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Placement {
    /// Index of the replica in its gang, from 0.
    pub replica: u32,
    /// The node.
    pub node: NodeId,
    /// Its chips, all on that node.
    pub holds: Vec<Hold>,
    /// CPU set aside for it, in thousandths of a core.
    pub cpu_milli: u64,
    /// Memory set aside for it, in MiB.
    pub memory_mib: u64,
}

/// Why a lease is being taken or was ended.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "cause", rename_all = "snake_case")]
pub enum Cause {
    /// A job of higher priority gets the chips.
    Preempt {
        /// That job.
        for_job: JobId,
    },
    /// A job within its queue's guarantee gets the chips back from a queue that borrowed them.
    Reclaim {
        /// That job.
        for_job: JobId,
    },
    /// The job is moved to other chips, kept for it, so that a gang finds room.
    Consolidate {
        /// That gang.
        for_job: JobId,
    },
    /// Its node is drained.
    Drain {
        /// The node.
        node: NodeId,
    },
    /// The job reached its `max_duration`.
    MaxDuration,
    /// The holder did not renew within `lease_ttl`.
    Expired,
    /// The owner cancelled the job.
    Cancelled,
    /// The owner reported the job done.
    Done,
    /// The holder gave the chips back.
    Released,
    /// A node was not heard for so long that its work is over by itself, or that its job wants another attempt.
    NodeLost {
        /// The node.
        node: NodeId,
    },
    /// A node was cut off for longer than the job's fence, and has ended the work by itself.
    Fenced {
        /// The node.
        node: NodeId,
    },
    /// A node can no longer carry the lease (it rebooted, or a chip failed).
    Fault {
        /// The node at fault.
        node: NodeId,
        /// What happened.
        detail: String,
    },
}

impl Cause {
    /// The job that gets the chips, where the lease is taken for one.
    pub fn for_job(&self) -> Option<JobId> {
        match self {
            Cause::Preempt { for_job } | Cause::Reclaim { for_job } | Cause::Consolidate { for_job } => Some(*for_job),
            _ => None,
        }
    }

    /// Whether a lease ends for this only after notice: it goes down the ladder.
    pub fn gives_notice(&self) -> bool {
        self.for_job().is_some() || matches!(self, Cause::MaxDuration | Cause::Drain { .. })
    }

    /// The word used on the wire, in SQL and in metrics.
    pub fn as_str(&self) -> &'static str {
        match self {
            Cause::Preempt { .. } => "preempt",
            Cause::Reclaim { .. } => "reclaim",
            Cause::Consolidate { .. } => "consolidate",
            Cause::Drain { .. } => "drain",
            Cause::MaxDuration => "max_duration",
            Cause::Expired => "expired",
            Cause::Cancelled => "cancelled",
            Cause::Done => "done",
            Cause::Released => "released",
            Cause::NodeLost { .. } => "node_lost",
            Cause::Fenced { .. } => "fenced",
            Cause::Fault { .. } => "fault",
        }
    }
}

/// Where a lease stands. An ended lease is kept until its last chip is proven vacant.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum LeaseState {
    /// In force.
    Active,
    /// Notice given: it ends at `deadline` or when the holder releases it.
    Revoking {
        /// Why.
        cause: Cause,
        /// The end at the latest.
        deadline: Timestamp,
    },
    /// Over; its chips are reclaimed one by one, on proof.
    Ended {
        /// Why.
        cause: Cause,
        /// When.
        at: Timestamp,
    },
}

/// A lease. Invariant: while it is live its job is live, and it covers every replica of the gang, or exactly one extra
/// replica of an elastic job.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Lease {
    /// Its identity.
    pub id: LeaseId,
    /// The job that holds it.
    pub job: JobId,
    /// Which attempt of the job this is, from 1.
    pub attempt: u32,
    /// Holds one extra replica of an elastic job, beside the job's base lease. Ends with that at the latest.
    pub extra: bool,
    /// One entry a replica.
    pub placements: Vec<Placement>,
    /// When it was granted.
    pub granted_at: Timestamp,
    /// When it lapses unless renewed; `None` without a `lease_ttl`.
    pub expires_at: Option<Timestamp>,
    /// When it must end whatever happens; `None` without a `max_duration`.
    pub ends_at: Option<Timestamp>,
    /// In force, or being taken.
    pub state: LeaseState,
    /// Nodes whose agents have confirmed it.
    pub confirmed: BTreeSet<NodeId>,
    /// Whether its holder has had the one extension that a notice allows.
    pub extended: bool,
    /// Version of the policy it was granted under; 0 where that was not recorded yet.
    pub policy_version: u64,
}

impl Lease {
    /// The nodes it spans, each once, in order.
    pub fn nodes(&self) -> BTreeSet<NodeId> {
        self.placements.iter().map(|p| p.node.clone()).collect()
    }

    /// Whether it is in force, with or without notice.
    pub fn is_live(&self) -> bool {
        !matches!(self.state, LeaseState::Ended { .. })
    }

    /// Whether it is in force and no notice has been given.
    pub fn is_active(&self) -> bool {
        matches!(self.state, LeaseState::Active)
    }

    /// When the clock next does something to it: it lapses, reaches its end, or its notice runs out.
    pub fn next_due(&self) -> Option<Timestamp> {
        match &self.state {
            LeaseState::Active => [self.expires_at, self.ends_at].into_iter().flatten().min(),
            LeaseState::Revoking { deadline, .. } => Some(*deadline),
            LeaseState::Ended { .. } => None,
        }
    }

    /// Slots held in all: what an eviction takes.
    pub fn slot_total(&self) -> u64 {
        self.placements.iter().flat_map(|p| &p.holds).flat_map(|h| &h.slots).map(|s| u64::from(s.count())).sum()
    }
}
