//! A machine: its chips, the processes on them, and what the kernel and the disk remember. The agent is apart: it comes and
//! goes, this stays.

use super::step::Dice;
use chiptide_agent::faults::Signs;
use chiptide_agent::work::Key;
use chiptide_agent::{ChipNow, NodeReading};
use chiptide_api::chip::{ChipProcess, Reading};
use chiptide_api::node::{ChipBody, HealthBody};
use chiptide_api::work::WorkBody;
use chiptide_model::{ChipFacts, ChipId, DeviceClass, Health};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;
use uuid::Uuid;

const CHIP_MEMORY_MIB: u64 = 81_920;
const IDLE_MIB: u64 = 4;
const BUSY_MIB: u64 = 4096;

/// A process that uses, or is about to use, chips.
#[derive(Clone, Debug)]
pub(super) struct Process {
    pub(super) pid: u32,
    pub(super) key: Key,
    pub(super) chips: Vec<usize>,
    /// From when on the driver lists it and it has device nodes open.
    pub(super) opens_at: u64,
    /// When it is over.
    pub(super) ends_at: u64,
    /// How long it takes to heed SIGTERM; never where absent.
    pub(super) heeds_term: Option<u64>,
    /// Until when nothing ends it: it is stuck in the driver.
    pub(super) stuck_until: u64,
    /// Whether it is in its replica's group, which a kill reaches.
    pub(super) in_group: bool,
    /// How long its memory stays after it is gone.
    pub(super) leaves_memory: u64,
    /// Whether a signal ended it.
    pub(super) killed: bool,
}

/// A replica as the kernel and the disk have it.
#[derive(Clone, Debug)]
pub(super) struct Cell {
    pub(super) chips: Vec<String>,
    /// When its guardian starts it.
    pub(super) starts_at: Option<u64>,
    pub(super) fenced: bool,
    pub(super) started: bool,
    pub(super) ended: Option<WorkBody>,
    /// Whether its record is on disk.
    pub(super) on_record: bool,
}

#[derive(Clone, Debug)]
pub(super) struct Chip {
    pub(super) name: ChipId,
    pub(super) unreadable_until: u64,
    pub(super) lost_until: u64,
    pub(super) lies_until: u64,
    pub(super) memory_until: u64,
}

#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) name: String,
    pub(super) boot: u32,
    pub(super) chips: Vec<Chip>,
    pub(super) cells: BTreeMap<Key, Cell>,
    pub(super) processes: Vec<Process>,
    /// How much faster its clock goes, in parts of a million.
    pub(super) drift_ppm: i64,
    pids: u32,
}

impl Node {
    pub(super) fn new(number: usize, chips: usize, drift_ppm: i64) -> Node {
        let chip = |chip: usize| Chip {
            name: ChipId::new(&format!("n{number}-c{chip}")).expect("a name of letters and digits"),
            unreadable_until: 0,
            lost_until: 0,
            lies_until: 0,
            memory_until: 0,
        };
        Node {
            name: format!("n{number}"),
            boot: 1,
            chips: (0..chips).map(chip).collect(),
            cells: BTreeMap::new(),
            processes: Vec::new(),
            drift_ppm,
            pids: 100,
        }
    }

    pub(super) fn boot_id(&self) -> String {
        format!("boot-{}", self.boot)
    }

    /// The time on this machine's clock.
    pub(super) fn local(&self, now: u64) -> Duration {
        let drift = i128::from(now) * i128::from(self.drift_ppm) / 1_000_000;
        Duration::from_millis(u64::try_from(i128::from(now) + drift).unwrap_or(now))
    }

    /// Lets processes end, and guardians start what they were made for.
    pub(super) fn live(&mut self, now: u64, ignores_fence: bool) {
        let due: Vec<Key> =
            self.cells.iter().filter(|(_, cell)| cell.starts_at.is_some_and(|at| at <= now)).map(|(k, _)| *k).collect();
        for key in due {
            self.start(key, now, ignores_fence);
        }
        let gone = |process: &Process| process.ends_at <= now && process.stuck_until <= now;
        let ended: Vec<Process> = self.processes.iter().filter(|process| gone(process)).cloned().collect();
        self.processes.retain(|process| !gone(process));
        for process in ended {
            for chip in process.chips {
                let until = &mut self.chips[chip].memory_until;
                *until = (*until).max(now + process.leaves_memory);
            }
            if let Some(cell) = self.cells.get_mut(&process.key) {
                let end = match process.killed {
                    true => WorkBody::Killed { signal: 9, out_of_memory: false },
                    false => WorkBody::Exited { code: 0 },
                };
                cell.ended.get_or_insert(end);
            }
        }
    }

    fn start(&mut self, key: Key, now: u64, ignores_fence: bool) {
        let Some(cell) = self.cells.get_mut(&key) else { return };
        cell.starts_at = None;
        if cell.fenced && !ignores_fence {
            cell.ended = Some(WorkBody::Failed { reason: "its lease ended before it was started".into() });
            return;
        }
        cell.started = true;
        let chips = cell.chips.clone();
        let on: Vec<usize> =
            (0..self.chips.len()).filter(|&at| chips.iter().any(|c| c == self.chips[at].name.as_str())).collect();
        self.pids += 1;
        let mut dice = Dice::new(key.lease.as_u128() as u64 ^ u64::from(key.rank));
        self.processes.push(Process {
            pid: self.pids,
            key,
            chips: on,
            opens_at: now + dice.between(0, 6000),
            // Some work ends only when it is ended.
            ends_at: if dice.percent(25) { u64::MAX } else { now + dice.between(500, 60_000) },
            heeds_term: dice.percent(60).then(|| dice.between(0, 1500)),
            stuck_until: 0,
            in_group: true,
            leaves_memory: if dice.percent(20) { dice.between(1, 4000) } else { 0 },
            killed: false,
        });
    }

    /// Sends SIGTERM to a replica.
    pub(super) fn terminate(&mut self, key: Key, now: u64) {
        for process in self.processes.iter_mut().filter(|process| process.key == key && process.in_group) {
            if let Some(after) = process.heeds_term {
                process.ends_at = process.ends_at.min(now + after);
                process.killed = true;
            }
        }
    }

    /// Kills what is in a replica's group.
    pub(super) fn kill(&mut self, key: Key, now: u64) {
        for process in self.processes.iter_mut().filter(|process| process.key == key && process.in_group) {
            process.ends_at = process.ends_at.min(now);
            process.killed = true;
        }
    }

    /// Whether something of a replica is left in its group, or may still be born there.
    pub(super) fn is_present(&self, key: Key, ignores_fence: bool) -> bool {
        let pending =
            self.cells.get(&key).is_some_and(|cell| cell.starts_at.is_some() && !(ignores_fence && cell.fenced));
        pending || self.processes.iter().any(|process| process.key == key && process.in_group)
    }

    /// Everything on the machine ends.
    pub(super) fn reboot(&mut self) {
        self.boot += 1;
        self.processes.clear();
        self.cells.clear();
        self.chips.iter_mut().for_each(|chip| (chip.memory_until, chip.unreadable_until) = (0, 0));
    }

    pub(super) fn registered_chips(&self, reading: &NodeReading) -> Vec<(ChipFacts, Health)> {
        let facts = |(chip, seen): (&Chip, &ChipNow)| {
            let facts = ChipFacts {
                id: chip.name.clone(),
                class: DeviceClass::from_product("nvidia", "NVIDIA H20"),
                memory_mib: CHIP_MEMORY_MIB,
                vendor: "nvidia".into(),
                product: "NVIDIA H20".into(),
                serial: None,
                pci_bus_id: None,
                numa_node: None,
                link_peers: Vec::new(),
            };
            (facts, health(&seen.chip.health))
        };
        self.chips.iter().zip(&reading.chips).map(facts).collect()
    }

    /// What the driver and the process table say now.
    pub(super) fn read(&self, now: u64, base: Instant) -> NodeReading {
        let chips = self.chips.iter().enumerate().map(|(at, chip)| self.read_chip(at, chip, now)).collect();
        NodeReading { taken: base + self.local(now), driver_version: None, chips }
    }

    fn read_chip(&self, at: usize, chip: &Chip, now: u64) -> ChipNow {
        let health = match () {
            () if now < chip.lost_until => HealthBody::Unhealthy { detail: "lost".into() },
            () if now < chip.unreadable_until => HealthBody::Unreadable { detail: "the driver hangs".into() },
            () => HealthBody::Healthy,
        };
        let facts = ChipBody {
            id: chip.name.to_string(),
            vendor: "nvidia".into(),
            product: "NVIDIA H20".into(),
            device_class: None,
            memory_mib: CHIP_MEMORY_MIB,
            serial: None,
            pci_bus_id: None,
            numa_node: None,
            link_peers: Vec::new(),
            health,
        };
        if facts.health != HealthBody::Healthy {
            return ChipNow {
                chip: facts,
                reading: Reading::default(),
                owners: BTreeMap::new(),
                signs: Signs::default(),
            };
        }
        let listed: Vec<&Process> = if now < chip.lies_until { Vec::new() } else { self.open_on(at, now).collect() };
        let busy = !listed.is_empty() || (now < chip.memory_until && now >= chip.lies_until);
        let list = listed.iter().map(|process| ChipProcess { pid: process.pid, memory_mib: Some(BUSY_MIB) }).collect();
        let reading = Reading {
            processes: Some(list),
            memory_used_mib: Some(if busy { BUSY_MIB } else { IDLE_MIB }),
            ..Reading::default()
        };
        let owners: BTreeMap<u32, Uuid> =
            listed.iter().filter(|p| p.in_group).map(|process| (process.pid, process.key.lease)).collect();
        ChipNow { chip: facts, reading, owners, signs: Signs::default() }
    }

    /// Processes that have a chip open now.
    pub(super) fn open_on(&self, chip: usize, now: u64) -> impl Iterator<Item = &Process> {
        self.processes.iter().filter(move |process| process.opens_at <= now && process.chips.contains(&chip))
    }
}

/// Health as the model has it.
pub(super) fn health(body: &HealthBody) -> Health {
    match body.clone() {
        HealthBody::Healthy => Health::Healthy,
        HealthBody::Unreadable { detail } => Health::Unreadable { detail },
        HealthBody::Unhealthy { detail } => Health::Unhealthy { detail },
    }
}
