//! A state file: a first line with a checksum, then JSON. Written whole under another name, synced, and renamed, so a crash
//! leaves the old file or the new one. The checksum is for everything else that happens to disks.

use crate::fault_point;
use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

const KIND: &str = "chiptide-agent-state-1";

/// Why the state cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The system refused.
    #[error("{action} {path}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
    /// Another agent serves this node.
    #[error("another agent{} serves this node: it holds {path}", holder.map(|pid| format!(" (pid {pid})")).unwrap_or_default())]
    Taken {
        /// The lock.
        path: PathBuf,
        /// The other agent, where it said who it is.
        holder: Option<u32>,
    },
    /// The file does not say what was written.
    #[error(
        "{path} is cut or altered ({detail}); what older leases may still run is not known. \
        Restart the machine or end their work by hand, then remove the file"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        detail: String,
    },
}

impl StateError {
    pub(crate) fn io(action: &'static str, path: &Path, source: io::Error) -> StateError {
        StateError::Io { action, path: path.to_owned(), source }
    }
}

/// Writes a value for good: when this answers, a power cut no longer takes it away.
pub fn save<T: Serialize>(path: &Path, value: &T) -> Result<(), StateError> {
    let damaged = |error: serde_json::Error| StateError::Damaged { path: path.to_owned(), detail: error.to_string() };
    let bytes = seal(&serde_json::to_vec(value).map_err(damaged)?);
    let next = path.with_extension("new");
    let write = || {
        let mut file = File::create(&next)?;
        file.write_all(&bytes)?;
        fault_point::reach("state-written");
        file.sync_all()?;
        fault_point::reach("state-synced");
        fs::rename(&next, path)?;
        fault_point::reach("state-renamed");
        sync_folder(path)
    };
    write().map_err(|error| StateError::io("write", path, error))
}

/// Reads a value; `None` where there is no such file.
pub fn load<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, StateError> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(StateError::io("read", path, error)),
    };
    let value = unseal(&bytes).and_then(|body| serde_json::from_slice(body).map_err(|error| error.to_string()));
    value.map(Some).map_err(|detail| StateError::Damaged { path: path.to_owned(), detail })
}

/// Makes what happened to the names in a file's folder last.
pub(crate) fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
}

fn seal(body: &[u8]) -> Vec<u8> {
    let mut bytes = format!("{KIND} {}\n", checksum(body)).into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

fn unseal(bytes: &[u8]) -> Result<&[u8], String> {
    let end = bytes.iter().position(|byte| *byte == b'\n').ok_or("its first line is not whole")?;
    let (line, body) = (&bytes[..end], &bytes[end + 1..]);
    match line == format!("{KIND} {}", checksum(body)).as_bytes() {
        true => Ok(body),
        false => Err("its checksum does not fit".to_owned()),
    }
}

fn checksum(body: &[u8]) -> String {
    Sha256::digest(body).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::{Epochs, Seen};
    use proptest::prelude::*;
    use uuid::Uuid;

    fn epochs(seen: &[(String, u64, u128)]) -> Epochs {
        let seen = seen
            .iter()
            .map(|(chip, epoch, lease)| (chip.clone(), Seen { epoch: *epoch, lease: Uuid::from_u128(*lease) }));
        Epochs { seen: seen.collect(), ..Epochs::default() }
    }

    proptest! {
        // Each case syncs a file to disk.
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn a_file_cut_at_any_byte_or_changed_in_any_is_never_read(
            seen in prop::collection::vec((".{0,12}", any::<u64>(), any::<u128>()), 0..4),
            flip in 1..=255_u8,
        ) {
            let folder = tempfile::tempdir().expect("a folder");
            let path = folder.path().join("epochs");
            let kept = epochs(&seen);
            save(&path, &kept).expect("saved");
            prop_assert_eq!(load::<Epochs>(&path).expect("whole"), Some(kept));
            let whole = fs::read(&path).expect("there");
            for at in 0..whole.len() {
                prop_assert!(unseal(&whole[..at]).is_err(), "cut at {}", at);
                let mut other = whole.clone();
                other[at] ^= flip;
                prop_assert!(unseal(&other).is_err(), "changed at {}", at);
            }
            fs::write(&path, &whole[..whole.len() - 1]).expect("cut");
            let refused = matches!(load::<Epochs>(&path), Err(StateError::Damaged { .. }));
            prop_assert!(refused);
        }
    }

    #[test]
    fn a_crash_before_the_rename_leaves_the_old_state() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("epochs");
        assert_eq!(load::<Epochs>(&path).expect("none"), None);
        let old = epochs(&[("c0".into(), 5, 1)]);
        save(&path, &old).expect("saved");
        fs::write(path.with_extension("new"), "half a f").expect("written");
        assert_eq!(load::<Epochs>(&path).expect("whole"), Some(old));
        let new = epochs(&[("c0".into(), 6, 2)]);
        save(&path, &new).expect("saved over it");
        assert_eq!(load::<Epochs>(&path).expect("whole"), Some(new));
    }
}
