//! A node whose chips follow a script: a lease ordered onto a chip brings a process, an order to vacate takes it away.
//! The agent beside it is the real one; only what it reads is made up. Scripted chips never refuse and never fail.

use chiptide_agent::{ChipNow, NodeReading};
use chiptide_api::chip::{ChipProcess, Reading};
use chiptide_api::node::{ChipBody, HealthBody, OrdersView};
use chiptide_model::SLOTS_PER_CHIP;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep_until};
use uuid::Uuid;

/// How often a scripted node is read when nothing happens.
const READ_EVERY: Duration = Duration::from_secs(2);

/// What a scripted node is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NodeShape {
    /// Its name.
    pub name: String,
    /// CPU it offers, thousandths of a core.
    pub cpu_milli: u64,
    /// Memory it offers, MiB.
    pub memory_mib: u64,
    /// The vendor of its chips.
    pub vendor: String,
    /// Their product name.
    pub product: String,
    /// How many.
    pub chips: u32,
    /// Memory of each, MiB.
    pub chip_memory_mib: u64,
}

impl NodeShape {
    /// Node number `index` of a fleet whose nodes are all alike.
    pub fn uniform(index: usize, product: &str, chips: u32) -> NodeShape {
        NodeShape {
            name: format!("sim-node-{index:04}"),
            cpu_milli: 16_000 * u64::from(chips),
            memory_mib: 131_072 * u64::from(chips),
            vendor: "nvidia".into(),
            product: product.to_owned(),
            chips,
            chip_memory_mib: 97_871,
        }
    }

    fn chip(&self, index: u32) -> ChipBody {
        ChipBody {
            id: format!("GPU-{}-{index}", self.name),
            vendor: self.vendor.clone(),
            product: self.product.clone(),
            device_class: None,
            memory_mib: self.chip_memory_mib,
            serial: None,
            pci_bus_id: Some(format!("00000000:{:02X}:00.0", index + 1)),
            numa_node: Some(u32::from(index >= self.chips.div_ceil(2))),
            link_peers: Vec::new(),
            health: HealthBody::Healthy,
        }
    }
}

#[derive(Debug)]
struct Process {
    pid: u32,
    memory_mib: u64,
    /// Set once its lease is no longer ordered: when it will be gone.
    gone_at: Option<Instant>,
}

/// The chips of one scripted node and the processes on them.
#[derive(Debug)]
pub struct ScriptedNode {
    chips: Vec<ChipBody>,
    processes: BTreeMap<(String, Uuid), Process>,
    teardown: Duration,
    last_pid: u32,
    readings: u32,
}

impl ScriptedNode {
    /// A node of this shape with nothing on it, where a process takes `teardown` to leave.
    pub fn new(shape: &NodeShape, teardown: Duration) -> ScriptedNode {
        let chips = (0..shape.chips).map(|index| shape.chip(index)).collect();
        ScriptedNode { chips, processes: BTreeMap::new(), teardown, last_pid: 1000, readings: 0 }
    }

    /// Follows the orders and publishes readings until `stop` is true or nobody is left to order or to read.
    pub async fn run(
        mut self,
        mut orders: watch::Receiver<OrdersView>,
        readings: watch::Sender<NodeReading>,
        mut stop: watch::Receiver<bool>,
    ) {
        let mut refresh = interval_at(Instant::now() + READ_EVERY, READ_EVERY);
        refresh.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let leaving = self.processes.values().filter_map(|process| process.gone_at).min();
            tokio::select! {
                changed = orders.changed() => match changed {
                    Ok(()) => self.follow(&orders.borrow_and_update(), Instant::now()),
                    Err(_) => return,
                },
                () = sleep_until(leaving.unwrap_or_else(Instant::now)), if leaving.is_some() => {}
                _ = refresh.tick() => {}
                _ = stop.wait_for(|stop| *stop) => return,
            }
            let now = Instant::now();
            self.depart(now);
            readings.send_replace(self.reading(now));
        }
    }

    /// Starts a process for every lease ordered onto a chip, and tells every other process to leave.
    pub fn follow(&mut self, orders: &OrdersView, now: Instant) {
        for process in self.processes.values_mut() {
            process.gone_at = process.gone_at.or(Some(now + self.teardown));
        }
        for (lease, order) in orders.leases.iter().flat_map(|o| o.chips.iter().map(move |chip| (o.lease, chip))) {
            let Some(chip) = self.chips.iter().find(|chip| chip.id == order.chip) else { continue };
            let share = chip.memory_mib * u64::from(order.slots) / u64::from(SLOTS_PER_CHIP);
            let process = self.processes.entry((order.chip.clone(), lease)).or_insert_with(|| {
                self.last_pid += 1;
                Process { pid: self.last_pid, memory_mib: share * 4 / 5, gone_at: None }
            });
            process.gone_at = None;
        }
    }

    /// Removes the processes whose time has come.
    pub fn depart(&mut self, now: Instant) {
        self.processes.retain(|_, process| process.gone_at.is_none_or(|at| at > now));
    }

    /// What the node's chips show now.
    pub fn reading(&mut self, taken: Instant) -> NodeReading {
        self.readings = self.readings.wrapping_add(1);
        let chips = self.chips.iter().enumerate().map(|(index, chip)| self.chip_now(index as u32, chip)).collect();
        NodeReading { taken, driver_version: Some("580.95.05".into()), chips }
    }

    fn chip_now(&self, index: u32, chip: &ChipBody) -> ChipNow {
        let key = |end: Uuid| (chip.id.clone(), end);
        let here = || self.processes.range(key(Uuid::nil())..=key(Uuid::max()));
        let listed = |process: &Process| ChipProcess { pid: process.pid, memory_mib: Some(process.memory_mib) };
        let processes: Vec<ChipProcess> = here().map(|(_, process)| listed(process)).collect();
        let busy = if processes.is_empty() { 0.0 } else { 0.6 + 0.4 * wobble(index, self.readings) };
        let reading = Reading {
            utilization: Some(busy),
            memory_used_mib: Some(here().map(|(_, process)| process.memory_mib).sum()),
            power_watts: Some(60.0 + 340.0 * busy),
            temperature_celsius: Some(32.0 + 40.0 * busy),
            clock_mhz: Some(if processes.is_empty() { 345 } else { 1980 }),
            memory_clock_mhz: Some(2619),
            ecc_corrected: Some(0),
            ecc_uncorrected: Some(0),
            processes: Some(processes),
        };
        let owners = here().map(|((_, lease), process)| (process.pid, *lease)).collect();
        ChipNow { chip: chip.clone(), reading, owners, signs: Default::default() }
    }
}

/// A number from 0 to 1 that jumps from reading to reading, the same in every run.
fn wobble(index: u32, reading: u32) -> f32 {
    let mixed = (index.wrapping_mul(0x9E37_79B9) ^ reading.wrapping_mul(0x85EB_CA6B)).wrapping_mul(0xC2B2_AE35);
    (mixed >> 16) as f32 / 65_535.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use chiptide_api::node::{ChipOrder, LeaseOrder};

    fn orders(leases: &[(u128, &str)]) -> OrdersView {
        let order = |(lease, chip): &(u128, &str)| LeaseOrder {
            lease: Uuid::from_u128(*lease),
            job: Uuid::nil(),
            confirmed: false,
            deadline: None,
            ends_in: None,
            fence: None,
            work: None,
            chips: vec![ChipOrder { chip: (*chip).to_owned(), slots: 1000, epoch: 1 }],
        };
        OrdersView { revision: "1".into(), leases: leases.iter().map(order).collect(), ..OrdersView::default() }
    }

    fn pids(reading: &NodeReading) -> Vec<usize> {
        reading.chips.iter().map(|now| now.reading.processes.as_ref().map_or(0, Vec::len)).collect()
    }

    #[test]
    fn a_lease_brings_a_process_and_its_end_takes_it_away() {
        let shape = NodeShape::uniform(0, "NVIDIA H20", 2);
        let (mut node, start) = (ScriptedNode::new(&shape, Duration::from_millis(20)), Instant::now());
        node.follow(&orders(&[(7, "GPU-sim-node-0000-1")]), start);
        let reading = node.reading(start);
        assert_eq!(pids(&reading), [0, 1]);
        assert_eq!(reading.chips[1].owners.values().collect::<Vec<_>>(), [&Uuid::from_u128(7)]);
        assert!(reading.chips[1].reading.utilization > Some(0.5) && reading.chips[0].reading.utilization == Some(0.0));

        node.follow(&orders(&[]), start);
        node.depart(start + Duration::from_millis(19));
        assert_eq!(pids(&node.reading(start)), [0, 1], "a process takes its time to leave");
        node.depart(start + Duration::from_millis(20));
        assert_eq!(pids(&node.reading(start)), [0, 0]);
    }

    #[test]
    fn a_lease_on_an_unknown_chip_brings_nothing() {
        let mut node = ScriptedNode::new(&NodeShape::uniform(0, "NVIDIA H20", 1), Duration::ZERO);
        node.follow(&orders(&[(7, "GPU-elsewhere")]), Instant::now());
        assert_eq!(pids(&node.reading(Instant::now())), [0]);
    }
}
