//! `postmaster.pid`: Postgres's own lock file, which we only ever read.

use std::fs;
use std::path::{Path, PathBuf};

/// What the lock file says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Lockfile {
    /// The postmaster that wrote it.
    pub(crate) pid: u32,
    /// Directory of its socket, once it listens.
    pub(crate) socket_dir: Option<PathBuf>,
    /// How far it has come.
    pub(crate) status: Status,
}

/// The postmaster's word about itself (last line of the file).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Status {
    /// Not serving yet: starting, or recovering from a crash.
    Starting,
    /// Serving.
    Ready,
    /// On its way out.
    Stopping,
}

impl Lockfile {
    /// Reads the lock file of a data directory; `None` when there is none or it is being written.
    pub(crate) fn read(pgdata: &Path) -> Option<Lockfile> {
        Lockfile::parse(&fs::read_to_string(pgdata.join("postmaster.pid")).ok()?)
    }

    fn parse(text: &str) -> Option<Lockfile> {
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        Some(Lockfile {
            pid: lines.first()?.parse().ok()?,
            socket_dir: lines.get(4).filter(|line| line.starts_with('/')).map(PathBuf::from),
            status: match lines.get(7).copied() {
                Some("ready" | "standby") => Status::Ready,
                Some("stopping") => Status::Stopping,
                _ => Status::Starting,
            },
        })
    }

    /// Whether the process that wrote the file still runs. A pid alone proves nothing, it may have been used again: a
    /// postmaster is told by its working directory, which is always its data directory.
    pub(crate) fn is_live(&self, pgdata: &Path) -> bool {
        let Ok(pgdata) = pgdata.canonicalize() else { return false };
        fs::read_link(format!("/proc/{}/cwd", self.pid)).is_ok_and(|cwd| cwd == pgdata)
    }

    /// Whether it has ended but its parent has not collected it yet. Postgres takes such a one for alive.
    pub(crate) fn is_zombie(&self) -> bool {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid)).unwrap_or_default();
        // The name in parentheses may itself hold spaces and parentheses; the state follows the last one.
        stat.contains("(postgres)") && stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('Z'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_mean_what_postgres_writes() {
        let text =
            "4242\n/var/lib/chiptide/pgdata\n1764000000\n5432\n/run/chiptide/7f\n\n  1234567    65537\nready   \n";
        let lock = Lockfile::parse(text).expect("a lock file");
        assert_eq!((lock.pid, lock.status), (4242, Status::Ready));
        assert_eq!(lock.socket_dir.as_deref(), Some(Path::new("/run/chiptide/7f")));
    }

    #[test]
    fn a_half_written_file_is_a_start_and_an_empty_one_is_nothing() {
        assert_eq!(Lockfile::parse("7\n/data\n1764000000\n5432\n").expect("a pid").status, Status::Starting);
        assert_eq!(Lockfile::parse(""), None);
    }

    #[test]
    fn another_process_with_that_pid_is_not_the_postmaster() {
        let dir = tempfile::tempdir().expect("a directory");
        let lock = Lockfile { pid: std::process::id(), socket_dir: None, status: Status::Ready };
        assert!(!lock.is_live(dir.path()) && !lock.is_zombie());
    }
}
