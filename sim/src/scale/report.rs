//! The figures of a scale run.

use super::{BacklogFigures, FillingFigures, GangFigures};
use crate::machine::{Machine, ProcessMemory};
use serde::Serialize;

/// What a large fleet costs. Field names are stable.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct ScaleReport {
    /// Where it ran.
    pub machine: Machine,
    /// Nodes.
    pub nodes: u64,
    /// Chips.
    pub chips: u64,
    /// The process before it held a fleet.
    pub memory_before: ProcessMemory,
    /// A full fleet with a long queue.
    pub backlog: BacklogFigures,
    /// The fleet filled with one job to a round.
    pub one_a_round: FillingFigures,
    /// The fleet filled with many jobs to a round.
    pub many_a_round: FillingFigures,
    /// Gangs that preempt.
    pub gangs: GangFigures,
}

impl ScaleReport {
    pub(super) fn table(&self) -> comfy_table::Table {
        let ms = |us: f64| format!("{:.2} ms", us / 1000.0);
        let filling = |figures: &FillingFigures| {
            format!("{:.0} placements/s; a round: {}", figures.placements_per_s, figures.round)
        };
        let backlog = &self.backlog;
        crate::table::of([
            ("fleet", format!("{} nodes, {} chips", self.nodes, self.chips)),
            ("filled, one job a round", filling(&self.one_a_round)),
            ("filled, a thousand a round", filling(&self.many_a_round)),
            (
                "gangs",
                format!("{} chips, {}, {} victims", self.gangs.chips, self.gangs.preempting_round, self.gangs.victims),
            ),
            (
                "backlog",
                format!("{} running, {} pending of {} shapes", backlog.running, backlog.pending, backlog.shapes),
            ),
            ("a round, nothing freed", ms(backlog.idle_round_us)),
            ("a round, one chip freed", ms(backlog.freed_round_us)),
            ("a round, every shape tried", ms(backlog.first_round_us)),
            (
                "a dry run of a policy",
                format!("{}, the copy {} of it", ms(backlog.dry_run_us), ms(backlog.dry_run_copy_us)),
            ),
            ("a thousand more submitted", format!("at most {}", ms(backlog.submit_thousand_max_us))),
            (
                "memory",
                format!(
                    "{} MiB resident, {} MiB at its peak; {} MiB before",
                    backlog.memory.resident_mib, backlog.memory.peak_mib, self.memory_before.resident_mib
                ),
            ),
            ("machine", self.machine.to_string()),
        ])
    }
}
