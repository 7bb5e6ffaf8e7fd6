//! What it costs to explain one job: a full fleet of 10,000 nodes, 35,000 leases of which a third have a known end, and
//! 100,000 jobs of 500 shapes that wait.

use chiptide_allocator::explain::{self, Explainer};
use chiptide_allocator::restore::{ChipRow, NodeRow};
use chiptide_allocator::{Cluster, Snapshot};
use chiptide_model::{
    ChipFacts, ChipId, DeviceClass, Health, Hold, Job, JobId, JobSpec, JobState, Lease, LeaseId, LeaseState, NodeFacts,
    NodeId, Placement, SessionId, Slots, Timestamp,
};
use criterion::{Criterion, criterion_group, criterion_main};
use std::hint::black_box;
use std::sync::Arc;
use uuid::Uuid;

const NODES: usize = 10_000;
const CHIPS: usize = 8;
const PENDING: usize = 100_000;
const SHAPES: usize = 500;
const NOW: Timestamp = Timestamp(1_000_000_000);

fn spec(queue: usize, priority: i32, replicas: usize, chips: usize, cpu_milli: usize) -> Arc<JobSpec> {
    let json = serde_json::json!({
        "kind": "training", "name": format!("job-{queue}"), "queue": "default", "priority": priority,
        "replicas": replicas, "demand": {"chips": chips}, "cpu_milli": cpu_milli, "memory_mib": 0, "preemptible": true,
        "grace": "30s"
    });
    Arc::new(serde_json::from_value(json).expect("a spec"))
}

fn node(n: usize) -> NodeRow {
    let chip = |i: usize| ChipRow {
        facts: ChipFacts {
            class: DeviceClass::new("nvidia-h20").expect("a class"),
            ..serde_json::from_value(serde_json::json!({
                "id": format!("n{n}-gpu{i}"), "class": "nvidia-h20", "memory_mib": 98_304, "vendor": "nvidia",
                "product": "H20"
            }))
            .expect("facts")
        },
        epoch: 1,
        health: Health::Healthy,
        quarantine: None,
        faults: Default::default(),
    };
    let facts: NodeFacts = serde_json::from_value(serde_json::json!({
        "cpu_milli": 128_000, "memory_mib": 1_048_576, "rack": format!("r{}", n / 32), "agent_version": "bench"
    }))
    .expect("facts");
    NodeRow {
        id: NodeId::new(&format!("n{n}")).expect("a name"),
        facts,
        session: SessionId(Uuid::from_u128(n as u128)),
        boot_id: "boot".into(),
        unknown_since: None,
        cordon: None,
        chips: (0..CHIPS).map(chip).collect(),
    }
}

/// A job that has held `chips` chips of a node for some time.
fn running(id: usize, n: usize, first: usize, chips: usize) -> (Job, Lease) {
    let (job, lease) = (JobId(Uuid::from_u128(id as u128)), LeaseId(Uuid::from_u128(id as u128)));
    let hold = |i: usize| Hold {
        chip: ChipId::new(&format!("n{n}-gpu{i}")).expect("a name"),
        slots: vec![Slots::WHOLE],
        epoch: 1,
    };
    let granted_at = Timestamp(NOW.0 - 60_000 - (id as i64 * 7919) % 80_000_000);
    let placement = Placement {
        replica: 0,
        node: NodeId::new(&format!("n{n}")).expect("a name"),
        holds: (first..first + chips).map(hold).collect(),
        cpu_milli: 0,
        memory_mib: 0,
    };
    let ends_at = id.is_multiple_of(3).then(|| Timestamp(NOW.0 + 1_000_000 + (id as i64 * 104_729) % 80_000_000));
    let lease = Lease {
        extra: false,
        id: lease,
        job,
        attempt: 1,
        placements: vec![placement],
        granted_at,
        expires_at: None,
        ends_at,
        state: LeaseState::Active,
        confirmed: Default::default(),
        extended: false,
        policy_version: 1,
    };
    (waiting(id, spec(id % 7, 600, 1, chips, 0), Some(lease.id)), lease)
}

fn waiting(id: usize, spec: Arc<JobSpec>, lease: Option<LeaseId>) -> Job {
    Job {
        evictions: Vec::new(),
        checkpointed_at: None,
        extras: Default::default(),
        given_back: 0,
        restarts: 0,
        id: JobId(Uuid::from_u128(id as u128)),
        spec,
        place: id as u64,
        submitted_at: Timestamp(0),
        state: lease.map_or(JobState::Pending, |lease| JobState::Running { lease }),
        attempt: u32::from(lease.is_some()),
        preemptions: 0,
        changed_at: Timestamp(0),
        revision: 1,
    }
}

/// The cluster, a job of a single chip and one of sixteen whole nodes, both last in their lines.
fn full_fleet() -> (Cluster, [JobId; 2]) {
    let mut snapshot = Snapshot { nodes: (0..NODES).map(node).collect(), at: NOW, ..Snapshot::default() };
    let mut id = 0;
    for n in 0..NODES {
        let chips = [8, 4, 2, 1][n % 4];
        for first in (0..CHIPS).step_by(chips) {
            id += 1;
            let (job, lease) = running(id, n, first, chips);
            snapshot.jobs.push(job);
            snapshot.leases.push(lease);
        }
    }
    let shape = |i: usize| spec(0, 500, 1 + i % 10, 1 + i % 8, i);
    let shapes: Vec<Arc<JobSpec>> = (0..SHAPES).map(shape).collect();
    for i in 0..PENDING {
        id += 1;
        snapshot.jobs.push(waiting(id, shapes[i % SHAPES].clone(), None));
    }
    let (single, gang) = (id + 1, id + 2);
    snapshot.jobs.push(waiting(single, spec(0, 500, 1, 1, 0), None));
    snapshot.jobs.push(waiting(gang, spec(0, 500, 16, 8, 0), None));
    snapshot.last_place = gang as u64;
    let cluster = snapshot.restore().expect("sound rows");
    (cluster, [single, gang].map(|id| JobId(Uuid::from_u128(id as u128))))
}

fn benches(c: &mut Criterion) {
    let (cluster, [single, gang]) = full_fleet();
    for (name, id) in [("explain a job of one chip", single), ("explain a gang of 128 chips", gang)] {
        let job = cluster.job(id).expect("pending");
        assert!(!explain::job(&cluster, job, NOW).blockers.is_empty());
        c.bench_function(name, |b| b.iter(|| black_box(explain::job(&cluster, job, NOW))));
    }
    let running = cluster.jobs().next().expect("a job");
    c.bench_function("explain a running job", |b| b.iter(|| black_box(explain::job(&cluster, running, NOW))));
    let page: Vec<&Job> = cluster.jobs().filter(|job| job.state == JobState::Pending).take(500).collect();
    c.bench_function("reasons of a page of 500 jobs", |b| {
        b.iter(|| {
            let mut explainer = Explainer::of(&cluster);
            black_box(page.iter().map(|job| explainer.explain(job).len()).sum::<usize>())
        })
    });
}

criterion_group! {
    name = explanations;
    config = Criterion::default().sample_size(10);
    targets = benches
}
criterion_main!(explanations);
