//! How well the daemon can serve: what `/readyz`, the log and the metrics say, in the same words.
//!
//! Two watch the database: the rounds, which write, and the store's watch, which asks once a second. Either one's trouble
//! makes what memory says *stale*: it is the last that was committed, and may be older than it should be.

use crate::metrics;
use crate::store::identity::Identity;
use crate::store::trouble::Trouble;
use chiptide_model::Timestamp;
use parking_lot::Mutex;
use std::time::Instant;

/// Who met the trouble.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Witness {
    /// The rounds: nothing can be written.
    Rounds,
    /// The store's watch, or the start: a question was not answered as it must be.
    Watch,
}

/// What is wrong, and since when.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Complaint {
    /// In one word.
    pub trouble: Trouble,
    /// As Postgres, or the system, says it.
    pub detail: String,
    /// When it began.
    pub since: Timestamp,
}

/// What `/readyz` tells.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Report {
    /// `ready`, `starting` or `stale`.
    pub status: &'static str,
    /// `ok`, `starting`, or the trouble's word.
    pub reason: &'static str,
    /// For people.
    pub detail: String,
    /// Since when it has been so.
    pub since: Timestamp,
    /// What an admin should know although all goes well.
    pub warnings: Vec<String>,
}

#[derive(Debug)]
struct Inner {
    led: bool,
    rounds: Option<Complaint>,
    watch: Option<Complaint>,
    since: Timestamp,
    good_until: Instant,
    own_postgres: Option<(Trouble, String)>,
    warnings: Vec<String>,
    identity: Option<Identity>,
}

/// How well the daemon can serve. Shared by everyone who knows something of it.
#[derive(Debug)]
pub struct Health {
    inner: Mutex<Inner>,
}

impl Default for Health {
    fn default() -> Health {
        let inner = Inner {
            led: false,
            rounds: None,
            watch: None,
            since: Timestamp::default(),
            good_until: Instant::now(),
            own_postgres: None,
            warnings: Vec::new(),
            identity: None,
        };
        Health { inner: Mutex::new(inner) }
    }
}

impl Inner {
    fn complaint(&self) -> Option<&Complaint> {
        self.rounds.as_ref().or(self.watch.as_ref())
    }

    fn slot(&mut self, witness: Witness) -> &mut Option<Complaint> {
        match witness {
            Witness::Rounds => &mut self.rounds,
            Witness::Watch => &mut self.watch,
        }
    }
}

impl Health {
    /// Memory is whole and led, from `now` on; or no longer.
    pub fn lead(&self, led: bool, now: Timestamp) {
        let mut inner = self.inner.lock();
        inner.led = led;
        inner.since = now;
        inner.good_until = Instant::now();
    }

    /// Whether memory is whole and led.
    pub fn is_led(&self) -> bool {
        self.inner.lock().led
    }

    /// Something is wrong with the database. Logged when it begins and when it becomes another trouble.
    pub fn trouble(&self, witness: Witness, trouble: Trouble, detail: &str, now: Timestamp) {
        let mut inner = self.inner.lock();
        let slot = inner.slot(witness);
        let since = match slot {
            Some(known) if known.trouble == trouble => return,
            Some(known) => known.since,
            None => now,
        };
        *slot = Some(Complaint { trouble, detail: detail.to_owned(), since });
        tracing::error!(reason = trouble.as_str(), ?witness, "the database is in trouble: {detail}");
        metrics::store_state(inner.complaint().map(|known| known.trouble));
    }

    /// The database serves again, as this witness sees it. The rounds' word covers the watch's: what writes can also read.
    pub fn well(&self, witness: Witness, now: Timestamp) {
        let mut inner = self.inner.lock();
        let before = inner.complaint().cloned();
        inner.watch = None;
        if witness == Witness::Rounds {
            inner.rounds = None;
        }
        if inner.complaint().is_some() {
            return;
        }
        inner.good_until = Instant::now();
        if let Some(before) = before {
            inner.since = now;
            let lasted_ms = now.since(before.since).0;
            tracing::info!(reason = before.trouble.as_str(), lasted_ms, "the database serves again");
        }
        metrics::store_state(None);
    }

    /// What keeps the rounds from writing, if something does.
    pub fn unwritable(&self) -> Option<Complaint> {
        self.inner.lock().rounds.clone()
    }

    /// What is wrong with the database, if something is.
    pub fn complaint(&self) -> Option<Complaint> {
        self.inner.lock().complaint().cloned()
    }

    /// How long ago memory was last known to be current, in milliseconds; `None` while it is.
    pub fn stale_ms(&self) -> Option<u64> {
        let inner = self.inner.lock();
        inner.complaint().map(|_| inner.good_until.elapsed().as_millis() as u64)
    }

    /// Why the daemon's own Postgres does not run; `None` when it does. Its keeper knows better than those who call in vain.
    pub fn own_postgres(&self, why: Option<(Trouble, String)>) {
        self.inner.lock().own_postgres = why;
    }

    /// What an admin should know of this database although it serves.
    pub fn warn(&self, warnings: Vec<String>) {
        let mut inner = self.inner.lock();
        for new in warnings.iter().filter(|warning| !inner.warnings.contains(warning)) {
            tracing::warn!("{new}");
        }
        inner.warnings = warnings;
    }

    /// Which database it is, as last read.
    pub fn identity(&self) -> Option<Identity> {
        self.inner.lock().identity
    }

    /// Notes which database it is; answers which it was before.
    pub fn identified(&self, identity: Identity) -> Option<Identity> {
        self.inner.lock().identity.replace(identity)
    }

    /// What `/readyz` tells.
    pub fn report(&self) -> Report {
        let inner = self.inner.lock();
        let (status, reason, detail) = match (inner.led, inner.complaint(), &inner.own_postgres) {
            (true, None, _) => ("ready", "ok", "leads and serves".to_owned()),
            (led, Some(_), Some((trouble, detail))) => (stale_or_starting(led), trouble.as_str(), detail.clone()),
            (led, Some(known), None) => (stale_or_starting(led), known.trouble.as_str(), known.detail.clone()),
            (false, None, _) => ("starting", "starting", "waiting for the lead, or reading the cluster".to_owned()),
        };
        let since = inner.complaint().map_or(inner.since, |known| known.since);
        Report { status, reason, detail, since, warnings: inner.warnings.clone() }
    }
}

fn stale_or_starting(led: bool) -> &'static str {
    if led { "stale" } else { "starting" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trouble_makes_memory_stale_until_the_rounds_write_again() {
        let health = Health::default();
        assert_eq!((health.report().status, health.report().reason), ("starting", "starting"));
        health.lead(true, Timestamp(1));
        assert_eq!((health.report().status, health.report().reason, health.stale_ms()), ("ready", "ok", None));
        health.trouble(Witness::Rounds, Trouble::DiskFull, "no space", Timestamp(2));
        health.well(Witness::Watch, Timestamp(3));
        let report = health.report();
        assert_eq!((report.status, report.reason, report.since), ("stale", "disk_full", Timestamp(2)));
        assert!(health.stale_ms().is_some() && health.unwritable().is_some());
        health.well(Witness::Rounds, Timestamp(4));
        assert_eq!((health.report().status, health.report().since), ("ready", Timestamp(4)));
    }

    #[test]
    fn a_trouble_that_becomes_another_began_with_the_first() {
        let health = Health::default();
        health.trouble(Witness::Watch, Trouble::Unreachable, "refused", Timestamp(2));
        health.trouble(Witness::Watch, Trouble::Starting, "recovering", Timestamp(3));
        assert_eq!((health.report().reason, health.report().since), ("starting", Timestamp(2)));
        health.own_postgres(Some((Trouble::DiskFull, "the private Postgres does not start".into())));
        assert_eq!((health.report().reason, health.report().status), ("disk_full", "starting"));
    }
}
