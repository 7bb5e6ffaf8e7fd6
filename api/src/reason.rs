//! Why a job waits, for programs (`code` and numbers) and for people (`message`).

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// One thing that keeps a job from starting.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Reason {
    /// Stable: `insufficient_chips`, `fragmented`, `insufficient_cpu`, `insufficient_memory`, `scattered`,
    /// `topology`, `never_fits`, `no_such_class`, `queue_limit`, `borrow_limit`, `nodes_unknown`, `out_of_service`,
    /// `reserved`, `kept_for_others`, `reservation_short`, `reserve`, `awaiting_vacancy`, `next_round`.
    #[schema(example = "insufficient_chips")]
    pub code: String,
    /// The device class it is about, where it is about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_class: Option<String>,
    /// The queue it is about, where it is about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<String>,
    /// What the numbers count: `chips`, `slots` (thousandths of a chip) or `replicas`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    /// How much is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requested: Option<u64>,
    /// How much of it there is now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub available: Option<u64>,
    /// `reserved`, `awaiting_vacancy`: when that is over at the latest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub over_by: Option<DateTime<Utc>>,
    /// How much is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shortfall: Option<u64>,
    /// One sentence.
    pub message: String,
}
