//! Vendors' rules for the chips of one replica: how many, and which of them together.

use crate::fleet::{Fleet, NO_CLASS, PoolIx};
use chiptide_model::{DeviceClass, Policy, ReplicaRule, SLOTS_PER_CHIP, SlotCount};
use std::collections::BTreeMap;

/// Sets of one node that are told apart; chips beyond them go to no replica that must lie inside a set.
const SETS_MAX: usize = 32;

/// The rules in force, by device class. A class without one is free of rules.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Rules(BTreeMap<DeviceClass, ReplicaRule>);

/// Whole free chips under a rule.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RuledFree {
    /// Numbers of chips a replica may have, as bits; none set means any.
    counts: u64,
    /// Chips of a set; 0 where there are no sets.
    set: u16,
    /// Whole free chips of each set.
    in_sets: [u8; SETS_MAX],
}

impl Rules {
    pub(crate) fn of(policy: &Policy) -> Rules {
        let rules =
            policy.device_classes.iter().filter_map(|(class, known)| Some((class.clone(), known.replicas.clone()?)));
        Rules(rules.collect())
    }

    /// The whole free chips of a pool under the rule for its class.
    pub(crate) fn free(&self, fleet: &Fleet, pool: PoolIx, slots: &[SlotCount]) -> RuledFree {
        let Some(rule) = self.rule(fleet, pool) else { return RuledFree::default() };
        let mut free = RuledFree {
            counts: rule
                .chips
                .iter()
                .filter(|chips| (1..=64).contains(*chips))
                .fold(0, |bits, chips| bits | 1 << (chips - 1)),
            set: rule.set.map_or(0, |set| set.get()),
            in_sets: [0; SETS_MAX],
        };
        if free.set > 0 {
            for (set, slots) in self.sets(fleet, pool).into_iter().zip(slots) {
                if let Some(count) = free.in_sets.get_mut(set).filter(|_| *slots == SLOTS_PER_CHIP) {
                    *count = count.saturating_add(1);
                }
            }
        }
        free
    }

    fn rule(&self, fleet: &Fleet, pool: PoolIx) -> Option<&ReplicaRule> {
        let class = fleet.pools[pool].class;
        if self.0.is_empty() || class == NO_CLASS { None } else { self.0.get(&fleet.classes[class]) }
    }

    /// The set that each chip of a pool belongs to, by its position on the node; all in one where there are no sets.
    pub(crate) fn sets(&self, fleet: &Fleet, pool: PoolIx) -> Vec<usize> {
        let chips = &fleet.pool_chips[pool];
        let Some(set) = self.rule(fleet, pool).and_then(|rule| rule.set) else { return vec![0; chips.len()] };
        let node = &fleet.nodes[fleet.pools[pool].node].chips;
        let position = |chip: &usize| node.iter().position(|known| known == chip).unwrap_or(0);
        chips.iter().map(|chip| position(chip) / usize::from(set.get())).collect()
    }

    /// Chips of a set of this pool, if its class has sets.
    pub(crate) fn set_size(&self, fleet: &Fleet, pool: PoolIx) -> Option<u16> {
        Some(self.rule(fleet, pool)?.set?.get())
    }
}

impl RuledFree {
    /// Whether there is a rule.
    pub(crate) fn binds(&self) -> bool {
        self.counts != 0 || self.set != 0
    }

    /// How many replicas of `chips` the rule leaves room for among `whole` free chips.
    pub(crate) fn replicas(&self, chips: u16, whole: u16) -> u64 {
        if chips == 0 || (self.counts != 0 && (chips > 64 || self.counts >> (chips - 1) & 1 == 0)) {
            return 0;
        }
        if self.set == 0 {
            return u64::from(whole / chips);
        }
        if chips <= self.set {
            return self.in_sets.iter().map(|free| u64::from(u16::from(*free) / chips)).sum();
        }
        let full = self.in_sets.iter().filter(|free| u16::from(**free) == self.set).count() as u64;
        full / u64::from(chips.div_ceil(self.set))
    }
}
