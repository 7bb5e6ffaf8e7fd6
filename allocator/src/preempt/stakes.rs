//! The books of the search for victims: what each lease that may be taken holds, pool by pool, so that pricing a pool
//! reads a few numbers beside each other instead of chips, leases and jobs.
//!
//! Kept in step with every event, a node at a time. Everything here follows from the rest of the cluster: it is not
//! stored, and `check` counts it anew.

use super::cost::CostBasis;
use crate::fleet::{ChipIx, NodeIx, PoolIx};
use crate::rights::Band;
use chiptide_model::{LeaseId, SLOTS_PER_CHIP, SlotCount};
use rustc_hash::FxHashMap;
use std::collections::BTreeMap;

/// Index of a holder; good until its lease is forgotten.
pub(crate) type HolderIx = u32;

/// How a lease stands towards those who look for chips.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Stand {
    /// May be taken by whoever its band admits.
    Takeable,
    /// Goes in any case, soon: its chips cost nothing.
    Leaving,
}

/// A lease that may be taken or is leaving.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Holder {
    pub lease: LeaseId,
    pub stand: Stand,
    /// CPU and memory on each of its nodes, in their order.
    pub parts: Vec<Part>,
}

/// A lease's share of one node.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Part {
    pub node: NodeIx,
    pub cpu: i64,
    pub memory: i64,
}

/// Who has what of one pool.
#[derive(Clone, PartialEq, Debug, Default)]
pub(crate) struct PoolStakes {
    /// Chips wholly free now, or once those are gone who are leaving.
    pub whole: u16,
    /// Memory of its smallest chip.
    pub memory_mib: u64,
    /// Leases that hold whole chips alone, and how many.
    pub sole: Vec<(HolderIx, u16)>,
    /// Chips that several share, or of which a part is free.
    pub mixed: Vec<MixedChip>,
}

/// A chip that is neither wholly free nor wholly one taker's.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct MixedChip {
    pub chip: ChipIx,
    /// Slots free now, or once those are gone who are leaving.
    pub free: SlotCount,
    /// Leases that may be taken, and their slots.
    pub held: Vec<(HolderIx, SlotCount)>,
}

impl MixedChip {
    /// A lease holds so many slots more: two replicas of a gang may share a chip.
    pub(super) fn add(&mut self, holder: HolderIx, slots: SlotCount) {
        match self.held.iter_mut().find(|(known, _)| *known == holder) {
            Some((_, held)) => *held += slots,
            None => self.held.push((holder, slots)),
        }
    }

    /// Slots free once everyone is gone who may be taken.
    pub(crate) fn reach(&self, admitted: impl Fn(HolderIx) -> bool) -> SlotCount {
        self.held.iter().filter(|(holder, _)| admitted(*holder)).map(|(_, slots)| slots).sum::<SlotCount>() + self.free
    }
}

/// Changes of pools that are remembered for those who keep figures of their own about them.
const JOURNAL_MAX: usize = 1 << 16;

/// The books.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stakes {
    pub pools: Vec<PoolStakes>,
    /// The pools of each node: first, and one past the last.
    pub(super) ranges: Vec<(u32, u32)>,
    /// CPU and memory of each node that are free now, or once those are gone who are leaving; negative where promises
    /// wait for more than that.
    pub spare: Vec<(i64, i64)>,
    pub holders: Vec<Holder>,
    /// What taking each holder costs; beside, not inside, [`Holder`]: pricing reads only this.
    pub bases: Vec<CostBasis>,
    pub bands: Vec<Band>,
    band_users: Vec<usize>,
    by_band: FxHashMap<Band, u32>,
    pub(super) by_lease: FxHashMap<LeaseId, HolderIx>,
    vacant: Vec<HolderIx>,
    leaving: usize,
    /// Takeable extra replicas by priority.
    extras: BTreeMap<i32, usize>,
    journal: Vec<u32>,
    journal_from: u64,
}

impl Stakes {
    /// The holder of a lease that may be taken or is leaving.
    pub(crate) fn holder(&self, lease: LeaseId) -> Option<HolderIx> {
        self.by_lease.get(&lease).copied()
    }

    /// The band of a lease that may be taken.
    pub(crate) fn band_of(&self, lease: LeaseId) -> Option<&Band> {
        let ix = self.holder(lease)? as usize;
        (self.holders[ix].stand == Stand::Takeable).then(|| &self.bands[self.bases[ix].band as usize])
    }

    /// Whether there are extra replicas that a job of this priority may take.
    pub(crate) fn any_extra(&self, priority: i32) -> bool {
        self.extras.first_key_value().is_some_and(|(lowest, _)| *lowest <= priority)
    }

    /// The pools of a node.
    pub(crate) fn pools_of(&self, node: NodeIx) -> std::ops::Range<PoolIx> {
        let (first, end) = self.ranges[node];
        first as PoolIx..end as PoolIx
    }

    /// Whether any lease is leaving.
    pub(crate) fn any_leaving(&self) -> bool {
        self.leaving > 0
    }

    /// Where the journal of changed pools stands.
    pub(crate) fn tick(&self) -> u64 {
        self.journal_from + self.journal.len() as u64
    }

    /// Pools that changed since a tick, or `None` if that is too long ago to tell.
    pub(crate) fn changed_since(&self, tick: u64) -> Option<&[u32]> {
        let from = usize::try_from(tick.checked_sub(self.journal_from)?).ok()?;
        self.journal.get(from..)
    }

    /// Which bands are in use; those out of use may hold anything.
    pub(crate) fn bands_used(&self) -> impl Iterator<Item = Option<&Band>> {
        self.bands.iter().zip(&self.band_users).map(|(band, users)| (*users > 0).then_some(band))
    }

    fn band_ix(&mut self, band: Band) -> u32 {
        let at = match self.by_band.get(&band) {
            Some(&at) => at,
            None => {
                let spare = self.band_users.iter().position(|users| *users == 0);
                let at = spare.unwrap_or(self.bands.len());
                if at == self.bands.len() {
                    self.bands.push(band.clone());
                    self.band_users.push(0);
                } else {
                    self.by_band.remove(&self.bands[at]);
                    self.bands[at] = band.clone();
                    // Figures kept by band mean something else from here on.
                    self.forget_journal();
                }
                self.by_band.insert(band, at as u32);
                at as u32
            }
        };
        self.band_users[at as usize] += 1;
        at
    }

    pub(super) fn forget_journal(&mut self) {
        self.journal_from = self.tick() + 1;
        self.journal.clear();
    }

    pub(super) fn put(&mut self, holder: Holder, mut basis: CostBasis, band: Band) {
        self.remove(holder.lease);
        basis.band = self.band_ix(band);
        match holder.stand {
            Stand::Leaving => self.leaving += 1,
            Stand::Takeable if basis.extra => {
                *self.extras.entry(self.bands[basis.band as usize].priority).or_default() += 1;
            }
            Stand::Takeable => {}
        }
        let lease = holder.lease;
        let at = match self.vacant.pop() {
            Some(at) => {
                (self.holders[at as usize], self.bases[at as usize]) = (holder, basis);
                at
            }
            None => {
                self.holders.push(holder);
                self.bases.push(basis);
                (self.holders.len() - 1) as HolderIx
            }
        };
        self.by_lease.insert(lease, at);
    }

    /// Forgets a lease that holds nothing any more, or can no longer be taken.
    pub(crate) fn remove(&mut self, lease: LeaseId) {
        let Some(at) = self.by_lease.remove(&lease) else { return };
        let (holder, basis) = (&self.holders[at as usize], &self.bases[at as usize]);
        let band = basis.band as usize;
        match holder.stand {
            Stand::Leaving => self.leaving -= 1,
            Stand::Takeable if basis.extra => {
                let priority = self.bands[band].priority;
                if let Some(count) = self.extras.get_mut(&priority) {
                    *count -= 1;
                    if *count == 0 {
                        self.extras.remove(&priority);
                    }
                }
            }
            Stand::Takeable => {}
        }
        self.band_users[band] -= 1;
        self.vacant.push(at);
    }

    pub(super) fn note_changed(&mut self, pool: PoolIx) {
        if self.journal.len() == JOURNAL_MAX {
            self.forget_journal();
        }
        self.journal.push(pool as u32);
    }
}

impl Holder {
    /// Its share of a node.
    pub(crate) fn part(&self, node: NodeIx) -> Option<&Part> {
        self.parts.binary_search_by_key(&node, |part| part.node).ok().map(|at| &self.parts[at])
    }
}

impl PoolStakes {
    pub(super) fn add_sole(&mut self, holder: HolderIx) {
        match self.sole.iter_mut().find(|(known, _)| *known == holder) {
            Some((_, chips)) => *chips += 1,
            None => self.sole.push((holder, 1)),
        }
    }

    pub(super) fn add_mixed(&mut self, chip: MixedChip) {
        if chip.free == SLOTS_PER_CHIP {
            self.whole += 1;
        } else if chip.free > 0 || !chip.held.is_empty() {
            self.mixed.push(chip);
        }
    }
}
