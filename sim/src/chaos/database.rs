//! Postgres as the daemons see it: a log and the tables it folds to, transactions guarded by the leader row, and a replica
//! that may lack the newest of them.

use super::rules::Rules;
use chiptide_allocator::{Cluster, Command, Snapshot};
use chiptide_model::{Event, Timestamp};

/// How long a lead lasts without renewal, in milliseconds.
pub(super) const LEAD_TTL: u64 = 10_000;

/// Who may write.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Leadership {
    pub(super) instance: u64,
    pub(super) epoch: u64,
}

/// Why a transaction failed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Refused {
    /// Another daemon leads.
    Deposed,
    /// No connection, or one to a server that no longer is the primary.
    Unreachable,
    /// A constraint.
    Constraint(String),
}

#[derive(Clone, Debug)]
pub(super) struct Database {
    pub(super) log: Vec<(Timestamp, Event)>,
    tables: Cluster,
    leader: Leadership,
    expires: u64,
    /// Length of the log and leader after each transaction.
    marks: Vec<(usize, Leadership)>,
    /// Changes with every failover: connections to an older one are broken.
    pub(super) timeline: u64,
    /// The timeline that the tables say they are of.
    noted: u64,
    pub(super) away_until: u64,
    /// Whether commits have been forgotten.
    pub(super) forgetful: bool,
}

impl Database {
    pub(super) fn new() -> Database {
        Database {
            log: Vec::new(),
            tables: Cluster::default(),
            leader: Leadership::default(),
            expires: 0,
            marks: vec![(0, Leadership::default())],
            timeline: 1,
            noted: 1,
            away_until: 0,
            forgetful: false,
        }
    }

    pub(super) fn tables(&self) -> &Cluster {
        &self.tables
    }

    pub(super) fn is_away(&self, now: u64) -> bool {
        now < self.away_until
    }

    /// Takes the lead if the last one has run out.
    pub(super) fn take_over(&mut self, instance: u64, now: u64) -> Option<Leadership> {
        if now < self.expires || self.is_away(now) {
            return None;
        }
        self.leader = Leadership { instance, epoch: self.leader.epoch + 1 };
        self.expires = now + LEAD_TTL;
        self.marks.push((self.log.len(), self.leader));
        Some(self.leader)
    }

    /// Pushes the expiry out.
    pub(super) fn renew(&mut self, lead: Leadership, now: u64) -> Result<(), Refused> {
        if self.is_away(now) {
            return Err(Refused::Unreachable);
        }
        if self.leader != lead {
            return Err(Refused::Deposed);
        }
        self.expires = now + LEAD_TTL;
        Ok(())
    }

    /// What a leader must say first of a database that is not the one it was.
    pub(super) fn replaced(&self) -> Option<Command> {
        let detail = format!("timeline {} after {}", self.timeline, self.noted);
        (self.timeline != self.noted).then_some(Command::DatabaseReplaced { detail })
    }

    /// What a leader reads to have the cluster in memory. An error names the row that does not fit.
    pub(super) fn load(&self) -> Result<Cluster, String> {
        Snapshot::of(&self.tables).restore()
    }

    /// One transaction: all events or none. `first` is the number of the first.
    pub(super) fn commit(
        &mut self,
        lead: Leadership,
        timeline: u64,
        first: u64,
        events: &[(Timestamp, Event)],
        rules: Rules,
        now: u64,
    ) -> Result<(), Refused> {
        if self.is_away(now) || timeline != self.timeline {
            return Err(Refused::Unreachable);
        }
        if self.leader != lead && !rules.unguarded {
            return Err(Refused::Deposed);
        }
        if first != self.log.len() as u64 + 1 && !rules.unguarded {
            return Err(Refused::Constraint(format!("event {first} after {}", self.log.len())));
        }
        let mut after = self.tables.clone();
        for (at, event) in events {
            if let Err(unfounded) = after.apply(*at, event)
                && !rules.unguarded
            {
                return Err(Refused::Constraint(unfounded.to_string()));
            }
        }
        after.take_touched();
        self.tables = after;
        self.noted = self.timeline;
        self.log.extend(events.iter().cloned());
        self.marks.push((self.log.len(), self.leader));
        Ok(())
    }

    /// A replica is promoted that lacks the last `lost` transactions.
    pub(super) fn fail_over(&mut self, lost: usize) {
        self.timeline += 1;
        let keep = self.marks.len().saturating_sub(lost).max(2.min(self.marks.len()));
        if keep == self.marks.len() {
            return;
        }
        self.forgetful = true;
        self.marks.truncate(keep);
        let Some((length, leader)) = self.marks.last().copied() else { return };
        (self.leader, self.expires) = (leader, 0);
        self.log.truncate(length);
        self.tables = Cluster::default();
        for (at, event) in &self.log {
            // What was applied once in this order applies again.
            let _ = self.tables.apply(*at, event);
        }
        self.tables.take_touched();
    }
}
