//! One running server process: ours (we forked it and must collect it) or somebody else's that we found running.

use crate::lockfile::Lockfile;
use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// How long an orderly stop may take: its last checkpoint writes what is dirty.
const STOP_MAX: Duration = Duration::from_secs(60);

/// The server process of one data directory.
#[derive(Debug)]
pub(crate) struct Postmaster {
    pgdata: PathBuf,
    pid: u32,
    /// Present when we forked it; absent when it is adopted.
    child: Option<Child>,
}

impl Postmaster {
    /// A server we have just forked.
    pub(crate) fn forked(pgdata: &Path, child: Child) -> Postmaster {
        Postmaster { pgdata: pgdata.to_owned(), pid: child.id(), child: Some(child) }
    }

    /// A server that somebody else keeps.
    pub(crate) fn adopted(pgdata: &Path, pid: u32) -> Postmaster {
        Postmaster { pgdata: pgdata.to_owned(), pid, child: None }
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// Whether somebody else keeps it.
    pub(crate) fn is_adopted(&self) -> bool {
        self.child.is_none()
    }

    /// How it ended, if it has. Collects our own child, so that it never stays behind as a zombie.
    pub(crate) fn try_wait(&mut self) -> Result<Option<String>> {
        if let Some(child) = &mut self.child {
            return Ok(child.try_wait().context("collect the postmaster")?.map(|status| status.to_string()));
        }
        let lock = Lockfile::read(&self.pgdata).filter(|lock| lock.pid == self.pid && lock.is_live(&self.pgdata));
        Ok(lock.is_none().then(|| "its keeper stopped it".to_owned()))
    }

    /// Orderly stop: fast shutdown, then wait; an immediate one if that takes too long. The signal goes to the process
    /// that the lock file names, never to a wrapper. An adopted server is left to its keeper.
    pub(crate) fn stop(&mut self) -> Result<()> {
        if self.is_adopted() || self.try_wait()?.is_some() {
            return Ok(());
        }
        for (signal, patience) in [(Signal::SIGINT, STOP_MAX), (Signal::SIGQUIT, Duration::from_secs(10))] {
            self.signal(signal)?;
            if self.wait(patience)? {
                return Ok(());
            }
            tracing::warn!(pid = self.pid, %signal, "Postgres has not stopped yet");
        }
        bail!("Postgres (pid {}) does not stop; its data is in {}", self.pid, self.pgdata.display())
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let pid = Lockfile::read(&self.pgdata).map_or(self.pid, |lock| lock.pid);
        let pid = i32::try_from(pid).context("a process id of the kernel's")?;
        match kill(Pid::from_raw(pid), signal) {
            Ok(()) | Err(Errno::ESRCH) => Ok(()),
            Err(error) => Err(error).with_context(|| format!("send {signal} to the postmaster (pid {pid})")),
        }
    }

    fn wait(&mut self, patience: Duration) -> Result<bool> {
        let until = Instant::now() + patience;
        while self.try_wait()?.is_none() {
            if Instant::now() >= until {
                return Ok(false);
            }
            sleep(Duration::from_millis(5));
        }
        Ok(true)
    }
}

impl Drop for Postmaster {
    /// A cluster that is dropped without `stop` stops too, so that no zombie blocks the next start.
    fn drop(&mut self) {
        if let Err(error) = self.stop() {
            tracing::warn!(%error, "Postgres was left running");
        }
    }
}
