//! Nodes: what an agent sends, what it is told, and how the API shows a node.

use crate::chip::Reading;
use crate::fault::FaultBody;
use crate::logs::LogOrder;
use crate::work::{LadderReport, WorkOrder, WorkReport};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::ToSchema;
use uuid::Uuid;

/// An agent's registration: who it is and everything its node has. Answered by a [`RegisterView`].
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RegisterBody {
    /// The kernel's boot id: another one means the node has rebooted, and nothing of an older lease runs there.
    pub boot_id: String,
    /// Minted afresh by every incarnation of the agent.
    pub agent_id: Uuid,
    /// Version of the agent.
    pub agent_version: String,
    /// CPU offered to jobs, thousandths of a core.
    pub cpu_milli: u64,
    /// Memory offered to jobs, MiB.
    pub memory_mib: u64,
    /// The rack, if known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rack: Option<String>,
    /// The link fabric (NVLink, HCCS) that joins its chips with those of other nodes, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link_domain: Option<String>,
    /// Labels from the agent's configuration.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Version of the vendor driver.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub driver_version: Option<String>,
    /// Every chip of the node.
    pub chips: Vec<ChipBody>,
    /// The highest lease epoch this node's agents have seen of each chip: a database that has forgotten its last commits
    /// learns from it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub seen: Vec<SeenBody>,
}

/// The highest lease epoch seen of a chip.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SeenBody {
    /// The chip.
    pub chip: String,
    /// The lease that had it.
    pub lease: Uuid,
    /// The epoch.
    pub epoch: u64,
}

/// One chip of a registration.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ChipBody {
    /// The vendor's unique id.
    pub id: String,
    /// The vendor: `nvidia`, `ascend`, …
    pub vendor: String,
    /// Product name as the driver spells it.
    pub product: String,
    /// The device class; derived from vendor and product when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_class: Option<String>,
    /// Total memory, MiB.
    pub memory_mib: u64,
    /// Serial number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serial: Option<String>,
    /// PCI bus id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pci_bus_id: Option<String>,
    /// NUMA node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub numa_node: Option<u32>,
    /// Chips of the same node reached over a direct link.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub link_peers: Vec<String>,
    /// Its health.
    pub health: HealthBody,
}

/// A chip's health as its agent sees it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(tag = "state", rename_all = "snake_case", deny_unknown_fields)]
pub enum HealthBody {
    /// The driver answers and reports no fault.
    Healthy,
    /// The driver does not answer for this chip.
    Unreadable {
        /// What went wrong.
        detail: String,
    },
    /// The driver reports a fault.
    Unhealthy {
        /// What is wrong.
        detail: String,
    },
}

/// The session of a registered agent.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct RegisterView {
    /// Sent with every report and poll from now on.
    pub session: Uuid,
    /// How often to report.
    #[schema(value_type = String, example = "2s")]
    pub report_every: chiptide_model::Millis,
    /// After how long without a report the daemon calls the node silent.
    #[schema(value_type = String, example = "10s")]
    pub silent_after: chiptide_model::Millis,
}

/// An agent's report. Monotone facts (`confirmed`, `vacant`) may be repeated until they are answered by new orders.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ReportBody {
    /// The session from registration.
    pub session: Uuid,
    /// The boot id, as registered.
    pub boot_id: String,
    /// Counts up by at least one with every report of a session; a report with an older number is ignored.
    pub seq: u64,
    /// Every chip's health and newest reading.
    pub chips: Vec<ChipReport>,
    /// Leases of the newest orders that this node carries.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub confirmed: Vec<Uuid>,
    /// Proofs that nothing of an ended lease is left on a chip.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub vacant: Vec<VacantBody>,
    /// Grants of the newest orders that the agent will not carry, because it has seen a newer epoch of the chip: its
    /// disk remembers a grant that the database has lost. The lease is ended whole, its job waits again, and the next
    /// grant of the chip comes under an epoch above the one seen.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refused: Vec<RefusedBody>,
    /// Fenced leases whose work the agent has ended by itself, because they were not renewed in time.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fenced: Vec<Uuid>,
    /// Every replica the agent was ordered to run, until its lease is out of the orders and nothing of it is left. When all
    /// replicas of a job have exited with 0 it has succeeded; when one has failed, so has the job; when all have ended after
    /// notice, the lease is over before its deadline.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub work: Vec<WorkReport>,
    /// Faults of its chips: those that last, and those that are over until that is known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub faults: Vec<FaultBody>,
    /// How far the agent has come with workloads that are taken or were, a lease each: told once nothing is left on the node,
    /// or something does not die, until the lease is out of the orders.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ladders: Vec<LadderReport>,
    /// The revision of the newest orders the agent has; the answer carries orders when there are newer ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub orders_seen: Option<String>,
}

/// One chip of a report.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ChipReport {
    /// The chip.
    pub id: String,
    /// Its health.
    pub health: HealthBody,
    /// What was measured.
    #[serde(default)]
    pub reading: Reading,
}

/// A proof of vacancy.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct VacantBody {
    /// The chip.
    pub chip: String,
    /// The ended lease of which nothing is left.
    pub lease: Uuid,
    /// The highest lease epoch this agent has seen for the chip: not below the one in the order.
    pub epoch: u64,
}

/// A grant that an agent refuses.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RefusedBody {
    /// The lease.
    pub lease: Uuid,
    /// The chip.
    pub chip: String,
    /// The lease epoch of the grant.
    pub epoch: u64,
    /// The highest epoch this agent has seen of the chip.
    pub seen: u64,
    /// The lease that had it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen_lease: Option<Uuid>,
}

/// The answer to a report.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
pub struct ReportView {
    /// False when the report was older than one already seen and was ignored.
    pub accepted: bool,
    /// Whether the daemon was found to lead after the report had come: fenced leases of the node are renewed from when it
    /// was sent. Only looked into for nodes that carry any.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub renewed: bool,
    /// New orders, when there are any since `orders_seen`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub orders: Option<OrdersView>,
}

/// Everything the daemon wants of a node now: the whole state, never a difference.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct OrdersView {
    /// Opaque; changes whenever the orders change. Pass as `after` to wait for the next change.
    pub revision: String,
    /// Live leases with chips on this node.
    pub leases: Vec<LeaseOrder>,
    /// Chips whose ended leases must be proven gone.
    pub vacate: Vec<VacateOrder>,
    /// Output of replicas that somebody waits for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub wanted_logs: Vec<LogOrder>,
}

/// One live lease, as far as this node carries it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
pub struct LeaseOrder {
    /// The lease.
    pub lease: Uuid,
    /// Its job.
    pub job: Uuid,
    /// Whether this node's confirmation has been recorded.
    pub confirmed: bool,
    /// Set once notice has been given: the lease ends then at the latest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<DateTime<Utc>>,
    /// How long that is from when these orders were read: agents count on their own clocks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "30s")]
    pub ends_in: Option<chiptide_model::Millis>,
    /// Set where the agent is to end the work by itself when it is cut off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fence: Option<FenceOrder>,
    /// Its chips on this node.
    pub chips: Vec<ChipOrder>,
    /// What to run under it, where the agent is to run it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub work: Option<WorkOrder>,
}

/// When an agent that is cut off ends the work of a lease.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct FenceOrder {
    /// From the sending of the last report that was answered as renewed to SIGTERM.
    #[schema(value_type = String, example = "20s")]
    pub ttl: chiptide_model::Millis,
    /// From SIGTERM to the kill.
    #[schema(value_type = String, example = "10s")]
    pub kill: chiptide_model::Millis,
}

/// A node out of service at an operator's word.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct CordonView {
    /// Who said so.
    pub who: String,
    /// Why.
    pub reason: String,
    /// Since when.
    pub since: DateTime<Utc>,
    /// While it is drained: by when its leases have to leave, if their own grace ends before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain_by: Option<DateTime<Utc>>,
    /// Leases that still have a replica there, those not proven gone included.
    pub leases: u32,
    /// When the last of them ends at the latest; absent while one has no end that is known, and when there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub empty_by: Option<DateTime<Utc>>,
}

/// Takes a node out of service, or brings it back.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CordonBody {
    /// Why, for the log: 1 to 256 bytes.
    pub reason: String,
}

/// Empties a node.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DrainBody {
    /// Why, for the log: 1 to 256 bytes.
    pub reason: String,
    /// Holders may stay for so long, if their own grace ends before; absent: each leaves by its grace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "2h")]
    pub within: Option<chiptide_model::Millis>,
}

/// Declares that a machine is off.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DeclareOffBody {
    /// Why its work is certainly over, for the log: 1 to 256 bytes.
    pub reason: String,
}

/// A chip held under a lease.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct ChipOrder {
    /// The chip.
    pub chip: String,
    /// Slots held, of 1000.
    pub slots: u16,
    /// The lease epoch of the grant.
    pub epoch: u64,
}

/// A chip to be proven vacant of one lease.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize, ToSchema)]
pub struct VacateOrder {
    /// The chip.
    pub chip: String,
    /// The ended lease.
    pub lease: Uuid,
    /// The lease epoch of that grant; a proof must have seen at least this.
    pub epoch: u64,
}

/// One node as the API shows it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct NodeView {
    /// Its name.
    pub id: String,
    /// `up`, or `unknown` while it has not reported to this leader or is silent.
    pub state: String,
    /// Since when it is unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unknown_since: Option<DateTime<Utc>>,
    /// Why nothing more is granted on it, while an operator wants that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cordon: Option<CordonView>,
    /// When it last reported to this daemon.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reported_at: Option<DateTime<Utc>>,
    /// The rack.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rack: Option<String>,
    /// The link fabric it shares with other nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link_domain: Option<String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Version of its agent.
    pub agent_version: String,
    /// Version of its driver.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub driver_version: Option<String>,
    /// CPU it offers, thousandths of a core.
    pub cpu_milli: u64,
    /// CPU not set aside for a lease.
    pub cpu_milli_free: u64,
    /// Memory it offers, MiB.
    pub memory_mib: u64,
    /// Memory not set aside for a lease.
    pub memory_mib_free: u64,
    /// How many chips.
    pub chips: u32,
    /// How many chips are free as a whole.
    pub chips_free: u32,
    /// Device classes of its chips.
    pub device_classes: Vec<String>,
}
