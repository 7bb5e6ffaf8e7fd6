//! How queues stand to each other while a plan is made: who is owed, who must give, who has had enough.

use super::account::{Account, Amounts, Column, NORMALISED};
use super::ledger::{Ledger, QueueIx};

/// Why a lease may be taken for a job.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) enum Why {
    /// The job has the higher priority.
    Preempt,
    /// The job is within its queue's guarantee, the lease's queue beyond its own.
    Reclaim,
}

/// What keeps a queue from holding more of a column.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct QuotaBlock {
    /// Index of the queue whose limit it is; `None` where it is what others are guaranteed.
    pub(crate) limit_of: Option<QueueIx>,
    /// Index of the device class; `None` for normalised chips.
    pub(crate) class: Option<usize>,
    /// Slots asked for.
    pub(crate) requested: u64,
    /// Slots it may still have.
    pub(crate) available: u64,
}

/// The ledger with some leases taken away in thought.
#[derive(Clone)]
pub(crate) struct Standing<'a> {
    ledger: &'a Ledger,
    taken: Vec<(QueueIx, Column, u64)>,
}

impl<'a> Standing<'a> {
    pub(crate) fn of(ledger: &'a Ledger) -> Standing<'a> {
        Standing { ledger, taken: Vec::new() }
    }

    /// Takes a lease's slots from its queue.
    pub(crate) fn take(&mut self, queue: QueueIx, amounts: &Amounts) {
        let normalised = (NORMALISED, self.ledger.normalised(amounts));
        for &ix in &self.ledger.accounts[queue].path {
            for &(column, slots) in amounts.0.iter().chain([&normalised]) {
                match self.taken.iter_mut().find(|(known, at, _)| (*known, *at) == (ix, column)) {
                    Some((_, _, sum)) => *sum += slots,
                    None => self.taken.push((ix, column, slots)),
                }
            }
        }
    }

    fn settled(&self, ix: QueueIx, column: Column) -> u64 {
        let taken = self.taken.iter().find(|(known, at, _)| (*known, *at) == (ix, column)).map_or(0, |taken| taken.2);
        self.ledger.accounts[ix].settled(column).saturating_sub(taken)
    }

    fn account(&self, ix: QueueIx) -> &'a Account {
        &self.ledger.accounts[ix]
    }

    /// Class columns and the normalised one.
    fn with_normalised(&self, amounts: &Amounts) -> impl Iterator<Item = (Column, u64)> {
        let normalised = (NORMALISED, self.ledger.normalised(amounts));
        amounts.0.clone().into_iter().chain([normalised])
    }

    /// Whether more may be held at this level of the tree within its guarantee: by class, or in normalised chips.
    fn within_guarantee(&self, ix: QueueIx, amounts: &Amounts) -> bool {
        let fits = |column: Column, slots: u64| self.settled(ix, column) + slots <= self.account(ix).guaranteed[column];
        amounts.0.iter().all(|&(column, slots)| fits(column, slots))
            || fits(NORMALISED, self.ledger.normalised(amounts))
    }

    /// Whether a queue, or one above it, is owed this much.
    pub(crate) fn is_entitled(&self, queue: QueueIx, amounts: &Amounts) -> bool {
        self.ledger.has_guarantees
            && self.account(queue).path.iter().any(|&level| self.within_guarantee(level, amounts))
    }

    /// What keeps a queue from holding this much more, if anything does: a limit on the way up, what is guaranteed in
    /// other cohorts, and, for a job that could not be made to give it back (`firm`), what is guaranteed to anyone.
    pub(crate) fn block(&self, queue: QueueIx, amounts: &Amounts, firm: bool) -> Option<QuotaBlock> {
        let limits = self.account(queue).path.iter().find_map(|&level| {
            self.with_normalised(amounts).find_map(|(column, requested)| {
                let limit = self.account(level).limit[column]?;
                let available = limit.saturating_sub(self.settled(level, column));
                (requested > available).then(|| block(Some(level), column, requested, available))
            })
        });
        if limits.is_some() || !self.ledger.has_guarantees {
            return limits;
        }
        self.with_normalised(amounts).find_map(|(column, requested)| {
            let firmly = if firm { self.left_for_firm(queue, column, requested) } else { u64::MAX };
            let available = self.left_by_other_cohorts(queue, column).min(firmly);
            (requested > available).then(|| block(None, column, requested, available))
        })
    }

    /// What the guarantees of other cohorts leave to a queue's own.
    fn left_by_other_cohorts(&self, queue: QueueIx, column: Column) -> u64 {
        let own = |ix: QueueIx| self.account(ix).cohort == self.account(queue).cohort;
        let (ours, theirs): (Vec<QueueIx>, Vec<QueueIx>) = self.ledger.tops.iter().partition(|ix| own(**ix));
        let owed: u64 = theirs.iter().map(|&ix| self.account(ix).guaranteed[column]).sum();
        let held: u64 = ours.iter().map(|&ix| self.settled(ix, column)).sum();
        if owed == 0 { u64::MAX } else { self.capacity(column).saturating_sub(owed + held) }
    }

    /// How much of a request a job that keeps its chips may have. What is set aside for such jobs and for guarantees
    /// together must not outgrow the fleet; within its own guarantee a queue adds nothing to it.
    fn left_for_firm(&self, queue: QueueIx, column: Column, requested: u64) -> u64 {
        let set_aside = |more: u64| -> u64 {
            self.ledger.tops.iter().map(|&top| self.set_aside(top, column, &self.account(queue).path, more)).sum()
        };
        let before = set_aside(0);
        requested.saturating_sub(set_aside(requested).saturating_sub(before.max(self.capacity(column))))
    }

    /// What a queue needs whatever happens: its guarantee or what it holds firmly, whichever is more, level by level.
    fn set_aside(&self, ix: QueueIx, column: Column, path: &[QueueIx], more: u64) -> u64 {
        let account = self.account(ix);
        let below: u64 = account.below.iter().map(|&below| self.set_aside(below, column, path, more)).sum();
        let own = if account.below.is_empty() { account.firm[column] } else { 0 };
        let asked = if path.first() == Some(&ix) { more } else { 0 };
        account.guaranteed[column].max(below + own + asked)
    }

    fn capacity(&self, column: Column) -> u64 {
        self.ledger.capacity.get(column).copied().unwrap_or(0)
    }

    /// Whether a lease of one queue may be taken for a job of another (or the same), and why. `lower`: the lease's
    /// priority is the lower one.
    pub(crate) fn may_take(
        &self,
        taker: QueueIx,
        asks: &Amounts,
        giver: QueueIx,
        gives: &Amounts,
        lower: bool,
    ) -> Option<Why> {
        let (up, down) = (&self.account(taker).path, &self.account(giver).path);
        if self.account(taker).cohort != self.account(giver).cohort {
            return None;
        }
        let apart = |path: &'a [QueueIx], other: &'a [QueueIx]| path.iter().take_while(move |ix| !other.contains(ix));
        if lower && apart(down, up).all(|&level| self.stays_whole(level, gives)) {
            return Some(Why::Preempt);
        }
        let owed = apart(up, down).any(|&level| self.within_guarantee(level, asks));
        let borrowed = apart(down, up).next().is_some() && apart(down, up).all(|&level| self.is_beyond(level, gives));
        (owed && borrowed).then_some(Why::Reclaim)
    }

    /// Whether a queue that gives this much keeps what it is guaranteed.
    fn stays_whole(&self, ix: QueueIx, gives: &Amounts) -> bool {
        self.with_normalised(gives).all(|(column, slots)| {
            let guaranteed = self.account(ix).guaranteed[column];
            guaranteed == 0 || self.settled(ix, column).saturating_sub(slots) >= guaranteed
        })
    }

    /// Whether a queue holds more than it is guaranteed of what it would give.
    fn is_beyond(&self, ix: QueueIx, gives: &Amounts) -> bool {
        self.with_normalised(gives).all(|(column, _)| {
            let guaranteed = self.account(ix).guaranteed[column];
            guaranteed == 0 || self.settled(ix, column) > guaranteed
        })
    }
}

fn block(limit_of: Option<QueueIx>, column: Column, requested: u64, available: u64) -> QuotaBlock {
    QuotaBlock { limit_of, class: column.checked_sub(1), requested, available }
}
