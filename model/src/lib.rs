//! The nouns of Chiptide: ids, units, chips, nodes, jobs, leases, policy, and the events that change them.
//!
//! This crate decides nothing and does no I/O: it says what exists and which values are legal. Verbs live in
//! `chiptide-allocator`; wire bodies (what a person types and a program receives) in `chiptide-api`.

pub mod chip;
pub mod choice;
pub mod event;
pub mod fault;
pub mod id;
pub mod job;
pub mod ladder;
pub mod lease;
pub mod node;
pub mod node_loss;
pub mod policy;
pub mod policy_fault;
pub mod queue;
pub mod reservation;
pub mod reserve;
pub mod time;
pub mod work;

pub use chip::{ChipFacts, ChipState, DeviceClass, Health, Quarantine, SLOTS_PER_CHIP, SlotCount, Slots};
pub use choice::{Choice, Cost, RunnerUp};
pub use event::{ClaimDrop, Event, Next};
pub use fault::{ChipFault, Dimension, FAULTS_MAX, Fault, FaultClass, FaultEnd, FaultKey, Faults};
pub use id::{ChipId, InvalidName, JobId, LeaseId, NodeId, SessionId};
pub use job::{ChipDemand, ClassChoice, Job, JobSpec, JobState, Kind, Outcome, Same, SameLevel, Unfit};
pub use ladder::{LadderStep, Step};
pub use lease::{Cause, Hold, Lease, LeaseState, Placement};
pub use node::{Cordon, NodeFacts};
pub use node_loss::{Fence, NodeLossAction, NodeLossPolicy, OnNodeLoss};
pub use policy::{Bounds, DeviceClassPolicy, FairShare, Policy, PriorityClass, ReplicaRule};
pub use policy_fault::PolicyFault;
pub use queue::{PreemptionBudget, QueuePolicy, Quota};
pub use reservation::{Backfill, CalendarReservation, Consolidation, Holder, ReservationDrop};
pub use reserve::Reserve;
pub use time::{InvalidDuration, Millis, Timestamp};
pub use work::{ReplicaEnd, Restart, Signal, Verdict, WorkEnd, Workload};
