//! What placement keeps about the pools, so that it never looks at all of them for one job: the waste of each as it is,
//! and for each need asked for of late, the pools ranked. A ranking is brought up to date pool by pool, only where
//! something has changed since it was last used. It is a memo: with or without it, the same pool is best.

use super::wholes::Wholes;
use super::worth::{Free, Worth};
use crate::demand::Mix;
use crate::fleet::{Fleet, NO_CLASS, Pool, PoolFree, PoolIx};
use crate::room::Need;
use chiptide_model::{ChipDemand, DeviceClass, SLOTS_PER_CHIP, SlotCount};
use rustc_hash::FxHashMap;
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// Keys kept in all rankings together (32 MiB); beyond them the ranking not used for longest is dropped.
const KEYS_MAX: usize = 1 << 22;
/// Pools of a block, of which the best is kept.
const BLOCK: usize = 64;
/// The key of a pool that does not fit.
const NEVER: u64 = u64::MAX;
/// Chips a picky class is assumed to be wanted for before there is demand to count: this part of all, and until about
/// so many replicas have been counted.
const PRESUMED_PART: u128 = 4;
const PRESUMED_UNTIL: u128 = 256;

/// The pools as placement sees them.
#[derive(Debug, Default)]
pub struct Index {
    worth: Worth,
    mix: Mix,
    /// By class: chips met, memory of the first of them, and how scarce the class is.
    classes: Vec<ClassKept>,
    pools: Vec<Kept>,
    wholes: Wholes,
    rankings: Mutex<Rankings>,
}

#[derive(Clone, Copy, PartialEq, Debug, Default)]
struct ClassKept {
    chips: u64,
    memory_mib: u64,
    scarcity: u64,
}

/// A pool as it is: its waste, and that part of it which gaps make.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Kept {
    pub waste: i64,
    pub gaps: i64,
}

impl Clone for Index {
    /// Without the rankings, which are made again when they are needed.
    fn clone(&self) -> Index {
        let (worth, mix, classes) = (self.worth.clone(), self.mix.clone(), self.classes.clone());
        let (pools, wholes) = (self.pools.clone(), self.wholes.clone());
        Index { worth, mix, classes, pools, wholes, rankings: Mutex::default() }
    }
}

impl PartialEq for Index {
    /// Equal in what decides; what was ranked before does not count.
    fn eq(&self, other: &Index) -> bool {
        (&self.worth, &self.mix, &self.classes, &self.pools) == (&other.worth, &other.mix, &other.classes, &other.pools)
    }
}

impl Index {
    pub(crate) fn forget_pools(&mut self) {
        self.pools.clear();
        self.wholes = Wholes::default();
        self.classes.clear();
        self.forget_rankings();
    }

    pub(crate) fn forget_rankings(&mut self) {
        *self.rankings.get_mut().unwrap_or_else(PoisonError::into_inner) = Rankings::default();
    }

    /// A chip was met.
    pub(crate) fn met(&mut self, class: usize, memory_mib: u64) {
        if self.classes.len() <= class {
            self.classes.resize(class + 1, ClassKept::default());
        }
        let known = &mut self.classes[class];
        if known.chips == 0 {
            known.memory_mib = memory_mib;
        }
        known.chips += 1;
    }

    /// Memory of a chip of a class.
    pub(crate) fn chip_memory(&self, class: usize) -> Option<u64> {
        self.classes.get(class).filter(|known| known.chips > 0).map(|known| known.memory_mib)
    }

    pub(crate) fn learn(&mut self, mix: &Mix, classes: &[DeviceClass]) {
        (self.mix, self.worth) = (mix.clone(), Worth::of(mix));
        self.rate_classes(classes);
        self.forget_rankings();
    }

    /// How scarce a class is, from the demand of those who take only some classes against its chips: 0 where they want
    /// less than a quarter, 1 where they want less than all, 2 where they want more than there are.
    pub(crate) fn scarcity(&self, class: usize) -> u64 {
        self.classes.get(class).map_or(0, |known| known.scarcity)
    }

    /// Rates the classes by scarcity.
    pub(crate) fn rate_classes(&mut self, names: &[DeviceClass]) {
        let total: u128 = self.classes.iter().map(|known| u128::from(known.chips)).sum();
        let chips_of = |class: &DeviceClass| {
            let at = names.iter().position(|known| known == class)?;
            Some((at, u128::from(self.classes.get(at)?.chips)))
        };
        // Demand for each class in thousandths of its chips, if demand filled the fleet.
        let presumed = PRESUMED_UNTIL * 1000 / (PRESUMED_UNTIL + u128::from(self.mix.replicas));
        let kinds = self.classes.iter().filter(|known| known.chips > 0).count().max(1) as u128;
        let prior = |chips: u64| {
            let share = total * presumed / PRESUMED_PART / kinds;
            share.checked_div(u128::from(chips)).unwrap_or(0)
        };
        let mut wanted: Vec<u128> = self.classes.iter().map(|known| prior(known.chips)).collect();
        for picky in &self.mix.picky {
            let among: Vec<(usize, u128)> = picky.classes.iter().filter_map(chips_of).collect();
            let chips: u128 = among.iter().map(|(_, chips)| chips).sum();
            let asked = u128::from(picky.slots) * total * 1000 / u128::from(self.mix.slots.max(1));
            among.iter().for_each(|(at, _)| wanted[*at] += asked.checked_div(chips).unwrap_or(0));
        }
        let scarcity = |wanted: u128| u64::from(wanted >= 250) + u64::from(wanted >= 1000);
        let mut changed = false;
        for (known, wanted) in self.classes.iter_mut().zip(wanted) {
            changed |= known.scarcity != scarcity(wanted);
            known.scarcity = scarcity(wanted);
        }
        if changed {
            self.forget_rankings();
        }
    }

    pub(crate) fn kept(&self, pool: PoolIx) -> Kept {
        self.pools.get(pool).copied().unwrap_or_default()
    }

    /// Whether so many replicas might fit these classes as far as whole chips tell; `None` admits all.
    pub(crate) fn could_hold(&self, need: &Need, replicas: u32, classes: Option<&[usize]>) -> bool {
        match need.demand {
            ChipDemand::Chips(chips) => self.wholes.could_hold(chips, replicas, classes),
            _ => true,
        }
    }

    /// Counts a pool's waste.
    pub(crate) fn keep(&self, free: &PoolFree, slots: &[SlotCount]) -> Kept {
        let used = slots.iter().filter(|slots| **slots > 0 && **slots < SLOTS_PER_CHIP);
        let gaps = used.map(|slots| self.worth.gap(*slots)).sum();
        Kept { waste: self.worth.waste(&free_of(free, gaps)), gaps }
    }

    pub(crate) fn pool_changed(&mut self, pool: PoolIx, state: &Pool, slots: &[SlotCount]) {
        if self.pools.len() <= pool {
            self.pools.resize(pool + 1, Kept::default());
        }
        self.pools[pool] = self.keep(&state.free, slots);
        self.wholes.set(pool, state.class, state.free.whole);
        let rankings = self.rankings.get_mut().unwrap_or_else(PoisonError::into_inner);
        if !rankings.by_need.is_empty() {
            rankings.changed(pool, self.pools.len());
        }
    }
}

fn free_of(free: &PoolFree, gaps: i64) -> Free {
    Free { slots: i64::from(free.slots), whole: i64::from(free.whole), gaps, cpu: free.cpu, memory: free.memory }
}

/// A pool as it is, or as a plan would leave it.
#[derive(Clone, Copy)]
pub(crate) struct Seen<'a> {
    pub pool: Pool,
    pub slots: &'a [SlotCount],
    pub kept: Kept,
}

impl Fleet {
    /// Recounts what placement keeps of a pool, and compares every ranking that claims to have seen its last change.
    pub(crate) fn index_is_sound(&self, pool: PoolIx) -> bool {
        let slots = self.count_slots(pool);
        if self.pool_slots[pool] != slots || self.index.kept(pool) != self.index.keep(&self.pools[pool].free, &slots) {
            return false;
        }
        let state = &self.pools[pool];
        if state.class != NO_CLASS && self.index.wholes.counted(pool) != Some((state.class, state.free.whole)) {
            return false;
        }
        let rankings = self.index.rankings.lock().unwrap_or_else(PoisonError::into_inner);
        let end = rankings.dropped + rankings.changes.len();
        let mut current = rankings.by_need.iter().filter(|(_, ranking)| ranking.seen == end);
        current.all(|((need, classes), ranking)| {
            let admits = classes.as_ref().is_none_or(|classes| classes.contains(&self.pools[pool].class));
            let key = if admits { self.key(pool, &self.seen(pool), need) } else { NEVER };
            ranking.keys.get(pool) == Some(&key) && ranking.blocks.get(pool / BLOCK).is_some_and(|least| *least <= key)
        })
    }

    /// Whether two pools are the same to any need.
    fn are_alike(&self, a: PoolIx, b: PoolIx) -> bool {
        let (one, other) = (&self.pools[a], &self.pools[b]);
        let memory = |pool: PoolIx| self.pool_chips[pool].first().map(|&chip| self.chips[chip].facts.memory_mib);
        one.free == other.free
            && one.class == other.class
            && self.pool_slots[a] == self.pool_slots[b]
            && (memory(a) == memory(b))
    }

    pub(crate) fn seen(&self, pool: PoolIx) -> Seen<'_> {
        Seen { pool: self.pools[pool], slots: &self.pool_slots[pool], kept: self.index.kept(pool) }
    }

    /// How good a pool is for a need, the smaller the better, then the pool with the lower index: the scarcity of its
    /// class, the waste it adds, then the tightest chip and the tightest pool.
    pub(crate) fn key(&self, ix: PoolIx, seen: &Seen<'_>, need: &Need) -> u64 {
        if !need.has_room(&seen.pool.free) {
            return NEVER;
        }
        let (added, left) = match need.demand {
            ChipDemand::Chips(n) => {
                let chips = i64::from(n) * i64::from(need.together);
                let mut after = free_of(&seen.pool.free, seen.kept.gaps);
                after.slots -= chips * i64::from(SLOTS_PER_CHIP);
                after.whole -= chips;
                (self.added(seen, need, after), 0)
            }
            _ => match self.best_chip(ix, seen, need) {
                Some((added, left, _)) => (added, u64::from(left)),
                None => return NEVER,
            },
        };
        let scarcity = if need.demand == ChipDemand::Chips(0) { 0 } else { self.index.scarcity(seen.pool.class) };
        let added = (added + (1 << 14)).clamp(0, (1 << 15) - 1) as u64;
        let (slots, cpu) = (u64::from(seen.pool.free.slots).min(0xFFFF), seen.pool.free.cpu.min((1 << 21) - 2));
        scarcity << 62 | added << 47 | left << 37 | slots << 21 | cpu
    }

    /// The chip of a pool that a share wastes least on, the tightest of equals: the waste it adds, the slots left on
    /// it, and its place in the pool.
    pub(crate) fn best_chip(&self, ix: PoolIx, seen: &Seen<'_>, need: &Need) -> Option<(i64, SlotCount, usize)> {
        let mut best: Option<(i64, SlotCount, usize)> = None;
        let mut tried: Option<(SlotCount, SlotCount)> = None;
        for (at, &free) in seen.slots.iter().enumerate().filter(|(_, free)| **free > 0) {
            let memory = || self.chips[self.pool_chips[ix][at]].facts.memory_mib;
            let wanted = match need.demand {
                ChipDemand::ShareSlots(slots) => slots,
                demand => match demand.slots_of(memory()) {
                    Some(slots) => slots,
                    None => continue,
                },
            };
            if free < wanted || tried == Some((free, wanted)) {
                continue;
            }
            tried = Some((free, wanted));
            let whole = free == SLOTS_PER_CHIP;
            let left = free - wanted;
            let worth = &self.index.worth;
            let before = if whole { 0 } else { worth.gap(free) };
            let mut after = free_of(&seen.pool.free, seen.kept.gaps);
            after.slots -= i64::from(wanted);
            after.whole -= i64::from(whole);
            after.gaps += if left > 0 { worth.gap(left) } else { 0 } - before;
            let candidate = (self.added(seen, need, after), left, at);
            if best.is_none_or(|best| candidate < best) {
                best = Some(candidate);
            }
        }
        best
    }

    fn added(&self, seen: &Seen<'_>, need: &Need, mut after: Free) -> i64 {
        let times = u64::from(need.together);
        after.cpu = after.cpu.saturating_sub(need.cpu.saturating_mul(times));
        after.memory = after.memory.saturating_sub(need.memory.saturating_mul(times));
        let with_chips = need.demand != ChipDemand::Chips(0);
        Worth::added(seen.kept.waste, self.index.worth.waste(&after), with_chips)
    }

    /// The best pool of these classes for a need, leaving out some, with its key.
    pub(crate) fn best_pool<T>(
        &self,
        need: &Need,
        classes: Option<&[usize]>,
        except: &BTreeMap<PoolIx, T>,
    ) -> Option<(u64, PoolIx)> {
        let mut rankings = self.index.rankings.lock().unwrap_or_else(PoisonError::into_inner);
        rankings.current(self, need, classes).best(except)
    }
}

/// A need, and the classes it may be met by; `None` admits all.
type Asked = (Need, Option<Box<[usize]>>);

/// Which pools have changed, and the rankings.
#[derive(Debug, Default)]
struct Rankings {
    /// Pools that changed, in order, since the first that any ranking has not seen.
    changes: Vec<PoolIx>,
    /// Changes dropped from the front.
    dropped: usize,
    /// The last change of each pool.
    last: Vec<usize>,
    by_need: FxHashMap<Asked, Ranking>,
    uses: u64,
}

/// The keys of all pools for one need, and the least of each block.
#[derive(Debug, Default)]
struct Ranking {
    keys: Vec<u64>,
    blocks: Vec<u64>,
    seen: usize,
    used: u64,
}

impl Rankings {
    fn changed(&mut self, pool: PoolIx, pools: usize) {
        if self.last.len() <= pool {
            self.last.resize(pools.max(pool + 1), 0);
        }
        self.last[pool] = self.dropped + self.changes.len();
        self.changes.push(pool);
        if self.changes.len() > 4096.max(2 * pools) {
            let half = self.changes.len() / 2;
            self.changes.drain(..half);
            self.dropped += half;
        }
    }

    /// The ranking for a need, up to date.
    fn current(&mut self, fleet: &Fleet, need: &Need, classes: Option<&[usize]>) -> &Ranking {
        self.uses += 1;
        let key = (*need, classes.map(Box::from));
        let most = (KEYS_MAX / fleet.pools.len().max(1)).clamp(16, 4096);
        if self.by_need.len() >= most && !self.by_need.contains_key(&key) {
            let oldest = self.by_need.iter().min_by_key(|(_, ranking)| ranking.used).map(|(key, _)| key.clone());
            oldest.map(|key| self.by_need.remove(&key));
        }
        let end = self.dropped + self.changes.len();
        let ranking = self.by_need.entry(key).or_default();
        let key_of = |pool: PoolIx| {
            let seen = fleet.seen(pool);
            let admitted = classes.is_none_or(|classes| classes.contains(&seen.pool.class));
            if admitted { fleet.key(pool, &seen, need) } else { NEVER }
        };
        let behind = end - ranking.seen.min(end);
        if ranking.keys.len() != fleet.pools.len() || ranking.seen < self.dropped || behind > fleet.pools.len() {
            ranking.keys.clear();
            for pool in 0..fleet.pools.len() {
                // Nodes alike stand side by side in most fleets.
                let known = ranking.keys.last().filter(|_| pool > 0 && fleet.are_alike(pool - 1, pool)).copied();
                ranking.keys.push(known.unwrap_or_else(|| key_of(pool)));
            }
            ranking.blocks = ranking.keys.chunks(BLOCK).map(least).collect();
        } else {
            // A pool that changed again later is looked at once.
            let news = self.changes[ranking.seen - self.dropped..].iter().zip(ranking.seen..);
            for (&pool, _) in news.filter(|(pool, at)| self.last[**pool] == *at) {
                ranking.set(pool, key_of(pool));
            }
        }
        (ranking.seen, ranking.used) = (end, self.uses);
        ranking
    }
}

fn least(keys: &[u64]) -> u64 {
    keys.iter().copied().min().unwrap_or(NEVER)
}

impl Ranking {
    fn set(&mut self, pool: PoolIx, key: u64) {
        let before = std::mem::replace(&mut self.keys[pool], key);
        let block = pool / BLOCK;
        if key <= self.blocks[block] {
            self.blocks[block] = key;
        } else if before == self.blocks[block] {
            let last = ((block + 1) * BLOCK).min(self.keys.len());
            self.blocks[block] = least(&self.keys[block * BLOCK..last]);
        }
    }

    fn best<T>(&self, except: &BTreeMap<PoolIx, T>) -> Option<(u64, PoolIx)> {
        let mut best = (NEVER, 0);
        for (block, &key) in self.blocks.iter().enumerate().filter(|(_, key)| **key != NEVER) {
            if key >= best.0 {
                continue;
            }
            let (first, last) = (block * BLOCK, ((block + 1) * BLOCK).min(self.keys.len()));
            let keys = self.keys[first..last].iter().enumerate();
            let left: Option<(u64, PoolIx)> = if except.range(first..last).next().is_none() {
                keys.filter(|(_, known)| **known == key).map(|(at, key)| (*key, first + at)).next()
            } else {
                keys.map(|(at, key)| (*key, first + at)).filter(|(_, pool)| !except.contains_key(pool)).min()
            };
            best = left.into_iter().chain([best]).min().unwrap_or(best);
        }
        (best.0 != NEVER).then_some(best)
    }
}
