//! The production allocator, driven by commands as the daemon drives it.

use super::run::{Placer, Spot};
use super::trace::{Node, Task, Trace, WHOLE};
use crate::openb::class_of;
use anyhow::{Context, bail};
use chiptide_allocator::{Cluster, Command, NewJob, Round, decide};
use chiptide_model::{
    ChipDemand, ChipFacts, ChipId, ClassChoice, Event, Health, JobId, JobSpec, Kind, Millis, NodeFacts, NodeId,
    Placement, SessionId, Timestamp, Unfit,
};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use uuid::Uuid;

pub(super) struct Product {
    cluster: Cluster,
    rounds: u128,
    nodes: BTreeMap<String, usize>,
    classes: Vec<ClassChoice>,
    /// Time spent in rounds that submitted a job, and how many.
    pub spent: Duration,
    pub decided: u64,
}

impl Product {
    pub(super) fn of(trace: &Trace) -> anyhow::Result<Product> {
        let classes = trace.models.iter().map(|model| class_of(model).into()).collect();
        let nodes = trace.nodes.iter().enumerate().map(|(ix, node)| (node.name.clone(), ix)).collect();
        let cluster = Cluster::default();
        let mut product = Product { cluster, rounds: 0, nodes, classes, spent: Duration::ZERO, decided: 0 };
        product.round(Command::TakeOver { epoch: 1 })?;
        for node in &trace.nodes {
            let register = product.register(node)?;
            product.round(register)?;
        }
        Ok(product)
    }

    fn register(&self, node: &Node) -> anyhow::Result<Command> {
        let class = &self.classes[node.model].class;
        let chip = |at: usize| -> anyhow::Result<(ChipFacts, Health)> {
            let facts = ChipFacts {
                id: ChipId::new(&format!("{}:{at}", node.name))?,
                class: class.clone(),
                memory_mib: 32_768,
                vendor: crate::openb::VENDOR.into(),
                product: class.to_string(),
                serial: None,
                pci_bus_id: None,
                numa_node: None,
                link_peers: Vec::new(),
            };
            Ok((facts, Health::Healthy))
        };
        Ok(Command::Register {
            node: NodeId::new(&node.name)?,
            session: SessionId(Uuid::from_u128(self.rounds)),
            boot_id: "boot".into(),
            facts: NodeFacts {
                cpu_milli: node.cpu,
                memory_mib: node.memory,
                rack: None,
                link_domain: None,
                agent_version: env!("CARGO_PKG_VERSION").into(),
                driver_version: None,
                labels: BTreeMap::new(),
            },
            chips: (0..node.chips.len()).map(chip).collect::<anyhow::Result<_>>()?,
            seen: Vec::new(),
        })
    }

    fn round(&mut self, command: Command) -> anyhow::Result<Vec<Event>> {
        self.rounds += 1;
        let round = Round { now: Timestamp(self.rounds as i64), seed: self.rounds << 64 };
        let decision = decide(&mut self.cluster, vec![command], round);
        if let Some(unfounded) = decision.unfounded {
            bail!("the allocator contradicts itself: {unfounded}");
        }
        if let Some(refusal) = decision.answers.into_iter().find_map(Result::err) {
            bail!("refused: {refusal:?}");
        }
        self.cluster.take_touched();
        Ok(decision.events)
    }

    fn job(&self, task: &Task) -> JobSpec {
        let demand = match task.is_share() {
            true => ChipDemand::ShareSlots(task.milli as u16),
            false => ChipDemand::Chips(task.chips as u16),
        };
        JobSpec {
            kind: Kind::Inference,
            name: "task".into(),
            queue: "default".into(),
            priority_class: None,
            priority: 0,
            replicas: 1,
            demand,
            cpu_milli: task.cpu,
            memory_mib: task.memory,
            device_classes: task.models.iter().map(|model| self.classes[*model].clone()).collect(),
            same: None,
            max_duration: None,
            preemptible: false,
            grace: Millis(0),
            checkpoint_every: None,
            replicas_min: None,
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

    fn spot(&self, placement: &Placement) -> anyhow::Result<Spot> {
        let node = *self.nodes.get(placement.node.as_str()).context("a node of the trace")?;
        let position = |chip: &ChipId| chip.as_str().rsplit(':').next().and_then(|at| at.parse().ok());
        let chips = placement.holds.iter().map(|hold| position(&hold.chip)).collect::<Option<_>>();
        Ok(Spot { node, chips: chips.context("a chip of the trace")? })
    }
}

impl Placer for Product {
    fn place(&mut self, _: &[Node], task: &Task) -> anyhow::Result<Option<Spot>> {
        debug_assert!(task.milli <= WHOLE);
        let id = JobId(Uuid::from_u128(self.rounds + 1));
        let submit = Command::Submit(vec![NewJob { id, spec: Arc::new(self.job(task)) }]);
        let began = Instant::now();
        let events = self.round(submit)?;
        self.spent += began.elapsed();
        self.decided += 1;
        let granted = events.into_iter().find_map(|event| match event {
            Event::LeaseGranted { placements, .. } => Some(placements),
            _ => None,
        });
        match granted {
            Some(placements) => self.spot(placements.first().context("a replica")?).map(Some),
            // What does not fit is dropped.
            None => self.round(Command::Cancel(id)).map(|_| None),
        }
    }

    fn rate(&self) -> Option<f64> {
        Some(self.decided as f64 / self.spent.as_secs_f64().max(1e-9))
    }
}
