//! The ledger: every queue's account, kept by the events that grant, take and end leases.

use super::account::{Account, Amounts, Column, NORMALISED, Part};
use super::decay::Average;
use chiptide_model::{CalendarReservation, DeviceClass, Millis, Policy, Quota, SLOTS_PER_CHIP, Timestamp};
use rustc_hash::FxHashMap;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Index of a queue's account; good until the next policy.
pub(crate) type QueueIx = usize;

/// All accounts. Queues that jobs name and the policy does not know (any more) have one too, without guarantee or limit.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ledger {
    pub(crate) accounts: Vec<Account>,
    by_name: FxHashMap<Arc<str>, QueueIx>,
    pub(crate) half_life: Option<Millis>,
    /// Relative speed by column, in thousandths.
    speeds: Vec<u32>,
    /// Slots the fleet has, by column.
    pub(crate) capacity: Vec<u64>,
    /// Accounts of queues with none above them.
    pub(crate) tops: Vec<QueueIx>,
    /// Whether any queue has a guarantee: without one nobody has to make room for another queue's.
    pub(crate) has_guarantees: bool,
}

impl PartialEq for Ledger {
    /// Equal when the accounts are, whatever order they are kept in.
    fn eq(&self, other: &Ledger) -> bool {
        let known = |ledger: &Ledger| -> BTreeMap<Arc<str>, Account> {
            let bare = |account: &Account| Account {
                path: Vec::new(),
                below: Vec::new(),
                tolerated: Vec::new(),
                as_of: if account.is_used() { account.as_of } else { Timestamp(0) },
                ..account.clone()
            };
            let used = ledger.accounts.iter().filter(|account| account.is_worth_keeping());
            used.map(|account| (account.name.clone(), bare(account))).collect()
        };
        known(self) == known(other) && self.capacity == other.capacity
    }
}

/// The past use of one queue and class, as stored.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct PastUse {
    /// The queue.
    pub queue: String,
    /// The device class.
    pub class: DeviceClass,
    /// The average of slots held, in 2⁻³² slots.
    pub average: u64,
    /// When it was computed.
    pub as_of: Timestamp,
}

impl Ledger {
    /// Sets the accounts to a policy, the classes that are known and the windows of the calendar that are open, keeping
    /// what they hold and held.
    pub(crate) fn arrange(
        &mut self,
        policy: &Policy,
        classes: &[DeviceClass],
        windows: &[&CalendarReservation],
        at: Timestamp,
    ) {
        let columns = classes.len() + 1;
        for account in &mut self.accounts {
            account.bring_up_to(at, self.half_life);
        }
        self.half_life = policy.fair_share.half_life;
        self.speeds = std::iter::once(1000).chain(classes.iter().map(|class| policy.speed_permille(class))).collect();
        for name in policy.queues.keys() {
            self.open(name, at);
        }
        for account in &mut self.accounts {
            account.widen(columns);
            let queue = policy.queues.get(&*account.name);
            account.weight = queue.map_or(1, |queue| queue.weight.max(1));
            account.budget = queue.and_then(|queue| queue.preemption_budget);
            let slots = |quota: &Quota, column: Column| {
                let chips = match column.checked_sub(1) {
                    None => quota.normalised,
                    Some(class) => quota.classes.get(&classes[class]).copied(),
                };
                chips.map(|chips| u64::from(chips) * u64::from(SLOTS_PER_CHIP))
            };
            for column in 0..columns {
                let lasting = queue.and_then(|queue| slots(&queue.guaranteed, column)).unwrap_or(0);
                account.guaranteed[column] = lasting + slots_of_windows(windows, &account.name, classes, column);
                account.limit[column] = queue.and_then(|queue| slots(&queue.limit, column));
            }
        }
        self.arrange_tree(policy);
    }

    /// Draws the paths, gives every queue at least what those below it are guaranteed, and recounts the sums.
    fn arrange_tree(&mut self, policy: &Policy) {
        let parent = |name: &str| policy.queues.get(name).and_then(|queue| queue.parent.as_deref());
        for at in 0..self.accounts.len() {
            let mut path = vec![at];
            let mut above = parent(&self.accounts[at].name);
            while let Some(ix) = above.and_then(|name| self.by_name.get(name).copied())
                && !path.contains(&ix)
            {
                path.push(ix);
                above = parent(&self.accounts[ix].name);
            }
            let top = path.last().map_or("", |&top| &*self.accounts[top].name);
            self.accounts[at].cohort = policy.queues.get(top).and_then(|queue| queue.cohort.as_deref()).map(Arc::from);
            self.accounts[at].path = path;
            self.accounts[at].below.clear();
        }
        for at in 0..self.accounts.len() {
            if let Some(&above) = self.accounts[at].path.get(1) {
                self.accounts[above].below.push(at);
            }
        }
        self.tops = (0..self.accounts.len()).filter(|&ix| self.accounts[ix].path.len() == 1).collect();
        let mut deepest: Vec<QueueIx> = (0..self.accounts.len()).collect();
        deepest.sort_by_key(|&ix| std::cmp::Reverse(self.accounts[ix].path.len()));
        let columns = self.speeds.len();
        let mut below = vec![vec![0u64; columns]; self.accounts.len()];
        for ix in deepest {
            let owed_below = std::mem::take(&mut below[ix]);
            let account = &mut self.accounts[ix];
            for (guaranteed, owed) in account.guaranteed.iter_mut().zip(owed_below) {
                *guaranteed = (*guaranteed).max(owed);
            }
            if let Some(&above) = account.path.get(1) {
                below[above].iter_mut().zip(&account.guaranteed).for_each(|(sum, slots)| *sum += slots);
            }
        }
        self.has_guarantees = self.accounts.iter().any(|account| account.guaranteed.iter().any(|slots| *slots > 0));
    }

    /// Forgets what is held, to be charged anew: after the tree or the speeds have changed.
    pub(crate) fn clear_holdings(&mut self) {
        for account in &mut self.accounts {
            for book in [&mut account.used, &mut account.leaving, &mut account.firm] {
                book.fill(0);
            }
        }
    }

    /// Notes what is held beyond limits at the moment a policy comes into force.
    pub(crate) fn tolerate_present(&mut self) {
        for account in &mut self.accounts {
            account.tolerated = (0..account.used.len()).map(|column| account.settled(column)).collect();
        }
    }

    /// The account of a queue, opened if there is none.
    pub(crate) fn open(&mut self, name: &str, at: Timestamp) -> QueueIx {
        if let Some(&ix) = self.by_name.get(name) {
            return ix;
        }
        let ix = self.accounts.len();
        let mut account = Account::new(name, at);
        account.path = vec![ix];
        account.widen(self.speeds.len().max(1));
        self.by_name.insert(account.name.clone(), ix);
        self.accounts.push(account);
        self.tops.push(ix);
        ix
    }

    /// Whether more than priority decides who may be preempted.
    pub(crate) fn binds_preemption(&self) -> bool {
        self.has_guarantees || self.accounts.iter().any(|account| account.budget.is_some() || account.cohort.is_some())
    }

    /// Notes that a job of a queue was preempted.
    pub(crate) fn note_preemption(&mut self, queue: QueueIx, at: Timestamp) {
        for step in 0..self.accounts[queue].path.len() {
            let ix = self.accounts[queue].path[step];
            self.accounts[ix].note_preemption(at);
        }
    }

    /// The next moment at which a budget may leave more preemptions than before.
    pub(crate) fn next_release(&self, after: Timestamp) -> Option<Timestamp> {
        self.accounts.iter().filter_map(|account| account.next_release(after)).min()
    }

    /// Whether anything could keep this queue from holding more.
    pub(crate) fn is_bound(&self, queue: QueueIx) -> bool {
        self.has_guarantees || self.accounts[queue].path.iter().any(|&ix| self.accounts[ix].is_limited())
    }

    /// The account of a queue, if it has one.
    pub(crate) fn find(&self, name: &str) -> Option<QueueIx> {
        self.by_name.get(name).copied()
    }

    /// Enters an amount in the books of a queue and of those above it, or strikes it out. Says whether this put one of
    /// them beyond its guarantee: from then on others may take from it what they are owed.
    pub(crate) fn charge(&mut self, queue: QueueIx, amounts: &Amounts, part: Part, add: bool, at: Timestamp) -> bool {
        let mut went_beyond = false;
        for step in 0..self.accounts[queue].path.len() {
            let ix = self.accounts[queue].path[step];
            let account = &mut self.accounts[ix];
            account.bring_up_to(at, self.half_life);
            let was_beyond = account.is_beyond_guarantee();
            for &(column, slots) in &amounts.0 {
                account.change(part, column, slots, add);
                account.change(part, NORMALISED, slots * u64::from(self.speeds[column]) / 1000, add);
            }
            went_beyond |= account.is_beyond_guarantee() && !was_beyond;
        }
        went_beyond && self.has_guarantees
    }

    /// The same amount in normalised slots.
    pub(crate) fn normalised(&self, amounts: &Amounts) -> u64 {
        amounts.0.iter().map(|&(column, slots)| slots * u64::from(self.speeds[column]) / 1000).sum()
    }

    pub(crate) fn speed(&self, column: Column) -> u64 {
        u64::from(self.speeds[column])
    }

    /// Past use as it is to be stored.
    pub(crate) fn past(&self, classes: &[DeviceClass]) -> Vec<PastUse> {
        let of = |account: &Account| {
            let column = |(column, &average): (Column, &Average)| {
                let class = classes.get(column.checked_sub(1)?)?.clone();
                account.is_used().then(|| PastUse {
                    queue: account.name.to_string(),
                    class,
                    average,
                    as_of: account.as_of,
                })
            };
            account.past.iter().enumerate().filter_map(column).collect::<Vec<_>>()
        };
        let mut past: Vec<PastUse> = self.accounts.iter().flat_map(of).collect();
        past.sort_unstable();
        past
    }

    /// The preemptions each queue remembers, in order of name.
    pub(crate) fn preempted(&self) -> Vec<(String, Vec<Timestamp>)> {
        let some = self.accounts.iter().filter(|account| !account.preempted.is_empty());
        let mut all: Vec<_> = some.map(|account| (account.name.to_string(), account.preempted.clone())).collect();
        all.sort_unstable();
        all
    }

    /// Takes stored past use back in, before anything is charged.
    pub(crate) fn recall(&mut self, past: Vec<PastUse>, classes: &[DeviceClass]) {
        for row in past {
            let Some(class) = classes.iter().position(|class| *class == row.class) else { continue };
            let ix = self.open(&row.queue, row.as_of);
            self.accounts[ix].past[class + 1] = row.average;
            self.accounts[ix].as_of = row.as_of;
        }
    }
}

/// Slots that open windows of the calendar guarantee a queue beyond its quota.
fn slots_of_windows(windows: &[&CalendarReservation], queue: &str, classes: &[DeviceClass], column: Column) -> u64 {
    let here = |window: &&&CalendarReservation| {
        let of = window.device_class.as_ref();
        window.queue == queue && of == column.checked_sub(1).map(|class| &classes[class])
    };
    windows.iter().filter(here).map(|window| u64::from(window.chips) * u64::from(SLOTS_PER_CHIP)).sum()
}

impl Account {
    fn is_limited(&self) -> bool {
        self.limit.iter().any(Option::is_some)
    }

    fn is_used(&self) -> bool {
        self.used.iter().chain(&self.past).any(|slots| *slots > 0)
    }

    fn is_worth_keeping(&self) -> bool {
        if !self.preempted.is_empty() || self.budget.is_some() || self.cohort.is_some() {
            return true;
        }
        let books = [&self.guaranteed, &self.used, &self.past];
        books.into_iter().flatten().any(|slots| *slots > 0) || self.is_limited()
    }
}
