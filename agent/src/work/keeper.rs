//! The keeper of a node's workloads, on a thread of its own: it starts what the newest wish wants and may start, walks the
//! rest down the ladder, and tells what it knows. It alone starts and ends replicas, so a start and a fence never race here.

use super::containment::Containment;
use super::deadline::Deadlines;
use super::devices::Fitted;
use super::ladder::Wanted;
use super::launch::WorkOptions;
use super::outputs::Outputs;
use super::record::{Folder, Key, folders};
use super::replica::Replica;
use super::steps::Steps;
use super::wish::{ReplicaView, View, WantedLease, Wish, Wishes};
use crate::host;
use anyhow::Context;
use chiptide_api::work::{ReplicaOrder, WorkBody};
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;
use tokio::sync::watch;
use tracing::{error, info, warn};
use uuid::Uuid;

/// How often to look while something starts or ends, while something runs, and while nothing does.
const IN_MOTION: Duration = Duration::from_millis(10);
const RUNNING: Duration = Duration::from_millis(50);
const NOTHING: Duration = Duration::from_secs(60);
/// The longest rest before another run.
const REST_MAX: Duration = Duration::from_secs(60);
/// Leases whose steps are remembered after their replicas were put away: for as long as it takes to tell them.
const EMPTIED_MAX: usize = 64;
/// Folders of replicas that are over, kept for what they said.
const FINISHED_MAX: usize = 32;

/// The handle of a node's workloads. What runs keeps running when this is gone: the next agent adopts it.
#[derive(Debug)]
pub struct Work {
    wishes: Arc<Wishes>,
    stop: Arc<AtomicBool>,
    view: watch::Receiver<View>,
    outputs: Outputs,
    deadlines: Deadlines,
    /// Deadlines as they were last written.
    written: BTreeMap<Uuid, Duration>,
}

impl Work {
    /// Adopts what an agent before this one left running, ends what nobody wrote down, and starts the keeper. Blocks until
    /// then, so that a node never registers with something on it that it does not know.
    pub fn start(options: WorkOptions) -> anyhow::Result<Work> {
        info!("{}", options.containment);
        fs::create_dir_all(options.state_dir.join("work")).context("make the folder of workloads")?;
        fs::create_dir_all(options.state_dir.join("finished")).context("make the folder of finished workloads")?;
        let outputs = Outputs::below(options.state_dir.clone());
        let deadlines = options.deadlines().context("make the folder of deadlines")?;
        let written = deadlines.load().context("read the deadlines of fenced leases")?;
        let (wishes, stop) = (Arc::new(Wishes::default()), Arc::new(AtomicBool::new(false)));
        let mut keeper = Keeper {
            options,
            wishes: wishes.clone(),
            replicas: BTreeMap::new(),
            failed: BTreeMap::new(),
            resting: BTreeMap::new(),
            emptied: Vec::new(),
        };
        keeper.adopt()?;
        let (views, view) = watch::channel(keeper.view(0));
        let stopping = stop.clone();
        let keep = move || {
            while !stopping.load(Ordering::Relaxed) {
                let (seen, pause) = keeper.step(&views);
                keeper.wishes.wait(seen, pause);
            }
        };
        thread::Builder::new().name("workloads".into()).spawn(keep).context("start the keeper's thread")?;
        Ok(Work { wishes, stop, view, outputs, deadlines, written })
    }

    /// The deadlines of fenced leases as they were last written, by this agent or the one before.
    pub(crate) fn deadlines(&self) -> &BTreeMap<Uuid, Duration> {
        &self.written
    }

    /// Writes the deadlines that have changed, for the guardians. On an error some may not have been.
    pub(crate) fn keep_deadlines(&mut self, deadlines: &BTreeMap<Uuid, Duration>) -> std::io::Result<()> {
        for (lease, deadline) in deadlines {
            if self.written.get(lease) != Some(deadline) {
                self.deadlines.write(*lease, *deadline)?;
                self.written.insert(*lease, *deadline);
            }
        }
        Ok(())
    }

    /// Forgets the deadlines of all leases but these.
    pub(crate) fn forget_deadlines(&mut self, wanted: impl Fn(Uuid) -> bool) -> std::io::Result<()> {
        if self.written.keys().all(|lease| wanted(*lease)) {
            return Ok(());
        }
        self.written.retain(|lease, _| wanted(*lease));
        self.deadlines.keep_only(wanted)
    }

    /// Says what is to run now.
    pub(crate) fn wish(&self, wish: Wish) {
        self.wishes.set(wish);
    }

    /// Where what workloads say is kept.
    pub(crate) fn outputs(&self) -> Outputs {
        self.outputs.clone()
    }

    /// What the keeper knows.
    pub(crate) fn view(&mut self) -> View {
        self.view.borrow_and_update().clone()
    }

    /// Waits until it knows something else.
    pub(crate) async fn changed(&mut self) {
        if self.view.changed().await.is_err() {
            std::future::pending().await
        }
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.wishes.ring();
    }
}

struct Keeper {
    options: WorkOptions,
    wishes: Arc<Wishes>,
    replicas: BTreeMap<Key, Replica>,
    /// What could not be started, while it is wanted.
    failed: BTreeMap<Key, (u32, WorkBody)>,
    /// When those may start anew that have failed, on the boot-time clock.
    resting: BTreeMap<Key, Duration>,
    /// The steps taken with leases whose replicas are put away, the newest last.
    emptied: Vec<(Uuid, Steps)>,
}

impl Keeper {
    /// Finds what was started before, on disk and in the hierarchy of cgroups.
    fn adopt(&mut self) -> anyhow::Result<()> {
        let now = host::boot_time();
        for (key, folder) in folders(&self.options.state_dir.join("work")).context("look for workloads")? {
            match folder.record() {
                Ok(Some(record)) if record.boot_id == self.options.boot_id => {
                    info!(replica = %key, "adopted");
                    self.replicas.insert(key, Replica::of(&record, folder, None, now));
                }
                // Nothing survives a restart of the machine.
                Ok(Some(_)) => self.put_away(key),
                Ok(None) => self.take_for_stray(key, folder, "nothing is written down of it"),
                Err(error) => self.take_for_stray(key, folder, &error.to_string()),
            }
        }
        if let Containment::Cgroups(hierarchy) = &self.options.containment {
            for key in hierarchy.keys().context("look for cgroups")? {
                if !self.replicas.contains_key(&key) {
                    let folder = self.options.folder(key);
                    fs::create_dir_all(folder.path()).context("make the folder of a stray")?;
                    self.take_for_stray(key, folder, "a cgroup of which nothing is written down");
                }
            }
        }
        self.end_strays();
        Ok(())
    }

    fn take_for_stray(&mut self, key: Key, folder: Folder, why: &str) {
        warn!(replica = %key, "ending it: {why}");
        let cgroup = match &self.options.containment {
            Containment::Cgroups(hierarchy) => Some(hierarchy.of(key)),
            Containment::Groups | Containment::Refused(_) => None,
        };
        self.replicas.insert(key, Replica::stray(key, folder, cgroup, host::boot_time()));
    }

    /// Waits, but not for ever, until the strays are gone. One that does not die keeps its chips from being proven vacant.
    fn end_strays(&mut self) {
        let limit = host::boot_time() + self.options.bounds.verify_for;
        loop {
            let now = host::boot_time();
            for replica in self.replicas.values_mut().filter(|replica| replica.is_stray()) {
                replica.tend(now, Wanted::End, self.options.bounds, None);
            }
            if now >= limit || !self.replicas.values().any(|replica| replica.is_stray() && replica.is_present()) {
                return;
            }
            thread::sleep(IN_MOTION);
        }
    }

    /// Heeds the newest wish. Answers its number and when to look again.
    fn step(&mut self, views: &watch::Sender<View>) -> (u64, Duration) {
        let wish = self.wishes.lock().clone();
        let (now, bounds) = (host::boot_time(), self.options.bounds);
        self.start_wanted(&wish, now);
        for (key, replica) in &mut self.replicas {
            let lease = wish.leases.get(&key.lease);
            let deadline_at = lease.and_then(|lease| lease.deadline_at).map(|at| at.to_rfc3339());
            let wanted = if is_outdated(replica, lease) { Wanted::End } else { wanted(&wish, lease, key.rank) };
            replica.tend(now, wanted, bounds, deadline_at);
        }
        self.make_room_for_restarts(&wish, now);
        let is_over = |key: &Key| wanted(&wish, wish.leases.get(&key.lease), key.rank) == Wanted::End;
        let over: Vec<Key> =
            self.replicas.iter().filter(|(key, r)| is_over(key) && !r.is_present()).map(|(k, _)| *k).collect();
        for key in over {
            if let Some(replica) = self.replicas.remove(&key) {
                self.note_emptied(key.lease, replica.steps());
            }
            self.put_away(key);
        }
        let anew: Vec<Key> = self.replicas.iter().filter(|(_, r)| r.may_start_anew()).map(|(key, _)| *key).collect();
        for key in anew {
            info!(replica = %key, "its start was cut off; it may start anew");
            self.replicas.remove(&key);
            self.undo(key);
            self.start_wanted(&wish, now);
        }
        let run = |key: &Key| wish.leases.get(&key.lease).map_or(0, |lease| lease.work.run);
        self.failed.retain(|key, (of, _)| !is_over(key) && *of == run(key));
        self.resting.retain(|key, _| !is_over(key));
        let view = self.view(wish.number);
        views.send_if_modified(|old| {
            let changed = *old != view;
            *old = view;
            changed
        });
        (wish.number, self.pause())
    }

    fn note_emptied(&mut self, lease: Uuid, steps: Steps) {
        let known = self.emptied.iter().position(|(of, _)| *of == lease).map(|at| self.emptied.remove(at).1);
        self.emptied.push((lease, known.map_or(steps, |known| known.and(steps))));
        if self.emptied.len() > EMPTIED_MAX {
            self.emptied.remove(0);
        }
    }

    /// The steps taken with every lease of which replicas are or were here.
    fn ladders(&self) -> BTreeMap<Uuid, Steps> {
        let mut ladders: BTreeMap<Uuid, Steps> = self.emptied.iter().copied().collect();
        for (key, replica) in &self.replicas {
            let steps = replica.steps();
            ladders.entry(key.lease).and_modify(|known| *known = known.and(steps)).or_insert(steps);
        }
        ladders.retain(|_, steps| steps.are_news());
        ladders
    }

    /// Clears the folders of replicas that are gone and to be started anew. Each run waits twice as long as the one before.
    fn make_room_for_restarts(&mut self, wish: &Wish, now: Duration) {
        let lease = |key: &Key| wish.leases.get(&key.lease);
        let gone = self.replicas.iter().filter(|(key, r)| !r.is_present() && is_outdated(r, lease(key)));
        let gone: Vec<Key> = gone.map(|(key, _)| *key).collect();
        for key in gone.into_iter().filter(|key| wanted(wish, lease(key), key.rank) != Wanted::End) {
            let run = lease(&key).map_or(0, |lease| lease.work.run);
            if let Err(error) = self.options.folder(key).clear_for_another_run() {
                warn!(replica = %key, "its folder cannot be cleared for another run: {error}");
                continue;
            }
            let rest = self.options.restart_after.saturating_mul(1 << run.saturating_sub(1).min(16)).min(REST_MAX);
            info!(replica = %key, run, rest_ms = rest.as_millis() as u64, "is started anew after a rest");
            self.replicas.remove(&key);
            self.resting.insert(key, now + rest);
        }
    }

    fn pause(&self) -> Duration {
        if self.replicas.values().any(Replica::is_in_motion) {
            return IN_MOTION;
        }
        let present = self.replicas.values().any(Replica::is_present);
        if present || !self.resting.is_empty() { RUNNING } else { NOTHING }
    }

    fn start_wanted(&mut self, wish: &Wish, now: Duration) {
        for (lease, wanted) in wish.leases.iter().filter(|(_, wanted)| wanted.deadline.is_none()) {
            for replica in wanted.work.replicas.iter().filter(|replica| wanted.may_start.contains(&replica.rank)) {
                let key = Key { lease: *lease, rank: replica.rank };
                let rests = self.resting.get(&key).is_some_and(|until| now < *until);
                if self.replicas.contains_key(&key) || self.failed.contains_key(&key) || rests {
                    continue;
                }
                self.resting.remove(&key);
                if let Err(error) = self.start(key, wanted, replica, &wish.chips, now) {
                    warn!(replica = %key, "cannot be started: {error:#}");
                    let failed = WorkBody::Failed { reason: format!("{error:#}") };
                    self.failed.insert(key, (wanted.work.run, failed));
                }
            }
        }
    }

    fn start(
        &mut self,
        key: Key,
        wanted: &WantedLease,
        replica: &ReplicaOrder,
        chips: &BTreeMap<String, Fitted>,
        now: Duration,
    ) -> anyhow::Result<()> {
        let prepared = self.options.prepare(key, wanted, replica, chips);
        let folder = self.options.folder(key);
        let record = match prepared {
            Ok(record) => record,
            Err(error) => {
                self.undo(key);
                return Err(error);
            }
        };
        // The last moment: a fence that has come since the wish was read cancels the start.
        let child = {
            let newest = self.wishes.lock();
            match newest
                .leases
                .get(&key.lease)
                .is_some_and(|lease| lease.may_start.contains(&key.rank) && lease.deadline.is_none())
            {
                true => self.options.start(key),
                false => Err(anyhow::anyhow!("its lease has ended before it was started")),
            }
        };
        match child {
            Ok(child) => {
                info!(replica = %key, program = ?record.command.first(), "starting");
                self.replicas.insert(key, Replica::of(&record, folder, Some(child), now));
                Ok(())
            }
            Err(error) => {
                self.undo(key);
                Err(error)
            }
        }
    }

    /// Takes back what was prepared for a start that did not happen.
    fn undo(&self, key: Key) {
        let removed = match &self.options.containment {
            Containment::Cgroups(hierarchy) => hierarchy.of(key).remove(),
            Containment::Groups | Containment::Refused(_) => Ok(()),
        };
        let folder = self.options.folder(key);
        let removed = removed.and_then(|()| match fs::remove_dir_all(folder.path()) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        });
        if let Err(error) = removed {
            warn!(replica = %key, "what was prepared for it stays behind: {error}");
        }
    }

    /// Puts a folder that is over with the finished ones, of which the newest are kept.
    fn put_away(&self, key: Key) {
        let finished = self.options.state_dir.join("finished");
        let target = finished.join(key.to_string());
        // A name that was used before: only of the same replica, so the newer folder says more.
        let _ = fs::remove_dir_all(&target);
        if let Err(error) = fs::rename(self.options.folder(key).path(), target) {
            error!(replica = %key, "its folder cannot be put away: {error}");
        }
        let entries = fs::read_dir(&finished).into_iter().flatten().flatten();
        let mut kept: Vec<(std::time::SystemTime, PathBuf)> =
            entries.filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path()))).collect();
        kept.sort();
        let surplus = kept.len().saturating_sub(FINISHED_MAX);
        kept.iter().take(surplus).for_each(|(_, path)| drop(fs::remove_dir_all(path)));
    }

    fn view(&self, heeded: u64) -> View {
        let failed =
            self.failed.iter().map(|(key, (run, work))| (*key, ReplicaView::never_started(*run, work.clone())));
        View {
            heeded,
            ladders: self.ladders(),
            replicas: self.replicas.iter().map(|(key, replica)| (*key, replica.view())).chain(failed).collect(),
        }
    }
}

/// Whether a later run of the replica is wanted than this one.
fn is_outdated(replica: &Replica, lease: Option<&WantedLease>) -> bool {
    lease.is_some_and(|lease| replica.run() < lease.work.run)
}

/// What is wanted of a replica. A lease that shrinks loses some of its replicas and lives on. Before orders have come
/// nothing is known to be unwanted: an outage of the daemon ends no work.
pub fn wanted(wish: &Wish, lease: Option<&WantedLease>, rank: u32) -> Wanted {
    let lease = lease.filter(|lease| lease.work.replicas.iter().any(|replica| replica.rank == rank));
    match (wish.number, lease) {
        (0, _) => Wanted::Run,
        (_, None) => Wanted::End,
        (_, Some(lease)) => lease.deadline.map_or(Wanted::Run, Wanted::Until),
    }
}
