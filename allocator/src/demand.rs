//! Demand: the mix of what jobs ask for, counted as they are submitted, so that placement keeps room for what is likely
//! to come. Only counts, no clock: the same jobs in the same order teach the same.

use chiptide_model::{ChipDemand, DeviceClass, JobSpec, SLOTS_PER_CHIP, SlotCount};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Beyond this many replicas the counts are halved: old demand fades, and the counts stay small.
const REPLICAS_MAX: u64 = 1 << 16;
/// A job counts at most this often, so that one huge gang is not taken for a habit.
const PER_JOB_MAX: u64 = 64;

/// What is counted, and the counts that placement goes by at present.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Demand {
    /// The counts placement goes by.
    pub known: Mix,
    /// The counts so far; they become `known` whenever they have doubled.
    pub counted: Mix,
}

/// A count of jobs by what one replica asks for.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Mix {
    /// Replicas counted.
    pub replicas: u64,
    /// Slots they asked for.
    pub slots: u64,
    /// Replicas that share a chip, by slots.
    pub shares: BTreeMap<SlotCount, u64>,
    /// Replicas on whole chips, by chips.
    pub chips: BTreeMap<u16, u64>,
    /// CPU per chip: thousandths of a core.
    pub cpu: Spread,
    /// Memory per chip: MiB.
    pub memory: Spread,
    /// Slots asked for by those who take only some device classes.
    pub picky: Vec<Picky>,
}

/// Slots asked for on a set of device classes.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Picky {
    /// The classes, in order of their names.
    pub classes: Vec<DeviceClass>,
    /// The slots.
    pub slots: u64,
}

/// A histogram of amounts per chip in steps of an eighth of an octave: by step, how many and their sum.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Spread(pub BTreeMap<u16, (u64, u64)>);

impl Spread {
    /// The step an amount falls into.
    pub fn step(amount: u64) -> u16 {
        match amount {
            0..8 => amount as u16,
            _ => (8 * (amount.ilog2() - 2) + (amount >> (amount.ilog2() - 3) & 7) as u32) as u16,
        }
    }

    fn add(&mut self, amount: u64, times: u64) {
        let (count, sum) = self.0.entry(Spread::step(amount)).or_default();
        *count += times;
        *sum = sum.saturating_add(amount.saturating_mul(times));
    }
}

impl Demand {
    /// Counts a job. `share` is how many slots of a chip its share takes, if it shares one. Tells whether what
    /// placement goes by has changed. CPU-only jobs need no room on chips and are not counted.
    pub(crate) fn count(&mut self, spec: &JobSpec, share: Option<SlotCount>) -> bool {
        let times = u64::from(spec.replicas).min(PER_JOB_MAX);
        self.counted.add(spec, share, times);
        let (now, then) = (self.counted.replicas, self.known.replicas);
        let learns = now < then || now > 2 * then;
        if learns {
            self.known = self.counted.clone();
        }
        learns
    }
}

impl Mix {
    fn add(&mut self, spec: &JobSpec, share: Option<SlotCount>, times: u64) {
        let slots = match (spec.demand, share) {
            (ChipDemand::Chips(0), _) => return,
            (ChipDemand::Chips(n), _) => {
                *self.chips.entry(n).or_default() += times;
                u64::from(n) * u64::from(SLOTS_PER_CHIP)
            }
            (_, Some(share)) => {
                *self.shares.entry(share).or_default() += times;
                u64::from(share)
            }
            (_, None) => return,
        };
        let per_chip = |amount: u64| amount.saturating_mul(u64::from(SLOTS_PER_CHIP)) / slots.max(1);
        self.replicas += times;
        self.slots += slots * times;
        self.cpu.add(per_chip(spec.cpu_milli), times);
        self.memory.add(per_chip(spec.memory_mib), times);
        if !spec.device_classes.is_empty() {
            let mut classes: Vec<DeviceClass> = spec.device_classes.iter().map(|choice| choice.class.clone()).collect();
            classes.sort_unstable();
            match self.picky.binary_search_by(|known| known.classes.cmp(&classes)) {
                Ok(at) => self.picky[at].slots += slots * times,
                Err(at) => self.picky.insert(at, Picky { classes, slots: slots * times }),
            }
        }
        if self.replicas >= REPLICAS_MAX {
            self.halve();
        }
    }

    fn halve(&mut self) {
        fn halve_all<K: Ord>(counts: &mut BTreeMap<K, u64>) {
            counts.values_mut().for_each(|count| *count /= 2);
            counts.retain(|_, count| *count > 0);
        }
        (self.replicas, self.slots) = (self.replicas / 2, self.slots / 2);
        halve_all(&mut self.shares);
        halve_all(&mut self.chips);
        for spread in [&mut self.cpu, &mut self.memory] {
            spread.0.values_mut().for_each(|(count, sum)| (*count, *sum) = (*count / 2, *sum / 2));
            spread.0.retain(|_, (count, _)| *count > 0);
        }
        self.picky.iter_mut().for_each(|picky| picky.slots /= 2);
        self.picky.retain(|picky| picky.slots > 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_an_eighth_of_an_octave_and_never_fall() {
        assert_eq!([0, 7, 8, 15, 16, 17, 18].map(Spread::step), [0, 7, 8, 15, 16, 16, 17]);
        assert!((1..100_000u64).all(|amount| Spread::step(amount) >= Spread::step(amount - 1)));
        assert!(Spread::step(u64::MAX) < 512);
    }
}
