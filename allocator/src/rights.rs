//! Who may take chips from whom. The search for victims asks only here, so that a new reason to take chips is one more
//! answer in this file.

use crate::cluster::Cluster;
use crate::queue::Shape;
use chiptide_model::{Lease, Timestamp};

/// All that rights distinguish of a lease: leases of one rank may be taken by the same jobs.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Rank {
    /// The queue its job is charged to.
    pub queue: String,
    /// The priority of its job.
    pub priority: i32,
    /// An extra replica of an elastic job: the first to go.
    pub extra: bool,
}

/// Why a lease may be taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Why {
    /// By priority.
    Preempt,
}

/// What a job of one shape may take now.
#[derive(Clone)]
pub(crate) struct Rights<'a> {
    cluster: &'a Cluster,
    priority: i32,
}

impl<'a> Rights<'a> {
    /// The rights of a job of this shape.
    pub(crate) fn of(cluster: &'a Cluster, shape: &Shape, _now: Timestamp) -> Rights<'a> {
        Rights { cluster, priority: shape.priority }
    }

    /// Whether a lease of this rank may be taken, if it may be taken at all. A whole lease needs a strictly higher
    /// priority; an extra replica goes to any job of the same priority too, and never takes anything itself, so that
    /// no two jobs take from each other in turn.
    pub(crate) fn admits(&self, rank: &Rank) -> Option<Why> {
        let higher = self.priority > rank.priority || (rank.extra && self.priority == rank.priority);
        higher.then_some(Why::Preempt)
    }

    /// Whether this lease may be taken now: it is active, its job allows it, no `min_runtime` or budget protects it,
    /// and its rank is admitted.
    pub(crate) fn may_evict(&self, lease: &Lease) -> Option<Why> {
        let rank = self.cluster.stakes.rank_of(lease.id)?;
        self.admits(rank)
    }

    /// Accounts for a lease that is going to be taken. `false` means that no more may be taken there: the lease must
    /// stay.
    pub(crate) fn take(&mut self, lease: &Lease) -> bool {
        self.may_evict(lease).is_some()
    }
}
