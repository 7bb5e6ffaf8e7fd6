//! How fast places are found: on a fleet like that of the openb trace (1,213 nodes) and on 10,000 nodes of eight chips,
//! for a mix of 48 shapes, from empty to full again and again. `decision` is the choice alone, `round` the whole of
//! `decide` from a submitted job to the lease granted. Time is counted only for the part named.

use chiptide_allocator::{Cluster, Command, NewJob, Round, decide, place};
use chiptide_model::{
    ChipDemand, ChipFacts, ChipId, DeviceClass, Health, JobId, JobSpec, Kind, Millis, NodeFacts, NodeId, SessionId,
    Timestamp, Unfit,
};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use uuid::Uuid;

/// Kinds of nodes of the larger fleet and of the smaller: how many, class, chips, cores, GiB.
type Kinds = &'static [(usize, &'static str, u16, u64, u64)];
const LIKE_OPENB: Kinds = &[
    (588, "nvidia-g2", 8, 96, 384),
    (404, "nvidia-t4", 2, 104, 512),
    (129, "nvidia-p100", 2, 32, 128),
    (54, "nvidia-v100m16", 4, 32, 128),
    (38, "nvidia-v100m32", 8, 96, 768),
];
const LARGE: Kinds = &[(10_000, "nvidia-h20", 8, 96, 1024)];

fn round(cluster: &mut Cluster, at: u128, command: Command) -> bool {
    let decision = decide(cluster, vec![command], Round { now: Timestamp(at as i64), seed: at << 64 });
    decision.events.iter().any(|event| event.kind() == "lease_granted")
}

fn join(cluster: &mut Cluster, kinds: Kinds) {
    let mut at = 1;
    for &(count, class, chips, cores, gib) in kinds {
        for _ in 0..count {
            at += 1;
            let chip = |i| ChipFacts {
                id: ChipId::new(&format!("c{at}-{i}")).expect("a name"),
                class: DeviceClass::new(class).expect("a name"),
                memory_mib: 32_768,
                vendor: "nvidia".into(),
                product: class.into(),
                serial: None,
                pci_bus_id: None,
                numa_node: None,
                link_peers: Vec::new(),
            };
            let facts = NodeFacts {
                cpu_milli: cores * 1000,
                memory_mib: gib * 1024,
                rack: None,
                link_domain: None,
                agent_version: "bench".into(),
                driver_version: None,
                labels: BTreeMap::new(),
            };
            let register = Command::Register {
                node: NodeId::new(&format!("n{at}")).expect("a name"),
                session: SessionId(Uuid::from_u128(at)),
                boot_id: "boot".into(),
                facts,
                chips: (0..chips).map(|i| (chip(i), Health::Healthy)).collect(),
                seen: Vec::new(),
            };
            round(cluster, at, register);
        }
    }
    cluster.take_touched();
}

/// The n-th job of the mix: half of them shares, most of the others one chip, now and then two, four or eight.
fn spec(n: u64) -> JobSpec {
    let mixed = n.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
    let (shape, cores) = (mixed % 48, [3, 8, 11, 12, 16, 4][(mixed / 48 % 6) as usize]);
    let demand = match shape {
        0..24 => ChipDemand::ShareSlots([810, 470, 320, 650, 230, 460][(shape % 6) as usize]),
        24..45 => ChipDemand::Chips(1),
        45 => ChipDemand::Chips(2),
        46 => ChipDemand::Chips(4),
        _ => ChipDemand::Chips(8),
    };
    let chips = u64::from(demand.chips());
    JobSpec {
        replicas_min: None,
        restart_cost: None,
        min_runtime: None,
        preemption_budget: None,
        kind: Kind::Inference,
        name: "bench".into(),
        queue: "default".into(),
        priority_class: None,
        priority: 0,
        replicas: 1,
        demand,
        cpu_milli: if chips > 1 { 8000 * chips } else { cores * 1000 },
        memory_mib: 16_384 * chips,
        device_classes: Vec::new(),
        same: None,
        max_duration: None,
        preemptible: true,
        grace: Millis(0),
        checkpoint_every: None,
        lease_ttl: None,
        on_node_loss: Default::default(),
        unfit: Unfit::Wait,
        labels: BTreeMap::new(),
        workload: None,
    }
}

/// A fleet being filled, job by job; anew when it is full.
struct Filling {
    empty: Cluster,
    cluster: Cluster,
    jobs: u64,
    failed: u32,
}

impl Filling {
    /// An empty fleet that has met a long run of jobs before.
    fn of(kinds: Kinds) -> Filling {
        let mut cluster = Cluster::default();
        round(&mut cluster, 1, Command::TakeOver { epoch: 1 });
        for n in 0..20_000u64 {
            let id = JobId(Uuid::from_u128(1 << 40 | u128::from(n)));
            round(&mut cluster, 1, Command::Submit(vec![NewJob { id, spec: Arc::new(spec(n)) }]));
            round(&mut cluster, 1, Command::Cancel(id));
        }
        join(&mut cluster, kinds);
        Filling { empty: cluster.clone(), cluster, jobs: 0, failed: 0 }
    }

    /// Submits so many jobs; the time spent in decisions alone, or in whole rounds.
    fn go_on(&mut self, times: u64, decisions: bool) -> Duration {
        let mut spent = Duration::ZERO;
        for _ in 0..times {
            self.jobs += 1;
            let (at, spec) = (1 << 32 | u128::from(self.jobs), spec(self.jobs));
            if decisions {
                let began = Instant::now();
                std::hint::black_box(place::would_go(&self.cluster, &spec));
                spent += began.elapsed();
            }
            let submit = Command::Submit(vec![NewJob { id: JobId(Uuid::from_u128(at)), spec: Arc::new(spec) }]);
            let began = Instant::now();
            let granted = round(&mut self.cluster, at, submit);
            spent += if decisions { Duration::ZERO } else { began.elapsed() };
            self.cluster.take_touched();
            if !granted {
                round(&mut self.cluster, at, Command::Cancel(JobId(Uuid::from_u128(at))));
                self.failed += 1;
            }
            if self.failed > 1000 {
                (self.cluster, self.failed) = (self.empty.clone(), 0);
            }
        }
        spent
    }
}

fn benches(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("place");
    group.throughput(Throughput::Elements(1)).sample_size(10);
    for (name, kinds) in [("1213_nodes", LIKE_OPENB), ("10000_nodes", LARGE)] {
        let mut filling = Filling::of(kinds);
        for (what, decisions) in [("decision", true), ("round", false)] {
            group.bench_function(BenchmarkId::new(what, name), |bencher| {
                bencher.iter_custom(|times| filling.go_on(times, decisions));
            });
        }
    }
    group.finish();
}

criterion_group!(place, benches);
criterion_main!(place);
