//! Who holds which slots, told by the events alone: a second opinion that shares nothing with the allocator's books.

use chiptide_model::{ChipId, Event, LeaseId, Slots};
use std::collections::HashMap;

/// Slots of every chip that some lease may still use.
#[derive(Debug, Default)]
pub(super) struct Holders {
    by_chip: HashMap<ChipId, Vec<(LeaseId, Slots)>>,
    /// Grants of slots that another lease still had.
    pub(super) double_grants: u64,
}

impl Holders {
    /// Follows one event. A chip is let go of by the proof of its vacancy only, never by the end of a lease.
    pub(super) fn follow(&mut self, event: &Event) {
        match event {
            Event::LeaseGranted { lease, placements, .. } => {
                for hold in placements.iter().flat_map(|placement| &placement.holds) {
                    // Looked up first: a chip that was held before needs no copy of its name.
                    let held = match self.by_chip.get_mut(&hold.chip) {
                        Some(held) => held,
                        None => self.by_chip.entry(hold.chip.clone()).or_default(),
                    };
                    for slots in &hold.slots {
                        self.double_grants += u64::from(held.iter().any(|(_, taken)| taken.overlaps(*slots)));
                        held.push((*lease, *slots));
                    }
                }
            }
            Event::ChipVacated { chip, lease, .. } => {
                if let Some(held) = self.by_chip.get_mut(chip) {
                    held.retain(|(holder, _)| holder != lease);
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chiptide_model::{Hold, JobId, NodeId, Placement};
    use uuid::Uuid;

    fn granted(lease: u128) -> Event {
        let hold = Hold { chip: ChipId::new("c").expect("a name"), slots: vec![Slots::WHOLE], epoch: 1 };
        let node = NodeId::new("n").expect("a name");
        Event::LeaseGranted {
            extra: false,
            lease: LeaseId(Uuid::from_u128(lease)),
            job: JobId(Uuid::nil()),
            attempt: 1,
            placements: vec![Placement { replica: 0, node, holds: vec![hold], cpu_milli: 0, memory_mib: 0 }],
            expires_at: None,
            ends_at: None,
        }
    }

    #[test]
    fn a_chip_granted_before_it_is_vacant_is_found() {
        let vacated = Event::ChipVacated {
            chip: ChipId::new("c").expect("a name"),
            lease: LeaseId(Uuid::from_u128(1)),
            epoch: 1,
        };
        let mut holders = Holders::default();
        [granted(1), vacated, granted(2)].iter().for_each(|event| holders.follow(event));
        assert_eq!(holders.double_grants, 0);
        holders.follow(&granted(3));
        assert_eq!(holders.double_grants, 1);
    }
}
