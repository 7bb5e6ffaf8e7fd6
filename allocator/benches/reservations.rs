//! Reservations on a full fleet of 10,000 nodes with 80,000 chips: a gang of 64 chips is given one, and a round tries 500
//! shapes in vain while four are in force.

use chiptide_allocator::{Cluster, Command, NewJob, Round, decide};
use chiptide_model::{ChipFacts, ChipId, DeviceClass, Health, JobId, JobSpec, NodeFacts, NodeId, SessionId, Timestamp};
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

const NODES: u16 = 10_000;
const CHIPS: u16 = 8;
/// Between rounds, so that every gang may be looked at anew.
const STEP_MS: i64 = 31_000;

struct Site {
    cluster: Cluster,
    now: i64,
    submitted: u128,
}

impl Site {
    /// Every node is held by one job, each with an end of its own some days ahead.
    fn full() -> Site {
        let mut site = Site { cluster: Cluster::default(), now: 0, submitted: 0 };
        site.round(vec![Command::TakeOver { epoch: 1 }]);
        site.round((0..NODES).map(node).collect());
        let jobs = (0..u64::from(NODES)).map(|n| site.job(1, CHIPS, Some(14_400 + n * 7919 % 86_400))).collect();
        site.round(vec![Command::Submit(jobs)]);
        assert_eq!(site.cluster.leases().count(), usize::from(NODES));
        site
    }

    fn round(&mut self, commands: Vec<Command>) {
        self.now += 1;
        let round = Round { now: Timestamp(self.now), seed: u128::from(self.now.unsigned_abs()) << 64 };
        let decision = decide(&mut self.cluster, commands, round);
        assert!(decision.unfounded.is_none());
    }

    fn job(&mut self, replicas: u32, chips: u16, minutes: Option<u64>) -> NewJob {
        self.submitted += 1;
        let mut spec = serde_json::json!({
            "kind": "training", "name": "a", "queue": "training", "priority": 0, "replicas": replicas,
            "demand": {"chips": chips}, "cpu_milli": 0, "memory_mib": 0, "preemptible": true, "grace": "30s"
        });
        if let Some(minutes) = minutes {
            spec["max_duration"] = format!("{minutes}m").into();
        }
        let spec: JobSpec = serde_json::from_value(spec).expect("a spec");
        NewJob { id: JobId(Uuid::from_u128(self.submitted)), spec: Arc::new(spec) }
    }

    /// A gang comes and is given a reservation, or goes again.
    fn reserve(&mut self, replicas: u32) -> JobId {
        let gang = self.job(replicas, CHIPS, None);
        let id = gang.id;
        self.now += STEP_MS;
        self.round(vec![Command::Submit(vec![gang])]);
        assert!(self.cluster.reservation(&chiptide_model::Holder::Job(id)).is_some());
        id
    }
}

fn node(number: u16) -> Command {
    let chip = |chip: u16| ChipFacts {
        id: ChipId::new(&format!("n{number}-{chip}")).expect("a name"),
        class: DeviceClass::new("nvidia-h20").expect("a class"),
        memory_mib: 98_304,
        vendor: "nvidia".into(),
        product: "H20".into(),
        serial: None,
        pci_bus_id: None,
        numa_node: None,
        link_peers: Vec::new(),
    };
    Command::Register {
        node: NodeId::new(&format!("n{number}")).expect("a name"),
        session: SessionId(Uuid::from_u128(u128::from(number))),
        boot_id: "b".into(),
        facts: NodeFacts {
            link_domain: None,
            cpu_milli: 192_000,
            memory_mib: 2_000_000,
            rack: None,
            agent_version: "bench".into(),
            driver_version: None,
            labels: Default::default(),
        },
        chips: (0..CHIPS).map(|number| (chip(number), Health::Healthy)).collect(),
        seen: Vec::new(),
    }
}

fn reservations(criterion: &mut Criterion) {
    let mut site = Site::full();
    let mut group = criterion.benchmark_group("reservations");
    group.sample_size(10).measurement_time(Duration::from_secs(5));
    group.bench_function("reserve_64_of_80000_chips", |bench| {
        bench.iter_batched(
            || (),
            |()| {
                let gang = site.reserve(8);
                site.round(vec![Command::Cancel(gang)]);
            },
            BatchSize::PerIteration,
        );
    });
    for replicas in 5..9 {
        site.reserve(replicas);
    }
    let shapes: Vec<NewJob> = (0..500).map(|n| site.job(1 + n % 100, 1 + (n / 100) as u16, Some(60))).collect();
    site.round(vec![Command::Submit(shapes)]);
    for (name, reservations_max) in [("500_shapes_in_vain", 4), ("500_shapes_in_vain_without_reservations", 0)] {
        let mut policy = site.cluster.policy.clone();
        policy.backfill.reservations_max = reservations_max;
        group.bench_function(name, |bench| {
            bench.iter_batched(
                || site.cluster.clone(),
                |mut cluster| {
                    let round = Round { now: Timestamp(site.now + 1), seed: 1 };
                    decide(&mut cluster, vec![Command::ApplyPolicy(policy.clone())], round);
                    cluster
                },
                BatchSize::PerIteration,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, reservations);
criterion_main!(benches);
