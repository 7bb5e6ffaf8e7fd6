//! A replica's folder in the state directory: what was started, under whose guard, how it ended, and what it said. It is
//! all that a restarted agent needs to know the replica again.

use super::cgroup::Cgroup;
use super::expiry::Expiry;
use crate::state::{StateError, load, save};
use chiptide_api::work::WorkBody;
use chiptide_model::Signal;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::{fmt, io};
use uuid::Uuid;

/// One replica under one lease.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct Key {
    /// The lease.
    pub lease: Uuid,
    /// Its index in the gang.
    pub rank: u32,
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.lease, self.rank)
    }
}

impl FromStr for Key {
    type Err = ();
    fn from_str(text: &str) -> Result<Key, ()> {
        let (lease, rank) = text.split_once('.').ok_or(())?;
        let key = Key { lease: lease.parse().map_err(drop)?, rank: rank.parse().map_err(drop)? };
        if key.to_string() == text { Ok(key) } else { Err(()) }
    }
}

/// What is started, written down before it is.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) key: Key,
    /// Which run of the replica.
    #[serde(default)]
    pub(crate) run: u32,
    /// The boot it runs in: of another boot nothing is left.
    pub(crate) boot_id: String,
    pub(crate) chips: Vec<String>,
    /// Its cgroup and that of its guardian; absent where process groups must do.
    pub(crate) cgroups: Option<(Cgroup, Cgroup)>,
    pub(crate) command: Vec<String>,
    pub(crate) env: BTreeMap<String, String>,
    pub(crate) directory: PathBuf,
    /// User and group to run as; the agent's own when absent.
    pub(crate) user: Option<(u32, u32)>,
    /// That user's other groups.
    #[serde(default)]
    pub(crate) groups: Vec<u32>,
    /// Sent to the first process once notice is given.
    #[serde(default)]
    pub(crate) notice_signal: Option<Signal>,
    /// How much of each of stdout and stderr is kept.
    pub(crate) output_bytes_max: u64,
    /// When its guardian ends it by itself.
    #[serde(default)]
    pub(crate) expiry: Option<Expiry>,
}

/// The replica's guardian.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Guardian {
    /// It has the lock; its pid, where it has written that already.
    Alive(Option<u32>),
    /// Nobody has the lock.
    Absent,
}

/// A replica's folder.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn at(path: PathBuf) -> Folder {
        Folder(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Where the notice of its end will appear.
    pub(crate) fn notice(&self) -> PathBuf {
        self.0.join("notice.json")
    }

    /// Its working directory, unless its job names another.
    pub(crate) fn scratch(&self) -> PathBuf {
        self.0.join("scratch")
    }

    pub(crate) fn record(&self) -> Result<Option<Record>, StateError> {
        load(&self.0.join("record"))
    }

    pub(crate) fn keep_record(&self, record: &Record) -> Result<(), StateError> {
        save(&self.0.join("record"), record)
    }

    /// The pid of its first process, once there is one.
    pub(crate) fn started(&self) -> Result<Option<u32>, StateError> {
        load(&self.0.join("started"))
    }

    pub(crate) fn keep_started(&self, pid: u32) -> Result<(), StateError> {
        save(&self.0.join("started"), &pid)
    }

    /// How it ended, once it has.
    pub(crate) fn ended(&self) -> Result<Option<WorkBody>, StateError> {
        load(&self.0.join("ended"))
    }

    pub(crate) fn keep_ended(&self, ended: &WorkBody) -> Result<(), StateError> {
        save(&self.0.join("ended"), ended)
    }

    /// Makes room for another run: what the last one said stays, and its working directory. A folder that is left half
    /// cleared has no record, and what has none is ended by whoever finds it.
    pub(crate) fn clear_for_another_run(&self) -> io::Result<()> {
        for name in ["record", "started", "ended", "notice.json", "guardian.log", "fenced"] {
            match fs::remove_file(self.0.join(name)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// Lets no guardian start it any more. One that comes later finds this under its lock.
    pub(crate) fn fence(&self) -> io::Result<()> {
        File::create(self.0.join("fenced")).map(drop)
    }

    pub(crate) fn is_fenced(&self) -> bool {
        self.0.join("fenced").exists()
    }

    /// Becomes its guardian, for as long as the answer lives.
    pub(crate) fn guard(&self) -> io::Result<File> {
        let mut file = self.lock_file()?;
        // Only an agent that looks whether we are there can be in the way, for a moment.
        file.lock()?;
        file.set_len(0)?;
        file.rewind()?;
        write!(file, "{}", std::process::id())?;
        Ok(file)
    }

    /// Whether a guardian is at work.
    pub(crate) fn guardian(&self) -> io::Result<Guardian> {
        let mut file = self.lock_file()?;
        match file.try_lock() {
            Ok(()) => Ok(Guardian::Absent),
            Err(TryLockError::WouldBlock) => {
                let mut pid = String::new();
                file.read_to_string(&mut pid)?;
                Ok(Guardian::Alive(pid.trim().parse().ok()))
            }
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    fn lock_file(&self) -> io::Result<File> {
        File::options().read(true).write(true).create(true).truncate(false).open(self.0.join("guardian"))
    }
}

/// Every replica that has a folder here.
pub(crate) fn folders(root: &Path) -> io::Result<Vec<(Key, Folder)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(root)? {
        let entry = entry?;
        if let Ok(key) = entry.file_name().to_string_lossy().parse() {
            found.push((key, Folder::at(entry.path())));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_read_back_and_nothing_else_is_a_key() {
        let key = Key { lease: Uuid::from_u128(7), rank: 3 };
        assert_eq!(key.to_string().parse(), Ok(key));
        for other in ["guards", "7.3", &format!("{}.03", key.lease), &format!("{}.3.1", key.lease)] {
            assert!(other.parse::<Key>().is_err(), "{other}");
        }
    }

    #[test]
    fn a_guardian_is_seen_while_it_lives() {
        let tmp = tempfile::tempdir().expect("a folder");
        let folder = Folder::at(tmp.path().to_owned());
        assert_eq!(folder.guardian().expect("readable"), Guardian::Absent);
        let guard = folder.guard().expect("free");
        assert_eq!(folder.guardian().expect("readable"), Guardian::Alive(Some(std::process::id())));
        drop(guard);
        assert_eq!(folder.guardian().expect("readable"), Guardian::Absent);
    }
}
