//! The verbs of Chiptide, pure: the cluster in memory, what is decided about it, how events change it, and a recount.
//!
//! No clock, no I/O, no async, no randomness, no unordered iteration: the same cluster and the same commands give the
//! same events, bit for bit. A round of the daemon is
//!
//! 1. [`decide`] on a draft of the cluster, which emits events and applies each to the draft at once,
//! 2. [`check`] of the draft,
//! 3. the commit of the events (not here), and
//! 4. [`Cluster::apply`] of the same events to the committed cluster.

pub mod apply;
pub mod check;
pub mod cluster;
pub mod command;
pub mod consolidate;
pub mod decide;
pub mod demand;
pub mod elastic;
pub mod explain;
pub mod fleet;
pub mod place;
pub mod policy_review;
pub mod preempt;
pub mod queue;
pub mod quota;
pub mod register;
pub mod rehearsal;
pub mod report;
pub mod reservations;
pub mod restore;
pub mod room;
pub mod touched;

mod cordon;
mod draft;
mod expire;
mod faults;
mod forgotten;
mod node_loss;
mod promise;
mod reserve;
mod rights;
mod serve;

pub use apply::Unfounded;
pub use check::{Violation, check, check_touched};
pub use cluster::{Claim, Cluster};
pub use command::{Ack, Command, NewJob, PolicyChange, Refusal, Report};
pub use decide::{Decision, Round, decide};
pub use explain::{Reason, explain};
pub use forgotten::{EPOCH_SEEN_MAX, RefusedGrant, Seen};
pub use quota::{ColumnUse, PastUse, QueuePast, QueueUse};
pub use reservations::Reservation;
pub use restore::Snapshot;
pub use touched::Touched;

#[cfg(test)]
mod tests;
