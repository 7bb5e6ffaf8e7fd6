//! What the chips of each device class are up to, counted once for all that is explained of a cluster: the only part of
//! an explanation that looks at every chip.

use crate::cluster::Cluster;
use crate::place::Scope;

/// The counts of one class.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Counts {
    /// Slots that are free, on nodes that report.
    free_slots: u64,
    /// Chips on nodes that do not report.
    unknown: u64,
    /// Chips out of service, on nodes that report.
    broken: u64,
}

/// The counts of all classes, by their index.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Survey {
    classes: Vec<Counts>,
}

impl Survey {
    pub(super) fn of(cluster: &Cluster) -> Survey {
        let mut classes = vec![Counts::default(); cluster.fleet.classes.len()];
        for (pool, chips) in cluster.fleet.pools.iter().zip(&cluster.fleet.pool_chips) {
            let Some(counts) = classes.get_mut(pool.class) else { continue };
            if cluster.fleet.nodes[pool.node].unknown_since.is_some() {
                counts.unknown += chips.len() as u64;
                continue;
            }
            for chip in chips.iter().map(|&chip| &cluster.fleet.chips[chip]) {
                if chip.in_service() {
                    counts.free_slots += u64::from(chip.free_slots());
                } else {
                    counts.broken += 1;
                }
            }
        }
        Survey { classes }
    }

    /// Free slots of the classes of a scope.
    pub(super) fn free_slots(&self, scope: &Scope) -> u64 {
        let admitted = |class: &usize| scope.classes.as_ref().is_none_or(|classes| classes.contains(class));
        (0..self.classes.len()).filter(admitted).map(|class| self.classes[class].free_slots).sum()
    }

    /// Chips of these classes on silent nodes, and chips of them that are out of service.
    pub(super) fn unusable(&self, classes: &[usize]) -> (u64, u64) {
        let counts = || classes.iter().filter_map(|&class| self.classes.get(class));
        (counts().map(|class| class.unknown).sum(), counts().map(|class| class.broken).sum())
    }
}
