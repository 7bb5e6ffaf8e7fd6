//! The allocator and the auditor share no code. Here the allocator lives through seeded histories, and the auditor
//! reads their logs: they must agree, and a log with one event taken out must not pass.

use chiptide_allocator::{Cluster, Command, NewJob, Report, Round, decide};
use chiptide_model::{
    ChipDemand, ChipFacts, ChipId, DeviceClass, Event, Health, JobId, JobSpec, Kind, LeaseId, Millis, NodeFacts,
    NodeId, Outcome, SessionId, Timestamp, Unfit,
};
use chiptide_sim::audit::{AuditReport, Auditor, Entry};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::collections::BTreeMap;
use std::sync::Arc;
use uuid::Uuid;

const NODES: u32 = 4;
const CHIPS: u32 = 4;
const STEPS: u32 = 400;

struct History {
    rng: StdRng,
    cluster: Cluster,
    now: Timestamp,
    log: Vec<Entry>,
    jobs: Vec<JobId>,
    leaders: u64,
}

impl History {
    fn of(seed: u64) -> History {
        let rng = StdRng::seed_from_u64(seed);
        let (cluster, now) = (Cluster::default(), Timestamp(0));
        let mut history = History { rng, cluster, now, log: Vec::new(), jobs: Vec::new(), leaders: 0 };
        history.take_over();
        (0..NODES).for_each(|node| history.register(node));
        (0..STEPS).for_each(|_| history.step());
        history
    }

    fn round(&mut self, command: Command) {
        let round = Round { now: self.now, seed: self.rng.random() };
        let decision = decide(&mut self.cluster, vec![command], round);
        assert_eq!(decision.unfounded, None);
        for event in decision.events {
            let seq = self.log.len() as i64 + 1;
            self.log.push(Entry { seq, at_ms: self.now.0, leader_epoch: self.leaders, event });
        }
    }

    fn step(&mut self) {
        self.now = self.now + Millis(self.rng.random_range(0..4000));
        let node = self.rng.random_range(0..NODES);
        match self.rng.random_range(0..20) {
            0..8 => self.submit(),
            8..11 => self.end(),
            11..17 => self.report(node),
            17 => self.round(Command::Silent(node_id(node))),
            18 => self.register(node),
            _ if self.rng.random_bool(0.2) => self.take_over(),
            _ => self.round(Command::Nothing),
        }
    }

    fn take_over(&mut self) {
        self.leaders += 1;
        self.round(Command::TakeOver { epoch: self.leaders });
    }

    fn submit(&mut self) {
        let id = JobId(Uuid::from_u128(self.rng.random()));
        let demand = match self.rng.random_range(0..4) {
            0 => ChipDemand::ShareSlots(self.rng.random_range(1..1000)),
            1 => ChipDemand::ShareMemory(self.rng.random_range(1..16_384)),
            2 => ChipDemand::Chips(2),
            _ => ChipDemand::Chips(1),
        };
        let priority = [100, 500, 1000][self.rng.random_range(0..3)];
        let spec = JobSpec {
            kind: if priority == 1000 { Kind::Inference } else { Kind::Training },
            name: format!("job-{}", self.jobs.len()),
            queue: "default".into(),
            priority_class: None,
            priority,
            replicas: self.rng.random_range(1..4),
            replicas_min: self.rng.random_bool(0.3).then_some(1),
            demand,
            cpu_milli: 1000,
            memory_mib: 100,
            device_classes: if self.rng.random_bool(0.2) { vec![class(0).into()] } else { Vec::new() },
            same: None,
            max_duration: self.rng.random_bool(0.1).then_some(Millis::from_secs(60)),
            preemptible: priority < 1000,
            grace: Millis(self.rng.random_range(0..3) * 5000),
            checkpoint_every: None,
            restart_cost: None,
            min_runtime: None,
            preemption_budget: None,
            lease_ttl: None,
            on_node_loss: Default::default(),
            unfit: Unfit::Wait,
            labels: BTreeMap::new(),
            workload: None,
        };
        self.jobs.push(id);
        self.round(Command::Submit(vec![NewJob { id, spec: Arc::new(spec) }]));
    }

    /// Ends some live job: done, cancelled, or its lease given back.
    fn end(&mut self) {
        let live: Vec<(JobId, Option<LeaseId>)> = self.cluster.jobs().map(|job| (job.id, job.state.lease())).collect();
        if live.is_empty() {
            return;
        }
        let (job, lease) = live[self.rng.random_range(0..live.len())];
        let command = match (self.rng.random_range(0..3), lease) {
            (0, Some(lease)) => Command::Release { lease, requeue: true },
            (1, _) => Command::Cancel(job),
            _ => Command::Done(job, Outcome::Succeeded),
        };
        self.round(command);
    }

    fn register(&mut self, node: u32) {
        let chips = (0..CHIPS).map(|chip| (facts(node, chip), Health::Healthy)).collect();
        let facts = NodeFacts {
            cpu_milli: 10_000,
            memory_mib: 100_000,
            rack: None,
            link_domain: None,
            agent_version: "0".into(),
            driver_version: None,
            labels: BTreeMap::new(),
        };
        let session = SessionId(Uuid::from_u128(self.rng.random()));
        let boot_id = if self.rng.random_bool(0.5) { "boot-1" } else { "boot-2" }.to_owned();
        self.round(Command::Register { node: node_id(node), session, boot_id, facts, chips, seen: Vec::new() });
    }

    /// A node reports: it carries its live leases, proves what is vacant, and now and then a chip's health changes.
    fn report(&mut self, node: u32) {
        let Some(seen) = self.cluster.node(&node_id(node)) else { return };
        let (session, mut vacant, mut health) = (seen.session, Vec::new(), Vec::new());
        let live = |lease: &&LeaseId| self.cluster.lease(**lease).is_some_and(|lease| lease.is_live());
        let confirmed = seen.leases.iter().filter(live).copied().collect();
        for chip in seen.chips.iter().map(|&ix| &self.cluster.fleet.chips[ix]) {
            for held in chip.holds.iter().filter(|held| held.vacate_by.is_some()) {
                vacant.push((chip.facts.id.clone(), held.lease, chip.epoch));
            }
            if chip.health.is_healthy() && self.rng.random_bool(0.02) {
                health.push((chip.facts.id.clone(), Health::Unreadable { detail: "no answer".into() }));
            } else if !chip.health.is_healthy() {
                health.push((chip.facts.id.clone(), Health::Healthy));
            }
        }
        self.round(Command::Report(Report {
            node: node_id(node),
            session,
            health,
            confirmed,
            ladders: Vec::new(),
            vacant,
            refused: Vec::new(),
            fenced: Vec::new(),
            faults: Vec::new(),
        }));
    }

    fn audit_without(&self, left_out: impl Fn(usize) -> bool) -> AuditReport {
        let kept = self.log.iter().enumerate().filter(|(index, _)| !left_out(*index));
        let mut kept: Vec<Entry> = kept.map(|(_, entry)| entry.clone()).collect();
        // Numbered anew: the gap alone must not be what gives it away.
        kept.iter_mut().zip(1..).for_each(|(entry, seq)| entry.seq = seq);
        Auditor::audit(&kept, &self.jobs)
    }
}

fn node_id(node: u32) -> NodeId {
    NodeId::new(&format!("n{node}")).expect("a name")
}

fn class(node: u32) -> DeviceClass {
    DeviceClass::new(if node.is_multiple_of(2) { "nvidia-t4" } else { "nvidia-h20" }).expect("a class")
}

fn facts(node: u32, chip: u32) -> ChipFacts {
    ChipFacts {
        id: ChipId::new(&format!("n{node}-{chip}")).expect("a name"),
        class: class(node),
        memory_mib: 16_384,
        vendor: "nvidia".into(),
        product: "T4".into(),
        serial: None,
        pci_bus_id: None,
        numa_node: None,
        link_peers: Vec::new(),
    }
}

#[test]
fn the_auditor_agrees_with_the_allocator() {
    let (mut grants, mut preemptions, mut claims) = (0, 0, 0);
    for seed in 0..40 {
        let report = History::of(seed).audit_without(|_| false);
        assert!(report.clean, "seed {seed}: {:#?}", report.first_violations);
        (grants, preemptions, claims) =
            (grants + report.grants, preemptions + report.preemptions, claims + report.claims);
    }
    assert!(grants > 1000 && preemptions > 100 && claims > 100, "{grants} {preemptions} {claims}");
}

#[test]
fn a_log_with_an_event_taken_out_does_not_pass() {
    let history = History::of(7);
    let first = |wanted: fn(&Event) -> bool| history.log.iter().position(|entry| wanted(&entry.event));
    type IsKind = fn(&Event) -> bool;
    let kinds: [(&str, IsKind); 4] = [
        ("a submit", |event| matches!(event, Event::JobSubmitted { .. })),
        ("a grant", |event| matches!(event, Event::LeaseGranted { .. })),
        ("an end", |event| matches!(event, Event::LeaseEnded { .. })),
        ("a proof", |event| matches!(event, Event::ChipVacated { .. })),
    ];
    for (name, kind) in kinds {
        let index = first(kind).expect("the history has one");
        assert!(!history.audit_without(|i| i == index).clean, "a log without {name} passed");
    }
}
