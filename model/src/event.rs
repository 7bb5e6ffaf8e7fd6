//! The closed set of things that can happen to a cluster. State is the fold of these, in order, and nothing else.

use crate::chip::{ChipFacts, Health, Quarantine};
use crate::choice::Choice;
use crate::fault::{Fault, FaultEnd, FaultKey};
use crate::id::{ChipId, JobId, LeaseId, NodeId, SessionId};
use crate::job::{JobSpec, Outcome};
use crate::ladder::LadderStep;
use crate::lease::{Cause, Placement};
use crate::node::{Cordon, NodeFacts};
use crate::policy::Policy;
use crate::reservation::{Holder, ReservationDrop};
use crate::time::Timestamp;
use crate::work::{ReplicaEnd, Verdict};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// What becomes of the job when its lease ends.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Next {
    /// Back to pending, its place kept.
    Pending,
    /// Over, with this outcome.
    Ended(Outcome),
    /// Goes on with its base lease: only an extra replica is gone.
    Unchanged,
}

/// Why a claim was given up.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClaimDrop {
    /// Its chips were not all vacant in time.
    Overdue,
    /// One of its chips can no longer be granted.
    ChipLost,
    /// Its job was cancelled.
    Cancelled,
}

/// One thing that happened, stamped and numbered by the log.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Event {
    /// A daemon took the lead. No node counts as heard until it reports to the new leader.
    LeaderTookOver {
        /// The leader's epoch.
        epoch: u64,
    },
    /// A policy came into force.
    PolicyApplied {
        /// The whole policy.
        policy: Policy,
        /// Who put it in force: the public part of a token, or a word for the daemon itself.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        author: String,
        /// Why, in their words.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        reason: String,
    },
    /// A node registered: a new session, and everything it has.
    NodeRegistered {
        /// The node.
        node: NodeId,
        /// The session issued for it.
        session: SessionId,
        /// The node's boot id.
        boot_id: String,
        /// What the node is.
        facts: NodeFacts,
        /// Its chips, each with its health.
        chips: Vec<(ChipFacts, Health)>,
    },
    /// A node reported to this leader after being unknown.
    NodeHeard {
        /// The node.
        node: NodeId,
    },
    /// A node has not reported for too long; its chips are unknown.
    NodeSilent {
        /// The node.
        node: NodeId,
    },
    /// An admin has declared the machine off: nothing of its leases runs any more, whatever its agent can no longer say.
    /// Its chips still have to be proven vacant when it comes back.
    NodeDeclaredOff {
        /// The node.
        node: NodeId,
        /// Who declared it.
        by: String,
        /// Why, in their words.
        reason: String,
    },
    /// Nothing more is granted on a node. It takes the place of what was said of the node before.
    NodeCordoned {
        /// The node.
        node: NodeId,
        /// Who, why, and whether it is drained.
        cordon: Cordon,
    },
    /// A node may be granted again.
    NodeUncordoned {
        /// The node.
        node: NodeId,
        /// Who said so.
        who: String,
        /// Why.
        reason: String,
    },
    /// The database was replaced by one that may have forgotten what was committed: no session is trusted, and every node
    /// has to register and say what it has seen.
    DatabaseReplaced {
        /// What is known of the old one and the new one, for people.
        detail: String,
    },
    /// A chip's lease epoch was raised to what its node has seen, above what the ledger knew.
    ChipEpochRaised {
        /// The chip.
        chip: ChipId,
        /// Its epoch now.
        epoch: u64,
    },
    /// A chip's health changed.
    ChipHealthChanged {
        /// The chip.
        chip: ChipId,
        /// Its health now.
        health: Health,
    },
    /// The node proved that nothing of this lease is left on the chip.
    ChipVacated {
        /// The chip.
        chip: ChipId,
        /// The ended lease.
        lease: LeaseId,
        /// The epoch the node had seen.
        epoch: u64,
    },
    /// A chip was taken out of service.
    ChipQuarantined {
        /// The chip.
        chip: ChipId,
        /// The evidence.
        quarantine: Quarantine,
    },
    /// A chip came back into service.
    ChipRestored {
        /// The chip.
        chip: ChipId,
    },
    /// A chip's node saw a fault of it.
    ChipFaulted {
        /// The chip.
        chip: ChipId,
        /// The fault, in the class that counts here.
        fault: Fault,
    },
    /// A fault of a chip is over.
    ChipFaultEnded {
        /// The chip.
        chip: ChipId,
        /// Which of its faults.
        fault: FaultKey,
        /// Why.
        end: FaultEnd,
    },
    /// An admin brought a chip back into service: whatever faults it had count as over.
    ChipReleased {
        /// The chip.
        chip: ChipId,
        /// Who.
        who: String,
        /// Why.
        reason: String,
    },
    /// A job was accepted.
    JobSubmitted {
        /// Its id.
        job: JobId,
        /// Its place in the order.
        place: u64,
        /// What it asks for.
        spec: Arc<JobSpec>,
    },
    /// Every node of the job's lease has confirmed.
    JobStarted {
        /// The job.
        job: JobId,
    },
    /// The job reported a checkpoint: an eviction loses only what came after.
    JobCheckpointed {
        /// The job.
        job: JobId,
        /// The step of its work that was saved, as its holder counts them.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        step: Option<u64>,
        /// The lease it was told under, where that is being taken.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        under_notice: Option<LeaseId>,
    },
    /// The work of a lease is over, or part of it has failed.
    WorkEnded {
        /// The lease.
        lease: LeaseId,
        /// Its job.
        job: JobId,
        /// Which run of the job's replicas, from 0.
        run: u32,
        /// What follows from it.
        verdict: Verdict,
        /// How each replica ended that has.
        replicas: Vec<ReplicaEnd>,
    },
    /// All replicas of a job are started anew on the chips they have.
    JobRestarted {
        /// The job.
        job: JobId,
        /// The number of the new run.
        run: u32,
    },
    /// A job that held no lease ended.
    JobEnded {
        /// The job.
        job: JobId,
        /// How.
        outcome: Outcome,
    },
    /// Chips were promised to a job: free ones are kept for it, held ones are being taken for it.
    ClaimMade {
        /// The job.
        job: JobId,
        /// Where its replicas will run.
        placements: Vec<Placement>,
        /// Leases evicted for it in the same round.
        victims: Vec<LeaseId>,
        /// When the claim is given up.
        deadline: Timestamp,
        /// Why these leases and no others.
        #[serde(default)]
        choice: Choice,
    },
    /// A claim was given up whole; the job keeps its place.
    ClaimDropped {
        /// The job.
        job: JobId,
        /// Why.
        why: ClaimDrop,
    },
    /// Chips were set aside, free ones and held ones. It takes the place of what the holder had set aside before.
    ReservationMade {
        /// For whom.
        holder: Holder,
        /// From when on: for a job, the latest start that the known ends allow.
        starts_at: Timestamp,
        /// Until when, for a calendar reservation.
        ends_at: Option<Timestamp>,
        /// The chips.
        placements: Vec<Placement>,
    },
    /// The window of a calendar reservation began.
    ReservationOpened {
        /// For whom.
        holder: Holder,
    },
    /// Chips are no longer set aside.
    ReservationDropped {
        /// For whom they were.
        holder: Holder,
        /// Why.
        why: ReservationDrop,
    },
    /// A lease was granted.
    LeaseGranted {
        /// The lease.
        lease: LeaseId,
        /// The job that holds it.
        job: JobId,
        /// Which attempt of the job.
        attempt: u32,
        /// Where each replica runs, with the new epoch of every chip.
        placements: Vec<Placement>,
        /// When it lapses unless renewed.
        expires_at: Option<Timestamp>,
        /// When it ends whatever happens.
        ends_at: Option<Timestamp>,
        /// Whether it is an extra replica of an elastic job that holds its base lease already.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        extra: bool,
    },
    /// A node's agent confirmed its part of a lease.
    LeaseConfirmed {
        /// The lease.
        lease: LeaseId,
        /// The node.
        node: NodeId,
    },
    /// A lease was renewed.
    LeaseRenewed {
        /// The lease.
        lease: LeaseId,
        /// When it lapses now.
        expires_at: Timestamp,
    },
    /// Notice was given: the lease ends at the deadline.
    LeaseRevoked {
        /// The lease.
        lease: LeaseId,
        /// Why.
        cause: Cause,
        /// The end at the latest.
        deadline: Timestamp,
    },
    /// The holder of a lease under notice got more time, once.
    LeaseExtended {
        /// The lease.
        lease: LeaseId,
        /// The end at the latest, now.
        deadline: Timestamp,
        /// What the holder said it is for.
        reason: String,
    },
    /// How far a node's agent has come with the workload of a lease under notice, or that has ended after one.
    LadderClimbed {
        /// The lease.
        lease: LeaseId,
        /// The node.
        node: NodeId,
        /// The steps taken so far, in order.
        steps: Vec<LadderStep>,
    },
    /// A lease ended; its chips are reclaimed one by one, on proof.
    LeaseEnded {
        /// The lease.
        lease: LeaseId,
        /// Why.
        cause: Cause,
        /// What becomes of the job.
        next: Next,
    },
}

impl Event {
    /// The word that names this kind of event in the log.
    pub fn kind(&self) -> &'static str {
        match self {
            Event::LeaderTookOver { .. } => "leader_took_over",
            Event::PolicyApplied { .. } => "policy_applied",
            Event::NodeRegistered { .. } => "node_registered",
            Event::NodeHeard { .. } => "node_heard",
            Event::NodeSilent { .. } => "node_silent",
            Event::NodeDeclaredOff { .. } => "node_declared_off",
            Event::NodeCordoned { .. } => "node_cordoned",
            Event::NodeUncordoned { .. } => "node_uncordoned",
            Event::DatabaseReplaced { .. } => "database_replaced",
            Event::ChipEpochRaised { .. } => "chip_epoch_raised",
            Event::ChipHealthChanged { .. } => "chip_health_changed",
            Event::ChipVacated { .. } => "chip_vacated",
            Event::ChipQuarantined { .. } => "chip_quarantined",
            Event::ChipRestored { .. } => "chip_restored",
            Event::ChipFaulted { .. } => "chip_faulted",
            Event::ChipFaultEnded { .. } => "chip_fault_ended",
            Event::ChipReleased { .. } => "chip_released",
            Event::JobSubmitted { .. } => "job_submitted",
            Event::JobStarted { .. } => "job_started",
            Event::JobCheckpointed { .. } => "job_checkpointed",
            Event::WorkEnded { .. } => "work_ended",
            Event::JobRestarted { .. } => "job_restarted",
            Event::JobEnded { .. } => "job_ended",
            Event::ClaimMade { .. } => "claim_made",
            Event::ClaimDropped { .. } => "claim_dropped",
            Event::ReservationMade { .. } => "reservation_made",
            Event::ReservationOpened { .. } => "reservation_opened",
            Event::ReservationDropped { .. } => "reservation_dropped",
            Event::LeaseGranted { .. } => "lease_granted",
            Event::LeaseConfirmed { .. } => "lease_confirmed",
            Event::LeaseRenewed { .. } => "lease_renewed",
            Event::LeaseRevoked { .. } => "lease_revoked",
            Event::LeaseExtended { .. } => "lease_extended",
            Event::LadderClimbed { .. } => "ladder_climbed",
            Event::LeaseEnded { .. } => "lease_ended",
        }
    }
}
