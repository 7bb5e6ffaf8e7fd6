//! One agent a node: a lock on a file, held for as long as the process lives. The kernel lets go of it when the process is
//! gone, and only then; a stopped (SIGSTOP) agent keeps it.

use super::StateError;
use std::fs::{File, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::Path;

/// The lock, held.
#[derive(Debug)]
pub struct NodeLock {
    _file: File,
}

impl NodeLock {
    /// Takes the lock, or says which process has it.
    pub fn take(path: &Path) -> Result<NodeLock, StateError> {
        let io = |error| StateError::io("lock", path, error);
        let mut file = File::options().read(true).write(true).create(true).truncate(false).open(path).map_err(io)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                // Only for the message: a pid that cannot be read is left out.
                let _ = file.take(32).read_to_string(&mut holder);
                return Err(StateError::Taken { path: path.to_owned(), holder: holder.trim().parse().ok() });
            }
            Err(TryLockError::Error(error)) => return Err(io(error)),
        }
        file.set_len(0).and_then(|()| file.rewind()).map_err(io)?;
        file.write_all(format!("{}\n", std::process::id()).as_bytes()).map_err(io)?;
        Ok(NodeLock { _file: file })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_is_refused_and_told_who_has_it_until_the_first_is_gone() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("lock");
        let first = NodeLock::take(&path).expect("free");
        let refused = NodeLock::take(&path).expect_err("taken").to_string();
        assert!(refused.contains(&std::process::id().to_string()), "{refused}");
        drop(first);
        NodeLock::take(&path).expect("free again");
    }
}
