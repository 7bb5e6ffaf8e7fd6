//! What a load measured, as JSON with stable names and as a table for people.

use super::{CyclesReport, PostgresReport, PreemptingReport};
use crate::audit::AuditReport;
use crate::machine::{Machine, ProcessMemory};
use comfy_table::Table;
use serde::Serialize;

/// The whole load in figures.
#[derive(Clone, PartialEq, Debug, Default, Serialize)]
pub struct LoadReport {
    /// Where it ran; the daemon, Postgres, the agents and the clients all share it.
    pub machine: Machine,
    /// Nodes of the fleet.
    pub nodes: u64,
    /// Chips of the fleet.
    pub chips: u64,
    /// Clients under full load.
    pub clients: u64,
    /// One client, single chips.
    pub light: CyclesReport,
    /// All clients, single chips.
    pub full: CyclesReport,
    /// All clients, gangs.
    pub gangs: CyclesReport,
    /// The same Postgres, alone.
    pub postgres: PostgresReport,
    /// Grants under full load for each single-row commit of Postgres alone.
    pub grants_per_commit_alone: f64,
    /// Gangs under full load for each single-row commit of Postgres alone.
    pub gangs_per_commit_alone: f64,
    /// Preempting grants.
    pub preempting: PreemptingReport,
    /// Memory of the daemon at the end, if it is ours.
    pub daemon_memory: Option<ProcessMemory>,
    /// The audit of the event log.
    pub audit: AuditReport,
    /// Wall seconds in all.
    pub seconds: f64,
}

impl LoadReport {
    /// The report as a table.
    pub fn table(&self) -> Table {
        let cycles = |name, report: &CyclesReport| {
            let rounds = &report.rounds;
            let value = format!(
                "{:.0} grants/s over {:.1} s ({} jobs, {} waited); submit to lease {}; {:.0} rounds/s of {:.1} jobs",
                report.grants_per_s,
                report.seconds,
                report.jobs,
                report.answered_pending,
                report.submit_to_lease,
                rounds.rounds_per_s,
                report.jobs_per_round.unwrap_or(0.0),
            );
            (name, value)
        };
        let (postgres, preempting) = (&self.postgres, &self.preempting);
        crate::table::of([
            ("fleet", format!("{} nodes, {} chips", self.nodes, self.chips)),
            cycles("light: one client", &self.light),
            cycles("full: single chips", &self.full),
            cycles("full: gangs", &self.gangs),
            (
                "Postgres alone",
                format!(
                    "{:.0} single-row commits/s over {} connections, {:.0} rows/s in bulk; version {}, fsync {}",
                    postgres.commits_per_s,
                    postgres.connections,
                    postgres.bulk_rows_per_s,
                    postgres.version,
                    postgres.fsync
                ),
            ),
            (
                "against Postgres alone",
                format!(
                    "{:.2} grants and {:.2} gangs for each single-row commit",
                    self.grants_per_commit_alone, self.gangs_per_commit_alone
                ),
            ),
            (
                "preempting",
                format!(
                    "submit to committed decision {}; {:.0}/s; {} of {} promised",
                    preempting.decision, preempting.decisions_per_s, preempting.promised, preempting.submitted
                ),
            ),
            (
                "daemon's memory",
                self.daemon_memory.map_or("not ours".into(), |memory| format!("{} MiB at its peak", memory.peak_mib)),
            ),
            (
                "audit of the event log",
                format!(
                    "{}: {} events, {} grants",
                    if self.audit.clean { "clean" } else { "VIOLATED" },
                    self.audit.events,
                    self.audit.grants
                ),
            ),
            ("machine", format!("{}; {:.0} s in all", self.machine, self.seconds)),
        ])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_that_others_read_are_there() {
        let json = serde_json::to_value(LoadReport::default()).expect("a report is JSON");
        for path in [
            "/full/grants_per_s",
            "/full/rounds/rounds_per_s",
            "/full/rounds/commands_per_round",
            "/full/jobs_per_round",
            "/light/submit_to_lease/p99_ms",
            "/gangs/grants_per_s",
            "/postgres/fsync",
            "/postgres/commits_per_s",
            "/postgres/bulk_rows_per_s",
            "/grants_per_commit_alone",
            "/preempting/decision/p50_ms",
            "/daemon_memory",
            "/machine/cores",
        ] {
            assert!(json.pointer(path).is_some(), "{path}");
        }
    }
}
