//! Accounts of chip time. All amounts are chip-seconds; half a chip for two seconds is one.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

/// Who had how much.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
pub struct UsageView {
    /// From this hour on.
    pub from: DateTime<Utc>,
    /// Up to this hour, which is not in it.
    pub to: DateTime<Utc>,
    /// Up to when the accounts go; later time is not in them yet. Absent before there are any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub as_of: Option<DateTime<Utc>>,
    /// The rows, in order of time, queue, device class, label and job.
    pub items: Vec<UsageRowView>,
}

/// One row: what it is for, as far as `by` told that apart, and its amounts in chip-seconds.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct UsageRowView {
    /// Start of the hour or day.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<DateTime<Utc>>,
    /// The queue; empty for time that was no queue's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<String>,
    /// The device class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_class: Option<String>,
    /// The value of the label; absent for jobs without it, and for time that was no job's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// The job; absent for time that was no job's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<Uuid>,
    /// A live lease had it.
    pub granted: f64,
    /// A lease that had ended was not proven gone.
    pub vacating: f64,
    /// Nobody had it and it could have been granted.
    pub idle: f64,
    /// Nobody had it and it could not be granted: a fault, a quarantine, a node that was not heard.
    pub out_of_service: f64,
    /// All of it: the four above.
    pub total: f64,
    /// Of what was granted: at work, by the chips' own readings.
    pub busy: f64,
    /// Of what was granted: beyond the queue's guarantee for that device class.
    pub borrowed: f64,
    /// Of the queue's guarantee for that device class: not used.
    pub lent: f64,
    /// Of what was granted: work since the last checkpoint, thrown away because the lease was taken for another job.
    pub lost_to_preemption: f64,
    /// Of what was granted: work since the last checkpoint, thrown away because of a fault of a chip or node.
    pub lost_to_faults: f64,
}
