//! A chip, its slots, and what is known of its state.

use crate::fault::FaultClass;
use crate::id::{ChipId, LeaseId, name_id};
use crate::time::Timestamp;
use serde::{Deserialize, Deserializer, Serialize};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// A count of slots on one chip, 1 to [`SLOTS_PER_CHIP`].
pub type SlotCount = u16;

/// Every chip is divided into this many slots. A whole chip holds all of them; a share holds a part, so the
/// finest share is one thousandth of a chip.
pub const SLOTS_PER_CHIP: SlotCount = 1000;

/// A half-open range of slots of one chip. Invariant: `start < end <= SLOTS_PER_CHIP`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(into = "(u16, u16)", try_from = "(u16, u16)")]
pub struct Slots {
    start: SlotCount,
    end: SlotCount,
}

impl Slots {
    /// All slots of a chip.
    pub const WHOLE: Slots = Slots { start: 0, end: SLOTS_PER_CHIP };

    /// The range `start..end`, or `None` if it is empty or reaches past the chip.
    pub fn new(start: SlotCount, end: SlotCount) -> Option<Slots> {
        (start < end && end <= SLOTS_PER_CHIP).then_some(Slots { start, end })
    }
    /// First slot.
    pub fn start(self) -> SlotCount {
        self.start
    }
    /// One past the last slot.
    pub fn end(self) -> SlotCount {
        self.end
    }
    /// How many slots.
    pub fn count(self) -> SlotCount {
        self.end - self.start
    }
    /// Whether the two ranges share a slot.
    pub fn overlaps(self, other: Slots) -> bool {
        self.start < other.end && other.start < self.end
    }
}

impl From<Slots> for (u16, u16) {
    fn from(slots: Slots) -> Self {
        (slots.start, slots.end)
    }
}

impl TryFrom<(u16, u16)> for Slots {
    type Error = String;
    fn try_from((start, end): (u16, u16)) -> Result<Self, String> {
        Slots::new(start, end).ok_or_else(|| format!("{start}..{end} is no range of slots"))
    }
}

name_id!(
    /// A kind of chip, e.g. `nvidia-h20`, `ascend-910b`.
    DeviceClass
);

impl DeviceClass {
    /// The class of a chip as its driver names it: `("nvidia", "NVIDIA H20-3e")` is `nvidia-h20-3e`,
    /// `("nvidia", "Tesla T4")` is `nvidia-t4`. Words that repeat the vendor or its old product lines are dropped.
    pub fn from_product(vendor: &str, product: &str) -> DeviceClass {
        let vendor = vendor.to_ascii_lowercase();
        let words = product.split(|c: char| !c.is_ascii_alphanumeric()).map(str::to_ascii_lowercase);
        let kept: Vec<String> = words.filter(|w| !w.is_empty() && *w != vendor && w != "tesla").collect();
        let text = format!("{vendor}-{}", kept.join("-"));
        DeviceClass::new(text.get(..text.len().min(128)).unwrap_or("unknown"))
            .unwrap_or_else(|_| DeviceClass("unknown".into()))
    }
}

/// What a chip is: facts that do not change while its node is up, as the driver reported them.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ChipFacts {
    /// The vendor's unique id.
    pub id: ChipId,
    /// The kind of chip.
    pub class: DeviceClass,
    /// Total memory in MiB.
    pub memory_mib: u64,
    /// Who made it: `nvidia`, `ascend`, …
    pub vendor: String,
    /// The product name as the driver spells it.
    pub product: String,
    /// Serial number, where the driver tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serial: Option<String>,
    /// PCI bus id, e.g. `00000000:17:00.0`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pci_bus_id: Option<String>,
    /// NUMA node the chip hangs on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub numa_node: Option<u32>,
    /// Chips of the same node reached over a direct link (NVLink, HCCS), where the driver tells.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub link_peers: Vec<ChipId>,
}

/// What the node last said of a chip's health. "Could not read" is its own state: never idle, never healthy.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum Health {
    /// The driver answers and reports no fault.
    Healthy,
    /// The driver does not answer for this chip; the chip is not granted until it does.
    Unreadable {
        /// What went wrong, for people.
        detail: String,
    },
    /// The driver reports a fault (lost, reset required, memory errors).
    Unhealthy {
        /// What is wrong, for people.
        detail: String,
    },
}

impl Health {
    /// Whether the chip may be granted as far as health goes.
    pub fn is_healthy(&self) -> bool {
        matches!(self, Health::Healthy)
    }
}

/// Why a chip is out of service.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "reason", rename_all = "snake_case")]
pub enum Quarantine {
    /// Its node did not prove it vacant in time. The proof, should it come, is the evidence that ends the quarantine.
    NotVacated {
        /// The ended lease that may still use it.
        lease: LeaseId,
    },
    /// It has a fault. Evidence that the fault is over, or an admin, ends the quarantine.
    Fault {
        /// How grave.
        class: FaultClass,
        /// What was seen.
        detail: String,
    },
    /// Another chip has a fault for which their node must be restarted. Ends with that fault.
    NodeFault {
        /// The other chip.
        chip: ChipId,
    },
    /// An admin took it out of service; only an admin brings it back.
    Admin {
        /// Who.
        who: String,
        /// What for.
        why: String,
    },
    /// Its node has seen a grant that the ledger does not know: a failover forgot it. The proof that nothing of that lease is
    /// left ends the quarantine.
    Orphaned {
        /// The lease the node has seen.
        lease: LeaseId,
        /// The lease epoch it had.
        epoch: u64,
    },
}

impl fmt::Display for Quarantine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Quarantine::Orphaned { lease, epoch } => {
                write!(f, "lease {lease} (epoch {epoch}), which the ledger has forgotten, is not proven gone")
            }
            Quarantine::NotVacated { lease } => write!(f, "not proven vacant of ended lease {lease} in time"),
            Quarantine::Fault { class, detail } => write!(f, "fault of class {}: {detail}", class.as_str()),
            Quarantine::NodeFault { chip } => write!(f, "a fault of chip {chip} asks for a restart of their node"),
            Quarantine::Admin { who, why } => write!(f, "taken out of service by {who}: {why}"),
        }
    }
}

/// The one state of a chip that people and programs see.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ChipState {
    /// Nobody holds a slot and the chip may be granted.
    Free,
    /// At least one live lease holds slots.
    Held,
    /// A lease that held slots has ended and the node has not yet proven them vacant.
    Reclaiming,
    /// Out of service, with the evidence.
    Quarantined(Quarantine),
    /// Its node is silent since then, or has not reported to this leader; never granted.
    Unknown(Timestamp),
}

impl fmt::Display for ChipState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ChipState::Free => "free",
            ChipState::Held => "held",
            ChipState::Reclaiming => "reclaiming",
            ChipState::Quarantined(_) => "quarantined",
            ChipState::Unknown(_) => "unknown",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_drop_the_vendor_and_its_product_lines() {
        let class = |product| DeviceClass::from_product("nvidia", product).to_string();
        assert_eq!(class("NVIDIA H20-3e"), "nvidia-h20-3e");
        assert_eq!(class("Tesla V100-SXM2-32GB"), "nvidia-v100-sxm2-32gb");
        assert_eq!(DeviceClass::from_product("ascend", "910B").to_string(), "ascend-910b");
    }

    #[test]
    fn slots_never_reach_past_the_chip() {
        assert!(Slots::new(0, SLOTS_PER_CHIP + 1).is_none() && Slots::new(5, 5).is_none());
        assert!(!Slots::new(0, 500).expect("range").overlaps(Slots::new(500, 1000).expect("range")));
    }
}
