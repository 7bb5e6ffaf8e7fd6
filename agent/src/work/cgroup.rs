//! One cgroup (version 2): made, entered, killed, found empty, removed. Removing is the last word: the kernel refuses to
//! remove a cgroup that has a process, and nobody can enter one that is gone.

use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::{fs, io};

/// A cgroup by its folder.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Cgroup {
    path: PathBuf,
}

impl Cgroup {
    pub(crate) fn at(path: PathBuf) -> Cgroup {
        Cgroup { path }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Makes it; it may be there already.
    pub(crate) fn make(&self) -> io::Result<()> {
        match fs::create_dir(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
            _ => Ok(()),
        }
    }

    /// Sets one of its files.
    pub(crate) fn set(&self, file: &str, value: &str) -> io::Result<()> {
        fs::write(self.path.join(file), value)
    }

    /// Moves the calling process in. What it starts from then on is born inside.
    pub(crate) fn enter(&self) -> io::Result<()> {
        self.set("cgroup.procs", "0")
    }

    /// Kills everything inside, also in the cgroups below.
    pub(crate) fn kill(&self) -> io::Result<()> {
        gone_is_fine(self.set("cgroup.kill", "1"))
    }

    /// Whether no process is inside or below. One that is gone is empty; one that cannot be read is not known to be.
    pub(crate) fn is_empty(&self) -> io::Result<bool> {
        match fs::read_to_string(self.path.join("cgroup.events")) {
            Ok(events) => Ok(events.lines().any(|line| line == "populated 0")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
            // Removed between opening and reading.
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::NODEV.raw_os_error()) => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// Whether the kernel has killed a process inside for want of memory. False where the memory controller is not there.
    pub(crate) fn had_oom_kill(&self) -> bool {
        fs::read_to_string(self.path.join("memory.events")).is_ok_and(|events| counts_oom_kill(&events))
    }

    /// Every process inside and below.
    pub(crate) fn pids(&self) -> Vec<u32> {
        let procs = fs::read_to_string(self.path.join("cgroup.procs")).unwrap_or_default();
        let own = procs.lines().filter_map(|line| line.parse().ok());
        own.chain(below(&self.path).iter().flat_map(Cgroup::pids)).collect()
    }

    /// Removes it with all below. Refused by the kernel while a process is inside.
    pub(crate) fn remove(&self) -> io::Result<()> {
        for cgroup in below(&self.path) {
            cgroup.remove()?;
        }
        gone_is_fine(fs::remove_dir(&self.path))
    }
}

fn counts_oom_kill(events: &str) -> bool {
    let count = events.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse::<u64>().ok());
    count.is_some_and(|count| count > 0)
}

fn below(path: &Path) -> Vec<Cgroup> {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|e| Cgroup::at(e.path())).collect()
}

fn gone_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_oom_kill_is_told_from_an_oom_that_killed_nothing() {
        assert!(counts_oom_kill("low 0\nhigh 0\nmax 31\noom 1\noom_kill 2\noom_group_kill 1\n"));
        assert!(!counts_oom_kill("max 31\noom 1\noom_kill 0\n") && !counts_oom_kill(""));
    }
}
