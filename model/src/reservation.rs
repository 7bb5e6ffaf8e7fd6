//! Chips set aside for later: what an admin rules about it, who holds a reservation, and why one ends.

use crate::chip::DeviceClass;
use crate::id::JobId;
use crate::time::{Millis, Timestamp};
use serde::{Deserialize, Serialize};
use std::fmt;

/// For whom chips are set aside.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Holder {
    /// A job that cannot start yet.
    Job(JobId),
    /// An entry of the policy's calendar, by name.
    Calendar(String),
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Holder::Job(job) => write!(f, "job {job}"),
            Holder::Calendar(name) => write!(f, "calendar {name}"),
        }
    }
}

/// Why a reservation ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReservationDrop {
    /// Its job starts, on these chips or on others that came free first.
    Started,
    /// Its job is promised chips by an eviction.
    Promised,
    /// Its job was cancelled.
    Cancelled,
    /// One of its chips can no longer be granted.
    ChipLost,
    /// Its time came, and its chips were not free: an end it relied on did not come.
    Overrun,
    /// A job that goes before takes its chips.
    Outranked {
        /// That job.
        by: JobId,
    },
    /// Its window is over.
    Over,
    /// The policy no longer asks for it, or asks for something else.
    Withdrawn,
}

/// How long waiting jobs are kept from starving, and how small jobs may pass them meanwhile.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Backfill {
    /// So many blocked jobs, the first in order of service, may hold a reservation; 0 turns reservations off.
    pub reservations_max: u32,
    /// A job that wants fewer chips in all gets none: it takes the first chip that comes free.
    pub chips_min: u32,
    /// An earlier start is looked for at most this often.
    pub replan_every: Millis,
    /// So long before a calendar reservation begins its chips are chosen, and kept from jobs that would stay too long.
    pub calendar_lead: Millis,
}

impl Default for Backfill {
    fn default() -> Self {
        Backfill {
            reservations_max: 4,
            chips_min: 2,
            replan_every: Millis::from_secs(30),
            calendar_lead: Millis::from_secs(24 * 3600),
        }
    }
}

/// Chips that an admin sets aside for a queue, from one moment to another.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CalendarReservation {
    /// Its name, unique in the calendar.
    pub name: String,
    /// From then on only jobs of the queue start on the chips.
    pub from: Timestamp,
    /// Then the chips are anyone's again; nobody is evicted.
    pub to: Timestamp,
    /// The queue; those below it count as well.
    pub queue: String,
    /// Which chips; `None` takes any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_class: Option<DeviceClass>,
    /// How many whole chips.
    pub chips: u32,
    /// They come in groups of so many on one node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_node: Option<u16>,
}

/// When running jobs may be moved to make room for a gang.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Consolidation {
    /// The work that the moves for one gang may lose in all, in chip-milliseconds.
    pub lost_chip_ms_max: u64,
    /// At least this long from one consolidation to the next.
    pub cool_down: Millis,
}
