//! Small makers of readings and orders for this crate's unit tests.

use crate::faults::Signs;
use crate::{ChipNow, NodeReading};
use chiptide_api::chip::{ChipProcess, Reading};
use chiptide_api::node::{ChipBody, ChipOrder, HealthBody, LeaseOrder, VacateOrder};
use std::collections::BTreeMap;
use tokio::time::Instant;
use uuid::Uuid;

/// A healthy, empty chip.
pub(crate) fn chip(id: &str) -> ChipNow {
    let chip = ChipBody {
        id: id.to_owned(),
        vendor: "nvidia".to_owned(),
        product: "NVIDIA H20".to_owned(),
        device_class: None,
        memory_mib: 97_871,
        serial: None,
        pci_bus_id: None,
        numa_node: None,
        link_peers: Vec::new(),
        health: HealthBody::Healthy,
    };
    let reading = Reading { processes: Some(Vec::new()), ..Reading::default() };
    ChipNow { chip, reading, owners: BTreeMap::new(), signs: Signs::default() }
}

impl ChipNow {
    /// With one more process, owned by `lease` where that is known.
    pub(crate) fn running(mut self, pid: u32, lease: Option<u128>) -> ChipNow {
        self.reading.processes.get_or_insert_default().push(ChipProcess { pid, memory_mib: Some(1024) });
        self.owners.extend(lease.map(|lease| (pid, Uuid::from_u128(lease))));
        self
    }

    pub(crate) fn unreadable(self) -> ChipNow {
        let health = HealthBody::Unreadable { detail: "too slow".to_owned() };
        ChipNow { chip: ChipBody { health, ..self.chip }, ..self }
    }

    pub(crate) fn lost(self) -> ChipNow {
        let health = HealthBody::Unhealthy { detail: "chip lost".to_owned() };
        ChipNow { chip: ChipBody { health, ..self.chip }, ..self }
    }
}

/// A reading taken at `taken`.
pub(crate) fn reading_at<const N: usize>(taken: Instant, chips: [ChipNow; N]) -> NodeReading {
    NodeReading { taken, driver_version: None, chips: chips.into() }
}

/// A live lease on one chip.
pub(crate) fn lease(id: u128, chip: &str, epoch: u64) -> LeaseOrder {
    let chips = vec![ChipOrder { chip: chip.to_owned(), slots: 500, epoch }];
    LeaseOrder {
        lease: Uuid::from_u128(id),
        job: Uuid::from_u128(id),
        confirmed: false,
        deadline: None,
        ends_in: None,
        fence: None,
        chips,
        work: None,
    }
}

/// An order to prove a chip vacant.
pub(crate) fn vacate(id: u128, chip: &str, epoch: u64) -> VacateOrder {
    VacateOrder { chip: chip.to_owned(), lease: Uuid::from_u128(id), epoch }
}
