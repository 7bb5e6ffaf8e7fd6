//! What an audit can find.

use serde::Serialize;

/// How many violations a report shows in full.
const SHOWN_MAX: usize = 20;

/// A rule that a log can violate.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Rule {
    /// Events are numbered from 1, without a gap.
    LogOrder,
    /// Every event was written by the leader of the moment.
    DeposedWrote,
    /// No slot of a chip is in two holds at once; a hold lives from its grant to its proof of vacancy.
    SlotHeldTwice,
    /// Epochs grow: of a chip with every grant, of the leader with every takeover.
    EpochNotGrown,
    /// A gang is granted whole: every replica, each with the chips it asked for.
    GangIncomplete,
    /// Nothing is granted on a node that is not heard, nor on a chip that is unhealthy or quarantined.
    GrantedUnavailable,
    /// A chip is granted where it is, and is of a kind the job accepts.
    WrongChip,
    /// A node's CPU and memory are not set aside twice.
    NodeOvercommitted,
    /// Slots promised to a job go to no other, and a kept promise grants what was promised.
    PromiseBroken,
    /// A proof of vacancy is about an ended lease and has seen its epoch.
    BadProof,
    /// A job is pending, leased or ended, and moves only between neighbours.
    JobOutOfStep,
    /// A job whose id was answered is in the log.
    JobLost,
    /// Whoever is preempted is preempted for a job that is then promised or granted chips, or whose claim is dropped.
    PreemptedForNobody,
    /// Only the preemptible are preempted, and only for a strictly higher priority.
    UnfairPreemption,
}

/// One violation.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Violation {
    /// The rule.
    pub rule: Rule,
    /// The event at which it showed; the last one for what is missing at the end.
    pub seq: i64,
    /// What is wrong, for people.
    pub detail: String,
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "event {}: {:?}: {}", self.seq, self.rule, self.detail)
    }
}

/// Violations as they are found.
#[derive(Debug, Default)]
pub(super) struct Findings {
    seq: i64,
    count: u64,
    first: Vec<Violation>,
}

impl Findings {
    /// What is added from now on showed at this event.
    pub(super) fn at(&mut self, seq: i64) {
        self.seq = seq;
    }

    pub(super) fn add(&mut self, rule: Rule, detail: String) {
        self.count += 1;
        if self.first.len() < SHOWN_MAX {
            self.first.push(Violation { rule, seq: self.seq, detail });
        }
    }

    pub(super) fn count(&self) -> u64 {
        self.count
    }

    pub(super) fn first(self) -> Vec<Violation> {
        self.first
    }
}
