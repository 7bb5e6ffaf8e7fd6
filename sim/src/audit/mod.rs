//! The auditor: reads the event log and recounts what Chiptide promises. It folds the events by rules of its own and
//! shares no code with the allocator, so a mistake in one cannot hide in the other. It never asks the daemon.

mod chips;
mod findings;
mod jobs;
mod shape;
#[cfg(test)]
mod tests;

use chips::Chips;
use chiptide_model::{Event, JobId};
use findings::Findings;
pub use findings::{Rule, Violation};
use jobs::Jobs;
use serde::Serialize;

/// One row of the event log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// Its number.
    pub seq: i64,
    /// When it was committed, milliseconds since 1970.
    pub at_ms: i64,
    /// Epoch of the leader that wrote it.
    pub leader_epoch: u64,
    /// What happened.
    pub event: Event,
}

/// What an audit counted and what it found.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct AuditReport {
    /// Whether no rule was violated.
    pub clean: bool,
    /// Events read.
    pub events: u64,
    /// Times a daemon took the lead.
    pub leaders: u64,
    /// Nodes seen.
    pub nodes: u64,
    /// Chips seen.
    pub chips: u64,
    /// Jobs in the log.
    pub jobs: u64,
    /// Jobs whose ids a client was answered, each looked up in the log.
    pub jobs_acknowledged: u64,
    /// Of these, not in the log.
    pub jobs_lost: u64,
    /// Jobs that were granted a lease at least once.
    pub jobs_placed: u64,
    /// Jobs pending at the end of the log.
    pub jobs_pending: u64,
    /// Jobs with a live lease at the end of the log.
    pub jobs_leased: u64,
    /// Jobs over at the end of the log.
    pub jobs_ended: u64,
    /// Leases granted.
    pub grants: u64,
    /// Holds granted: chips or shares of chips, each checked against every other hold of the chip.
    pub holds: u64,
    /// Proofs of vacancy.
    pub vacated: u64,
    /// Leases given notice for a job of higher priority.
    pub preemptions: u64,
    /// Promises made to jobs.
    pub claims: u64,
    /// Violations found.
    pub violations: u64,
    /// The first of them.
    pub first_violations: Vec<Violation>,
}

/// Folds the log, one entry after another.
#[derive(Debug, Default)]
pub struct Auditor {
    report: AuditReport,
    findings: Findings,
    chips: Chips,
    jobs: Jobs,
    last_seq: i64,
    leader_epoch: u64,
}

impl Auditor {
    /// Audits a whole log. `acknowledged` are the jobs whose ids some client was answered.
    pub fn audit(log: &[Entry], acknowledged: &[JobId]) -> AuditReport {
        let mut auditor = Auditor::default();
        log.iter().for_each(|entry| auditor.take(entry));
        auditor.finish(acknowledged)
    }

    /// Takes the next entry.
    pub fn take(&mut self, entry: &Entry) {
        self.findings.at(entry.seq);
        self.report.events += 1;
        if entry.seq != self.last_seq + 1 {
            self.findings.add(Rule::LogOrder, format!("follows event {}", self.last_seq));
        }
        self.last_seq = entry.seq;
        self.check_writer(entry);
        match &entry.event {
            Event::JobSubmitted { .. } | Event::JobStarted { .. } | Event::JobEnded { .. } => self.job(&entry.event),
            Event::ClaimMade { .. } | Event::ClaimDropped { .. } => self.claim(&entry.event),
            Event::LeaseGranted { .. }
            | Event::LeaseConfirmed { .. }
            | Event::LeaseRenewed { .. }
            | Event::LeaseRevoked { .. }
            | Event::LeaseEnded { .. } => self.lease(&entry.event),
            other => self.fleet(other),
        }
    }

    /// The verdict, once the log has been read to its end.
    pub fn finish(mut self, acknowledged: &[JobId]) -> AuditReport {
        let jobs_lost = self.jobs.finish(acknowledged, &mut self.findings);
        let (nodes, chips) = self.chips.size();
        let (pending, leased, ended) = self.jobs.standing();
        AuditReport {
            clean: self.findings.count() == 0,
            nodes,
            chips,
            jobs: pending + leased + ended,
            jobs_acknowledged: acknowledged.len() as u64,
            jobs_lost,
            jobs_placed: self.jobs.placed(),
            jobs_pending: pending,
            jobs_leased: leased,
            jobs_ended: ended,
            preemptions: self.jobs.preemptions(),
            violations: self.findings.count(),
            first_violations: self.findings.first(),
            ..self.report
        }
    }

    /// Only the leader of the moment writes: whoever was deposed is fenced out.
    fn check_writer(&mut self, entry: &Entry) {
        if let Event::LeaderTookOver { epoch } = &entry.event {
            if *epoch <= self.leader_epoch {
                self.findings.add(Rule::EpochNotGrown, format!("leader epoch {epoch} after {}", self.leader_epoch));
            }
            self.leader_epoch = *epoch;
        }
        if entry.leader_epoch != self.leader_epoch {
            let detail = format!("written under epoch {} while {} led", entry.leader_epoch, self.leader_epoch);
            self.findings.add(Rule::DeposedWrote, detail);
        }
    }

    fn fleet(&mut self, event: &Event) {
        let findings = &mut self.findings;
        match event {
            Event::LeaderTookOver { .. } => {
                self.report.leaders += 1;
                self.chips.nobody_heard();
            }
            Event::NodeRegistered { node, facts, chips, .. } => self.chips.registered(node, facts, chips),
            Event::DatabaseReplaced { .. } => self.chips.nobody_heard(),
            Event::ChipEpochRaised { chip, epoch } => self.chips.epoch_raised(chip, *epoch, findings),
            Event::NodeHeard { node } => self.chips.heard(node, true),
            Event::NodeSilent { node } => self.chips.heard(node, false),
            Event::ChipHealthChanged { chip, health } => self.chips.health(chip, health),
            Event::ChipQuarantined { chip, .. } => self.chips.quarantined(chip, true),
            Event::ChipRestored { chip } | Event::ChipReleased { chip, .. } => self.chips.quarantined(chip, false),
            Event::ChipVacated { chip, lease, epoch } => {
                self.report.vacated += 1;
                self.chips.vacated(chip, *lease, *epoch, findings);
            }
            _ => {}
        }
    }

    fn job(&mut self, event: &Event) {
        match event {
            Event::JobSubmitted { job, place, spec } => self.jobs.submitted(*job, *place, spec, &mut self.findings),
            Event::JobStarted { job } => self.jobs.started(*job, &mut self.findings),
            Event::JobEnded { job, .. } => self.jobs.ended(*job, &mut self.findings),
            _ => {}
        }
    }

    fn claim(&mut self, event: &Event) {
        match event {
            Event::ClaimMade { job, placements, victims, .. } => {
                self.report.claims += 1;
                self.jobs.claimed(*job, victims, &mut self.findings);
                self.chips.promise(*job, placements, &mut self.findings);
            }
            Event::ClaimDropped { job, .. } => {
                self.jobs.claim_dropped(*job, &mut self.findings);
                self.chips.unpromise(*job);
            }
            _ => {}
        }
    }

    fn lease(&mut self, event: &Event) {
        let findings = &mut self.findings;
        match event {
            Event::LeaseGranted { lease, job, attempt, placements, extra, .. } => {
                self.report.grants += 1;
                self.report.holds += placements.iter().map(|placement| placement.holds.len() as u64).sum::<u64>();
                let asked = match extra {
                    true => self.jobs.grown(*lease, *job, placements, findings),
                    false => self.jobs.granted(*lease, *job, *attempt, placements, findings),
                };
                if let Some(spec) = asked {
                    let replicas = if *extra { shape::Replicas::Extra } else { shape::Replicas::Gang };
                    shape::check(*job, &spec, replicas, placements, &self.chips, findings);
                }
                self.chips.granted(*lease, *job, placements, findings);
            }
            Event::LeaseConfirmed { lease, node } => self.jobs.confirmed(*lease, node, findings),
            Event::LeaseRenewed { lease, .. } => self.jobs.renewed(*lease, findings),
            Event::LeaseRevoked { lease, cause, .. } => self.jobs.revoked(*lease, cause, findings),
            Event::LeaseEnded { lease, cause, next } => {
                self.jobs.lease_ended(*lease, cause, next, findings);
                self.chips.lease_ended(*lease);
            }
            _ => {}
        }
    }
}
