//! Order of service: whose turn it is.
//!
//! Jobs within their queue's guarantee come first, so that no borrower starves them; then the higher priority; then the
//! queue with the smaller share of what is beyond the guarantees; then the job that came first.
//! A queue's share is its dominant share (Ghodsi et al., "Dominant Resource Fairness", NSDI'11) over device classes, of
//! what it holds and what it held of late in equal parts, divided by its weight; queues are compared level by level from
//! the top of the tree, so that the queues of one parent share what the parent gets.

use super::account::Column;
use super::ledger::{Ledger, QueueIx};
use chiptide_model::Timestamp;
use std::cmp::Reverse;

/// Where a job stands in the order of service: the greatest goes first.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Rank {
    /// Whether it is within its queue's guarantee.
    pub entitled: bool,
    /// Its priority.
    pub priority: i32,
    /// Shares of its queue and those above it, from the top.
    pub shares: Reverse<Vec<u64>>,
}

/// Parts of the fleet are counted in millionths of a millionth, so that a slot in a large fleet still counts.
const WHOLE: u128 = 1_000_000_000_000;

impl Ledger {
    /// The shares of a queue and those above it, from the top, in millionths of a millionth of the fleet by weight.
    pub(crate) fn shares(&self, queue: QueueIx, now: Timestamp) -> Vec<u64> {
        self.accounts[queue].path.iter().rev().map(|&ix| self.share(ix, now)).collect()
    }

    /// The dominant share of one queue beyond its guarantee.
    pub(crate) fn share(&self, ix: QueueIx, now: Timestamp) -> u64 {
        (1..self.capacity.len()).map(|column| self.share_of(ix, column, now)).max().unwrap_or(0)
    }

    fn share_of(&self, ix: QueueIx, column: Column, now: Timestamp) -> u64 {
        let account = &self.accounts[ix];
        let past = account.past_at(column, now, self.half_life).saturating_sub(account.guaranteed[column]);
        let twice = u128::from(account.beyond(column)) + u128::from(past);
        let whole = 2 * u128::from(self.capacity[column].max(1)) * u128::from(account.weight);
        u64::try_from(twice * WHOLE / whole).unwrap_or(u64::MAX)
    }
}
