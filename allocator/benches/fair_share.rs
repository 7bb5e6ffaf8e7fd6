//! Order of service among many queues: a round in which eight jobs leave, their chips are proven vacant, and the eight
//! that are next by fair share get them, out of 100,000 waiting in 200 queues.

use chiptide_allocator::{Cluster, Command, NewJob, Report, Round, decide};
use chiptide_model::{
    ChipFacts, ChipId, DeviceClass, Health, JobId, JobSpec, NodeFacts, NodeId, Outcome, Policy, QueuePolicy, SessionId,
    Timestamp,
};
use criterion::{Criterion, criterion_group, criterion_main};
use std::sync::Arc;
use uuid::Uuid;

const QUEUES: usize = 200;
const PENDING: usize = 100_000;
const CHIPS: u16 = 8;

struct Market {
    cluster: Cluster,
    now: i64,
    submitted: u128,
}

impl Market {
    fn open() -> Market {
        let mut market = Market { cluster: Cluster::default(), now: 0, submitted: 0 };
        let mut policy = Policy::default();
        for queue in 0..QUEUES {
            let weight = 1 + queue as u32 % 4;
            policy.queues.insert(format!("q{queue}"), QueuePolicy { weight, ..QueuePolicy::default() });
        }
        market.round(vec![Command::TakeOver { epoch: 1 }, Command::ApplyPolicy(policy), node()]);
        for _ in 0..PENDING / 1000 {
            let jobs = (0..1000).map(|_| market.job()).collect();
            market.round(vec![Command::Submit(jobs)]);
        }
        market
    }

    fn round(&mut self, commands: Vec<Command>) {
        self.now += 1000;
        let round = Round { now: Timestamp(self.now), seed: u128::from(self.now.unsigned_abs()) << 64 };
        let decision = decide(&mut self.cluster, commands, round);
        assert!(decision.unfounded.is_none());
    }

    fn job(&mut self) -> NewJob {
        self.submitted += 1;
        let queue = format!("q{}", self.submitted as usize % QUEUES);
        let spec: JobSpec = serde_json::from_value(serde_json::json!({
            "kind": "training", "name": "a", "queue": queue, "priority": 0, "replicas": 1, "demand": {"chips": 1},
            "cpu_milli": 0, "memory_mib": 0, "preemptible": true, "grace": "0s"
        }))
        .expect("a spec");
        NewJob { id: JobId(Uuid::from_u128(self.submitted)), spec: Arc::new(spec) }
    }

    /// Eight leave, eight come in, and the eight next by fair share are served.
    fn turn_over(&mut self) {
        let held: Vec<JobId> = self.cluster.leases().filter(|lease| lease.is_live()).map(|lease| lease.job).collect();
        let mut commands: Vec<Command> = held.into_iter().map(|job| Command::Done(job, Outcome::Succeeded)).collect();
        commands.push(Command::Submit((0..CHIPS).map(|_| self.job()).collect()));
        self.round(commands);
        let report = self.proofs();
        self.round(vec![Command::Report(report)]);
    }

    fn proofs(&self) -> Report {
        let node = NodeId::new("n1").expect("a name");
        let session = self.cluster.node(&node).map(|node| node.session).expect("registered");
        let owed = self.cluster.fleet.chips.iter().flat_map(|chip| {
            let gone = chip.holds.iter().filter(|hold| hold.vacate_by.is_some());
            gone.map(|hold| (chip.facts.id.clone(), hold.lease, chip.epoch))
        });
        Report {
            node,
            session,
            health: Vec::new(),
            confirmed: Vec::new(),
            ladders: Vec::new(),
            vacant: owed.collect(),
            refused: Vec::new(),
            fenced: Vec::new(),
            faults: Vec::new(),
        }
    }
}

fn node() -> Command {
    let class = DeviceClass::new("nvidia-h20").expect("a class");
    let chip = |i: u16| ChipFacts {
        id: ChipId::new(&format!("n1-{i}")).expect("a name"),
        class: class.clone(),
        memory_mib: 98_304,
        vendor: "nvidia".into(),
        product: "H20".into(),
        serial: None,
        pci_bus_id: None,
        numa_node: None,
        link_peers: Vec::new(),
    };
    let facts: NodeFacts = serde_json::from_value(serde_json::json!({
        "cpu_milli": 64000, "memory_mib": 262_144, "agent_version": "bench"
    }))
    .expect("facts");
    Command::Register {
        node: NodeId::new("n1").expect("a name"),
        session: SessionId(Uuid::from_u128(1)),
        boot_id: "boot".into(),
        facts,
        chips: (0..CHIPS).map(|i| (chip(i), Health::Healthy)).collect(),
        seen: Vec::new(),
    }
}

fn fair_share(c: &mut Criterion) {
    let mut market = Market::open();
    c.bench_function("turn over 8 of 100,000 jobs in 200 queues", |b| b.iter(|| market.turn_over()));
}

criterion_group!(benches, fair_share);
criterion_main!(benches);
