//! Which chips are proven vacant, and what keeps the others from being so.

use super::Standing;
use crate::idle::Baselines;
use crate::reading::NodeReading;
use crate::vacancy::{NotProven, prove, sharers};
use chiptide_api::node::{VacantBody, VacateOrder};
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::time::Instant;
use uuid::Uuid;

/// What a proof takes beyond a reading that lists nobody.
#[derive(Clone, PartialEq, Debug)]
pub struct Rules {
    /// So many readings in a row.
    pub readings: u32,
    /// Memory as when idle.
    pub baselines: Baselines,
}

/// Readings in a row that agree that a chip is vacant.
#[derive(Clone, Debug, Default)]
pub(super) struct Streak {
    count: u32,
    last: Option<Instant>,
    /// What the last look beyond the readings found, and when that was.
    found: Option<(NotProven, Instant)>,
}

/// A look beyond the readings costs milliseconds: one that found something is not repeated sooner than this.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

impl Standing {
    /// Weighs proofs by these rules from now on.
    pub fn weigh_by(&mut self, rules: Rules) {
        self.rules = Some(rules);
    }

    /// The rules in force.
    pub fn rules(&self) -> Option<&Rules> {
        self.rules.as_ref()
    }

    /// Counts a reading towards every proof that waits for more. `look` is asked last, of a chip for which all else is
    /// proven and of the leases that may have processes there: does anything speak against it that no reading shows?
    pub fn weigh(&mut self, reading: &NodeReading, look: impl Fn(&str, &BTreeSet<Uuid>) -> Result<(), NotProven>) {
        let Some(needed) = self.rules.as_ref().map(|rules| rules.readings) else { return };
        let mut streaks = std::mem::take(&mut self.streaks);
        streaks.retain(|order, _| self.vacate_since.contains_key(order));
        for (order, since) in &self.vacate_since {
            let streak = streaks.entry(order.clone()).or_default();
            if streak.last.replace(reading.taken) == Some(reading.taken) {
                continue;
            }
            if self.read(order, *since, reading).is_err() {
                *streak = Streak { last: streak.last, ..Streak::default() };
            } else if streak.count + 1 < needed {
                streak.count += 1;
            } else if streak.found.as_ref().is_none_or(|(_, at)| reading.taken >= *at + LOOK_AGAIN) {
                let found = look(&order.chip, &sharers(&order.chip, order.lease, &self.orders)).err();
                streak.found = found.map(|found| (found, reading.taken));
                streak.count = if streak.found.is_none() { needed } else { needed - 1 };
            }
        }
        self.streaks = streaks;
    }

    /// Learns what chips use when nobody has them. Answers whether it learned something that is worth keeping.
    pub fn learn(&mut self, reading: &NodeReading) -> bool {
        let Some(rules) = &mut self.rules else { return false };
        let (orders, vacate) = (&self.orders, &self.vacate_since);
        let nobody_has = |chip: &str| {
            let leased = orders.leases.iter().any(|order| order.chips.iter().any(|held| held.chip == chip));
            !leased && !vacate.keys().any(|order| order.chip == chip)
        };
        rules.baselines.learn(reading, nobody_has)
    }

    /// Holds back the proof of every chip whose lease may still run something here. Once it no longer may, only what is
    /// read from then on counts.
    pub fn hold_back(&mut self, may_run: impl Fn(&VacateOrder) -> bool, now: Instant) {
        for (order, since) in &mut self.vacate_since {
            if may_run(order) {
                self.held_back.insert(order.clone());
            } else if self.held_back.remove(order) {
                *since = now;
            }
        }
    }

    /// Every vacate order that `reading` proves carried out.
    pub fn vacant(&self, reading: &NodeReading) -> Vec<VacantBody> {
        self.vacate_since
            .iter()
            .filter(|(order, since)| self.prove(order, **since, reading).is_ok())
            .map(|(order, _)| VacantBody { chip: order.chip.clone(), lease: order.lease, epoch: self.highest(order) })
            .collect()
    }

    /// Every vacate order that `reading` does not prove, with the reason, for people.
    pub fn not_vacant<'a>(&'a self, reading: &'a NodeReading) -> impl Iterator<Item = (&'a VacateOrder, NotProven)> {
        self.vacate_since.iter().filter_map(|(order, since)| Some((order, self.prove(order, *since, reading).err()?)))
    }

    fn prove(&self, order: &VacateOrder, since: Instant, reading: &NodeReading) -> Result<(), NotProven> {
        self.read(order, since, reading)?;
        let Some(rules) = &self.rules else { return Ok(()) };
        match self.streaks.get(order) {
            Some(Streak { found: Some((found, _)), .. }) => Err(found.clone()),
            Some(streak) if streak.count >= rules.readings => Ok(()),
            _ => Err(NotProven::Unsettled),
        }
    }

    /// What one reading says of an order.
    fn read(&self, order: &VacateOrder, since: Instant, reading: &NodeReading) -> Result<(), NotProven> {
        if self.held_back.contains(order) {
            return Err(NotProven::StillRunning);
        }
        prove(order, since, &self.orders, reading)?;
        self.is_idle(&order.chip, order.lease, reading)
    }

    /// Whether a chip that no other live lease has uses no more memory than when idle.
    pub(super) fn is_idle(&self, chip: &str, lease: Uuid, reading: &NodeReading) -> Result<(), NotProven> {
        let (Some(rules), Some(now)) = (&self.rules, reading.chip(chip)) else { return Ok(()) };
        if !sharers(chip, lease, &self.orders).is_empty() {
            return Ok(());
        }
        let check = rules.baselines.check(now, reading.driver_version.as_deref());
        check.map_err(|(used_mib, allowed_mib)| NotProven::NotIdle { used_mib, allowed_mib })
    }

    fn highest(&self, order: &VacateOrder) -> u64 {
        self.epochs.highest(&order.chip).unwrap_or(order.epoch)
    }
}
