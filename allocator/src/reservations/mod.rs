//! Reservations: chips set aside for later, so that a large gang does not starve while small jobs take every chip that
//! comes free.
//!
//! A job that can neither be placed nor preempt may get one: the earliest time at which the known ends of others make
//! room for it, and the very chips. From then on no other job starts on these chips unless it ends before (EASY
//! backfill: Lifka, "The ANL/IBM SP Scheduling System", 1995). Here the second condition of EASY, that a job may pass
//! if it takes none of the reserved room, holds by itself: other chips are other chips. The calendar of the policy sets
//! chips aside in the same way for a queue and a window of time.
//!
//! A reserved chip does not count as free, so the ordinary placement passes it by at no cost. Only where reservations
//! exist is there a second look, with those opened that the job may use ([`openings`]).
//!
//! The bound: a job starts no later than the start of its first reservation, as long as no chip of it is lost, no job
//! of strictly higher priority takes precedence, and no holder outstays its known end. `docs/allocation-reservations.md`
//! has the proof.

mod book;
mod calendar;
mod leaving;
mod openings;
mod plan;
mod reasons;
mod serve;
mod tend;

pub(crate) use book::Reservations;
pub(crate) use openings::{Use, find, find_first, make_way, note_barren, open_for_eviction, room_for, served};
pub(crate) use reasons::reasons;
pub(crate) use serve::{Turns, consider, enough_free};
pub(crate) use tend::{close_overdue, policy_changed, tend};

pub use calendar::calendar_shortfall;

use chiptide_model::{Placement, Timestamp};

/// Chips set aside for a holder.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reservation {
    /// The chips, one entry a replica; for the calendar one entry a node.
    pub placements: Vec<Placement>,
    /// When it was made, or last made anew.
    pub since: Timestamp,
    /// When it begins: for a job, the latest start that the known ends allow.
    pub starts_at: Timestamp,
    /// When it ends; `None` for a job's.
    pub ends_at: Option<Timestamp>,
    /// Whether the window of a calendar reservation has begun.
    pub open: bool,
}
