//! Why a job waits, for programs (`code` and numbers) and for people (`message`).

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// One thing that keeps a job from starting.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Reason {
    /// Stable: `insufficient_chips`, `fragmented`, `insufficient_cpu`, `insufficient_memory`, `scattered`,
    /// `topology`, `never_fits`, `no_such_class`, `nodes_unknown`, `awaiting_vacancy`, `next_round`.
    #[schema(example = "insufficient_chips")]
    pub code: String,
    /// The device class it is about, where it is about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_class: Option<String>,
    /// How much is asked for (the unit follows from the code: chips, replicas, milli-CPU, MiB).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requested: Option<u64>,
    /// How much of it there is now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub available: Option<u64>,
    /// How much is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shortfall: Option<u64>,
    /// One sentence.
    pub message: String,
}
