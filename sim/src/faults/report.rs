//! What a run with faults did and how it was judged.

use super::checker::Verdict;
use super::fault::Fault;
use crate::latency::LatencySummary;
use crate::machine::Machine;
use serde::Serialize;
use std::collections::BTreeMap;

/// What was done and what came of it.
#[derive(Clone, PartialEq, Debug, Default, Serialize)]
pub struct FaultsReport {
    /// Where it ran.
    pub machine: Machine,
    /// The seed of faults and load.
    pub seed: u64,
    /// How often each fault hit.
    pub faults: BTreeMap<Fault, u64>,
    /// Fault points that were tried, and how often each was come to. Of a guardian's nobody sees that.
    pub points: BTreeMap<&'static str, u64>,
    /// Kills (SIGKILL) of daemon, agent or Postgres.
    pub kills: u64,
    /// From a fault to the next grant in the log.
    pub next_grant: LatencySummary,
    /// Daemons that ended without being hit, and were started again.
    pub unasked_ends: u64,
    /// Their last words.
    pub unasked: Vec<String>,
    /// Times the leader told at `/readyz` that the disk of the database was full.
    pub full_told: u64,
    /// Jobs by how they ended.
    pub outcomes: BTreeMap<String, u64>,
    /// The checker's verdict.
    pub verdict: Verdict,
    /// Wall seconds in all.
    pub seconds: f64,
}

impl FaultsReport {
    /// The report for people.
    pub fn table(&self) -> comfy_table::Table {
        let (verdict, audit) = (&self.verdict, &self.verdict.audit);
        let list = |counts: &mut dyn Iterator<Item = String>| counts.collect::<Vec<_>>().join(", ");
        let faults = list(&mut self.faults.iter().map(|(fault, count)| format!("{fault:?} {count}")));
        let outcomes = list(&mut self.outcomes.iter().map(|(outcome, count)| format!("{outcome} {count}")));
        let violations = list(&mut verdict.violations.iter().map(|(what, count)| format!("{what:?} {count}")));
        crate::table::of([
            ("faults", format!("{faults}; seed {}", self.seed)),
            (
                "fault points",
                format!(
                    "{} come to of {} tried",
                    self.points.values().filter(|met| **met > 0).count(),
                    self.points.len()
                ),
            ),
            ("next grant after a fault", self.next_grant.to_string()),
            ("daemons ended unasked", self.unasked_ends.to_string()),
            ("told that the disk is full", self.full_told.to_string()),
            ("acknowledged jobs", format!("{}, of these over: {}", verdict.acknowledged, outcomes)),
            (
                "event log",
                format!(
                    "{} events, {} leaders, {} grants, {} preemptions",
                    audit.events, audit.leaders, audit.grants, audit.preemptions
                ),
            ),
            (
                "replicas promoted",
                format!(
                    "{}, {} events forgotten by those that lagged, {} acknowledged jobs with them",
                    verdict.promotions, verdict.forgotten_events, verdict.forgotten_jobs
                ),
            ),
            ("canaries", format!("{} runs, {} hand-overs of a chip", verdict.runs, verdict.handovers)),
            ("proofs agents wrote down", verdict.proofs.to_string()),
            ("longest from end to vacant", format!("{} ms", verdict.longest_vacate_ms)),
            (
                "verdict",
                if verdict.clean { "clean: I1 to I10 hold".to_owned() } else { format!("VIOLATED: {violations}") },
            ),
            ("machine", format!("{}; {:.0} s in all", self.machine, self.seconds)),
        ])
    }
}
