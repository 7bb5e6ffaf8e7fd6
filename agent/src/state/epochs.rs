//! The highest lease epoch seen of each chip, and the grants taken for live. Pure.

use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use uuid::Uuid;

/// One chip under one grant of a lease.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct Grant {
    /// The lease.
    pub lease: Uuid,
    /// The chip.
    pub chip: String,
    /// The lease epoch of the grant.
    pub epoch: u64,
}

/// The highest epoch seen of a chip, and the lease that had it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Seen {
    /// The epoch.
    pub epoch: u64,
    /// Its lease: the same epoch under another lease is an older grant come back, of a database that has forgotten.
    pub lease: Uuid,
}

/// What must outlive the agent for old orders to be known as old.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Epochs {
    /// The highest epoch seen, by chip.
    pub seen: BTreeMap<String, Seen>,
    /// Grants of the newest orders that were fresh when they first came. Of leases that share a chip only one has the
    /// highest epoch, and the others are live all the same.
    pub fresh: BTreeSet<Grant>,
}

impl Epochs {
    /// Whether a grant may be acted on, as far as was seen before it came. One that has left the orders never may again,
    /// not even as the newest seen: a deposed daemon that does not know it yet may still order what has ended since.
    pub fn is_fresh(&self, grant: &Grant) -> bool {
        let newer = |seen: &Seen| grant.epoch > seen.epoch;
        self.fresh.contains(grant) || self.seen.get(&grant.chip).is_none_or(newer)
    }

    /// Takes note of an epoch.
    pub fn note(&mut self, chip: &str, epoch: u64, lease: Uuid) {
        match self.seen.get_mut(chip) {
            Some(seen) if seen.epoch >= epoch => {}
            Some(seen) => *seen = Seen { epoch, lease },
            None => drop(self.seen.insert(chip.to_owned(), Seen { epoch, lease })),
        }
    }

    /// The highest epoch seen of a chip.
    pub fn highest(&self, chip: &str) -> Option<u64> {
        self.seen.get(chip).map(|seen| seen.epoch)
    }
}
