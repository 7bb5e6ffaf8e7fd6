//! A job: what is asked for, and how far it has come.

use crate::chip::{DeviceClass, SLOTS_PER_CHIP, SlotCount};
use crate::id::{JobId, LeaseId};
use crate::node_loss::OnNodeLoss;
use crate::queue::PreemptionBudget;
use crate::time::{Millis, Timestamp};
use crate::work::Workload;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The two kinds of work that share the fleet.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Runs for hours to weeks, can checkpoint. Its gang never mixes device classes.
    Training,
    /// Serves live requests. Its replicas may run on different device classes.
    Inference,
}

impl Kind {
    /// The word used on the wire, in SQL and in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Training => "training",
            Kind::Inference => "inference",
        }
    }
}

/// The chips one replica needs, all on one node.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChipDemand {
    /// This many whole chips; none for work that needs only CPU and memory.
    Chips(u16),
    /// This many slots of one chip.
    ShareSlots(SlotCount),
    /// This much memory of one chip, in MiB; the share of slots follows from the chip's size.
    ShareMemory(u64),
}

impl ChipDemand {
    /// Slots taken from one chip of `memory_mib`, or `None` if such a chip is too small.
    pub fn slots_of(self, memory_mib: u64) -> Option<SlotCount> {
        match self {
            ChipDemand::Chips(_) => Some(SLOTS_PER_CHIP),
            ChipDemand::ShareSlots(slots) => Some(slots),
            ChipDemand::ShareMemory(mib) if mib <= memory_mib && memory_mib > 0 => {
                let slots = (u128::from(mib) * u128::from(SLOTS_PER_CHIP)).div_ceil(u128::from(memory_mib));
                SlotCount::try_from(slots.max(1)).ok()
            }
            ChipDemand::ShareMemory(_) => None,
        }
    }

    /// How many chips one replica touches.
    pub fn chips(self) -> u16 {
        match self {
            ChipDemand::Chips(n) => n,
            ChipDemand::ShareSlots(_) | ChipDemand::ShareMemory(_) => 1,
        }
    }

    /// Whether the replica shares its chip with others.
    pub fn is_share(self) -> bool {
        !matches!(self, ChipDemand::Chips(_))
    }
}

/// How near to each other the replicas of a gang must be.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Same {
    /// Same node, same link fabric or same rack.
    pub level: SameLevel,
    /// Required (wait rather than spread), or preferred.
    pub required: bool,
}

/// The place all replicas share.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SameLevel {
    /// One node.
    Node,
    /// One link fabric, such as an NVLink or HCCS domain of several nodes. A node without one is a fabric of its own.
    Link,
    /// One rack.
    Rack,
}

/// A device class a job accepts, and how fast the job runs there. Written as the plain name where the speed is 1, else
/// `{"class": "ascend-910b", "speed_permille": 800}`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(from = "ClassChoiceText", into = "ClassChoiceText")]
pub struct ClassChoice {
    /// The class.
    pub class: DeviceClass,
    /// Speed against the others the job accepts, in thousandths.
    pub speed_permille: u32,
}

impl From<DeviceClass> for ClassChoice {
    fn from(class: DeviceClass) -> Self {
        ClassChoice { class, speed_permille: 1000 }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum ClassChoiceText {
    Name(DeviceClass),
    Rated { class: DeviceClass, speed_permille: u32 },
}

impl From<ClassChoiceText> for ClassChoice {
    fn from(text: ClassChoiceText) -> Self {
        match text {
            ClassChoiceText::Name(class) => class.into(),
            ClassChoiceText::Rated { class, speed_permille } => ClassChoice { class, speed_permille },
        }
    }
}

impl From<ClassChoice> for ClassChoiceText {
    fn from(choice: ClassChoice) -> Self {
        match choice {
            ClassChoice { class, speed_permille: 1000 } => ClassChoiceText::Name(class),
            ClassChoice { class, speed_permille } => ClassChoiceText::Rated { class, speed_permille },
        }
    }
}

/// What to do with a job that the whole fleet, empty, could not hold.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unfit {
    /// Accept it: nodes may join. The job waits and says what is missing.
    #[default]
    Wait,
    /// Refuse the submit, naming what is missing.
    Refuse,
}

/// What a scheduler asked for, parsed and valid.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct JobSpec {
    /// Training or inference.
    pub kind: Kind,
    /// A name for people; need not be unique.
    pub name: String,
    /// The queue it is charged to.
    pub queue: String,
    /// The priority class it was submitted with, if by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority_class: Option<String>,
    /// The priority: higher goes first and may preempt strictly lower.
    pub priority: i32,
    /// Gang size: all replicas start or none. Of an elastic job, the most it may grow to.
    pub replicas: u32,
    /// Makes the job elastic: this many replicas start together or none, further ones come and go with what is free.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas_min: Option<u32>,
    /// Chips of one replica.
    pub demand: ChipDemand,
    /// CPU of one replica, in thousandths of a core.
    pub cpu_milli: u64,
    /// Memory of one replica, in MiB.
    pub memory_mib: u64,
    /// Acceptable device classes: the fastest is tried first, of equals the one named first. Empty means any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub device_classes: Vec<ClassChoice>,
    /// Nearness of the replicas.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub same: Option<Same>,
    /// Longest time a lease of this job may last; then it is ended and the job fails.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_duration: Option<Millis>,
    /// Whether a higher priority may take its chips.
    pub preemptible: bool,
    /// Time between notice and the end of the lease when it is taken.
    pub grace: Millis,
    /// How often the job checkpoints; bounds what an eviction loses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint_every: Option<Millis>,
    /// What a restart costs each of its chips, besides the work lost: loading, compiling, warming up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restart_cost: Option<Millis>,
    /// A lease of this job is not taken before it has lasted this long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_runtime: Option<Millis>,
    /// How often its chips may be taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preemption_budget: Option<PreemptionBudget>,
    /// If set, the holder must renew within this time or the lease is ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease_ttl: Option<Millis>,
    /// What becomes of its lease when one of its nodes is no longer heard.
    #[serde(default, skip_serializing_if = "OnNodeLoss::is_wait")]
    pub on_node_loss: OnNodeLoss,
    /// What to do if the fleet could never hold it.
    #[serde(default)]
    pub unfit: Unfit,
    /// Labels for filters.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// What to run, if the agent is to run it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workload: Option<Workload>,
}

impl JobSpec {
    /// How many replicas start together or not at all: the base lease covers exactly these.
    pub fn gang(&self) -> u32 {
        self.replicas_min.map_or(self.replicas, |min| min.clamp(1, self.replicas.max(1)))
    }

    /// Whether it may hold more replicas than it starts with.
    pub fn is_elastic(&self) -> bool {
        self.gang() < self.replicas
    }

    /// The classes it accepts, the fastest first; of equals the one named first.
    pub fn classes_by_speed(&self) -> Vec<DeviceClass> {
        let mut choices: Vec<&ClassChoice> = self.device_classes.iter().collect();
        choices.sort_by_key(|choice| std::cmp::Reverse(choice.speed_permille));
        choices.into_iter().map(|choice| choice.class.clone()).collect()
    }
}

/// How a job ended.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum Outcome {
    /// Its owner said it is done.
    Succeeded,
    /// It failed, and why.
    Failed {
        /// A stable code (`max_duration`, `lease_expired`) or what its owner said.
        reason: String,
    },
    /// It was cancelled.
    Cancelled,
}

/// Where a job stands.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum JobState {
    /// Waits for chips, its place in the order kept across preemptions.
    Pending,
    /// Has a lease; not every node has confirmed it yet.
    Leased {
        /// The live lease.
        lease: LeaseId,
    },
    /// Every node of its lease has confirmed.
    Running {
        /// The live lease.
        lease: LeaseId,
    },
    /// Its lease is being taken; it has until `deadline`.
    Preempting {
        /// The live lease.
        lease: LeaseId,
        /// When the lease ends at the latest.
        deadline: Timestamp,
    },
    /// Over.
    Ended(Outcome),
}

impl JobState {
    /// The word used on the wire, in SQL and in metrics.
    pub fn as_str(&self) -> &'static str {
        match self {
            JobState::Pending => "pending",
            JobState::Leased { .. } => "leased",
            JobState::Running { .. } => "running",
            JobState::Preempting { .. } => "preempting",
            JobState::Ended(Outcome::Succeeded) => "succeeded",
            JobState::Ended(Outcome::Failed { .. }) => "failed",
            JobState::Ended(Outcome::Cancelled) => "cancelled",
        }
    }

    /// The live lease, if it holds one.
    pub fn lease(&self) -> Option<LeaseId> {
        match self {
            JobState::Leased { lease } | JobState::Running { lease } | JobState::Preempting { lease, .. } => {
                Some(*lease)
            }
            JobState::Pending | JobState::Ended(_) => None,
        }
    }
}

/// A job the allocator has accepted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Job {
    /// Its id.
    pub id: JobId,
    /// What it asked for.
    pub spec: Arc<JobSpec>,
    /// Its place: jobs of one priority are served in this order, which a preemption does not change.
    pub place: u64,
    /// When it was accepted.
    pub submitted_at: Timestamp,
    /// Where it stands.
    pub state: JobState,
    /// How many leases it has had.
    pub attempt: u32,
    /// How often its chips were taken by others.
    pub preemptions: u32,
    /// When its chips were last taken, oldest first: as many as its budget asks about.
    pub evictions: Vec<Timestamp>,
    /// The last checkpoint it reported.
    pub checkpointed_at: Option<Timestamp>,
    /// Live leases of its extra replicas, beyond those of its base lease.
    pub extras: BTreeSet<LeaseId>,
    /// Extra replicas its owner gave back since its base lease was granted, and does not want again.
    pub given_back: u32,
    /// How often its replicas were started anew after a failure: the number of the run they are in.
    pub restarts: u32,
    /// When its state last changed.
    pub changed_at: Timestamp,
    /// Counts up with every change of its state, lease or claim: what a watcher waits on.
    pub revision: u64,
}

/// The span of a preemption budget.
const DAY: Millis = Millis::from_secs(24 * 3600);

impl Job {
    /// Replicas it holds now.
    pub fn replicas_held(&self) -> u32 {
        match self.state.lease() {
            Some(_) => self.spec.gang() + u32::try_from(self.extras.len()).unwrap_or(u32::MAX),
            None => 0,
        }
    }

    /// Until when its `min_runtime` and its budget forbid taking a lease granted at `granted_at`. A lease's answer
    /// never changes: evictions are noted when leases end.
    pub fn protected_until(&self, granted_at: Timestamp) -> Timestamp {
        let budget = self.spec.preemption_budget.unwrap_or_default();
        let by_runtime = self.spec.min_runtime.map(|least| granted_at + least);
        let by_cool_down = budget.cool_down.and_then(|span| Some(*self.evictions.last()? + span));
        let by_count = budget.per_day.and_then(|most| match self.evictions.len().checked_sub(most as usize) {
            _ if most == 0 => Some(Timestamp::MAX),
            None => None,
            // Once the oldest of the last `most` is a day old, there is room for one more.
            Some(at) => self.evictions.get(at).map(|oldest| *oldest + DAY),
        });
        [by_runtime, by_cool_down, by_count].into_iter().flatten().max().unwrap_or(granted_at).max(granted_at)
    }

    /// Notes that its chips were taken. Keeps what its budget asks about and no more.
    pub fn note_eviction(&mut self, at: Timestamp) {
        let Some(budget) = self.spec.preemption_budget else { return };
        self.evictions.push(at);
        let kept = budget.per_day.unwrap_or(0).max(u32::from(budget.cool_down.is_some()));
        let surplus = self.evictions.len().saturating_sub(kept as usize);
        self.evictions.drain(..surplus);
        let last = self.evictions.len().saturating_sub(1);
        let old = self.evictions[..last].iter().take_while(|known| at.since(**known) >= DAY).count();
        self.evictions.drain(..old);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_class_is_a_name_or_a_name_with_a_speed() {
        let text = r#"["nvidia-h20",{"class":"ascend-910b","speed_permille":800}]"#;
        let choices: Vec<ClassChoice> = serde_json::from_str(text).expect("choices");
        assert_eq!(choices[0].speed_permille, 1000);
        assert_eq!(serde_json::to_string(&choices).expect("text"), text);
    }

    #[test]
    fn a_memory_share_rounds_up_and_never_exceeds_its_chip() {
        assert_eq!(ChipDemand::ShareMemory(1).slots_of(16_384), Some(1));
        assert_eq!(ChipDemand::ShareMemory(8192).slots_of(16_384), Some(500));
        assert_eq!(ChipDemand::ShareMemory(16_384).slots_of(16_384), Some(1000));
        assert_eq!(ChipDemand::ShareMemory(16_385).slots_of(16_384), None);
        assert_eq!(ChipDemand::ShareMemory(u64::MAX).slots_of(u64::MAX), Some(1000));
    }
}
