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

fn fleet(kinds: Kinds) -> Cluster {
    let mut cluster = Cluster::default();
    let mut at = 1;
    round(&mut cluster, at, Command::TakeOver { epoch: 1 });
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
            };
            round(&mut cluster, at, register);
        }
    }
    cluster.take_touched();
    cluster
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
        cpu_milli: cores * 1000 * chips,
        memory_mib: 16_384 * chips,
        device_classes: Vec::new(),
        same: None,
        max_duration: None,
        preemptible: true,
        grace: Millis(0),
        checkpoint_every: None,
        lease_ttl: None,
        unfit: Unfit::Wait,
        labels: BTreeMap::new(),
        workload: None,
    }
}

/// Fills the fleet job by job, `times` jobs in all, anew when it is full; the sum of what `count_decision` picks.
fn fill(empty: &Cluster, times: u64, count_decision: bool) -> Duration {
    let (mut cluster, mut spent, mut at) = (empty.clone(), Duration::ZERO, 1 << 32);
    for n in 0..times {
        at += 1;
        let spec = spec(n);
        if count_decision {
            let began = Instant::now();
            std::hint::black_box(place::would_go(&cluster, &spec));
            spent += began.elapsed();
        }
        let submit = Command::Submit(vec![NewJob { id: JobId(Uuid::from_u128(at)), spec: Arc::new(spec) }]);
        let began = Instant::now();
        let granted = round(&mut cluster, at, submit);
        spent += if count_decision { Duration::ZERO } else { began.elapsed() };
        if n % 1024 == 0 {
            cluster.take_touched();
        }
        if !granted {
            let demand = cluster.demand.clone();
            cluster = empty.clone();
            cluster.demand = demand;
        }
    }
    spent
}

fn benches(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("place");
    group.throughput(Throughput::Elements(1)).sample_size(10);
    for (name, kinds) in [("1213_nodes", LIKE_OPENB), ("10000_nodes", LARGE)] {
        let empty = fleet(kinds);
        for (what, count_decision) in [("decision", true), ("round", false)] {
            group.bench_with_input(BenchmarkId::new(what, name), &empty, |bencher, empty| {
                bencher.iter_custom(|times| fill(empty, times, count_decision));
            });
        }
    }
    group.finish();
}

criterion_group!(place, benches);
criterion_main!(place);
