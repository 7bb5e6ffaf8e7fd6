//! Faults of chips: as agents tell them, and as the API shows them.

use chiptide_model::{ChipFault, ChipId, Dimension, Fault, FaultClass, FaultEnd, FaultKey, Timestamp};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::problem::Invalid;
use crate::time::to_utc;

/// Longest text about a fault, characters; longer ones are cut.
pub const DETAIL_MAX: usize = 400;

/// A fault of a chip, as its agent tells it. Told in every report until the fault is over, and then until that is known.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct FaultBody {
    /// The chip.
    pub chip: String,
    /// Where it was seen: `xid`, `ecc`, `row_remap`, `lost`, `link`, `recovery` or `foreign_process`.
    pub dimension: String,
    /// The XID, or the pid of a foreign process; 0 where there are no codes.
    #[serde(default)]
    pub code: u32,
    /// How grave: `ignore`, `record`, `job`, `reset_at_idle`, `reset`, `link`, `node`, `human`, `unknown` or `foreign`.
    pub class: String,
    /// What was seen, for people.
    #[serde(default)]
    pub detail: String,
    /// Since when, by the node's clock; with `dimension` and `code` it says which fault is meant.
    pub since: DateTime<Utc>,
    /// Set once the fault is over: what the agent found when it looked again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<String>,
}

/// A fault of a chip, open or past.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct FaultView {
    /// Where it was seen.
    pub dimension: String,
    /// The XID, or the pid of a foreign process; 0 where there are no codes.
    pub code: u32,
    /// How grave.
    pub class: String,
    /// What was seen.
    pub detail: String,
    /// Since when, by the node's clock.
    pub since: DateTime<Utc>,
    /// Whether it keeps the chip out of service.
    pub open: bool,
    /// What ended it: what the node found, or who took the responsibility and why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<String>,
}

impl FaultBody {
    /// The fault that `self`, in this place of a report, tells of. The error names the field.
    pub fn parse(&self, place: &str) -> Result<ChipFault, Invalid> {
        let invalid = |field: &str, detail: String| Invalid::new("invalid_field", format!("{place}.{field}"), detail);
        let key = FaultKey {
            dimension: self.dimension.parse::<Dimension>().map_err(|error| invalid("dimension", error.to_string()))?,
            code: self.code,
            since: Timestamp(self.since.timestamp_millis()),
        };
        let fault = Fault {
            key,
            class: self.class.parse::<FaultClass>().map_err(|error| invalid("class", error.to_string()))?,
            detail: cut(&self.detail),
            ended: self.ended.as_deref().map(|detail| FaultEnd::Evidence { detail: cut(detail) }),
        };
        Ok((ChipId::new(&self.chip).map_err(|error| invalid("chip", error.to_string()))?, fault))
    }
}

fn cut(text: &str) -> String {
    text.chars().take(DETAIL_MAX).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

impl FaultView {
    /// A fault as the wire shows it.
    pub fn of(fault: &Fault) -> FaultView {
        FaultView {
            dimension: fault.key.dimension.as_str().into(),
            code: fault.key.code,
            class: fault.class.as_str().into(),
            detail: fault.detail.clone(),
            since: to_utc(fault.key.since),
            open: fault.is_open(),
            ended: fault.ended.as_ref().map(|end| match end {
                FaultEnd::Evidence { detail } => detail.clone(),
                FaultEnd::Admin { who, reason } => format!("by {who}: {reason}"),
            }),
        }
    }
}
