//! Clusters for tests and benchmarks: ready in about a second, gone with their process.

use crate::cluster::{Cluster, Options};
use crate::{Address, account::Account};
use anyhow::{Context, Result, anyhow};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{LazyLock, Mutex};
use std::thread::{Builder, JoinHandle};

const PREFIX: &str = "chiptide-pg";

/// A throw-away cluster in the system's temporary directory. Dropping it stops it and removes its files; when the
/// process ends without that, the server stops by itself and the next throw-away cluster removes the files.
#[derive(Debug)]
pub struct Throwaway {
    address: Address,
    keeper: Option<Keeper>,
}

/// The thread that forked the server and therefore has to outlive it.
#[derive(Debug)]
struct Keeper {
    stop: Sender<()>,
    thread: JoinHandle<()>,
}

impl Throwaway {
    /// Starts a throw-away cluster. May be called from any thread, however short-lived.
    pub fn start() -> Result<Throwaway> {
        remove_stale();
        let home = home();
        let (answer, started) = channel();
        let (stop, stopped) = channel();
        let keep = move || keep(&home, &answer, &stopped);
        let thread = Builder::new().name("throwaway-postgres".into()).spawn(keep).context("start a thread")?;
        let address = started.recv().map_err(|_| anyhow!("the thread of the throw-away cluster died"))??;
        Ok(Throwaway { address, keeper: Some(Keeper { stop, thread }) })
    }

    /// URL of one database, as sqlx and libpq read it.
    pub fn url(&self, database: &str) -> String {
        self.address.url(database)
    }

    /// Creates a database unless it is there.
    pub fn ensure_database(&self, name: &str) -> Result<()> {
        self.address.ensure_database(name)
    }

    /// Where it answers.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// A `psql` bound to one database: quiet, no start-up file, stops at the first error.
    pub fn psql(&self, database: &str) -> Command {
        self.address.psql(database)
    }
}

impl Drop for Throwaway {
    fn drop(&mut self) {
        if let Some(Keeper { stop, thread }) = self.keeper.take() {
            drop(stop);
            if thread.join().is_err() {
                tracing::warn!("the thread of a throw-away cluster had died");
            }
        }
    }
}

/// The throw-away cluster of this process, started by whoever asks first. For tests.
///
/// # Panics
/// If no cluster can be started: a test that needs a database cannot go on without one.
pub fn throwaway() -> &'static Throwaway {
    static SHARED: LazyLock<Mutex<Option<&'static Throwaway>>> = LazyLock::new(|| Mutex::new(None));
    let mut shared = SHARED.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    shared.get_or_insert_with(|| match Throwaway::start() {
        Ok(cluster) => Box::leak(Box::new(cluster)),
        Err(error) => panic!("start a throw-away Postgres: {error:#}"),
    })
}

/// Runs on the keeper's thread: starts, reports, parks until told to stop, then cleans up.
fn keep(home: &Path, answer: &Sender<Result<Address>>, stop: &Receiver<()>) {
    let options = Options { data_dir: home.to_owned(), bin_dir: None, durable: false, settings: Vec::new() };
    let cluster = match Cluster::start(&options) {
        Ok(cluster) => cluster,
        Err(error) => {
            // The asker waits for this answer, and nobody else does.
            answer.send(Err(error)).ok();
            return;
        }
    };
    if answer.send(Ok(cluster.address().clone())).is_ok() {
        // Ends, with an error, when the handle is dropped; never for the shared one.
        stop.recv().ok();
    }
    let socket_dir = cluster.address().socket_dir().to_owned();
    if let Err(error) = cluster.stop() {
        tracing::warn!(%error, "stop a throw-away cluster");
    }
    for dir in [socket_dir.as_path(), home] {
        if let Err(error) = fs::remove_dir_all(dir) {
            tracing::debug!(dir = %dir.display(), %error, "remove a throw-away cluster");
        }
    }
}

/// A name that tells whose it is: pid namespace, process, when that process began, and a count.
fn home() -> PathBuf {
    static COUNT: Mutex<u32> = Mutex::new(0);
    let mut count = COUNT.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    *count += 1;
    let pid = std::process::id();
    let began = began(pid).unwrap_or_default();
    std::env::temp_dir().join(format!("{PREFIX}-{}-{pid}-{began}-{count}", pid_namespace()))
}

/// Removes what throw-away clusters of dead processes left behind. Touches only our own, and only those whose process
/// this pid namespace could see.
fn remove_stale() {
    let Ok(account) = Account::of_server() else { return };
    for entry in fs::read_dir(std::env::temp_dir()).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let ours = entry.metadata().is_ok_and(|found| found.is_dir() && found.uid() == account.uid);
        if ours && is_stale(&name) {
            tracing::debug!(dir = %entry.path().display(), "removing a dead process's throw-away cluster");
            if let Err(error) = fs::remove_dir_all(entry.path()) {
                tracing::debug!(%error, "remove a stale throw-away cluster");
            }
        }
    }
}

fn is_stale(name: &str) -> bool {
    let parts: Vec<&str> = name.strip_prefix(PREFIX).unwrap_or_default().split('-').collect();
    let ["", namespace, pid, started, _count] = parts[..] else { return false };
    let Ok(pid) = pid.parse() else { return false };
    namespace == pid_namespace() && began(pid).as_deref() != Some(started)
}

/// When a process began, in the kernel's ticks: with the pid, a name no other process shares.
fn began(pid: u32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let after_name = stat.rsplit(')').next()?;
    after_name.split_whitespace().nth(19).map(str::to_owned)
}

fn pid_namespace() -> String {
    let link = fs::read_link("/proc/self/ns/pid").unwrap_or_default();
    link.to_string_lossy().chars().filter(char::is_ascii_digit).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_dead_are_stale() {
        let mine = home();
        let mine = mine.file_name().and_then(|name| name.to_str()).expect("a name");
        assert!(!is_stale(mine));
        let reused = format!("{PREFIX}-{}-{}-1-1", pid_namespace(), std::process::id());
        assert!(is_stale(&reused), "the pid lives, but began at another time");
        assert!(!is_stale(&format!("{PREFIX}-1-999999999-1-1")), "another pid namespace");
        assert!(!is_stale("chiptide-pgx") && !is_stale("unrelated"));
    }
}
