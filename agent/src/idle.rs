//! How much memory a chip uses when nobody does: learned for each chip and driver version while no lease has it and the
//! driver lists no process there. Memory can outlive its process, and a process can be missing from the list; a chip that
//! uses more than it does when idle is not empty. Pure.

use crate::reading::{ChipNow, NodeReading};
use chiptide_api::node::HealthBody;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use tokio::time::Instant;

/// So many readings in a row must agree before they are believed.
const READINGS: u32 = 3;
/// Readings that differ by less say the same.
const SAME_MIB: u64 = 16;
/// What a chip may use beyond its idle memory: at least this, and so many thousandths of all it has.
const SLACK_MIB: u64 = 64;
const SLACK_PER_MILLE: u64 = 5;

/// What one chip uses when idle.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Idle {
    /// Under this driver; another one may keep more or less for itself.
    pub driver_version: Option<String>,
    /// Memory in MiB; absent for a chip that never says.
    pub memory_mib: Option<u64>,
}

/// What every chip met uses when idle.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Baselines {
    known: BTreeMap<String, Idle>,
    /// What the last readings of an idle chip agreed on, how many they were, and when the last was taken.
    watched: BTreeMap<String, (Idle, u32, Instant)>,
}

impl Baselines {
    /// What was learned before.
    pub fn of(known: BTreeMap<String, Idle>) -> Baselines {
        Baselines { known, watched: BTreeMap::new() }
    }

    /// What has been learned.
    pub fn known(&self) -> &BTreeMap<String, Idle> {
        &self.known
    }

    /// Learns from a reading of the chips that nobody has. Answers whether it learned something.
    pub fn learn(&mut self, reading: &NodeReading, nobody_has: impl Fn(&str) -> bool) -> bool {
        let mut learned = false;
        for now in &reading.chips {
            let empty = now.reading.processes.as_ref().is_some_and(Vec::is_empty);
            if !empty || now.chip.health != HealthBody::Healthy || !nobody_has(&now.chip.id) {
                self.watched.remove(&now.chip.id);
                continue;
            }
            let seen = Idle { driver_version: reading.driver_version.clone(), memory_mib: now.reading.memory_used_mib };
            let (agreed, count) = match self.watched.get(&now.chip.id) {
                Some((_, _, taken)) if *taken == reading.taken => continue,
                Some((last, count, _)) if is_same(last, &seen) => (last.clone(), count + 1),
                _ => (seen, 1),
            };
            let news = self.known.get(&now.chip.id).is_none_or(|known| !is_same(known, &agreed));
            if count >= READINGS && news {
                self.known.insert(now.chip.id.clone(), agreed.clone());
                learned = true;
            }
            self.watched.insert(now.chip.id.clone(), (agreed, count, reading.taken));
        }
        learned
    }

    /// Whether a chip uses no more than when idle; if not, what it uses (absent: it does not say) and what it may. A chip
    /// that has not been seen idle under this driver is taken for one that needs nothing.
    pub fn check(&self, now: &ChipNow, driver_version: Option<&str>) -> Result<(), (Option<u64>, u64)> {
        let known = self.known.get(&now.chip.id).filter(|idle| idle.driver_version.as_deref() == driver_version);
        let slack = SLACK_MIB.max(now.chip.memory_mib * SLACK_PER_MILLE / 1000);
        let allowed = known.and_then(|idle| idle.memory_mib).unwrap_or(0) + slack;
        match now.reading.memory_used_mib {
            Some(used) if used <= allowed => Ok(()),
            None if known.is_some_and(|idle| idle.memory_mib.is_none()) => Ok(()),
            used => Err((used, allowed)),
        }
    }
}

fn is_same(a: &Idle, b: &Idle) -> bool {
    let near = match (a.memory_mib, b.memory_mib) {
        (Some(a), Some(b)) => a.abs_diff(b) < SAME_MIB,
        (a, b) => a == b,
    };
    near && a.driver_version == b.driver_version
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scripted::{chip, reading_at};
    use std::time::Duration;

    fn using(mib: Option<u64>) -> ChipNow {
        let mut now = chip("c0");
        now.reading.memory_used_mib = mib;
        now
    }

    /// Baselines that have met these readings of a chip that nobody has, one after the other.
    fn after(readings: &[Option<u64>]) -> Baselines {
        let (start, mut baselines) = (Instant::now(), Baselines::default());
        for (at, mib) in readings.iter().enumerate() {
            let taken = start + Duration::from_millis(at as u64);
            baselines.learn(&reading_at(taken, [using(*mib)]), |_| true);
        }
        baselines
    }

    fn allows(baselines: &Baselines, mib: Option<u64>) -> bool {
        baselines.check(&using(mib), None).is_ok()
    }

    #[test]
    fn a_chip_never_seen_idle_needs_nothing_and_what_cannot_be_read_is_not_idle() {
        let none = Baselines::default();
        assert!(allows(&none, Some(400)) && !allows(&none, Some(600)), "half a percent of 97,871 MiB");
        assert!(!allows(&none, None));
    }

    #[test]
    fn what_three_readings_agree_on_is_learned() {
        assert!(!allows(&after(&[Some(3000), Some(3001)]), Some(3000)));
        let learned = after(&[Some(3000), Some(3001), Some(3002)]);
        assert!(allows(&learned, Some(3400)) && !allows(&learned, Some(3600)) && !allows(&learned, None));
        assert!(!allows(&after(&[Some(3000), Some(9000), Some(3000)]), Some(3000)), "they do not agree");
        assert!(learned.check(&using(Some(3000)), Some("another driver")).is_err());
    }

    #[test]
    fn a_chip_that_never_says_is_let_be() {
        let learned = after(&[None, None, None]);
        assert!(allows(&learned, None) && !allows(&learned, Some(9000)));
    }

    #[test]
    fn nothing_is_learned_of_a_chip_that_somebody_has_or_is_on() {
        let (start, mut baselines) = (Instant::now(), Baselines::default());
        for at in 0..5 {
            let taken = start + Duration::from_millis(at);
            assert!(!baselines.learn(&reading_at(taken, [using(Some(3000))]), |_| false));
            assert!(!baselines.learn(&reading_at(taken, [using(Some(3000)).running(9, None)]), |_| true));
        }
    }
}
