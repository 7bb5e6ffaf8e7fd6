//! What the agent keeps on disk: the lock that makes it the node's only agent, and the lease epochs it has seen. Everything
//! is on the disk itself, not only in the kernel's memory, before the agent acts on it (rules N1 and N2). A file that is
//! cut or altered is never read as a shorter truth: it is an error that names the file.

mod epochs;
mod lock;
mod sealed;

pub use epochs::{Epochs, Grant, Seen};
pub use lock::NodeLock;
pub use sealed::{StateError, load, save};

use std::fs;
use std::path::{Path, PathBuf};

/// The state directory of the node's only agent: it is held for as long as this lives.
#[derive(Debug)]
pub struct StateDir {
    path: PathBuf,
    _lock: NodeLock,
}

impl StateDir {
    /// Opens the directory, making it where it is missing. Refuses while another agent has it.
    pub fn open(path: &Path) -> Result<StateDir, StateError> {
        fs::create_dir_all(path).map_err(|error| StateError::io("make", path, error))?;
        Ok(StateDir { _lock: NodeLock::take(&path.join("lock"))?, path: path.to_owned() })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The epochs seen by this node's agents so far; none on a node that has had no agent.
    pub fn epochs(&self) -> Result<Epochs, StateError> {
        Ok(load(&self.path.join(EPOCHS))?.unwrap_or_default())
    }

    /// Keeps the epochs for good.
    pub fn keep_epochs(&self, epochs: &Epochs) -> Result<(), StateError> {
        save(&self.path.join(EPOCHS), epochs)
    }
}

const EPOCHS: &str = "epochs";
