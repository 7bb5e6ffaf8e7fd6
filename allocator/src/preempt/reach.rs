//! What there would be if everyone left who may be taken: told per pool and per class without pricing anything, so that
//! a job that cannot be helped costs next to nothing.
//!
//! Kept for each set of bands that some job was admitted to, and kept in step by the journal of changed pools.

use super::stakes::{PoolStakes, Stakes};
use crate::cluster::Cluster;
use crate::fleet::PoolIx;
use crate::place::Scope;
use crate::room::Need;
use chiptide_model::{ChipDemand, SLOTS_PER_CHIP, SlotCount};

/// Sets of bands remembered; a cluster has few distinct priorities.
const SETS_MAX: usize = 16;

/// Figures kept from one search to the next.
#[derive(Clone, Debug, Default)]
pub(crate) struct Searches {
    sets: Vec<Reach>,
}

/// What each pool and class could give to one set of bands.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reach {
    admitted: Vec<bool>,
    tick: u64,
    /// Chips of each pool that could be wholly free.
    whole: Vec<u16>,
    /// Slots that could be free on the best chip of each pool.
    most: Vec<SlotCount>,
    /// How many pools of each class could have so many chips wholly free.
    pools_with: Vec<Vec<u32>>,
    classes: Vec<usize>,
}

impl Searches {
    /// The reach of a set of bands, up to date.
    pub(crate) fn reach(&mut self, cluster: &Cluster, admitted: &[bool]) -> &Reach {
        let stakes = &cluster.stakes;
        let at = match self.sets.iter().position(|set| set.admitted == admitted) {
            Some(at) => at,
            None => {
                if self.sets.len() == SETS_MAX {
                    self.sets.remove(0);
                }
                self.sets.push(Reach { admitted: admitted.to_vec(), tick: u64::MAX, ..Reach::default() });
                self.sets.len() - 1
            }
        };
        self.sets[at].catch_up(cluster, stakes);
        &self.sets[at]
    }
}

impl Reach {
    /// The reach of books of their own.
    pub(crate) fn of(cluster: &Cluster, stakes: &Stakes, admitted: &[bool]) -> Reach {
        let mut reach = Reach { admitted: admitted.to_vec(), tick: u64::MAX, ..Reach::default() };
        reach.catch_up(cluster, stakes);
        reach
    }

    fn catch_up(&mut self, cluster: &Cluster, stakes: &Stakes) {
        match stakes.changed_since(self.tick) {
            Some(changed) if self.whole.len() == stakes.pools.len() => {
                for &pool in changed {
                    self.count(stakes, pool as PoolIx);
                }
            }
            _ => {
                self.whole = vec![0; stakes.pools.len()];
                self.most = vec![0; stakes.pools.len()];
                self.classes = cluster.fleet.pools.iter().map(|pool| pool.class).collect();
                self.pools_with = vec![vec![0]; cluster.fleet.classes.len()];
                for class in &self.classes {
                    self.pools_with[*class][0] += 1;
                }
                for pool in 0..stakes.pools.len() {
                    self.count(stakes, pool);
                }
            }
        }
        self.tick = stakes.tick();
    }

    fn count(&mut self, stakes: &Stakes, pool: PoolIx) {
        let admitted = |holder: u32| self.admitted[stakes.bases[holder as usize].band as usize];
        let (whole, most) = reach_of(&stakes.pools[pool], admitted);
        let with = &mut self.pools_with[self.classes[pool]];
        with[usize::from(self.whole[pool])] -= 1;
        with.resize(with.len().max(usize::from(whole) + 1), 0);
        with[usize::from(whole)] += 1;
        (self.whole[pool], self.most[pool]) = (whole, most);
    }

    /// Whether a replica could fit this pool, as far as its chips tell.
    pub(crate) fn could_fit(&self, pool: PoolIx, need: &Need) -> bool {
        match need.demand {
            ChipDemand::Chips(chips) => self.whole[pool] >= chips,
            ChipDemand::ShareSlots(slots) => self.most[pool] >= slots,
            ChipDemand::ShareMemory(_) => self.most[pool] > 0,
        }
    }

    /// Whether so many replicas could fit the classes of a scope, as far as chips tell. `true` is a maybe.
    pub(crate) fn could_hold(&self, scope: &Scope, need: &Need, replicas: u32) -> bool {
        let ChipDemand::Chips(chips) = need.demand else {
            return (0..self.whole.len()).any(|pool| self.could_fit(pool, need));
        };
        let admits = |class: usize| scope.classes.as_ref().is_none_or(|classes| classes.contains(&class));
        let classes = self.pools_with.iter().enumerate().filter(|(class, _)| admits(*class));
        let fit = |(whole, pools): (usize, &u32)| (whole / usize::from(chips.max(1))) as u64 * u64::from(*pools);
        classes.flat_map(|(_, with)| with.iter().enumerate().map(fit)).sum::<u64>() >= u64::from(replicas)
    }
}

fn reach_of(pool: &PoolStakes, admitted: impl Fn(u32) -> bool) -> (u16, SlotCount) {
    let sole = pool.sole.iter().filter(|(holder, _)| admitted(*holder)).map(|(_, chips)| chips).sum::<u16>();
    let mixed = pool.mixed.iter().map(|chip| chip.reach(&admitted));
    let (mut whole, mut most) = (pool.whole + sole, 0);
    for slots in mixed {
        whole += u16::from(slots == SLOTS_PER_CHIP);
        most = most.max(slots);
    }
    (whole, if whole > 0 { SLOTS_PER_CHIP } else { most })
}
