//! What the checker found, and the smallest window in which something was wrong.

use super::invariant_of;
use crate::audit::{AuditReport, Entry};
use serde::Serialize;
use std::collections::BTreeMap;

/// How many violations are shown, and how many events of a window.
const SHOWN_MAX: usize = 20;

/// The invariants, as `docs/faults.md` lists them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
pub enum Invariant {
    /// No slot has two live holds.
    I1,
    /// No process of an ended lease touches a chip of a newer one, and none runs outside its grant.
    I2,
    /// Epochs only grow.
    I3,
    /// A gang holds all or nothing.
    I4,
    /// Every acknowledged job is pending, leased or ended, exactly once, and gets to its end.
    I5,
    /// Every eviction is founded.
    I6,
    /// Every revoked chip is free or quarantined within its bound while its node answers.
    I7,
    /// Memory equals the fold of committed events.
    I8,
    /// Limits hold.
    I9,
    /// Nothing is acknowledged that a crash can undo.
    I10,
}

/// One violation.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Violation {
    /// What was violated.
    pub invariant: Invariant,
    /// From when, milliseconds since 1970; 0 where it has no moment.
    pub from_ms: i64,
    /// Until when.
    pub to_ms: i64,
    /// What is wrong, for people.
    pub detail: String,
    /// The events of the log in the window, for the smallest violation.
    pub events: Vec<String>,
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}: {}", self.invariant, self.detail)?;
        if self.from_ms > 0 {
            write!(f, " [{} to {}, {} ms]", self.from_ms, self.to_ms, self.to_ms - self.from_ms)?;
        }
        self.events.iter().try_for_each(|event| write!(f, "\n    {event}"))
    }
}

/// Violations as they are found.
#[derive(Debug, Default)]
pub(super) struct Findings {
    all: Vec<Violation>,
}

impl Findings {
    pub(super) fn add(&mut self, invariant: Invariant, (from_ms, to_ms): (i64, i64), detail: String) {
        self.all.push(Violation { invariant, from_ms, to_ms, detail, events: Vec::new() });
    }

    /// What the audit of the log found; each at the moment of its event.
    pub(super) fn add_audit(&mut self, audit: &AuditReport, log: &[Entry]) {
        for found in &audit.first_violations {
            let at = log.iter().find(|entry| entry.seq == found.seq).map_or(0, |entry| entry.at_ms);
            self.add(invariant_of(found.rule), (at, at), found.to_string());
        }
    }

    /// Counts by invariant, the violation with the smallest window and its events, and the first ones.
    pub(super) fn verdict(self, log: &[Entry]) -> (BTreeMap<Invariant, u64>, Option<Violation>, Vec<Violation>) {
        let mut counts = BTreeMap::new();
        for found in &self.all {
            *counts.entry(found.invariant).or_default() += 1;
        }
        let timed = self.all.iter().filter(|found| found.from_ms > 0);
        let smallest = timed.min_by_key(|found| found.to_ms - found.from_ms).cloned().map(|mut smallest| {
            let inside = |entry: &&Entry| (smallest.from_ms..=smallest.to_ms).contains(&entry.at_ms);
            let text = |entry: &Entry| format!("{} {} {:?}", entry.seq, entry.at_ms, entry.event);
            smallest.events = log.iter().filter(inside).take(SHOWN_MAX).map(text).collect();
            smallest
        });
        (counts, smallest, self.all.into_iter().take(SHOWN_MAX).collect())
    }
}
