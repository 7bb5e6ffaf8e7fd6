//! Which training lease goes first: the product's own rule, and two to compare it with.
//!
//! The comparison changes what the allocator is *told*, never how it decides: it takes whoever loses the least work
//! since the last checkpoint, so a false word about checkpoints gives another order.

use chiptide_model::Millis;
use clap::ValueEnum;

/// The order in which training leases are taken back.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Victim {
    /// Least lost work first: the product's own rule.
    Lost,
    /// Last in, first out: told that every job saves its work all the time, nothing is ever lost, and the newest goes.
    Lifo,
    /// Anybody: told checkpoint intervals that have nothing to do with the truth.
    Any,
}

impl Victim {
    /// The checkpoint interval the allocator is told for the job of this number.
    pub(super) fn checkpoint_told(self, number: u64, truth: Millis) -> Millis {
        match self {
            Victim::Lost => truth,
            Victim::Lifo => Millis(1),
            Victim::Any => Millis(scattered(number) % truth.0 + 1),
        }
    }

    /// Its name on the command line.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Victim::Lost => "lost",
            Victim::Lifo => "lifo",
            Victim::Any => "any",
        }
    }
}

/// A number without order to its neighbours (SplitMix64, Steele et al., OOPSLA 2014).
fn scattered(number: u64) -> u64 {
    let mixed = number.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}
