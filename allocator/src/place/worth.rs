//! What a placement would waste. For a pool as it is and as it would be, the slots that demand cannot make use of are
//! estimated; the pool where a replica adds the least waste is the best.
//!
//! The waste of a pool is the sum of three:
//! - *stranded*: free chips that its CPU (or memory) would not reach if jobs of the mix filled them;
//! - *broken*: free chips that make up no whole set for the jobs that want several;
//! - *gaps*: what is left of chips in use and fits no share worth waiting for ([`gaps`](super::gaps)).
//!
//! The idea of scoring by how much less of a node demand can use is Fragmentation Gradient Descent (Q. Weng et al.,
//! "Beware of Fragmentation: Scheduling GPU-Sharing Workloads with Fragmentation Gradient Descent", USENIX ATC 2023),
//! which asks whether one more job of each shape fits. Here every shape fills the node in turn, which sees a shortage
//! of CPU long before the last job; and gaps have the prices of the cutting-stock problem. As there, small differences
//! are noise and are rounded away, then the tightest pool wins.

use super::gaps;
use crate::demand::{Mix, Spread};
use chiptide_model::{SLOTS_PER_CHIP, SlotCount};

const CHIP: i64 = SLOTS_PER_CHIP as i64;
/// Fixed point of shares of demand.
const ONE: i64 = 1 << 20;
/// Differences in waste below this many slots are noise: a twentieth of a chip.
const GRAIN: i64 = 50;
/// The same for work without chips, where waste matters only as far as it is plain.
const GRAIN_WITHOUT_CHIPS: i64 = 400;
/// Weight of breaking whole sets, spread over the sizes in demand: a fiftieth, and a quarter of how common they are.
/// Small against a chip, so that it yields to shortages; well above the grain for a node of eight.
const BROKEN: i64 = ONE / 50;
const BROKEN_BY_DEMAND: i64 = 4;

/// What demand makes of free slots.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Worth {
    gaps: Vec<i64>,
    cpu: Reach,
    memory: Reach,
    /// Whole sets in demand: chips, and the weight of breaking one.
    sets: Vec<(i64, i64)>,
}

impl Default for Worth {
    fn default() -> Worth {
        Worth::of(&Mix::default())
    }
}

/// For every ratio of CPU (or memory) to chips: the share of demand that asks for more, and how much more.
#[derive(Clone, PartialEq, Debug, Default)]
struct Reach {
    /// By step: demand that asks for more than the step, as a share of all.
    more: Vec<i64>,
    /// By step: the same, each divided by what it asks for per chip.
    per_amount: Vec<i64>,
}

impl Reach {
    fn of(spread: &Spread, replicas: u64) -> Reach {
        let steps = spread.0.last_key_value().map_or(0, |(step, _)| usize::from(*step) + 1);
        let mut reach = Reach { more: vec![0; steps + 1], per_amount: vec![0; steps + 1] };
        for step in (0..steps).rev() {
            let (count, sum) = spread.0.get(&(step as u16)).copied().unwrap_or_default();
            let share = (u128::from(count) * ONE as u128 / u128::from(replicas.max(1))) as i64;
            // Divided by the mean of the step, which is sum / count.
            let over = u128::from(count) * CHIP as u128 * share as u128 / u128::from(sum.max(1));
            reach.more[step] = reach.more[step + 1] + if sum > 0 { share } else { 0 };
            reach.per_amount[step] = reach.per_amount[step + 1] + if sum > 0 { over as i64 } else { 0 };
        }
        reach
    }

    /// Free slots out of reach: over the mix, the mean of what stays free when jobs of one kind fill the pool until
    /// `have` is spent.
    fn stranded(&self, slots: i64, have: u64) -> i64 {
        if slots == 0 || self.more.len() <= 1 {
            return 0;
        }
        let ratio = divided(have.saturating_mul(CHIP as u64), slots as u64);
        let above = (usize::from(Spread::step(ratio)) + 1).min(self.more.len() - 1);
        let have = i64::try_from(have).unwrap_or(i64::MAX);
        (slots * self.more[above]).saturating_sub(have.saturating_mul(self.per_amount[above])).max(0) / ONE
    }
}

/// Division of what mostly fits 32 bits, which takes a third of the time.
fn divided(a: u64, by: u64) -> u64 {
    match (u32::try_from(a), u32::try_from(by)) {
        (Ok(a), Ok(by)) => u64::from(a / by.max(1)),
        _ => a / by.max(1),
    }
}

/// Free chips, CPU and memory, as far as waste goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Free {
    pub slots: i64,
    pub whole: i64,
    /// Waste of the gaps of chips in use.
    pub gaps: i64,
    pub cpu: u64,
    pub memory: u64,
}

impl Worth {
    pub(crate) fn of(mix: &Mix) -> Worth {
        let sets = || mix.chips.iter().filter(|(chips, _)| **chips > 1);
        let total: u128 = sets().map(|(chips, count)| u128::from(*chips) * u128::from(*count)).sum();
        let weight = |(chips, count): (&u16, &u64)| {
            let part = |of: u128, by: u128| (of * u128::from(*count) / by.max(1)) as i64;
            let fixed = part(BROKEN as u128 * u128::from(*chips), total);
            (i64::from(*chips), fixed + part(ONE as u128, u128::from(mix.replicas)) / BROKEN_BY_DEMAND)
        };
        Worth {
            gaps: gaps::waste(&mix.shares),
            cpu: Reach::of(&mix.cpu, mix.replicas),
            memory: Reach::of(&mix.memory, mix.replicas),
            sets: sets().map(weight).collect(),
        }
    }

    /// Waste of a gap on a chip.
    pub(crate) fn gap(&self, slots: SlotCount) -> i64 {
        self.gaps[usize::from(slots.min(SLOTS_PER_CHIP))]
    }

    /// Waste of a pool.
    pub(crate) fn waste(&self, free: &Free) -> i64 {
        if free.slots == 0 {
            return 0;
        }
        let stranded = self.cpu.stranded(free.slots, free.cpu).max(self.memory.stranded(free.slots, free.memory));
        let broken = |(chips, weight): &(i64, i64)| {
            (free.slots - i64::from(free.whole as u32 / *chips as u32) * chips * CHIP) * weight
        };
        stranded + self.sets.iter().map(broken).sum::<i64>() / ONE + free.gaps
    }

    /// Waste added, in grains.
    pub(crate) fn added(before: i64, after: i64, with_chips: bool) -> i64 {
        let grain = if with_chips { GRAIN } else { GRAIN_WITHOUT_CHIPS };
        (after - before + grain / 2).div_euclid(grain)
    }
}
