//! Where the output of every replica of the node is found: of those that run, and of those that are over and kept.

use super::output::Kept;
use super::record::Key;
use chiptide_api::logs::LogStream;
use std::io;
use std::path::PathBuf;

/// The output of this node's replicas.
#[derive(Clone, Debug)]
pub struct Outputs {
    state_dir: PathBuf,
}

/// A part of what a replica has said.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Said {
    /// Where it starts.
    pub offset: u64,
    /// The bytes.
    pub bytes: Vec<u8>,
    /// Whether nothing will follow.
    pub over: bool,
}

impl Outputs {
    /// Of the agent with this state directory.
    pub(crate) fn below(state_dir: PathBuf) -> Outputs {
        Outputs { state_dir }
    }

    /// At most `limit` bytes from `offset` on, or the last `tail` lines; `None` where nothing is kept of the replica.
    /// Blocks for as long as the disk takes.
    pub(crate) fn read(
        &self,
        key: Key,
        stream: LogStream,
        offset: u64,
        tail: Option<u32>,
        limit: usize,
    ) -> io::Result<Option<Said>> {
        // Finished replicas are moved: one that is in neither place was on its way to the second.
        let places = [("finished", true), ("work", false), ("finished", true)];
        for (place, over) in places {
            let folder = self.state_dir.join(place).join(key.to_string());
            if !folder.exists() {
                continue;
            }
            let Some(mut kept) = Kept::open(&folder.join(stream.as_str()))? else {
                return Ok(over.then(Said::default).map(|said| Said { over: true, ..said }));
            };
            let (offset, bytes) = match tail {
                Some(lines) => kept.tail(lines, limit)?,
                None => kept.read(offset, limit)?,
            };
            let at_end = offset + bytes.len() as u64 == kept.end();
            return Ok(Some(Said { offset, bytes, over: over && at_end }));
        }
        Ok(None)
    }
}
