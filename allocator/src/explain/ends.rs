//! The ends that are known: notices that run out, longest durations, chips that must be proven vacant. In order of time.

use super::holders::leaves_by;
use crate::cluster::{Cluster, Timer};
use chiptide_model::{LeaseId, Timestamp};
use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};

/// Leases in the order in which they will have left at the latest. Lazy: the cluster keeps its timers sorted, and only as
/// many are looked at as are asked for.
pub(super) struct Ends<'a> {
    cluster: &'a Cluster,
    timers: std::collections::btree_set::Iter<'a, (Timestamp, Timer)>,
    /// Ends found and not told yet: a lease's end may lie after its timer (a renewal comes first, its grace after).
    found: BinaryHeap<Reverse<(Timestamp, LeaseId)>>,
    seen: BTreeSet<LeaseId>,
    /// The time of the last timer met: no end before it can be found any more.
    reached: Option<Timestamp>,
}

impl<'a> Ends<'a> {
    pub(super) fn of(cluster: &'a Cluster) -> Ends<'a> {
        let timers = cluster.timers.iter();
        Ends { cluster, timers, found: BinaryHeap::new(), seen: BTreeSet::new(), reached: None }
    }
}

impl Iterator for Ends<'_> {
    type Item = (Timestamp, LeaseId);

    fn next(&mut self) -> Option<(Timestamp, LeaseId)> {
        loop {
            let first = self.found.peek().map(|Reverse((at, _))| *at);
            if first.is_some_and(|at| self.reached.is_some_and(|reached| at <= reached)) {
                return self.found.pop().map(|Reverse(end)| end);
            }
            let Some((at, timer)) = self.timers.next() else {
                return self.found.pop().map(|Reverse(end)| end);
            };
            self.reached = Some(*at);
            let (Timer::Lease(id) | Timer::Vacate(_, id)) = timer else { continue };
            let end = self.cluster.leases.get(id).and_then(|lease| leaves_by(self.cluster, lease));
            if let Some(end) = end.filter(|_| self.seen.insert(*id)) {
                self.found.push(Reverse((end.max(*at), *id)));
            }
        }
    }
}
