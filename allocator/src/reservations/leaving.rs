//! When the holders of chips are known to leave: what a reservation may rely on.

use crate::cluster::Cluster;
use chiptide_model::{Lease, LeaseId, LeaseState, Timestamp};
use rustc_hash::FxHashMap;
use std::collections::BTreeSet;

/// Leases with a known end, in the order in which their chips will be vacant.
#[derive(Clone, PartialEq, Debug, Default)]
pub(crate) struct Leaving {
    in_order: BTreeSet<(Timestamp, LeaseId)>,
    known: FxHashMap<LeaseId, Timestamp>,
}

impl Leaving {
    /// Notes by when the chips of a lease are vacant; `None` where nobody knows.
    pub(crate) fn set(&mut self, lease: LeaseId, by: Option<Timestamp>) {
        let before = match by {
            Some(by) => self.known.insert(lease, by),
            None => self.known.remove(&lease),
        };
        if let Some(before) = before {
            self.in_order.remove(&(before, lease));
        }
        self.in_order.extend(by.map(|by| (by, lease)));
    }

    /// By when the chips of a lease are vacant.
    pub(crate) fn by(&self, lease: LeaseId) -> Option<Timestamp> {
        self.known.get(&lease).copied()
    }

    /// Every lease with a known end, the first to leave first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Timestamp, LeaseId)> {
        self.in_order.iter().copied()
    }
}

impl Cluster {
    /// By when the chips of a lease are proven vacant or quarantined: its end, its grace, and the time for the proof.
    /// A lease that must be renewed may be renewed for ever, so only `max_duration` and notice count.
    pub(crate) fn vacant_by(&self, lease: &Lease) -> Option<Timestamp> {
        match &lease.state {
            LeaseState::Active => {
                let grace = self.jobs.get(&lease.job)?.spec.grace;
                lease.ends_at.map(|end| end + grace + self.policy.bounds.vacate)
            }
            LeaseState::Revoking { deadline, .. } => Some(*deadline + self.policy.bounds.vacate),
            LeaseState::Ended { .. } => {
                let chips = lease.placements.iter().flat_map(|placement| &placement.holds);
                let holds = chips.filter_map(|hold| self.chip(&hold.chip)).flat_map(|chip| &chip.holds);
                holds.filter(|hold| hold.lease == lease.id).filter_map(|hold| hold.vacate_by).max()
            }
        }
    }

    /// Notes when a lease leaves, after anything that decides it has changed.
    pub(crate) fn note_leaving(&mut self, id: LeaseId) {
        let by = self.leases.get(&id).and_then(|lease| self.vacant_by(lease));
        self.reservations.leaving.set(id, by);
    }

    /// Notes it for every lease: the policy has changed.
    pub(crate) fn note_all_leaving(&mut self) {
        let leases: Vec<LeaseId> = self.leases.keys().copied().collect();
        leases.into_iter().for_each(|lease| self.note_leaving(lease));
    }
}
