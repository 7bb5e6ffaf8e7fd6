//! What an admin decides: queues and their quotas, priority classes, device classes, fairness, and the bounds of waiting.

use crate::chip::DeviceClass;
use crate::node_loss::NodeLossPolicy;
use crate::policy_fault::DEPTH_MAX;
use crate::queue::{PreemptionBudget, QueuePolicy, read_queues};
use crate::reservation::{Backfill, CalendarReservation, Consolidation};
use crate::reserve::Reserve;
use crate::time::Millis;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU16;

/// A named priority.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PriorityClass {
    /// Higher goes first.
    pub value: i32,
    /// Whether jobs of the class may be preempted unless they say otherwise.
    pub preemptible: bool,
    /// `grace` of its jobs that name none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grace: Option<Millis>,
    /// `min_runtime` of its jobs that name none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_runtime: Option<Millis>,
    /// `preemption_budget` of its jobs that name none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preemption_budget: Option<PreemptionBudget>,
}

/// How long the allocator waits before it gives up on something.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Bounds {
    /// A claim whose chips are not all proven vacant this long after the last grace ended is given up whole.
    pub claim: Millis,
    /// A chip not proven vacant this long after its lease ended is quarantined.
    pub vacate: Millis,
    /// A lease that not all of its nodes have confirmed this long after its grant, although they report, is ended whole and
    /// its job waits again; `None` never does that.
    pub start: Option<Millis>,
    /// Longest grace a job may ask for.
    pub grace_max: Millis,
    /// The most that one extension, of which a lease under notice gets one, adds to its deadline; `0s` allows none.
    pub extension_max: Millis,
}

impl Default for Bounds {
    fn default() -> Self {
        Bounds {
            claim: Millis::from_secs(90),
            vacate: Millis::from_secs(60),
            start: Some(Millis::from_secs(300)),
            grace_max: Millis::from_secs(3600),
            extension_max: Millis::from_secs(30),
        }
    }
}

/// How queues share what is beyond their guarantees.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FairShare {
    /// Past use counts half after this long; `None` looks at the present only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub half_life: Option<Millis>,
}

impl Default for FairShare {
    /// A day, long enough to balance a night's training against the day's, short enough to forget a week.
    fn default() -> Self {
        FairShare { half_life: Some(Millis::from_secs(24 * 3600)) }
    }
}

/// What an admin knows of a kind of chip.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeviceClassPolicy {
    /// Speed against a normalised chip, in thousandths.
    #[serde(default = "par")]
    pub speed_permille: u32,
    /// How the chips of a node may be handed out, where the vendor has rules.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<ReplicaRule>,
}

/// A vendor's rule for the whole chips of one replica on one node. Example: Ascend nodes with two rings of four chips
/// take 1, 2, 4 or 8, and up to four of them inside one ring: `{"chips": [1, 2, 4, 8], "set": 4}`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReplicaRule {
    /// How many chips a replica may have; empty means any number.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub chips: BTreeSet<u16>,
    /// The chips of a node form sets of this many, by position. A replica of at most so many lies inside one set, a
    /// larger one takes whole sets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub set: Option<NonZeroU16>,
}

fn par() -> u32 {
    1000
}

/// The policy in force. What is left out where it is written is as in a new cluster.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Policy {
    /// Counts up with every change, from 1; 0 where it has not been in force.
    pub version: u64,
    /// Queues a job may name (those without queues below them), by name.
    #[serde(deserialize_with = "read_queues")]
    pub queues: BTreeMap<String, QueuePolicy>,
    /// Priority classes a job may name.
    pub priority_classes: BTreeMap<String, PriorityClass>,
    /// Bounds of waiting.
    pub bounds: Bounds,
    /// What happens when a node is no longer heard.
    pub node_loss: NodeLossPolicy,
    /// How queues share.
    #[serde(default)]
    pub fair_share: FairShare,
    /// Facts about device classes; a class that is not listed counts as a normalised chip.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub device_classes: BTreeMap<DeviceClass, DeviceClassPolicy>,
    /// Chips kept free for jobs of high priority.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reserve: Option<Reserve>,
    /// Reservations for jobs that wait, and how others may pass them.
    #[serde(default)]
    pub backfill: Backfill,
    /// Chips set aside by the calendar.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub calendar: Vec<CalendarReservation>,
    /// When running jobs may be moved to make room for a gang; `None` never does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consolidation: Option<Consolidation>,
}

impl Default for Policy {
    /// What a new cluster starts with: three queues, four classes from `best-effort` to `urgent`.
    fn default() -> Self {
        let class = |value, preemptible| PriorityClass { value, preemptible, ..PriorityClass::default() };
        Policy {
            version: 0,
            queues: ["default", "training", "inference"].map(|name| (name.to_owned(), QueuePolicy::default())).into(),
            priority_classes: [
                ("best-effort", class(100, true)),
                ("standard", class(500, true)),
                ("serving", class(800, false)),
                ("urgent", class(1000, false)),
            ]
            .map(|(name, class)| (name.to_owned(), class))
            .into(),
            bounds: Bounds::default(),
            node_loss: NodeLossPolicy::default(),
            fair_share: FairShare::default(),
            device_classes: BTreeMap::new(),
            reserve: None,
            backfill: Backfill::default(),
            calendar: Vec::new(),
            consolidation: None,
        }
    }
}

impl Policy {
    /// Speed of a device class against a normalised chip, in thousandths.
    pub fn speed_permille(&self, class: &DeviceClass) -> u32 {
        self.device_classes.get(class).map_or(1000, |known| known.speed_permille)
    }

    /// Whether a queue is `top` or lies below it.
    pub fn is_within(&self, queue: &str, top: &str) -> bool {
        let parent = |name: &&str| self.queues.get(*name).and_then(|queue| queue.parent.as_deref());
        std::iter::successors(Some(queue), parent).take(DEPTH_MAX).any(|name| name == top)
    }

    /// Whether jobs may name this queue: it exists and has none below it.
    pub fn takes_jobs(&self, queue: &str) -> bool {
        self.queues.contains_key(queue) && self.leaf(queue)
    }

    fn leaf(&self, queue: &str) -> bool {
        self.queues.values().all(|other| other.parent.as_deref() != Some(queue))
    }

    /// Queues that take jobs, in order.
    pub fn leaves(&self) -> impl Iterator<Item = &str> {
        self.queues.keys().map(String::as_str).filter(|queue| self.leaf(queue))
    }
}
