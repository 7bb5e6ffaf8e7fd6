//! One replica in the keeper's care: what is known of it, and the blows of the ladder. Whether something of it is left is
//! asked of the kernel; what cannot be read is never gone.

use super::cgroup::Cgroup;
use super::ladder::{Act, Bounds, Ladder, Wanted};
use super::procs::{self, Proc, descends};
use super::record::{Folder, Guardian, Key, Record};
use super::steps::Steps;
use super::wish::ReplicaView;
use crate::fault_point;
use chiptide_api::work::WorkBody;
use rustix::process::Signal;
use serde_json::json;
use std::collections::BTreeMap;
use std::process::Child;
use std::time::Duration;
use std::{fs, io};
use tracing::{error, info, warn};

/// How long a guardian may take to start its workload.
const START_BOUND: Duration = Duration::from_secs(10);
/// The same for one that an agent before this one may have started, or was about to: the fence makes an early verdict safe.
const ADOPTED_START_BOUND: Duration = Duration::from_secs(2);
/// How long a guardian whose workload is gone may take to write down how that was.
const FAREWELL: Duration = Duration::from_secs(2);

/// One replica.
#[derive(Debug)]
pub(crate) struct Replica {
    key: Key,
    run: u32,
    notice_signal: Option<chiptide_model::Signal>,
    folder: Folder,
    cgroup: Option<Cgroup>,
    chips: Option<Vec<String>>,
    ladder: Ladder,
    /// The guardian, where it is our own child: it must be reaped.
    child: Option<Child>,
    start_by: Duration,
    adopted: bool,
    /// An agent before this one wrote it down and got no further.
    never_started: bool,
    started: bool,
    ended: Option<WorkBody>,
    ended_at: Option<Duration>,
    /// Since when nothing but the guardian is left.
    alone_since: Option<Duration>,
    ending_since: Option<Duration>,
    present: bool,
    stray: bool,
    steps: Steps,
}

impl Replica {
    /// The replica of a record, started by this agent (then with its guardian) or by one before.
    pub(crate) fn of(record: &Record, folder: Folder, child: Option<Child>, now: Duration) -> Replica {
        let cgroup = record.cgroups.as_ref().map(|(own, _)| own.clone());
        Replica {
            run: record.run,
            notice_signal: record.notice_signal,
            chips: Some(record.chips.clone()),
            ..Replica::new(record.key, folder, cgroup, child, now)
        }
    }

    /// Something that no record explains: it is to end.
    pub(crate) fn stray(key: Key, folder: Folder, cgroup: Option<Cgroup>, now: Duration) -> Replica {
        let mut stray = Replica::new(key, folder, cgroup, None, now);
        stray.ladder.climb(now, Wanted::End, true, Bounds { kill_after: Duration::ZERO, verify_for: Duration::ZERO });
        stray.act(Act::Kill, now, None);
        stray.stray = true;
        stray
    }

    fn new(key: Key, folder: Folder, cgroup: Option<Cgroup>, child: Option<Child>, now: Duration) -> Replica {
        Replica {
            key,
            run: 0,
            notice_signal: None,
            folder,
            cgroup,
            chips: None,
            ladder: Ladder::default(),
            start_by: now + if child.is_some() { START_BOUND } else { ADOPTED_START_BOUND },
            adopted: child.is_none(),
            never_started: false,
            child,
            started: false,
            ended: None,
            ended_at: None,
            alone_since: None,
            ending_since: None,
            present: true,
            stray: false,
            steps: Steps::default(),
        }
    }

    /// Whether it is something that no record explains.
    pub(crate) fn is_stray(&self) -> bool {
        self.stray
    }

    pub(crate) fn is_present(&self) -> bool {
        self.present
    }

    /// The steps taken with it so far.
    pub(crate) fn steps(&self) -> Steps {
        self.steps
    }

    /// Which run it is.
    pub(crate) fn run(&self) -> u32 {
        self.run
    }

    /// Whether something is about to happen to it: it is being started, or ended.
    pub(crate) fn is_in_motion(&self) -> bool {
        self.present && (self.ladder.is_ending() || !self.started)
    }

    /// Whether it is gone without ever having started, through no fault of its own: it may be started anew.
    pub(crate) fn may_start_anew(&self) -> bool {
        self.never_started && !self.present
    }

    pub(crate) fn view(&self) -> ReplicaView {
        let running = self.started.then_some(WorkBody::Running);
        let work = self.ended.clone().filter(|_| !self.never_started).or(running);
        let (run, ended_at, present, chips) = (self.run, self.ended_at, self.present, self.chips.clone());
        ReplicaView { run, ended_at, work, present, chips }
    }

    /// Looks at it, and does what its ladder says next.
    pub(crate) fn tend(&mut self, now: Duration, wanted: Wanted, bounds: Bounds, deadline_at: Option<String>) {
        if !self.present {
            return;
        }
        self.observe(now);
        let act = self.ladder.climb(now, wanted, self.ended.is_some(), bounds);
        self.act(act, now, deadline_at);
        if self.ladder.is_ending() {
            match self.is_gone(now) {
                Ok(true) => {
                    self.observe(now);
                    self.ended.get_or_insert_with(|| failed("it was ended before it had started"));
                    self.ended_at.get_or_insert(now);
                    self.present = false;
                    self.steps.empty = Some(now);
                    info!(replica = %self.key, after_ms = self.ending_ms(now), "nothing of it is left");
                    fault_point::reach("ladder-gone");
                }
                Ok(false) => {}
                Err(error) => warn!(replica = %self.key, "whether something of it is left cannot be read: {error}"),
            }
        }
    }

    fn observe(&mut self, now: Duration) {
        if let Some(child) = &mut self.child
            && !matches!(child.try_wait(), Ok(None))
        {
            self.child = None;
            self.start_by = now;
        }
        if self.ended.is_some() {
            return;
        }
        let guardian = self.folder.guardian();
        if !self.started {
            self.started = matches!(self.folder.started(), Ok(Some(_)));
        }
        self.ended = match self.folder.ended() {
            Ok(ended) => ended,
            Err(error) => Some(failed(&error.to_string())),
        };
        let absent = matches!(guardian, Ok(Guardian::Absent));
        if self.ended.is_none() && absent && (self.started || now >= self.start_by) {
            let why =
                if self.started { "how it ended is not known: its guardian died" } else { "its start was cut off" };
            self.never_started = self.adopted && !self.started;
            self.ended = Some(failed(why));
        }
        if let Some(ended) = &self.ended {
            self.ended_at.get_or_insert(now);
            info!(replica = %self.key, ?ended, "ended");
        }
        // Notice may have come before the guardian had written down whom to signal.
        if self.steps.told.is_some() {
            self.signal_notice();
        }
    }

    fn act(&mut self, act: Act, now: Duration, deadline_at: Option<String>) {
        if matches!(act, Act::Terminate | Act::Kill | Act::KillLoudly) && self.ending_since.is_none() {
            self.ending_since = Some(now);
            if let Err(error) = self.folder.fence() {
                warn!(replica = %self.key, "fence: {error}");
            }
            fault_point::reach("ladder-fenced");
        }
        match act {
            Act::Nothing => {}
            Act::Notice(deadline) => {
                self.steps.told.get_or_insert(now);
                let left = deadline.saturating_sub(now);
                info!(replica = %self.key, left_ms = left.as_millis() as u64, "notice given");
                if let Err(error) = self.give_notice(left, deadline_at) {
                    warn!(replica = %self.key, "the notice cannot be written: {error}");
                }
                fault_point::reach("ladder-noticed");
                self.signal_notice();
            }
            Act::Terminate => {
                self.steps.terminated.get_or_insert(now);
                info!(replica = %self.key, "terminating");
                self.members().unwrap_or_default().iter().for_each(|pid| procs::signal(*pid, Signal::TERM));
                fault_point::reach("ladder-terminated");
            }
            Act::Kill | Act::KillLoudly => {
                self.steps.killed.get_or_insert(now);
                if act == Act::KillLoudly {
                    self.steps.stuck.get_or_insert(now);
                    let left = self.members().unwrap_or_default();
                    error!(replica = %self.key, after_ms = self.ending_ms(now), ?left, "killed, and still there");
                }
                fault_point::reach("ladder-before-kill");
                if let Err(error) = self.kill() {
                    warn!(replica = %self.key, "kill: {error}");
                }
                fault_point::reach("ladder-killed");
            }
        }
    }

    fn kill(&self) -> io::Result<()> {
        match &self.cgroup {
            Some(cgroup) => cgroup.kill(),
            None => {
                self.members()?.iter().for_each(|pid| procs::signal(*pid, Signal::KILL));
                Ok(())
            }
        }
    }

    /// The signal that the job asked for, once: a notice that is put off is in the file.
    fn signal_notice(&mut self) {
        let Some(pid) = self.notice_signal.and_then(|_| self.folder.started().ok().flatten()) else { return };
        let signal = self.notice_signal.take().and_then(|signal| Signal::from_named_raw(signal.number()));
        // While it has not ended, its pid is its own: its guardian has not reaped it.
        if let (Some(signal), None) = (signal, &self.ended) {
            procs::signal(pid, signal);
        }
    }

    fn give_notice(&self, left: Duration, deadline_at: Option<String>) -> io::Result<()> {
        let notice = json!({"lease": self.key.lease, "deadline": deadline_at, "ends_in_ms": left.as_millis() as u64});
        let next = self.folder.notice().with_extension("new");
        fs::write(&next, format!("{notice}\n"))?;
        fs::rename(next, self.folder.notice())
    }

    /// Whether nothing is left of it and nothing can come: no process, no guardian, no cgroup that one could be born in.
    fn is_gone(&mut self, now: Duration) -> io::Result<bool> {
        if !self.is_empty()? {
            self.alone_since = None;
            return Ok(false);
        }
        if let Guardian::Alive(pid) = self.folder.guardian()? {
            let since = *self.alone_since.get_or_insert(now);
            if let Some(pid) = pid.filter(|_| now >= since + FAREWELL) {
                procs::signal(pid, Signal::KILL);
            }
            return Ok(false);
        }
        // The fence stands since before the guardian was found gone: whatever it started at the last moment shows now.
        if !self.is_empty()? || !self.folder.is_fenced() {
            return Ok(false);
        }
        match &self.cgroup {
            Some(cgroup) => match cgroup.remove() {
                Err(error) if error.kind() == io::ErrorKind::ResourceBusy => Ok(false),
                removed => removed.map(|()| true),
            },
            None => Ok(true),
        }
    }

    fn is_empty(&self) -> io::Result<bool> {
        match &self.cgroup {
            Some(cgroup) => cgroup.is_empty(),
            None => self.members().map(|members| members.is_empty()),
        }
    }

    /// Its processes, without the guardian. Without a cgroup: what descends from the guardian, which everything it starts
    /// does however often it forks, and what carries the replica's name in its environment.
    fn members(&self) -> io::Result<Vec<u32>> {
        if let Some(cgroup) = &self.cgroup {
            return Ok(cgroup.pids());
        }
        let guardian = match self.folder.guardian()? {
            Guardian::Alive(pid) => pid,
            Guardian::Absent => None,
        };
        let name = [format!("CHIPTIDE_LEASE_ID={}", self.key.lease), format!("CHIPTIDE_RANK={}", self.key.rank)];
        let all = procs::all()?;
        let parents: BTreeMap<u32, u32> = all.iter().map(|proc| (proc.pid, proc.parent)).collect();
        let is_member = |proc: &&Proc| {
            !proc.zombie
                && Some(proc.pid) != guardian
                && (guardian.is_some_and(|guardian| descends(&parents, proc.pid, guardian))
                    || procs::was_started_with(proc.pid, &name))
        };
        Ok(all.iter().filter(is_member).map(|proc| proc.pid).collect())
    }

    fn ending_ms(&self, now: Duration) -> u64 {
        self.ending_since.map_or(0, |since| now.saturating_sub(since).as_millis() as u64)
    }
}

fn failed(reason: &str) -> WorkBody {
    WorkBody::Failed { reason: reason.to_owned() }
}
