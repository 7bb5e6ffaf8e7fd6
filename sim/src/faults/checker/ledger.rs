//! The event log as the checker reads it: what was granted to whom from when to when, by events alone.

use super::findings::{Findings, Invariant};
use super::runs::Run;
use super::{History, Proof};
use crate::faults::canary::STUCK;
use crate::faults::promotion::Promotion;
use chiptide_model::{Cause, Event, JobId, LeaseId, Next, NodeId, Outcome, Placement};
use std::collections::BTreeMap;

/// Moments of the log and of canaries are read from one clock, but rounded each for itself.
const ROUNDING_MS: i64 = 2;
/// What a quarantine may come later than its bound: the daemon's own tick and a restart.
const LATE_MS: i64 = 10_000;

/// How long the driver lists a canary that is stuck in it.
const STUCK_MS: i64 = STUCK.as_millis() as i64;

/// A grant, and what became of it.
#[derive(Clone, Debug)]
struct Granted {
    job: JobId,
    at_ms: i64,
    placements: Vec<Placement>,
    vacated: BTreeMap<String, i64>,
    /// When it was called over because its nodes must have ended it by themselves.
    lost_ms: Option<i64>,
    /// Whether a promoted replica had forgotten it: a proof for it is accepted, and there is nothing to write down.
    is_forgotten: bool,
}

/// A chip whose lease has ended and that is not proven vacant: since when that has been up to its node.
#[derive(Clone, Debug)]
struct Leaving {
    node: NodeId,
    since_ms: i64,
}

/// The log, read once from its beginning to its end.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    grants: BTreeMap<String, Granted>,
    jobs: BTreeMap<JobId, (&'static str, String)>,
    leaving: BTreeMap<(LeaseId, String), Leaving>,
    heard: BTreeMap<NodeId, bool>,
    longest_vacate_ms: i64,
}

impl Ledger {
    /// Reads the log. Finds chips that took too long to leave (I7) and limits that were passed (I9).
    pub(super) fn read(history: &History, findings: &mut Findings) -> Ledger {
        let (mut ledger, mut last_ms) = (Ledger::default(), 0);
        for entry in &history.log {
            last_ms = entry.at_ms;
            ledger.take(entry.at_ms, &entry.event, history, findings);
        }
        for entry in history.promotions.iter().flat_map(Promotion::lost) {
            ledger.take_forgotten(entry.at_ms, &entry.event);
        }
        let left = std::mem::take(&mut ledger.leaving);
        for ((lease, chip), leaving) in left {
            if ledger.heard.get(&leaving.node) == Some(&true) {
                is_in_time(history, (leaving.since_ms, last_ms), &lease, &chip, findings);
            }
        }
        ledger
    }

    fn take(&mut self, at_ms: i64, event: &Event, history: &History, findings: &mut Findings) {
        match event {
            Event::LeaderTookOver { .. } => self.heard.clear(),
            Event::NodeRegistered { node, .. } | Event::NodeHeard { node } => self.answers(at_ms, node),
            Event::NodeSilent { node } => drop(self.heard.insert(node.clone(), false)),
            Event::JobSubmitted { job, spec, .. } => drop(self.jobs.insert(*job, ("pending", spec.queue.clone()))),
            Event::JobStarted { job } => self.set(*job, "running"),
            Event::JobEnded { job, outcome } => self.set(*job, word(outcome)),
            Event::LeaseGranted { lease, job, placements, .. } => {
                let (job, placements) = (*job, placements.clone());
                let granted =
                    Granted { job, at_ms, placements, vacated: BTreeMap::new(), lost_ms: None, is_forgotten: false };
                self.grants.insert(lease.to_string(), granted);
                self.set(job, "leased");
                self.is_within_limit(at_ms, job, history, findings);
            }
            Event::LeaseRevoked { lease, .. } => self.set_of(*lease, "preempting"),
            Event::LeaseEnded { lease, cause, next } => {
                if let (Cause::NodeLost { .. }, Some(granted)) = (cause, self.grants.get_mut(&lease.to_string())) {
                    granted.lost_ms = Some(at_ms);
                }
                self.ended(at_ms, *lease, next);
            }
            Event::ChipVacated { chip, lease, .. } => {
                if let Some(granted) = self.grants.get_mut(&lease.to_string()) {
                    granted.vacated.insert(chip.to_string(), at_ms);
                }
                self.left(at_ms, |of, on| of == *lease && on == chip.as_str(), history, findings);
            }
            Event::ChipQuarantined { chip, .. } => self.left(at_ms, |_, on| on == chip.as_str(), history, findings),
            _ => {}
        }
    }

    /// A grant that was forgotten has been acted on, and so has a proof; of jobs and leases only the log counts.
    fn take_forgotten(&mut self, at_ms: i64, event: &Event) {
        match event {
            Event::LeaseGranted { lease, job, placements, .. } => {
                let granted = Granted {
                    job: *job,
                    at_ms,
                    placements: placements.clone(),
                    vacated: BTreeMap::new(),
                    lost_ms: None,
                    is_forgotten: true,
                };
                self.grants.entry(lease.to_string()).or_insert(granted);
            }
            Event::ChipVacated { chip, lease, .. } => {
                if let Some(granted) = self.grants.get_mut(&lease.to_string()) {
                    granted.vacated.entry(chip.to_string()).or_insert(at_ms);
                }
            }
            _ => {}
        }
    }

    /// From now on it is up to the node again.
    fn answers(&mut self, at_ms: i64, node: &NodeId) {
        if self.heard.insert(node.clone(), true) != Some(true) {
            self.leaving.values_mut().filter(|leaving| leaving.node == *node).for_each(|l| l.since_ms = at_ms);
        }
    }

    fn ended(&mut self, at_ms: i64, lease: LeaseId, next: &Next) {
        match next {
            Next::Pending => self.set_of(lease, "pending"),
            Next::Ended(outcome) => self.set_of(lease, word(outcome)),
            Next::Unchanged => {}
        }
        let Some(granted) = self.grants.get(&lease.to_string()) else { return };
        for placement in &granted.placements {
            for hold in placement.holds.iter().filter(|hold| !granted.vacated.contains_key(hold.chip.as_str())) {
                let leaving = Leaving { node: placement.node.clone(), since_ms: at_ms };
                self.leaving.insert((lease, hold.chip.to_string()), leaving);
            }
        }
    }

    fn left(&mut self, at_ms: i64, is_it: impl Fn(LeaseId, &str) -> bool, history: &History, findings: &mut Findings) {
        let gone: Vec<_> = self.leaving.keys().filter(|(lease, chip)| is_it(*lease, chip)).cloned().collect();
        for key in gone {
            let Some(leaving) = self.leaving.remove(&key) else { continue };
            if self.heard.get(&leaving.node) == Some(&true) {
                let took_ms = unhindered_ms(history, (leaving.since_ms, at_ms));
                self.longest_vacate_ms = self.longest_vacate_ms.max(took_ms);
                is_in_time(history, (leaving.since_ms, at_ms), &key.0, &key.1, findings);
            }
        }
    }

    fn set(&mut self, job: JobId, state: &'static str) {
        if let Some((known, _)) = self.jobs.get_mut(&job) {
            *known = state;
        }
    }

    fn set_of(&mut self, lease: LeaseId, state: &'static str) {
        if let Some(job) = self.grants.get(&lease.to_string()).map(|granted| granted.job) {
            self.set(job, state);
        }
    }

    fn is_within_limit(&self, at_ms: i64, job: JobId, history: &History, findings: &mut Findings) {
        let queue_of = |job: &JobId| self.jobs.get(job).map(|(_, queue)| queue.as_str());
        let Some((queue, limit)) = queue_of(&job).and_then(|queue| Some((queue, *history.limits.get(queue)?))) else {
            return;
        };
        let is_live = |job: &JobId| self.jobs.get(job).is_some_and(|(state, _)| HOLDING.contains(state));
        let newest = |granted: &Granted| {
            let of_job = self.grants.values().filter(|other| other.job == granted.job);
            of_job.map(|other| other.at_ms).max() == Some(granted.at_ms)
        };
        let live = self.grants.values().filter(|g| queue_of(&g.job) == Some(queue) && is_live(&g.job) && newest(g));
        let held: usize = live.flat_map(|granted| &granted.placements).map(|placement| placement.holds.len()).sum();
        if held > limit as usize {
            let detail = format!("jobs of queue {queue} hold {held} chips, and may hold {limit}");
            findings.add(Invariant::I9, (at_ms, at_ms), detail);
        }
    }

    /// Whether a run is within its grant: on its node and chips, after the grant, and over before the proof of vacancy.
    pub(super) fn covers(&self, run: &Run, findings: &mut Findings) {
        let Some(granted) = self.grants.get(&run.lease) else {
            let detail = format!("pid {} ran under lease {}, which was never granted", run.pid, run.lease);
            return findings.add(Invariant::I2, run.window(), detail);
        };
        let placement = granted.placements.iter().find(|placement| placement.replica == run.rank);
        let is_its_own = |chip: &String| {
            placement.is_some_and(|own| {
                own.node.as_str() == run.node && own.holds.iter().any(|hold| hold.chip.as_str() == chip)
            })
        };
        for chip in &run.chips {
            if !is_its_own(chip) {
                let detail = format!("replica {} of lease {} ran on chip {chip}, not its own", run.rank, run.lease);
                findings.add(Invariant::I2, run.window(), detail);
            }
            if let Some(vacated) = granted.vacated.get(chip)
                && run.to_ms > vacated + ROUNDING_MS
            {
                let detail = format!("chip {chip}: lease {} still ran after it was proven vacant", run.lease);
                findings.add(Invariant::I2, (*vacated, run.to_ms), detail);
            }
        }
        if let (true, Some(chip)) = (run.is_stuck, run.chips.first())
            && let Some(vacated) = granted.vacated.get(chip)
            && *vacated < run.to_ms + STUCK_MS
        {
            let detail = format!("chip {chip} was proven vacant while the driver listed pid {}", run.pid);
            findings.add(Invariant::I2, (run.to_ms, *vacated), detail);
        }
        if let Some(lost) = granted.lost_ms.filter(|lost| run.to_ms > *lost + ROUNDING_MS) {
            let detail = format!("lease {} still ran when its job was placed again: its node is lost", run.lease);
            findings.add(Invariant::I2, (lost, run.to_ms), detail);
        }
        if run.from_ms + ROUNDING_MS < granted.at_ms {
            let detail = format!("lease {} ran before it was granted", run.lease);
            findings.add(Invariant::I2, (run.from_ms, granted.at_ms), detail);
        }
    }

    pub(super) fn epoch_of(&self, lease: &str, chip: &str) -> Option<u64> {
        let holds = self.grants.get(lease)?.placements.iter().flat_map(|placement| &placement.holds);
        holds.filter(|hold| hold.chip.as_str() == chip).map(|hold| hold.epoch).max()
    }

    pub(super) fn has_proof(&self, proof: &Proof) -> bool {
        let is_known = |granted: &Granted| granted.is_forgotten || granted.vacated.contains_key(&proof.chip);
        self.grants.get(&proof.lease).is_some_and(is_known)
    }

    /// What the log says a job is in the end, in the words of the API.
    pub(super) fn state_of(&self, job: JobId) -> Option<&'static str> {
        self.jobs.get(&job).map(|(state, _)| *state)
    }

    pub(super) fn longest_vacate_ms(&self) -> i64 {
        self.longest_vacate_ms
    }
}

/// States in which a job counts against its queue's limit: what has been given notice counts as given back.
const HOLDING: [&str; 2] = ["leased", "running"];

fn word(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Succeeded => "succeeded",
        Outcome::Failed { .. } => "failed",
        Outcome::Cancelled => "cancelled",
    }
}

fn is_in_time(history: &History, window: (i64, i64), lease: &LeaseId, chip: &str, findings: &mut Findings) {
    if unhindered_ms(history, window) > history.vacate_bound_ms + LATE_MS {
        let detail = format!("chip {chip} was neither vacant of lease {lease} nor quarantined in its bound");
        findings.add(Invariant::I7, window, detail);
    }
}

/// How much of a window nothing was being hit.
fn unhindered_ms(history: &History, (from, to): (i64, i64)) -> i64 {
    let (mut left, mut seen) = (to - from, from);
    for (hit, healed) in &history.hits {
        // Hits may follow so closely that one has not healed when the next comes.
        let (hit, healed) = ((*hit).max(seen), (*healed).min(to));
        left -= (healed - hit).max(0);
        seen = seen.max(healed);
    }
    left
}
