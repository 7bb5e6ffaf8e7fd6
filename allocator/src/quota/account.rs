//! One queue's account: what it may hold, what it holds, and what it held of late.

use super::decay::{AVERAGE_BITS, Average, blend, left_after};
use super::ledger::QueueIx;
use chiptide_model::{Millis, PreemptionBudget, Timestamp};
use std::sync::Arc;

/// A column of an account: normalised chips first, then one column a device class.
pub(crate) type Column = usize;
/// The window of a budget.
const DAY: Millis = Millis::from_secs(24 * 3600);
/// Most preemptions a queue's account remembers, and the greatest budget a policy may set.
pub(crate) const PREEMPTED_MAX: u32 = chiptide_model::policy_fault::BUDGET_MAX;
/// Normalised chips.
pub(crate) const NORMALISED: Column = 0;

/// Slots of one device class, by the class's column.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Amounts(pub Vec<(Column, u64)>);

impl Amounts {
    pub(crate) fn add(&mut self, column: Column, slots: u64) {
        match self.0.iter_mut().find(|(known, _)| *known == column) {
            Some((_, sum)) => *sum += slots,
            None => self.0.push((column, slots)),
        }
    }
}

/// Which part of the books an amount belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Part {
    /// Under leases that have not ended, or promised.
    Used,
    /// Of that, under leases that have been given notice.
    Leaving,
    /// Of that, under leases that may not be preempted.
    Firm,
}

/// One queue's account. All amounts in slots, by column, with those of the queues below.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Account {
    pub name: Arc<str>,
    /// The queue itself and those above it, up to the top.
    pub path: Vec<QueueIx>,
    /// The queues right below.
    pub below: Vec<QueueIx>,
    pub cohort: Option<Arc<str>>,
    pub weight: u32,
    pub budget: Option<PreemptionBudget>,
    /// When its jobs were preempted within the last day, oldest first; the last [`PREEMPTED_MAX`] of them.
    pub preempted: Vec<Timestamp>,
    /// At least what is guaranteed to the queues below.
    pub guaranteed: Vec<u64>,
    pub limit: Vec<Option<u64>>,
    /// What it held beyond its limit when the policy came into force: lowering a limit takes nothing away.
    pub tolerated: Vec<u64>,
    pub used: Vec<u64>,
    pub leaving: Vec<u64>,
    pub firm: Vec<u64>,
    /// Averages of past use by column; that of normalised chips follows from the others.
    pub past: Vec<Average>,
    /// When the averages were brought up to date.
    pub as_of: Timestamp,
}

impl Account {
    pub(crate) fn new(name: &str, at: Timestamp) -> Account {
        Account {
            name: name.into(),
            path: Vec::new(),
            below: Vec::new(),
            cohort: None,
            weight: 1,
            budget: None,
            preempted: Vec::new(),
            guaranteed: Vec::new(),
            limit: Vec::new(),
            tolerated: Vec::new(),
            used: Vec::new(),
            leaving: Vec::new(),
            firm: Vec::new(),
            past: Vec::new(),
            as_of: at,
        }
    }

    /// Makes room for this many columns.
    pub(crate) fn widen(&mut self, columns: usize) {
        self.limit.resize(columns, None);
        for amounts in [
            &mut self.guaranteed,
            &mut self.tolerated,
            &mut self.used,
            &mut self.leaving,
            &mut self.firm,
            &mut self.past,
        ] {
            amounts.resize(columns, 0);
        }
    }

    /// What it holds that nobody has asked back.
    pub(crate) fn settled(&self, column: Column) -> u64 {
        self.used[column].saturating_sub(self.leaving[column])
    }

    /// What it holds beyond its guarantee.
    pub(crate) fn beyond(&self, column: Column) -> u64 {
        self.settled(column).saturating_sub(self.guaranteed[column])
    }

    /// Notes that a job of it was preempted.
    pub(crate) fn note_preemption(&mut self, at: Timestamp) {
        self.preempted.push(at);
        self.preempted.retain(|then| *then + DAY > at);
        let surplus = self.preempted.len().saturating_sub(PREEMPTED_MAX as usize);
        self.preempted.drain(..surplus);
    }

    /// Whether its budget leaves another preemption now, after so `many` of the same plan.
    pub(crate) fn may_be_preempted(&self, now: Timestamp, many: u32) -> bool {
        let Some(budget) = self.budget else { return true };
        let today = self.preempted.iter().filter(|then| **then + DAY > now).count() as u32;
        let last = self.preempted.last().copied();
        budget.per_day.is_none_or(|most| today + many < most)
            && budget.cool_down.is_none_or(|span| last.is_none_or(|last| last + span <= now))
    }

    /// The next moment after `after` at which its budget may leave more than before.
    pub(crate) fn next_release(&self, after: Timestamp) -> Option<Timestamp> {
        let budget = self.budget?;
        let cooled = budget.cool_down.and_then(|span| self.preempted.last().map(|last| *last + span));
        let a_day_on = self.preempted.iter().map(|then| *then + DAY);
        a_day_on.chain(cooled).filter(|at| *at > after).min()
    }

    /// Whether it holds more than it is guaranteed of anything.
    pub(crate) fn is_beyond_guarantee(&self) -> bool {
        (0..self.guaranteed.len()).any(|column| self.beyond(column) > 0)
    }

    pub(crate) fn change(&mut self, part: Part, column: Column, slots: u64, add: bool) {
        let book = match part {
            Part::Used => &mut self.used,
            Part::Leaving => &mut self.leaving,
            Part::Firm => &mut self.firm,
        };
        book[column] = if add { book[column] + slots } else { book[column].saturating_sub(slots) };
    }

    /// Brings the averages up to date: what is held now was held since they last were.
    pub(crate) fn bring_up_to(&mut self, at: Timestamp, half_life: Option<Millis>) {
        if at <= self.as_of {
            return;
        }
        let left = half_life.map_or(0, |half_life| left_after(at.since(self.as_of), half_life));
        for column in 1..self.past.len() {
            self.past[column] = blend(self.past[column], self.used[column], left);
        }
        self.as_of = at;
    }

    /// The averages as they would be at `at`, in slots by column.
    pub(crate) fn past_at(&self, column: Column, at: Timestamp, half_life: Option<Millis>) -> u64 {
        let left = half_life.map_or(0, |half_life| left_after(at.since(self.as_of), half_life));
        blend(self.past[column], self.used[column], left) >> AVERAGE_BITS
    }
}
