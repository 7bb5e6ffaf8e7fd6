//! How long it takes to decide whom to evict, at 10,000 nodes with 8 chips each, all of them held.
//!
//! `cargo bench -p chiptide-allocator --bench preempt` prints the quantiles of single decisions first, then Criterion's
//! figures. Every decision is a whole round: the submit, the search, the notices and the promise.

use chiptide_allocator::{Cluster, Command, NewJob, Round, decide};
use chiptide_model::{
    ChipDemand, ChipFacts, ChipId, DeviceClass, Event, Health, JobId, JobSpec, Kind, Millis, NodeFacts, NodeId,
    SessionId, Timestamp, Unfit,
};
use criterion::{BatchSize, Criterion, criterion_group};
use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};
use uuid::Uuid;

const NODES: usize = 10_000;
const CHIPS: u16 = 8;

/// A full fleet, and what a scheduler does to it.
#[derive(Clone)]
struct Fleet {
    cluster: Cluster,
    now: Timestamp,
    minted: u128,
}

fn spec(priority: i32, replicas: u32, chips: u16) -> JobSpec {
    JobSpec {
        kind: Kind::Training,
        name: "job".into(),
        queue: "default".into(),
        priority_class: None,
        priority,
        replicas,
        replicas_min: None,
        demand: ChipDemand::Chips(chips),
        cpu_milli: 1000 * u64::from(chips),
        memory_mib: 1024 * u64::from(chips),
        device_classes: Vec::new(),
        same: None,
        max_duration: None,
        preemptible: true,
        grace: Millis::from_secs(30),
        checkpoint_every: None,
        restart_cost: None,
        min_runtime: None,
        preemption_budget: None,
        lease_ttl: None,
        on_node_loss: Default::default(),
        unfit: Unfit::Wait,
        labels: BTreeMap::new(),
        workload: None,
    }
}

fn chip(node: usize, at: u16) -> (ChipFacts, Health) {
    let facts = ChipFacts {
        id: ChipId::new(&format!("n{node}-{at}")).expect("a chip name"),
        class: DeviceClass::new("nvidia-h20").expect("a class"),
        memory_mib: 98_304,
        vendor: "nvidia".into(),
        product: "H20".into(),
        serial: None,
        pci_bus_id: None,
        numa_node: None,
        link_peers: Vec::new(),
    };
    (facts, Health::Healthy)
}

impl Fleet {
    fn new(nodes: usize) -> Fleet {
        let mut fleet = Fleet { cluster: Cluster::default(), now: Timestamp(0), minted: 0 };
        let register = |node: usize| Command::Register {
            node: NodeId::new(&format!("n{node}")).expect("a node name"),
            session: SessionId(Uuid::from_u128(1)),
            boot_id: "boot".into(),
            facts: NodeFacts {
                link_domain: None,
                cpu_milli: 192_000,
                memory_mib: 2_097_152,
                rack: Some(format!("rack-{}", node / 32)),
                agent_version: "bench".into(),
                driver_version: None,
                labels: BTreeMap::new(),
            },
            chips: (0..CHIPS).map(|at| chip(node, at)).collect(),
            seen: Vec::new(),
        };
        fleet.round((0..nodes).map(register).collect());
        fleet
    }

    fn round(&mut self, commands: Vec<Command>) -> Vec<Event> {
        self.minted += 1;
        let decision = decide(&mut self.cluster, commands, Round { now: self.now, seed: self.minted << 64 });
        assert_eq!(decision.unfounded, None);
        decision.events
    }

    fn submit(&mut self, specs: impl IntoIterator<Item = JobSpec>) -> Vec<Event> {
        let minted = &mut self.minted;
        let job = |spec| {
            *minted += 1;
            NewJob { id: JobId(Uuid::from_u128(*minted)), spec: Arc::new(spec) }
        };
        let jobs = specs.into_iter().map(job).collect();
        self.round(vec![Command::Submit(jobs)])
    }

    /// Fills every chip with training of mixed sizes: shares of a node, whole nodes, and gangs of many nodes.
    fn fill(mut self, preemptible: bool) -> Fleet {
        let sizes = [(1, 1), (1, 2), (1, 4), (1, 8), (2, 8), (4, 8), (16, 8), (2, 4)];
        let mut left: u64 = self.cluster.fleet.pools.iter().map(|pool| u64::from(pool.free.whole)).sum();
        let mut turn = 0u64;
        while left > 0 {
            let mut batch = Vec::new();
            for _ in 0..64 {
                turn = turn.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let (replicas, chips) = sizes[(turn >> 33) as usize % sizes.len()];
                if u64::from(replicas) * u64::from(chips) <= left {
                    left -= u64::from(replicas) * u64::from(chips);
                    batch.push(JobSpec { preemptible, ..spec(100, replicas, chips) });
                }
            }
            self.now = self.now + Millis(1000 + (turn >> 40) % 60_000);
            self.submit(batch);
        }
        // What the odd sizes left over goes to single chips.
        let free: usize = self.cluster.fleet.pools.iter().map(|pool| usize::from(pool.free.whole)).sum();
        self.submit((0..free).map(|_| JobSpec { preemptible, ..spec(100, 1, 1) }));
        self.now = self.now + Millis::from_secs(3600);
        self
    }
}

/// The same gang again and again, within the first victims' grace, each time for other chips: every decision is timed.
fn quantiles(full: &Fleet, name: &str, times: usize, replicas: u32, chips: u16) {
    let mut fleet = full.clone();
    let mut took: Vec<Duration> = Vec::new();
    let mut victims = 0;
    for _ in 0..times {
        fleet.now = fleet.now + Millis(100);
        let began = Instant::now();
        let events = fleet.submit([JobSpec { kind: Kind::Inference, ..spec(900, replicas, chips) }]);
        took.push(began.elapsed());
        assert!(events.iter().any(|event| matches!(event, Event::ClaimMade { .. })), "no promise");
        victims += events.iter().filter(|event| matches!(event, Event::LeaseRevoked { .. })).count();
    }
    took.sort_unstable();
    let at = |part: usize| took[(took.len() - 1) * part / 100];
    println!(
        "{name:<28} p50 {:>8.2?}  p90 {:>8.2?}  p99 {:>8.2?}  max {:>8.2?}  {:.1} leases evicted each",
        at(50),
        at(90),
        at(99),
        at(100),
        victims as f64 / took.len() as f64
    );
}

/// 100,000 jobs of 500 shapes, none of which can start: the round that tries them all, and the one after it.
fn backlog(name: &str, held: Fleet, sizes: &[u16]) {
    println!("{name}");
    let mut fleet = held;
    let shapes = (0..500u32).map(|at| JobSpec {
        cpu_milli: 1000 + u64::from(at),
        ..spec(200 + (at % 5) as i32 * 100, 1 + at % 16, sizes[at as usize % sizes.len()])
    });
    let shapes: Vec<JobSpec> = shapes.collect();
    let jobs: Vec<JobSpec> = (0..100_000).map(|at| shapes[at % shapes.len()].clone()).collect();
    let began = Instant::now();
    fleet.submit(jobs);
    println!("{:<28} {:.2?} with the submits", "  first round", began.elapsed());
    // Something comes free that helps nobody: every shape is tried again.
    let chip = ChipId::new("n0-0").expect("a chip name");
    for health in [Health::Unhealthy { detail: "lost".into() }, Health::Healthy] {
        let report = chiptide_allocator::Report {
            node: NodeId::new("n0").expect("a node name"),
            session: SessionId(Uuid::from_u128(1)),
            health: vec![(chip.clone(), health)],
            confirmed: Vec::new(),
            ladders: Vec::new(),
            vacant: Vec::new(),
            faults: Vec::new(),
            refused: Vec::new(),
            fenced: Vec::new(),
        };
        let began = Instant::now();
        fleet.round(vec![Command::Report(report)]);
        println!("{:<28} {:.2?}", "  all shapes again", began.elapsed());
    }
    let began = Instant::now();
    fleet.round(Vec::new());
    println!("{:<28} {:.2?}", "  nothing freed", began.elapsed());
}

fn preempting(c: &mut Criterion) {
    let full = Fleet::new(NODES).fill(true);
    for (name, replicas, chips) in [("64 chips as 8 x 8", 8, 8), ("64 chips as 64 x 1", 64, 1), ("1 chip", 1, 1)] {
        let mut group = c.benchmark_group("preempt on a full fleet");
        group.sample_size(10).measurement_time(Duration::from_secs(2));
        group.bench_function(name, |b| {
            b.iter_batched_ref(
                || full.clone(),
                |fleet| black_box(fleet.submit([JobSpec { kind: Kind::Inference, ..spec(900, replicas, chips) }])),
                BatchSize::PerIteration,
            );
        });
        group.finish();
    }
}

criterion_group!(benches, preempting);

fn main() {
    let full = Fleet::new(NODES).fill(true);
    for (name, times, replicas, chips) in [
        ("64 chips as 8 x 8", 200, 8, 8),
        ("64 chips as 16 x 4", 200, 16, 4),
        ("64 chips as 64 x 1", 200, 64, 1),
        ("1,024 chips as 128 x 8", 40, 128, 8),
        ("8 chips as 1 x 8", 200, 1, 8),
        ("1 chip", 200, 1, 1),
    ] {
        quantiles(&full, name, times, replicas, chips);
    }
    drop(full);
    backlog("100,000 pending, all held for good", Fleet::new(NODES).fill(false), &[1, 2, 4, 8]);
    let one_each = (0..NODES).map(|_| JobSpec { preemptible: false, ..spec(100, 1, 1) });
    let mut pinned = Fleet::new(NODES);
    let serving = |at| JobSpec { cpu_milli: 100_000, ..at };
    pinned.submit(one_each.map(serving));
    backlog("100,000 pending, one chip of each node held for good", pinned.fill(true), &[8]);
    benches();
    Criterion::default().configure_from_args().final_summary();
}
