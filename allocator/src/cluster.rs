//! The whole live cluster in memory: the fold of every event so far.

use crate::elastic::Growth;
use crate::fleet::{Chip, ChipIx, Fleet, Node, NodeIx};
use crate::preempt::{Searches, Stakes};
use crate::queue::Queue;
use crate::touched::Touched;
use chiptide_model::{ChipId, Job, JobId, Lease, LeaseId, NodeId, Placement, Policy, Timestamp};
use rustc_hash::FxHashMap;
use std::collections::{BTreeMap, BTreeSet};

/// Chips promised to a job. Free ones are kept for it, held ones are being taken for it; it is promoted to a lease in
/// one step when all are proven free, or given up whole.
#[derive(Clone, PartialEq, Debug)]
pub struct Claim {
    /// Where the replicas will run.
    pub placements: Vec<Placement>,
    /// Leases evicted for it.
    pub victims: Vec<LeaseId>,
    /// When it was made.
    pub since: Timestamp,
    /// When it is given up.
    pub deadline: Timestamp,
}

/// Something the clock will do.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Timer {
    Lease(LeaseId),
    Claim(JobId),
    Vacate(ChipIx, LeaseId),
}

/// The live cluster. Changed only by [`Cluster::apply`].
#[derive(Clone, Debug, Default)]
pub struct Cluster {
    /// The policy in force.
    pub policy: Policy,
    /// Epoch of the leader that writes.
    pub leader_epoch: u64,
    /// Number of the last event in the log.
    pub seq: u64,
    /// Place of the last job accepted.
    pub last_place: u64,
    /// Nodes, chips and pools.
    pub fleet: Fleet,
    pub(crate) jobs: BTreeMap<JobId, Job>,
    pub(crate) leases: BTreeMap<LeaseId, Lease>,
    pub(crate) claims: BTreeMap<JobId, Claim>,
    pub(crate) queue: Queue,
    pub(crate) nodes_by_id: FxHashMap<NodeId, NodeIx>,
    pub(crate) chips_by_id: FxHashMap<ChipId, ChipIx>,
    pub(crate) timers: BTreeSet<(Timestamp, Timer)>,
    /// Live jobs by priority: tells in no time whether anyone is below.
    pub(crate) priorities: BTreeMap<i32, usize>,
    /// Active leases that may be preempted by a higher priority, by their own.
    pub(crate) preemptible: BTreeSet<(i32, LeaseId)>,
    /// Active leases that may be preempted from a time on.
    pub(crate) ripening: BTreeSet<(Timestamp, LeaseId)>,
    /// Elastic jobs that could use another replica.
    pub(crate) growth: Growth,
    /// What each lease that may be taken holds, pool by pool.
    pub(crate) stakes: Stakes,
    /// Figures about the stakes, kept from one search to the next.
    pub(crate) searches: Searches,
    /// Holds of ended leases not yet proven vacant.
    pub(crate) vacating: usize,
    /// Claims to look at in the next round.
    pub(crate) claims_to_check: BTreeSet<JobId>,
    pub(crate) touched: Touched,
}

impl PartialEq for Cluster {
    /// Equal in everything the log determines; what is merely noted for the next round does not count.
    fn eq(&self, other: &Cluster) -> bool {
        self.policy == other.policy
            && self.leader_epoch == other.leader_epoch
            && self.seq == other.seq
            && self.last_place == other.last_place
            && self.fleet == other.fleet
            && self.jobs == other.jobs
            && self.leases == other.leases
            && self.claims == other.claims
            && self.queue == other.queue
            && self.timers == other.timers
            && self.priorities == other.priorities
            && self.takeable() == other.takeable()
            && self.growth == other.growth
            && self.vacating == other.vacating
    }
}

impl Cluster {
    /// A live job.
    pub fn job(&self, id: JobId) -> Option<&Job> {
        self.jobs.get(&id)
    }

    /// Every live job, by id.
    pub fn jobs(&self) -> impl Iterator<Item = &Job> {
        self.jobs.values()
    }

    /// A lease that is live or not yet wholly proven vacant.
    pub fn lease(&self, id: LeaseId) -> Option<&Lease> {
        self.leases.get(&id)
    }

    /// Every lease that is live or not yet wholly proven vacant, by id.
    pub fn leases(&self) -> impl Iterator<Item = &Lease> {
        self.leases.values()
    }

    /// The promise a pending job holds.
    pub fn claim(&self, job: JobId) -> Option<&Claim> {
        self.claims.get(&job)
    }

    /// Every promise, by job.
    pub fn claims(&self) -> impl Iterator<Item = (&JobId, &Claim)> {
        self.claims.iter()
    }

    /// A node by name.
    pub fn node(&self, id: &NodeId) -> Option<&Node> {
        self.nodes_by_id.get(id).map(|&ix| &self.fleet.nodes[ix])
    }

    /// A node with its index.
    pub fn node_at(&self, id: &NodeId) -> Option<(NodeIx, &Node)> {
        self.nodes_by_id.get(id).map(|&ix| (ix, &self.fleet.nodes[ix]))
    }

    /// A chip with its index.
    pub fn chip_at(&self, id: &ChipId) -> Option<(ChipIx, &Chip)> {
        self.chips_by_id.get(id).map(|&ix| (ix, &self.fleet.chips[ix]))
    }

    /// A chip by id.
    pub fn chip(&self, id: &ChipId) -> Option<&Chip> {
        self.chips_by_id.get(id).map(|&ix| &self.fleet.chips[ix])
    }

    /// When the clock next has something to do, if anything.
    pub fn next_due(&self) -> Option<Timestamp> {
        let timer = self.timers.first().map(|(at, _)| *at);
        let ripe = self.ripening.first().map(|(at, _)| *at);
        [timer, ripe].into_iter().flatten().min()
    }

    /// Whether a job of lower priority than this is live, or extra replicas it may take, so that preempting or keeping
    /// chips could matter.
    pub(crate) fn anyone_below(&self, priority: i32) -> bool {
        self.priorities.first_key_value().is_some_and(|(lowest, _)| *lowest < priority)
            || self.stakes.any_extra(priority)
    }

    /// What has changed since this was last asked.
    pub fn take_touched(&mut self) -> Touched {
        std::mem::take(&mut self.touched)
    }

    /// What has changed since it was last taken.
    pub fn touched(&self) -> &Touched {
        &self.touched
    }

    /// Leases that may be taken now or from a time on; which of the two is for the clock to say.
    fn takeable(&self) -> BTreeSet<LeaseId> {
        let ripe = self.preemptible.iter().map(|(_, lease)| *lease);
        ripe.chain(self.ripening.iter().map(|(_, lease)| *lease)).collect()
    }

    /// The extra replicas that end with this lease, then the lease itself.
    pub(crate) fn with_extras(&self, id: LeaseId) -> Vec<LeaseId> {
        let job = self.leases.get(&id).filter(|lease| !lease.extra).and_then(|lease| self.jobs.get(&lease.job));
        let mut leases: Vec<LeaseId> = job.into_iter().flat_map(|job| job.extras.iter().copied()).collect();
        leases.push(id);
        leases
    }
}
