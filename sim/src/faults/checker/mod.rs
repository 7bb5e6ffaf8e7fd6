//! The judge of a run with faults. It reads what three independent witnesses left behind: the event log in Postgres, what
//! the canaries wrote themselves, and what the agents wrote (their logs, their state files). It checks I1 to I10 on that
//! history, by rules of its own: it shares no code with the daemon, the allocator or the agent.

mod findings;
mod ledger;
mod promoted;
mod runs;
#[cfg(test)]
mod tests;

use super::canary::Testimony;
use super::promotion::Promotion;
use crate::audit::{AuditReport, Auditor, Entry, Rule};
use chiptide_model::JobId;
use findings::Findings;
pub use findings::{Invariant, Violation};
use ledger::Ledger;
use runs::Run;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// What the witnesses left behind.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// The event log.
    pub log: Vec<Entry>,
    /// What canaries wrote, one list a process.
    pub testimonies: Vec<Vec<Testimony>>,
    /// Proofs of vacancy that agents wrote down as accepted.
    pub proofs: Vec<Proof>,
    /// The highest epoch that the state files of the agents know, by chip.
    pub epochs: BTreeMap<String, u64>,
    /// Jobs that a client was answered, each with the state the daemon gave in the end; absent if it did not know it.
    pub acknowledged: Vec<(JobId, Option<String>)>,
    /// Submits that are in the log more than once, by name.
    pub doubled: BTreeSet<String>,
    /// How long a chip may take from the end of its lease to its proof or quarantine while its node answers, milliseconds.
    pub vacate_bound_ms: i64,
    /// Replicas that were promoted. What those that lagged have forgotten was committed all the same, and acted on.
    pub promotions: Vec<Promotion>,
    /// From when to when something was being hit or had not come back, milliseconds since 1970, in order: bounds stand still.
    pub hits: Vec<(i64, i64)>,
    /// Chips that the jobs of a queue may hold at once.
    pub limits: BTreeMap<String, u32>,
}

/// A proof of vacancy, as an agent logged it once the daemon had accepted it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Proof {
    /// The chip.
    pub chip: String,
    /// The lease that is gone from it.
    pub lease: String,
}

/// The verdict.
#[derive(Clone, PartialEq, Debug, Default, Serialize)]
pub struct Verdict {
    /// Whether nothing was violated.
    pub clean: bool,
    /// Runs of canaries: each a process that said it had chips.
    pub runs: u64,
    /// Chips they said they had, each run counted anew.
    pub chip_runs: u64,
    /// Times a chip went from one lease to the next by what canaries wrote.
    pub handovers: u64,
    /// Proofs that agents wrote down, each looked up in the log.
    pub proofs: u64,
    /// Jobs that were acknowledged, each looked up in the log.
    pub acknowledged: u64,
    /// Of these, over in the end.
    pub ended: u64,
    /// Replicas promoted.
    pub promotions: u64,
    /// Events that promoted replicas had forgotten.
    pub forgotten_events: u64,
    /// Acknowledged jobs among these: lost with the tail, as asynchronous replicas lose it, and by nothing else.
    pub forgotten_jobs: u64,
    /// Longest from the end of a lease to the proof of one of its chips, milliseconds, while its node answered.
    pub longest_vacate_ms: i64,
    /// Violations by invariant.
    pub violations: BTreeMap<Invariant, u64>,
    /// The violation with the smallest window, and the events of the log in it.
    pub smallest: Option<Violation>,
    /// The first violations.
    pub first: Vec<Violation>,
    /// The audit of the event log by itself.
    pub audit: AuditReport,
}

impl History {
    /// Judges it.
    pub fn judge(&self) -> Verdict {
        let mut findings = Findings::default();
        promoted::judge(self, &mut findings);
        let forgotten = promoted::forgotten_jobs(self);
        let (lost, acknowledged): (Vec<_>, Vec<_>) =
            self.acknowledged.iter().map(|(job, _)| *job).partition(|job| forgotten.contains(job));
        let audit = Auditor::audit(&self.log, &acknowledged);
        findings.add_audit(&audit, &self.log);
        let ledger = Ledger::read(self, &mut findings);
        let runs: Vec<Run> = self.testimonies.iter().filter_map(|lines| Run::of(lines, &mut findings)).collect();
        let handovers = runs::never_overlap(&runs, &mut findings);
        for run in &runs {
            ledger.covers(run, &mut findings);
            self.was_kept(run, &ledger, &mut findings);
        }
        promoted::epochs_of_runs_grow(&runs, &ledger, &mut findings);
        self.are_accounted_for(&ledger, &forgotten, &mut findings);
        for proof in &self.proofs {
            if !ledger.has_proof(proof) {
                let detail = format!("chip {} was accepted as vacant of lease {}", proof.chip, proof.lease);
                findings.add(Invariant::I10, (0, 0), format!("{detail}, and the log does not know it"));
            }
        }
        let (violations, smallest, first) = findings.verdict(&self.log);
        Verdict {
            clean: violations.is_empty(),
            runs: runs.len() as u64,
            chip_runs: runs.iter().map(|run| run.chips.len() as u64).sum(),
            handovers,
            proofs: self.proofs.len() as u64,
            acknowledged: self.acknowledged.len() as u64,
            ended: self.acknowledged.iter().filter(|(_, state)| state.as_deref().is_some_and(is_over)).count() as u64,
            promotions: self.promotions.len() as u64,
            forgotten_events: self.promotions.iter().map(|promotion| promotion.lost().len() as u64).sum(),
            forgotten_jobs: lost.len() as u64,
            longest_vacate_ms: ledger.longest_vacate_ms(),
            violations,
            smallest,
            first,
            audit,
        }
    }

    /// An agent puts an epoch on disk before it acts on it.
    fn was_kept(&self, run: &Run, ledger: &Ledger, findings: &mut Findings) {
        for chip in &run.chips {
            let Some(epoch) = ledger.epoch_of(&run.lease, chip) else { continue };
            if self.epochs.get(chip).is_none_or(|kept| *kept < epoch) {
                let kept = self.epochs.get(chip);
                let detail = format!("lease {} ran on {chip} at epoch {epoch}; on disk is {kept:?}", run.lease);
                findings.add(Invariant::I3, run.window(), detail);
            }
        }
    }

    /// Every acknowledged job is in the log once, in the end over, and the daemon says of it what the log says.
    fn are_accounted_for(&self, ledger: &Ledger, forgotten: &BTreeSet<JobId>, findings: &mut Findings) {
        for (job, state) in self.acknowledged.iter().filter(|(job, _)| !forgotten.contains(job)) {
            let in_log = ledger.state_of(*job);
            match (state.as_deref(), in_log) {
                (None, _) => {
                    findings.add(Invariant::I10, (0, 0), format!("the daemon does not know job {job} any more"))
                }
                (Some(state), Some(in_log)) if state != in_log => {
                    findings.add(Invariant::I8, (0, 0), format!("job {job} is {state}, and {in_log} by the log"));
                }
                (Some(state), _) if !is_over(state) => {
                    findings.add(Invariant::I5, (0, 0), format!("job {job} is stuck: still {state} after all faults"));
                }
                _ => {}
            }
        }
        for name in &self.doubled {
            findings.add(Invariant::I5, (0, 0), format!("{name} was submitted once and is in the log twice"));
        }
    }
}

fn is_over(state: &str) -> bool {
    matches!(state, "succeeded" | "failed" | "cancelled")
}

/// Which invariant a rule of the audit stands for.
fn invariant_of(rule: Rule) -> Invariant {
    match rule {
        Rule::SlotHeldTwice | Rule::WrongChip | Rule::GrantedUnavailable => Invariant::I1,
        Rule::BadProof => Invariant::I2,
        Rule::EpochNotGrown | Rule::DeposedWrote => Invariant::I3,
        Rule::GangIncomplete => Invariant::I4,
        Rule::JobOutOfStep => Invariant::I5,
        Rule::PreemptedForNobody | Rule::UnfairPreemption | Rule::PromiseBroken => Invariant::I6,
        Rule::NodeOvercommitted => Invariant::I9,
        Rule::JobLost | Rule::LogOrder => Invariant::I10,
    }
}
