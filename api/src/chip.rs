//! Chips as the API shows them.

use crate::fault::FaultView;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

/// One chip: what it is, who holds it, and its newest reading.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
pub struct ChipView {
    /// The vendor's unique id.
    pub id: String,
    /// Its node.
    pub node: String,
    /// Its device class.
    pub device_class: String,
    /// Product name as the driver spells it.
    pub product: String,
    /// Total memory in MiB.
    pub memory_mib: u64,
    /// `free`, `held`, `reclaiming`, `quarantined` or `unknown`.
    pub state: String,
    /// Evidence of a quarantine, or what is wrong with its health.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Since when it is unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unknown_since: Option<DateTime<Utc>>,
    /// `healthy`, `unreadable` or `unhealthy`.
    pub health: String,
    /// Grows with every grant of the chip: the fencing token.
    pub lease_epoch: u64,
    /// Slots nobody holds or is promised, of 1000.
    pub free_slots: u16,
    /// Who holds it, live leases and those still being reclaimed.
    pub holders: Vec<HolderView>,
    /// The job it is promised to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub promised_to: Option<Uuid>,
    /// Serial number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serial: Option<String>,
    /// PCI bus id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pci_bus_id: Option<String>,
    /// NUMA node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub numa_node: Option<u32>,
    /// Chips reached over a direct link.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub link_peers: Vec<String>,
    /// Its faults, open and past, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub faults: Vec<FaultView>,
    /// The newest reading; absent until its node has reported, and while it cannot be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reading: Option<ReadingView>,
}

/// Why an admin takes a chip out of service, or brings it back.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ServiceBody {
    /// The reason: kept with the chip and in the event log.
    pub reason: String,
}

/// One holder of slots of a chip.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct HolderView {
    /// The lease.
    pub lease: Uuid,
    /// Its job.
    pub job: Uuid,
    /// How many of the chip's 1000 slots.
    pub slots: u16,
    /// The chip's lease epoch at the grant.
    pub epoch: u64,
    /// Whether the lease has ended and the node must prove the slots vacant.
    pub reclaiming: bool,
}

/// What was measured on a chip. A missing value was not readable; it is never zero.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Reading {
    /// Share of time a kernel ran, 0 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub utilization: Option<f32>,
    /// Memory in use, MiB, without what the driver reserves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_used_mib: Option<u64>,
    /// Power draw, watts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub power_watts: Option<f32>,
    /// Temperature, degrees Celsius.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub temperature_celsius: Option<f32>,
    /// Clock of the compute units, MHz.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock_mhz: Option<u32>,
    /// Clock of the memory, MHz.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_clock_mhz: Option<u32>,
    /// Corrected memory errors since boot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ecc_corrected: Option<u64>,
    /// Uncorrected memory errors since boot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ecc_uncorrected: Option<u64>,
    /// Processes that use the chip; absent when the list could not be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub processes: Option<Vec<ChipProcess>>,
}

/// A process the driver lists on a chip.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ChipProcess {
    /// Process id on the node.
    pub pid: u32,
    /// Chip memory it holds, MiB, where the driver tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_mib: Option<u64>,
}

/// A reading with the time it reached the daemon.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
pub struct ReadingView {
    /// When the daemon received it.
    pub at: DateTime<Utc>,
    /// The values.
    #[serde(flatten)]
    pub values: Reading,
}
