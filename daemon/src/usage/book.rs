//! The book of chip time: the fold of the event log that says who had which chip for how long. Pure: time comes from the log.
//!
//! Each slot of each chip is, at each moment, in exactly one state: granted (a live lease has it), vacating (its lease has ended
//! and nothing proves it vacant yet), out of service, or idle. So these four always add up to the time that the chips were
//! there. Everything else is told beside them: borrowed, lent, and lost are parts of time that is counted above.

use super::amounts::{Amounts, Cell, hours};
use chiptide_model::{
    Cause, ChipId, DeviceClass, Event, JobId, LeaseId, Next, NodeId, Policy, SLOTS_PER_CHIP, Timestamp,
};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Slots of a chip that a lease has, or had and has not been proven to have left.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
struct Held {
    lease: LeaseId,
    job: JobId,
    queue: String,
    slots: u16,
    vacating: bool,
}

/// A chip, accounted for until `since`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
struct ChipPage {
    node: NodeId,
    class: DeviceClass,
    healthy: bool,
    quarantined: bool,
    held: Vec<Held>,
    since: Timestamp,
}

/// A live lease.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
struct LeasePage {
    job: JobId,
    chips: Vec<ChipId>,
    since: Timestamp,
}

/// A live job.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
struct JobPage {
    queue: String,
    checkpointed: Option<Timestamp>,
}

/// What a queue has of a device class, accounted for until `since`.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
struct QueuePage {
    guaranteed: u64,
    granted: u64,
    since: Timestamp,
}

/// The book. What it has counted is taken out with [`Book::take`]; what is kept is what the next events need.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Book {
    /// Position of the last event in it.
    pub position: u64,
    /// Everything is accounted for until here.
    pub at: Timestamp,
    chips: BTreeMap<ChipId, ChipPage>,
    nodes: BTreeMap<NodeId, BTreeSet<ChipId>>,
    unknown: BTreeSet<NodeId>,
    leases: BTreeMap<LeaseId, LeasePage>,
    jobs: BTreeMap<JobId, JobPage>,
    queues: BTreeMap<String, BTreeMap<DeviceClass, QueuePage>>,
    #[serde(skip)]
    counted: BTreeMap<Cell, Amounts>,
}

impl Book {
    /// Enters the next event of the log. An event that names what the book does not know changes nothing: the log's own
    /// checks have let it through, and time is counted all the same.
    pub fn enter(&mut self, position: u64, at: Timestamp, event: &Event) {
        self.position = position;
        self.at = self.at.max(at);
        let at = self.at;
        match event {
            Event::PolicyApplied { policy, .. } => self.on_policy(at, policy),
            Event::NodeRegistered { node, chips, .. } => {
                self.set_known(at, node, true);
                let there: BTreeSet<&ChipId> = chips.iter().map(|(facts, _)| &facts.id).collect();
                let gone: Vec<ChipId> = self.chips_of(node).into_iter().filter(|chip| !there.contains(chip)).collect();
                gone.iter().for_each(|chip| self.change(at, chip, |page| page.healthy = false));
                for (facts, health) in chips {
                    self.chips.entry(facts.id.clone()).or_insert_with(|| ChipPage::new(node, &facts.class, at));
                    self.nodes.entry(node.clone()).or_default().insert(facts.id.clone());
                    let class = facts.class.clone();
                    self.change(at, &facts.id, |page| (page.class, page.healthy) = (class, health.is_healthy()));
                }
            }
            Event::NodeHeard { node } => self.set_known(at, node, true),
            Event::NodeSilent { node } => self.set_known(at, node, false),
            Event::LeaderTookOver { .. } | Event::DatabaseReplaced { .. } => {
                let nodes: Vec<NodeId> = self.nodes.keys().cloned().collect();
                nodes.iter().for_each(|node| self.set_known(at, node, false));
            }
            Event::ChipHealthChanged { chip, health } => {
                self.change(at, chip, |page| page.healthy = health.is_healthy())
            }
            Event::ChipQuarantined { chip, .. } => self.change(at, chip, |page| page.quarantined = true),
            Event::ChipRestored { chip } | Event::ChipReleased { chip, .. } => {
                self.change(at, chip, |page| page.quarantined = false);
            }
            Event::ChipVacated { chip, lease, .. } => {
                self.change(at, chip, |page| page.held.retain(|held| held.lease != *lease))
            }
            Event::JobSubmitted { job, spec, .. } => {
                self.jobs.insert(*job, JobPage { queue: spec.queue.clone(), checkpointed: None });
            }
            Event::JobCheckpointed { job, .. } => {
                self.jobs.entry(*job).and_modify(|page| page.checkpointed = Some(at));
            }
            Event::JobEnded { job, .. } => drop(self.jobs.remove(job)),
            Event::LeaseGranted { lease, job, placements, .. } => {
                let queue = self.jobs.get(job).map(|page| page.queue.clone()).unwrap_or_default();
                let mut chips = Vec::new();
                for hold in placements.iter().flat_map(|placement| &placement.holds) {
                    let slots = hold.slots.iter().map(|range| range.count()).sum();
                    let held = Held { lease: *lease, job: *job, queue: queue.clone(), slots, vacating: false };
                    self.change(at, &hold.chip, |page| page.held.push(held));
                    self.use_of(at, &queue, &hold.chip, i64::from(slots));
                    chips.push(hold.chip.clone());
                }
                self.leases.insert(*lease, LeasePage { job: *job, chips, since: at });
            }
            Event::LeaseEnded { lease, cause, next } => self.on_lease_ended(at, *lease, cause, next),
            _ => {}
        }
    }

    /// Accounts for everything until a moment, if that is later than the last event's. No event may come before it any more.
    pub fn settle(&mut self, until: Timestamp) {
        self.at = self.at.max(until);
        let (at, chips) = (self.at, self.chips.keys().cloned().collect::<Vec<_>>());
        chips.iter().for_each(|chip| self.change(at, chip, |_| ()));
        self.settle_queues(at);
    }

    /// What was counted since it was last taken.
    pub fn take(&mut self) -> BTreeMap<Cell, Amounts> {
        std::mem::take(&mut self.counted)
    }

    /// Puts back what was taken and could not be kept.
    pub fn put_back(&mut self, counted: BTreeMap<Cell, Amounts>) {
        counted.into_iter().for_each(|(cell, amounts)| self.counted.entry(cell).or_default().add(&amounts));
    }

    /// The chips that live leases have: node, chip, class, and for each lease its job, queue and slots.
    pub fn granted(&self) -> impl Iterator<Item = (&NodeId, &ChipId, &DeviceClass, JobId, &str, u16)> {
        self.chips.iter().flat_map(|(id, page)| {
            let live = page.held.iter().filter(|held| !held.vacating);
            live.map(move |held| (&page.node, id, &page.class, held.job, held.queue.as_str(), held.slots))
        })
    }

    /// Adds busy time, which no event tells: slot-milliseconds.
    pub fn busy(&mut self, at: Timestamp, queue: &str, job: JobId, class: &DeviceClass, slot_ms: i64) {
        let cell = Cell::of(at, queue, Some(job), class);
        self.counted.entry(cell).or_default().busy += slot_ms;
    }

    fn chips_of(&self, node: &NodeId) -> Vec<ChipId> {
        self.nodes.get(node).into_iter().flatten().cloned().collect()
    }

    fn set_known(&mut self, at: Timestamp, node: &NodeId, known: bool) {
        self.chips_of(node).iter().for_each(|chip| self.change(at, chip, |_| ()));
        match known {
            true => drop(self.unknown.remove(node)),
            false => drop(self.unknown.insert(node.clone())),
        }
    }

    /// Accounts for a chip until now, then changes it.
    fn change(&mut self, at: Timestamp, chip: &ChipId, change: impl FnOnce(&mut ChipPage)) {
        let Some(page) = self.chips.get_mut(chip) else { return };
        let serves = page.healthy && !page.quarantined && !self.unknown.contains(&page.node);
        for (hour, span) in hours(page.since, at) {
            let mut left = i64::from(SLOTS_PER_CHIP);
            for held in &page.held {
                let slots = i64::from(held.slots).min(left);
                left -= slots;
                let cell = Cell { hour, queue: held.queue.clone(), job: Some(held.job), class: page.class.clone() };
                let amounts = self.counted.entry(cell).or_default();
                *(if held.vacating { &mut amounts.vacating } else { &mut amounts.granted }) += slots * span;
            }
            if left > 0 {
                let cell = Cell { hour, queue: String::new(), job: None, class: page.class.clone() };
                let amounts = self.counted.entry(cell).or_default();
                *(if serves { &mut amounts.idle } else { &mut amounts.out_of_service }) += left * span;
            }
        }
        page.since = page.since.max(at);
        change(page);
    }

    fn on_lease_ended(&mut self, at: Timestamp, lease: LeaseId, cause: &Cause, next: &Next) {
        let Some(page) = self.leases.remove(&lease) else { return };
        let saved = self.jobs.get(&page.job).and_then(|job| job.checkpointed).unwrap_or(page.since).max(page.since);
        for chip in &page.chips {
            let of_lease = |known: &&Held| known.lease == lease;
            let held = self
                .chips
                .get(chip)
                .and_then(|known| Some((known.held.iter().find(of_lease)?.clone(), known.class.clone())));
            let Some((held, class)) = held else { continue };
            self.use_of(at, &held.queue, chip, -i64::from(held.slots));
            self.change(at, chip, |page| {
                page.held.iter_mut().filter(|known| known.lease == lease).for_each(|known| known.vacating = true);
            });
            if matches!(next, Next::Pending | Next::Unchanged) {
                self.lose(saved, at, cause, &held, &class);
            }
        }
        if matches!(next, Next::Ended(_)) {
            self.jobs.remove(&page.job);
        }
    }

    /// Work since the last checkpoint is lost when its lease is taken, or a fault ends it.
    fn lose(&mut self, saved: Timestamp, at: Timestamp, cause: &Cause, held: &Held, class: &DeviceClass) {
        let is_fault = matches!(cause, Cause::Fault { .. } | Cause::NodeLost { .. } | Cause::Fenced { .. });
        if cause.for_job().is_none() && !is_fault {
            return;
        }
        for (hour, span) in hours(saved, at) {
            let cell = Cell { hour, queue: held.queue.clone(), job: Some(held.job), class: class.clone() };
            let amounts = self.counted.entry(cell).or_default();
            let lost = if is_fault { &mut amounts.lost_to_faults } else { &mut amounts.lost_to_preemption };
            *lost += i64::from(held.slots) * span;
        }
    }

    fn on_policy(&mut self, at: Timestamp, policy: &Policy) {
        self.settle_queues(at);
        for page in self.queues.values_mut().flat_map(BTreeMap::values_mut) {
            page.guaranteed = 0;
        }
        for (name, queue) in &policy.queues {
            for (class, chips) in &queue.guaranteed.classes {
                let page = self.queues.entry(name.clone()).or_default().entry(class.clone()).or_default();
                (page.guaranteed, page.since) = (u64::from(*chips) * u64::from(SLOTS_PER_CHIP), at);
            }
        }
        let is_needed = |page: &QueuePage| page.guaranteed > 0 || page.granted > 0;
        self.queues.values_mut().for_each(|classes| classes.retain(|_, page| is_needed(page)));
        self.queues.retain(|_, classes| !classes.is_empty());
    }

    fn use_of(&mut self, at: Timestamp, queue: &str, chip: &ChipId, more: i64) {
        let Some(class) = self.chips.get(chip).map(|page| page.class.clone()) else { return };
        self.settle_queue(at, queue, &class);
        let page = self.queues.entry(queue.to_owned()).or_default().entry(class).or_default();
        page.since = at;
        page.granted = page.granted.saturating_add_signed(more);
    }

    fn settle_queues(&mut self, at: Timestamp) {
        let pages = self
            .queues
            .iter()
            .flat_map(|(queue, classes)| classes.keys().map(move |class| (queue.clone(), class.clone())));
        let pages: Vec<(String, DeviceClass)> = pages.collect();
        pages.iter().for_each(|(queue, class)| self.settle_queue(at, queue, class));
    }

    /// Accounts for what a queue has beyond its guarantee, and what it leaves of it.
    fn settle_queue(&mut self, at: Timestamp, queue: &str, class: &DeviceClass) {
        let Some(page) = self.queues.get_mut(queue).and_then(|classes| classes.get_mut(class)) else { return };
        let slots = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        let (borrowed, lent) =
            (page.granted.saturating_sub(page.guaranteed), page.guaranteed.saturating_sub(page.granted));
        for (hour, span) in hours(page.since, at) {
            let cell = Cell { hour, queue: queue.to_owned(), job: None, class: class.clone() };
            let amounts = self.counted.entry(cell).or_default();
            amounts.borrowed += slots(borrowed) * span;
            amounts.lent += slots(lent) * span;
        }
        page.since = page.since.max(at);
    }
}

impl ChipPage {
    fn new(node: &NodeId, class: &DeviceClass, at: Timestamp) -> ChipPage {
        let held = Vec::new();
        ChipPage { node: node.clone(), class: class.clone(), healthy: true, quarantined: false, held, since: at }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chiptide_model::{
        ChipFacts, Hold, Kind, NodeFacts, Outcome, Placement, Quarantine, QueuePolicy, Quota, SessionId, Slots,
    };
    use uuid::Uuid;

    const MINUTE: i64 = 60_000;

    fn node(name: &str) -> NodeId {
        NodeId::new(name).expect("a name")
    }

    fn chip(number: u8) -> ChipId {
        ChipId::new(&format!("chip{number}")).expect("a name")
    }

    fn class() -> DeviceClass {
        DeviceClass::new("h20").expect("a name")
    }

    fn registered(name: &str, chips: &[u8]) -> Event {
        let facts = |number: &u8| ChipFacts {
            id: chip(*number),
            class: class(),
            memory_mib: 1,
            vendor: "nvidia".into(),
            product: "H20".into(),
            serial: None,
            pci_bus_id: None,
            numa_node: None,
            link_peers: Vec::new(),
        };
        let about = NodeFacts {
            cpu_milli: 0,
            memory_mib: 0,
            rack: None,
            link_domain: None,
            agent_version: String::new(),
            driver_version: None,
            labels: Default::default(),
        };
        let chips = chips.iter().map(|number| (facts(number), chiptide_model::Health::Healthy)).collect();
        Event::NodeRegistered {
            node: node(name),
            session: SessionId(Uuid::nil()),
            boot_id: "b".into(),
            facts: about,
            chips,
        }
    }

    fn submitted(job: u128, queue: &str) -> Event {
        let spec = serde_json::json!({"kind": Kind::Training, "name": "j", "queue": queue, "priority": 1, "replicas": 1,
            "demand": chiptide_model::ChipDemand::ShareSlots(500), "cpu_milli": 0, "memory_mib": 0, "preemptible": true, "grace": "0s"});
        let spec = serde_json::from_value(spec).expect("a spec");
        Event::JobSubmitted { job: JobId(Uuid::from_u128(job)), place: 1, spec: std::sync::Arc::new(spec) }
    }

    fn granted(lease: u128, job: u128, number: u8, slots: (u16, u16)) -> Event {
        let slots = vec![Slots::new(slots.0, slots.1).expect("a range")];
        let holds = vec![Hold { chip: chip(number), slots, epoch: 1 }];
        let placements = vec![Placement { replica: 0, node: node("n1"), holds, cpu_milli: 0, memory_mib: 0 }];
        let (lease, job) = (LeaseId(Uuid::from_u128(lease)), JobId(Uuid::from_u128(job)));
        let event = serde_json::json!({"kind": "lease_granted", "lease": lease, "job": job, "attempt": 1,
            "placements": placements, "expires_at": null, "ends_at": null});
        serde_json::from_value(event).expect("an event")
    }

    fn ended(lease: u128, cause: Cause, next: Next) -> Event {
        Event::LeaseEnded { lease: LeaseId(Uuid::from_u128(lease)), cause, next }
    }

    fn vacated(number: u8, lease: u128) -> Event {
        Event::ChipVacated { chip: chip(number), lease: LeaseId(Uuid::from_u128(lease)), epoch: 1 }
    }

    /// An afternoon of a fleet, each event with the minute it happened in.
    fn afternoon() -> Vec<(i64, Event)> {
        let guaranteed = Quota { classes: [(class(), 2)].into(), ..Quota::default() };
        let queue = QueuePolicy { guaranteed, ..QueuePolicy::default() };
        let policy = Policy { queues: [("ads".to_owned(), queue)].into(), ..Policy::default() };
        let for_job = JobId(Uuid::from_u128(9));
        vec![
            (0, Event::PolicyApplied { policy, author: String::new(), reason: String::new() }),
            (10, registered("n1", &[1, 2])),
            (12, registered("n2", &[3])),
            (20, submitted(1, "ads")),
            (20, granted(101, 1, 1, (0, 500))),
            (25, submitted(2, "training")),
            (25, granted(102, 2, 1, (500, 1000))),
            (40, Event::JobCheckpointed { job: JobId(Uuid::from_u128(2)), step: None, under_notice: None }),
            (65, ended(102, Cause::Preempt { for_job }, Next::Pending)),
            (67, vacated(1, 102)),
            (70, Event::NodeSilent { node: node("n2") }),
            (80, Event::NodeHeard { node: node("n2") }),
            (85, Event::LeaderTookOver { epoch: 2 }),
            (86, registered("n1", &[1])),
            (86, registered("n2", &[3])),
            (90, ended(101, Cause::Fault { node: node("n1"), detail: String::new() }, Next::Pending)),
            (
                95,
                Event::ChipQuarantined {
                    chip: chip(1),
                    quarantine: Quarantine::Admin { who: String::new(), why: String::new() },
                },
            ),
            (100, vacated(1, 101)),
            (130, Event::JobEnded { job: JobId(Uuid::from_u128(1)), outcome: Outcome::Cancelled }),
        ]
    }

    fn sum(counted: &BTreeMap<Cell, Amounts>) -> Amounts {
        let mut all = Amounts::default();
        counted.values().for_each(|amounts| all.add(amounts));
        all
    }

    #[test]
    fn the_sums_are_the_time_that_the_chips_were_there_whenever_one_looks_and_however_often() {
        let (mut book, mut counted) = (Book::default(), BTreeMap::<Cell, Amounts>::new());
        let mut there: Vec<i64> = Vec::new();
        for (position, (minute, event)) in (1..).zip(afternoon()) {
            if let Event::NodeRegistered { chips, .. } = &event {
                let known = if there.len() < 2 { 2 } else { 3 };
                let new = chips.len().min(known - there.len().min(known));
                there.extend(vec![minute; if minute < 80 { new } else { 0 }]);
            }
            book.enter(position, Timestamp(minute * MINUTE), &event);
            book.settle(Timestamp(minute * MINUTE));
            book.take().into_iter().for_each(|(cell, amounts)| counted.entry(cell).or_default().add(&amounts));
            // As after a restart: what is kept is all that is needed.
            book = serde_json::from_str(&serde_json::to_string(&book).expect("JSON")).expect("a book");
            let wall: i64 = there.iter().map(|since| (minute - since) * MINUTE * i64::from(SLOTS_PER_CHIP)).sum();
            assert_eq!(sum(&counted).total(), wall, "after minute {minute}");
        }
        let mut at_once = Book::default();
        (1..)
            .zip(afternoon())
            .for_each(|(position, (minute, event))| at_once.enter(position, Timestamp(minute * MINUTE), &event));
        at_once.settle(Timestamp(130 * MINUTE));
        let nonzero = |counted: BTreeMap<Cell, Amounts>| -> BTreeMap<Cell, Amounts> {
            counted.into_iter().filter(|(_, amounts)| *amounts != Amounts::default()).collect()
        };
        assert_eq!(nonzero(at_once.take()), nonzero(counted));
    }

    #[test]
    fn each_amount_is_what_happened() {
        let mut book = Book::default();
        (1..)
            .zip(afternoon())
            .for_each(|(position, (minute, event))| book.enter(position, Timestamp(minute * MINUTE), &event));
        book.settle(Timestamp(130 * MINUTE));
        let counted = book.take();
        let of = |job: u128| {
            let is_of = |cell: &&Cell| cell.job == Some(JobId(Uuid::from_u128(job)));
            sum(&counted
                .iter()
                .filter(|(cell, _)| is_of(cell))
                .map(|(cell, amounts)| (cell.clone(), *amounts))
                .collect())
        };
        let half = |minutes: i64| minutes * MINUTE * 500;
        let taken = of(2);
        assert_eq!((taken.granted, taken.vacating, taken.lost_to_preemption), (half(40), half(2), half(25)));
        let failed = of(1);
        assert_eq!((failed.granted, failed.vacating, failed.lost_to_faults), (half(70), half(10), half(70)));
        let all = sum(&counted);
        // Training has no guarantee, ads has two chips and never used more than half of one.
        assert_eq!((all.borrowed, all.lent), (half(40), half(4 * 130) - half(70)));
        let by_hour = |hour: i64| {
            counted.iter().filter(|(cell, _)| cell.hour.0 == hour * 60 * MINUTE).map(|(_, a)| a.granted).sum::<i64>()
        };
        assert_eq!((by_hour(0), by_hour(1)), (half(40 + 35), half(30 + 5)));
    }
}
