//! What the takeovers did.

use crate::audit::AuditReport;
use crate::machine::Machine;
use serde::Serialize;

/// A takeover from a killed leader may take this long, milliseconds.
const KILLED_MAX_MS: f64 = 5_000.0;
/// A takeover from one that hangs.
const HUNG_MAX_MS: f64 = 15_000.0;

/// What the takeovers did. A takeover is timed by the clients: from the last write acknowledged before it to the first
/// after it.
#[derive(Clone, PartialEq, Debug, Default, Serialize)]
pub struct TakeoverReport {
    /// Where it ran.
    pub machine: Machine,
    /// Seed of the moments.
    pub seed: u64,
    /// Takeovers from a killed leader, milliseconds each.
    pub killed_ms: Vec<f64>,
    /// Takeovers from one that hung, milliseconds each. Each of these became a standby when it was let run on.
    pub hung_ms: Vec<f64>,
    /// Jobs acknowledged.
    pub acknowledged: u64,
    /// Acknowledged jobs that a look-up in the end did not find.
    pub missing: u64,
    /// Keys that were answered with another job in the end.
    pub changed: u64,
    /// Submits that are in the log more than once.
    pub doubled: u64,
    /// The audit of the event log, which knows who led when each event was written.
    pub audit: AuditReport,
    /// Wall seconds in all.
    pub seconds: f64,
}

impl TakeoverReport {
    /// Whether nothing was lost or is there twice, and every takeover was in time.
    pub fn is_clean(&self) -> bool {
        let in_time = longest(&self.killed_ms) <= KILLED_MAX_MS && longest(&self.hung_ms) <= HUNG_MAX_MS;
        in_time && self.missing == 0 && self.changed == 0 && self.doubled == 0 && self.audit.clean
    }

    /// The figures for people.
    pub(super) fn table(&self) -> comfy_table::Table {
        let audit = &self.audit;
        crate::table::of([
            ("leader killed", described(&self.killed_ms)),
            ("leader hung", described(&self.hung_ms)),
            ("jobs acknowledged", self.acknowledged.to_string()),
            ("missing", self.missing.to_string()),
            ("answered with another job", self.changed.to_string()),
            ("in the log twice", self.doubled.to_string()),
            (
                "audit of the event log",
                format!(
                    "{}: {} events, {} leaders, {} grants",
                    if audit.clean { "clean" } else { "VIOLATED" },
                    audit.events,
                    audit.leaders,
                    audit.grants
                ),
            ),
            ("machine", format!("{}; {:.0} s in all", self.machine, self.seconds)),
        ])
    }
}

fn longest(all: &[f64]) -> f64 {
    all.iter().copied().fold(0.0, f64::max)
}

fn described(all: &[f64]) -> String {
    if all.is_empty() {
        return "not done".into();
    }
    let mut sorted = all.to_vec();
    sorted.sort_by(f64::total_cmp);
    let (median, max) = (sorted[sorted.len() / 2] / 1000.0, longest(all) / 1000.0);
    format!("{} times: median {median:.2} s, longest {max:.2} s", all.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_takeover_that_takes_too_long_is_not_clean() {
        let clean =
            TakeoverReport { audit: AuditReport { clean: true, ..AuditReport::default() }, ..Default::default() };
        assert!(TakeoverReport { killed_ms: vec![400.0], hung_ms: vec![7_000.0], ..clean.clone() }.is_clean());
        assert!(!TakeoverReport { killed_ms: vec![400.0, 5_100.0], ..clean.clone() }.is_clean());
        assert!(!TakeoverReport { hung_ms: vec![15_100.0], ..clean.clone() }.is_clean());
        assert!(!TakeoverReport { changed: 1, ..clean }.is_clean());
    }
}
