//! The whole live cluster in memory: the fold of every event so far.

use crate::consolidate::Consolidations;
use crate::demand::Demand;
use crate::elastic::Growth;
use crate::fleet::{Chip, ChipIx, Fleet, Node, NodeIx};
use crate::preempt::{Searches, Stakes};
use crate::queue::Queue;
use crate::quota::Ledger;
use crate::reservations::Reservations;
use crate::touched::Touched;
use chiptide_model::{ChipId, Choice, Job, JobId, JobState, Lease, LeaseId, NodeId, Placement, Policy, Timestamp};
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
    /// Why these leases were taken and no others.
    pub choice: Choice,
}

/// Something the clock will do.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Timer {
    Lease(LeaseId),
    Claim(JobId),
    Vacate(ChipIx, LeaseId),
    Lost(LeaseId),
    Start(LeaseId),
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
    /// When the last event happened.
    pub at: Timestamp,
    /// Nodes, chips and pools.
    pub fleet: Fleet,
    /// What jobs ask for, as placement has learned it.
    pub demand: Demand,
    pub(crate) jobs: BTreeMap<JobId, Job>,
    pub(crate) leases: BTreeMap<LeaseId, Lease>,
    pub(crate) claims: BTreeMap<JobId, Claim>,
    pub(crate) queue: Queue,
    pub(crate) ledger: Ledger,
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
    pub(crate) reservations: Reservations,
    pub(crate) consolidations: Consolidations,
    /// Claims to look at in the next round.
    pub(crate) claims_to_check: BTreeSet<JobId>,
    pub(crate) touched: Touched,
    /// When the last round was; budgets that were released since may let a waiting job preempt.
    pub(crate) looked_at: Timestamp,
    /// When this leader took the lead. Nodes unknown since then were not silent: they are yet to be heard.
    pub(crate) took_over_at: Option<Timestamp>,
    /// Until when nobody could renew or answer, where that was so under this leader: the ledger was away. Not kept.
    pub(crate) resumed_at: Option<Timestamp>,
    /// Since when a node can answer without a break, where it could not before. Not kept: who reads the tables takes the
    /// lead, and hears the nodes anew.
    pub(crate) answers_since: BTreeMap<NodeIx, Timestamp>,
}

impl PartialEq for Cluster {
    /// Equal in everything the log determines; what is merely noted for the next round does not count.
    fn eq(&self, other: &Cluster) -> bool {
        self.policy == other.policy
            && self.leader_epoch == other.leader_epoch
            && self.seq == other.seq
            && self.last_place == other.last_place
            && self.at == other.at
            && self.fleet == other.fleet
            && self.demand == other.demand
            && self.jobs == other.jobs
            && self.leases == other.leases
            && self.claims == other.claims
            && self.queue == other.queue
            && self.ledger == other.ledger
            && self.timers == other.timers
            && self.priorities == other.priorities
            && self.takeable() == other.takeable()
            && self.growth == other.growth
            && self.vacating == other.vacating
            && self.reservations == other.reservations
            && self.consolidations == other.consolidations
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

    /// Whether a job waits in the queue, holding no promise.
    pub(crate) fn waits(&self, id: JobId) -> bool {
        self.jobs.get(&id).is_some_and(|job| job.state == JobState::Pending) && !self.claims.contains_key(&id)
    }

    /// Leases that may be preempted, as far as that is up to their jobs.
    pub(crate) fn preemptible_leases(&self) -> impl Iterator<Item = &Lease> {
        self.preemptible.iter().filter_map(|(_, id)| self.leases.get(id))
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

    /// When time alone next allows what was refused before: an eviction within a budget, or moves after the last ones.
    pub(crate) fn next_release(&self) -> Option<Timestamp> {
        let cooled = self.cooled_at().filter(|at| *at > self.looked_at);
        self.ledger.next_release(self.looked_at).into_iter().chain(cooled).min()
    }

    /// When the clock next has something to do, if anything.
    pub fn next_due(&self) -> Option<Timestamp> {
        let timer = self.timers.first().map(|(at, _)| *at);
        let ripe = self.ripening.first().map(|(at, _)| *at);
        let waited_for = if self.queue.is_empty() { None } else { self.next_release() };
        timer.into_iter().chain(ripe).chain(waited_for).chain(self.next_reservation_due()).min()
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
        self.extras_of(id).chain([id]).collect()
    }

    /// The extra replicas that end with a base lease.
    pub(crate) fn extras_of(&self, id: LeaseId) -> impl Iterator<Item = LeaseId> + '_ {
        let job = self.leases.get(&id).filter(|lease| !lease.extra).and_then(|lease| self.jobs.get(&lease.job));
        job.into_iter().flat_map(|job| job.extras.iter().copied())
    }
}
