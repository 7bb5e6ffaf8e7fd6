//! Queues: what each may hold, is owed, holds and borrows.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// One queue.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
pub struct QueueView {
    /// Its name.
    pub name: String,
    /// The queue above it, whose numbers include this one's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
    /// Whether jobs may name it.
    pub takes_jobs: bool,
    /// Its part of what is beyond the guarantees, against its siblings.
    pub weight: u32,
    /// Its dominant share of the fleet beyond its guarantee, present and recent use in equal parts, divided by its
    /// weight. Of two queues of one priority the one with less is served first.
    pub share: f64,
    /// Jobs that wait, with those of the queues below.
    pub pending: u64,
    /// Chips of any class, each counted at its relative speed.
    pub normalised: QueueUseView,
    /// Chips by device class.
    pub classes: Vec<ClassUseView>,
}

/// A queue's use of one device class.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
pub struct ClassUseView {
    /// The class.
    pub device_class: String,
    /// Its use.
    #[serde(flatten)]
    pub chips: QueueUseView,
    /// Chips held on average of late; past use counts half after the policy's `half_life`.
    pub recent: f64,
}

/// What a queue may hold, holds and borrows, in chips.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct QueueUseView {
    /// What it gets whenever it wants it.
    pub guaranteed: f64,
    /// What it never exceeds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<f64>,
    /// What it holds or is promised.
    pub used: f64,
    /// Of that, under notice.
    pub leaving: f64,
    /// What it holds beyond its guarantee.
    pub borrowed: f64,
    /// What it leaves of its guarantee for others to use.
    pub lent: f64,
}

/// Every queue, in order of name.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
pub struct QueuesView {
    /// The queues.
    pub items: Vec<QueueView>,
}
