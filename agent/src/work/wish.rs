//! What the orders want run, on its way to the keeper's thread, and what the keeper knows, on its way back.

use super::devices::Fitted;
use super::record::Key;
use super::steps::Steps;
use chiptide_api::work::{LadderReport, WorkBody, WorkOrder, WorkReport};
use chiptide_model::Millis;
use chrono::{DateTime, Utc};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use uuid::Uuid;

/// Everything that is to run on this node now.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Wish {
    /// Counts up with every change; 0 until orders have come, when nothing is known to be unwanted.
    pub number: u64,
    /// By lease.
    pub leases: BTreeMap<Uuid, WantedLease>,
    /// Every chip of the node.
    pub chips: BTreeMap<String, Fitted>,
}

/// A live lease whose workload this node runs.
#[derive(Clone, PartialEq, Debug)]
pub struct WantedLease {
    /// Its job.
    pub job: Uuid,
    /// The highest lease epoch of its chips here.
    pub epoch: u64,
    /// When its time is up, on this machine's boot-time clock, once notice has been given.
    pub deadline: Option<Duration>,
    /// The same for people.
    pub deadline_at: Option<DateTime<Utc>>,
    /// Ranks whose chips are there, healthy and proven empty: what has not been started may be.
    pub may_start: BTreeSet<u32>,
    /// Set where the work is fenced: from SIGTERM to the kill when it is not renewed.
    pub fence_kill: Option<Duration>,
    /// What to run.
    pub work: WorkOrder,
}

/// The newest wish, and a bell.
#[derive(Debug, Default)]
pub(crate) struct Wishes {
    newest: Mutex<Wish>,
    bell: Condvar,
}

impl Wishes {
    pub(crate) fn lock(&self) -> MutexGuard<'_, Wish> {
        self.newest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a wish in the place of the last and rings.
    pub(crate) fn set(&self, wish: Wish) {
        *self.lock() = wish;
        self.bell.notify_all();
    }

    /// Wakes the keeper to look at something else than a wish.
    pub(crate) fn ring(&self) {
        self.bell.notify_all();
    }

    /// Blocks until there is another wish than this number, or for so long.
    pub(crate) fn wait(&self, number: u64, limit: Duration) {
        let newest = self.lock();
        if newest.number == number {
            drop(self.bell.wait_timeout(newest, limit));
        }
    }
}

/// What the keeper knows.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct View {
    /// The newest wish it has heeded: whatever that one no longer wanted was here, or has never been started.
    pub heeded: u64,
    /// Every replica it knows of, by lease and rank.
    pub replicas: BTreeMap<Key, ReplicaView>,
    /// The steps taken with leases whose replicas were told to go, once they are gone or do not go.
    pub(crate) ladders: BTreeMap<Uuid, Steps>,
}

/// One replica.
#[derive(Clone, PartialEq, Debug)]
pub struct ReplicaView {
    /// Which run of it.
    pub run: u32,
    /// When its work ended, on this machine's boot-time clock.
    pub ended_at: Option<Duration>,
    /// How its work is; absent while it is being started.
    pub work: Option<WorkBody>,
    /// Whether something of it may still run.
    pub present: bool,
    /// The chips it was given; absent where nobody wrote that down.
    pub chips: Option<Vec<String>>,
}

impl ReplicaView {
    /// Of a replica that could not be started.
    pub(crate) fn never_started(run: u32, work: WorkBody) -> ReplicaView {
        ReplicaView { run, ended_at: None, work: Some(work), present: false, chips: None }
    }
}

impl View {
    /// The view of a keeper that has heeded `heeded`, knows these replicas, and has taken no lease's work down.
    pub fn of(heeded: u64, replicas: BTreeMap<Key, ReplicaView>) -> View {
        View { heeded, replicas, ladders: BTreeMap::new() }
    }

    /// What to report.
    pub(crate) fn reports(&self) -> Vec<WorkReport> {
        let report = |(key, replica): (&Key, &ReplicaView)| {
            let work = replica.work.clone()?;
            Some(WorkReport { lease: key.lease, rank: key.rank, run: replica.run, work, ended_ago: None })
        };
        self.replicas.iter().filter_map(report).collect()
    }

    /// The steps to report of these leases, with how long ago each was.
    pub(crate) fn ladder_reports<'a>(
        &self,
        leases: impl IntoIterator<Item = &'a Uuid>,
        now: Duration,
    ) -> Vec<LadderReport> {
        leases.into_iter().filter_map(|lease| Some(self.ladders.get(lease)?.report(*lease, now))).collect()
    }

    /// The reports with how long ago each replica ended.
    pub(crate) fn with_ages(&self, reports: &[WorkReport], now: Duration) -> Vec<WorkReport> {
        let aged = |report: &WorkReport| {
            let of = self.replicas.get(&Key { lease: report.lease, rank: report.rank });
            let ended_at = of.filter(|replica| replica.run == report.run).and_then(|replica| replica.ended_at);
            let ended_ago = ended_at.map(|at| Millis(now.saturating_sub(at).as_millis() as u64));
            WorkReport { ended_ago, ..report.clone() }
        };
        reports.iter().map(aged).collect()
    }

    /// Whether nothing is left of the runs of a lease before this one.
    pub(crate) fn is_past(&self, lease: Uuid, run: u32) -> bool {
        let older = |(key, replica): (&Key, &ReplicaView)| key.lease == lease && replica.run < run && replica.present;
        !self.replicas.iter().any(older)
    }

    /// Leases of which something may still run here.
    pub(crate) fn leases_present(&self) -> impl Iterator<Item = Uuid> + '_ {
        self.replicas.iter().filter(|(_, replica)| replica.present).map(|(key, _)| key.lease)
    }

    /// Whether something of a lease may still run on a chip.
    pub(crate) fn may_be_on(&self, lease: Uuid, chip: &str) -> bool {
        let on = |replica: &ReplicaView| replica.chips.as_ref().is_none_or(|chips| chips.iter().any(|own| own == chip));
        self.replicas.iter().any(|(key, replica)| key.lease == lease && replica.present && on(replica))
    }

    /// Whether all of this has been started, whatever became of it since.
    pub(crate) fn has_begun(&self, lease: Uuid, work: &WorkOrder) -> bool {
        let begun = |rank| {
            let replica = self.replicas.get(&Key { lease, rank }).filter(|replica| replica.run == work.run);
            let work = replica.and_then(|replica| replica.work.as_ref());
            work.is_some_and(|work| !matches!(work, WorkBody::Failed { .. }))
        };
        work.replicas.iter().all(|replica| begun(replica.rank))
    }
}
