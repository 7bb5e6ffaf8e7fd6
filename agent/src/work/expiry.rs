//! The end of fenced work by its guardian. An agent that lives ends it first; one that is dead, stopped or stuck does not, and
//! the time is up all the same.

use super::cgroup::Cgroup;
use super::procs::{self, Proc};
use super::record::Folder;
use super::{deadline, procs::descends};
use crate::host;
use rustix::process::Signal;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::thread::sleep;
use std::time::Duration;

/// How often to look at the deadline: a machine that was suspended must not sleep out the rest of a long pause.
const LOOK: Duration = Duration::from_millis(250);
/// An agent that lives has so long to begin, so that the workload is not told twice.
const HEAD_START: Duration = Duration::from_millis(200);
/// A process that forks while it is killed is met again after this.
const KILL_AGAIN: Duration = Duration::from_millis(100);

/// When and how fast a guardian ends its work.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Expiry {
    /// Where the lease's deadline is.
    pub(crate) file: PathBuf,
    /// From SIGTERM to the kill, milliseconds.
    pub(crate) kill_after_ms: u64,
}

impl Expiry {
    /// Whether the time is up.
    pub(crate) fn is_due(&self) -> bool {
        host::boot_time() >= deadline::read(&self.file)
    }

    /// Waits until the time is up, and ends the work then. Never returns: what forks away is killed for as long as the
    /// guardian lives, and that ends with the last process.
    pub(crate) fn enforce(&self, folder: &Folder, cgroup: Option<&Cgroup>) -> ! {
        let due = loop {
            let (now, due) = (host::boot_time(), deadline::read(&self.file));
            if now >= due {
                break now;
            }
            sleep((due - now).min(LOOK));
        };
        sleep(HEAD_START);
        if !folder.is_fenced() {
            eprintln!("the lease was not renewed in time: ending its work");
            if let Err(error) = folder.fence() {
                eprintln!("fence: {error}");
            }
            each(cgroup, Signal::TERM);
        }
        let kill_at = due + Duration::from_millis(self.kill_after_ms);
        while host::boot_time() < kill_at {
            sleep(kill_at.saturating_sub(host::boot_time()).min(KILL_AGAIN));
        }
        loop {
            match cgroup {
                Some(cgroup) => drop(cgroup.kill().inspect_err(|error| eprintln!("kill: {error}"))),
                None => each(None, Signal::KILL),
            }
            sleep(KILL_AGAIN);
        }
    }
}

/// Signals every process of the work. Without a cgroup: all that descends from this guardian, which is what it has started
/// and what that left behind.
fn each(cgroup: Option<&Cgroup>, signal: Signal) {
    let members = match cgroup {
        Some(cgroup) => Ok(cgroup.pids()),
        None => descendants(),
    };
    match members {
        Ok(members) => members.iter().for_each(|pid| procs::signal(*pid, signal)),
        Err(error) => eprintln!("list processes: {error}"),
    }
}

fn descendants() -> io::Result<Vec<u32>> {
    let all = procs::all()?;
    let parents: BTreeMap<u32, u32> = all.iter().map(|proc| (proc.pid, proc.parent)).collect();
    let ours = |proc: &&Proc| !proc.zombie && descends(&parents, proc.pid, std::process::id());
    Ok(all.iter().filter(ours).map(|proc| proc.pid).collect())
}
