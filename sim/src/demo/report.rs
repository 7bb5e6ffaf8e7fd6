//! What the demo found, as JSON with stable names and as a table for people.

use super::{EbbReport, ReplayReport, SpikeReport};
use crate::audit::AuditReport;
use crate::census::Census;
use crate::machine::Machine;
use comfy_table::Table;
use serde::Serialize;
use std::collections::BTreeMap;

/// The whole demo in figures.
#[derive(Clone, PartialEq, Debug, Default, Serialize)]
pub struct DemoReport {
    /// Where it ran.
    pub machine: Machine,
    /// Nodes of the fleet.
    pub nodes: u64,
    /// Chips of the fleet.
    pub chips: u64,
    /// Wall seconds in all, the daemon's start included.
    pub seconds: f64,
    /// Seconds until every node was up.
    pub seconds_to_register: f64,
    /// Jobs submitted and accepted.
    pub jobs_submitted: u64,
    /// Jobs that had chips at some time.
    pub jobs_placed: u64,
    /// Jobs that wait at the end.
    pub jobs_waiting: u64,
    /// The trace.
    pub replay: ReplayReport,
    /// The fleet before the spike.
    pub before_spike: Census,
    /// The spike.
    pub spike: SpikeReport,
    /// The fleet with the spike on it.
    pub in_spike: Census,
    /// The return of training.
    pub ebb: EbbReport,
    /// The fleet afterwards.
    pub after: Census,
    /// The audit of the event log.
    pub audit: AuditReport,
}

impl DemoReport {
    /// The report as a table.
    pub fn table(&self) -> Table {
        crate::table::of(self.rows())
    }

    fn rows(&self) -> Vec<(&'static str, String)> {
        let (replay, spike, ebb, audit) = (&self.replay, &self.spike, &self.ebb, &self.audit);
        let pct = |census: &Census| format!("{:.1} %", census.allocated_pct);
        vec![
            ("fleet", format!("{} nodes, {} chips, up in {:.1} s", self.nodes, self.chips, self.seconds_to_register)),
            (
                "jobs",
                format!(
                    "{} submitted ({} tasks, {} clones to fill the fleet, {} spike), {} placed, {} waiting",
                    self.jobs_submitted, replay.tasks, replay.clones, spike.jobs, self.jobs_placed, self.jobs_waiting
                ),
            ),
            ("waiting, before the spike", reasons(&self.before_spike.waiting_by_reason)),
            ("waiting, at the end", reasons(&self.after.waiting_by_reason)),
            (
                "finished as in the trace",
                format!("{} jobs, {:.0} s of the trace's lives", replay.finished, replay.span_s),
            ),
            (
                "chips allocated",
                format!(
                    "{} before the spike, {} in it, {} after",
                    pct(&self.before_spike),
                    pct(&self.in_spike),
                    pct(&self.after)
                ),
            ),
            ("submit to lease", replay.submit_to_lease.to_string()),
            ("spike", format!("{} jobs for {} chips; {} have all their chips", spike.jobs, spike.chips, spike.in_hand)),
            ("spike: submit to decision", spike.decision.to_string()),
            ("spike: submit to all chips in hand", spike.all_chips_in_hand.to_string()),
            (
                "training preempted",
                format!(
                    "{} jobs: {} released early, {} used their grace of {}",
                    ebb.preempted,
                    ebb.released_early,
                    ebb.waited_out_grace,
                    super::trace::GRACE
                ),
            ),
            (
                "training back",
                format!(
                    "{} during the spike, {} after it, {} waiting",
                    ebb.back_during_spike, ebb.back_after_ebb, ebb.still_waiting
                ),
            ),
            ("ebb to chips again", ebb.return_after_ebb.to_string()),
            (
                "audit of the event log",
                format!(
                    "{}: {} events, {} grants, {} holds, {} preemptions, {} proofs of vacancy, {} of {} acknowledged jobs found",
                    if audit.clean { "clean" } else { "VIOLATED" },
                    audit.events,
                    audit.grants,
                    audit.holds,
                    audit.preemptions,
                    audit.vacated,
                    audit.jobs_acknowledged - audit.jobs_lost,
                    audit.jobs_acknowledged
                ),
            ),
            ("wall time", format!("{:.1} s on {}", self.seconds, self.machine)),
        ]
    }
}

fn reasons(counts: &BTreeMap<String, u64>) -> String {
    match counts.is_empty() {
        true => "nobody".into(),
        false => counts.iter().map(|(code, count)| format!("{code} {count}")).collect::<Vec<_>>().join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_that_others_read_are_there() {
        let json = serde_json::to_value(DemoReport::default()).expect("a report is JSON");
        for path in [
            "/before_spike/allocated_pct",
            "/in_spike/allocated_pct",
            "/after/waiting_by_reason",
            "/replay/submit_to_lease/p99_ms",
            "/spike/decision/p50_ms",
            "/spike/all_chips_in_hand/p99_ms",
            "/ebb/back_after_ebb",
            "/audit/clean",
            "/audit/violations",
            "/seconds",
        ] {
            assert!(json.pointer(path).is_some(), "{path}");
        }
    }

    #[test]
    fn the_table_says_when_the_audit_failed() {
        assert!(DemoReport::default().table().to_string().contains("VIOLATED"));
        let clean =
            DemoReport { audit: AuditReport { clean: true, ..AuditReport::default() }, ..DemoReport::default() };
        assert!(!clean.table().to_string().contains("VIOLATED"));
    }
}
