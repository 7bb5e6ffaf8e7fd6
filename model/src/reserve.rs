//! The reserve: free chips that only jobs of high priority may start on, so that they need not evict anybody.

use crate::chip::DeviceClass;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Chips kept free for jobs of high priority.
///
/// So many chips stay free in all; and a start may only break a block of free chips on a node if as many stay free in
/// whole blocks. Of a node's free chips, those that make no whole block go first.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reserve {
    /// Jobs below this priority leave the reserve alone.
    pub min_priority: i32,
    /// Chips kept free, by device class.
    pub chips: BTreeMap<DeviceClass, u32>,
    /// Chips of a block: the largest replica that shall find room at once.
    #[serde(default = "single")]
    pub block: u16,
}

fn single() -> u16 {
    1
}

impl Reserve {
    /// How many of a node's free chips are in whole blocks.
    pub fn in_blocks(&self, free: u16) -> u64 {
        u64::from(free - self.beside_blocks(free))
    }

    /// How many of a node's free chips are too few for a further block.
    pub fn beside_blocks(&self, free: u16) -> u16 {
        free % self.block.max(1)
    }
}
