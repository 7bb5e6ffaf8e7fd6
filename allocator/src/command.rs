//! What comes into a round, and what goes back to its sender.

use crate::forgotten::{RefusedGrant, Seen};
use chiptide_model::{
    Cause, ChipFacts, ChipFault, ChipId, Health, JobId, JobSpec, LadderStep, LeaseId, Millis, NodeFacts, NodeId,
    Outcome, Policy, ReplicaEnd, SessionId, Timestamp, Verdict,
};
use std::sync::Arc;

/// A job to be accepted.
#[derive(Clone, PartialEq, Debug)]
pub struct NewJob {
    /// Its id, minted by the caller.
    pub id: JobId,
    /// What it asks for.
    pub spec: Arc<JobSpec>,
}

/// A policy to be put in force, by whom, and why.
#[derive(Clone, PartialEq, Debug)]
pub struct PolicyChange {
    /// The policy; its version is set to the one after that in force.
    pub policy: Policy,
    /// The version it must follow; `None` takes any.
    pub after: Option<u64>,
    /// Who changes it.
    pub author: String,
    /// Why, in their words; may be empty.
    pub reason: String,
}

/// A request to change the cluster.
#[derive(Clone, PartialEq, Debug)]
pub enum Command {
    /// This daemon has taken the lead under this epoch.
    TakeOver {
        /// The leader's epoch.
        epoch: u64,
    },
    /// Puts a policy in force, whatever is in force now.
    ApplyPolicy(Policy),
    /// Puts a policy in force after the one that its author has seen.
    ChangePolicy(Box<PolicyChange>),
    /// Accepts jobs, all or none.
    Submit(Vec<NewJob>),
    /// Ends a job that is not over.
    Cancel(JobId),
    /// Its owner says the job is over.
    Done(JobId, Outcome),
    /// Extends a lease by its `lease_ttl`.
    Renew(LeaseId),
    /// The holder has made a checkpoint: an eviction from now on loses only what comes after.
    Checkpoint {
        /// A live lease of the job.
        lease: LeaseId,
        /// The step of its work that was saved.
        step: Option<u64>,
        /// If notice has been given, the holder needs no more of its grace.
        leave: bool,
    },
    /// The holder of a lease under notice asks for more time, which it gets once.
    Extend {
        /// The lease.
        lease: LeaseId,
        /// How much; the policy bounds it.
        by: Millis,
        /// What for.
        reason: String,
    },
    /// The agents say how the work of a lease has ended.
    WorkEnded {
        /// The lease.
        lease: LeaseId,
        /// Which run of its job's replicas this is about; news of an older one are no news.
        run: u32,
        /// What follows from it.
        verdict: Verdict,
        /// How each replica ended that has.
        replicas: Vec<ReplicaEnd>,
    },
    /// The holder gives the lease back. Giving back an extra replica shrinks the job and does not end it.
    Release {
        /// The lease.
        lease: LeaseId,
        /// Put the job back to pending, rather than end it.
        requeue: bool,
    },
    /// An agent registers its node.
    Register {
        /// The node.
        node: NodeId,
        /// The session to issue.
        session: SessionId,
        /// The boot it runs in.
        boot_id: String,
        /// What the node is.
        facts: NodeFacts,
        /// Its chips.
        chips: Vec<(ChipFacts, Health)>,
        /// The highest lease epoch it has seen of each chip.
        seen: Vec<Seen>,
    },
    /// An agent reports something that changes a decision.
    Report(Report),
    /// A node has not reported for too long.
    Silent(NodeId),
    /// An admin takes a chip out of service.
    Quarantine {
        /// The chip.
        chip: ChipId,
        /// Who says so.
        who: String,
        /// Why.
        reason: String,
    },
    /// An admin brings a chip back into service.
    ReleaseChip {
        /// The chip.
        chip: ChipId,
        /// Who says so.
        who: String,
        /// Why.
        reason: String,
    },
    /// An operator wants nothing more granted on a node; who is there may finish.
    Cordon {
        /// The node.
        node: NodeId,
        /// Who says so.
        who: String,
        /// Why.
        reason: String,
    },
    /// An operator wants a node empty: nothing more is granted, and every lease there gets notice.
    Drain {
        /// The node.
        node: NodeId,
        /// Who says so.
        who: String,
        /// Why.
        reason: String,
        /// Holders may stay until then, if their grace ends before.
        by: Option<Timestamp>,
    },
    /// An operator gives a node back to work. Notices that were given stand.
    Uncordon {
        /// The node.
        node: NodeId,
        /// Who says so.
        who: String,
        /// Why.
        reason: String,
    },
    /// An admin declares that a machine is off.
    DeclareOff {
        /// The node.
        node: NodeId,
        /// Who says so.
        by: String,
        /// Why.
        reason: String,
    },
    /// The database is another one than before, or an older state of it.
    DatabaseReplaced {
        /// What is known of both, for people.
        detail: String,
    },
    /// Nothing: a request that changes nothing but wants its answer recorded.
    Nothing,
}

/// The part of an agent's report that can change a decision.
#[derive(Clone, PartialEq, Debug)]
pub struct Report {
    /// The node.
    pub node: NodeId,
    /// Its session.
    pub session: SessionId,
    /// Chips whose health is not what the cluster thinks.
    pub health: Vec<(ChipId, Health)>,
    /// Leases it carries.
    pub confirmed: Vec<LeaseId>,
    /// Steps taken with the workloads of leases that are taken or were.
    pub ladders: Vec<(LeaseId, Vec<LadderStep>)>,
    /// Proofs of vacancy: the chip, the ended lease, and the highest epoch the agent has seen.
    pub vacant: Vec<(ChipId, LeaseId, u64)>,
    /// Faults of its chips, and the ends of such.
    pub faults: Vec<ChipFault>,
    /// Grants it does not carry, for an epoch it has seen.
    pub refused: Vec<RefusedGrant>,
    /// Leases whose work it has ended by itself, having been cut off.
    pub fenced: Vec<LeaseId>,
}

/// A command that was accepted.
#[derive(Clone, PartialEq, Debug)]
pub enum Ack {
    /// These jobs were accepted.
    Submitted(Vec<JobId>),
    /// The job was changed.
    Job(JobId),
    /// The lease was changed.
    Lease(LeaseId),
    /// The chip was changed.
    Chip(ChipId),
    /// The node was registered under this session.
    Registered(SessionId),
    /// Another policy came into force.
    Policy {
        /// The one that was in force before.
        before: Box<Policy>,
        /// Who changed it.
        author: String,
        /// Why.
        reason: String,
    },
    /// The node was changed.
    Node(NodeId),
    /// Done.
    Done,
}

/// A command that was refused. It changed nothing.
#[derive(Clone, PartialEq, Debug)]
pub enum Refusal {
    /// There is no such live job.
    NoSuchJob(JobId),
    /// There is no such live lease.
    NoSuchLease(LeaseId),
    /// The lease is being taken and cannot be renewed.
    LeaseRevoked(LeaseId, Cause),
    /// The lease is not being taken, so there is nothing to extend.
    NotRevoked(LeaseId),
    /// The lease has had its extension.
    ExtensionUsed(LeaseId),
    /// The policy allows no extensions.
    NoExtension,
    /// A job with this id exists.
    DuplicateJob(JobId),
    /// Another policy came into force since the one that the author has seen.
    PolicyChanged {
        /// The version in force.
        in_force: u64,
    },
    /// The whole fleet, empty, could not hold the job, and it asked to be refused then.
    NeverFits {
        /// Index of the job in the call.
        index: usize,
        /// What is missing.
        detail: String,
    },
    /// A chip of the registration belongs to another node.
    ChipElsewhere {
        /// The chip.
        chip: ChipId,
        /// Its node.
        node: NodeId,
    },
    /// There is no such chip.
    NoSuchChip(ChipId),
    /// The chip is in service.
    NotQuarantined(ChipId),
    /// The chip still owes the proof that nothing of an ended lease is left on it.
    NotVacated {
        /// The chip.
        chip: ChipId,
        /// The ended lease.
        lease: LeaseId,
    },
    /// The chip is out of service for a fault of another chip of its node.
    HeldByNodeFault {
        /// The chip.
        chip: ChipId,
        /// The one with the fault.
        other: ChipId,
    },
    /// The node is not cordoned.
    NotCordoned(NodeId),
    /// The node reports, so it is not off.
    NodeReports(NodeId),
    /// The report's session is not the node's.
    StaleSession(NodeId),
    /// The node has never registered.
    NotRegistered(NodeId),
}
