//! The production allocator under a virtual clock: rounds of [`decide`] on a cluster whose nodes never fail and prove
//! vacancy at once. Nothing sleeps; the clock stands where its driver puts it.

mod holders;

use anyhow::{anyhow, ensure};
use chiptide_allocator::{Ack, Cluster, Command, NewJob, Refusal, Report, Round, check, decide};
use chiptide_model::{
    ChipDemand, ChipFacts, ChipId, DeviceClass, Event, Health, JobId, JobSpec, Kind, LeaseId, Millis, NodeFacts,
    NodeId, Outcome, Policy, SessionId, Timestamp, Unfit,
};
use holders::Holders;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use uuid::Uuid;

/// Odd, so that the seeds of all rounds differ, with ones all over, so that they differ everywhere.
const SEED_STRIDE: u128 = 0xD134_2543_DE82_EF95_A076_1D64_78BD_642F;
/// The device class of every chip.
pub const CLASS: &str = "nvidia-h20";
/// CPU of a node, thousandths of a core; jobs here ask for none.
const NODE_CPU_MILLI: u64 = 128_000;
/// Memory of a node, MiB; jobs here ask for none.
const NODE_MEMORY_MIB: u64 = 1_048_576;
/// Memory of a chip, MiB.
const CHIP_MEMORY_MIB: u64 = 81_920;

/// One cluster, its clock, and the audit of what it grants.
pub struct VirtualCluster {
    cluster: Cluster,
    now: Timestamp,
    rounds: u64,
    recount_every: Option<u64>,
    /// The audit; a run that is not audited keeps none of it in memory.
    holders: Option<Holders>,
    deciding: Duration,
    answers: Vec<Result<Ack, Refusal>>,
}

impl VirtualCluster {
    /// A fleet of `nodes` nodes of `chips` chips each, all of one device class, under the default policy as `change`
    /// leaves it. Every `recount_every` rounds the whole cluster is recounted, and every grant is followed; with `None`
    /// neither, so that nothing but the allocator takes time and memory.
    pub fn uniform(
        nodes: usize,
        chips: u16,
        recount_every: Option<u64>,
        change: impl FnOnce(&mut Policy),
    ) -> anyhow::Result<VirtualCluster> {
        let mut virtual_cluster = VirtualCluster {
            cluster: Cluster::default(),
            now: Timestamp(0),
            rounds: 0,
            recount_every,
            holders: recount_every.map(|_| Holders::default()),
            deciding: Duration::ZERO,
            answers: Vec::new(),
        };
        let mut policy = Policy::default();
        // Its nodes prove, and never confirm.
        policy.bounds.start = None;
        change(&mut policy);
        virtual_cluster.round(vec![Command::TakeOver { epoch: 1 }, Command::ApplyPolicy(policy)])?;
        for node in 0..nodes {
            let registration = registration(node, chips)?;
            virtual_cluster.round(vec![registration])?;
        }
        Ok(virtual_cluster)
    }

    /// The cluster as the allocator sees it.
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// The virtual time.
    pub fn now(&self) -> Timestamp {
        self.now
    }

    /// Rounds decided so far.
    pub fn rounds(&self) -> u64 {
        self.rounds
    }

    /// Grants of a chip that somebody still held, found by following the events alone. Must stay 0.
    pub fn double_grants(&self) -> u64 {
        self.holders.as_ref().map_or(0, |holders| holders.double_grants)
    }

    /// How long the last round took to decide.
    pub fn deciding(&self) -> Duration {
        self.deciding
    }

    /// Answers to the commands of the last round.
    pub fn answers(&self) -> &[Result<Ack, Refusal>] {
        &self.answers
    }

    /// Moves the clock forward.
    pub fn advance_to(&mut self, now: Timestamp) {
        self.now = self.now.max(now);
    }

    /// Decides one round at the present time. Fails when the allocator contradicts itself.
    pub fn round(&mut self, commands: Vec<Command>) -> anyhow::Result<Vec<Event>> {
        self.rounds += 1;
        let round = Round { now: self.now, seed: u128::from(self.rounds).wrapping_mul(SEED_STRIDE) };
        let start = Instant::now();
        let decision = decide(&mut self.cluster, commands, round);
        self.deciding = start.elapsed();
        if let Some(unfounded) = decision.unfounded {
            return Err(anyhow!("round {}: {unfounded}", self.rounds));
        }
        self.cluster.take_touched();
        self.answers = decision.answers;
        if let Some(holders) = &mut self.holders {
            decision.events.iter().for_each(|event| holders.follow(event));
        }
        if self.recount_every.is_some_and(|every| self.rounds.is_multiple_of(every)) {
            self.recount()?;
        }
        Ok(decision.events)
    }

    /// Decides rounds until every chip whose lease has ended is proven vacant.
    pub fn settle(&mut self, commands: Vec<Command>) -> anyhow::Result<Vec<Event>> {
        let mut events = self.round(commands)?;
        let mut from = 0;
        while from < events.len() {
            let ended: Vec<LeaseId> = events[from..].iter().filter_map(ended_lease).collect();
            from = events.len();
            let proofs: Vec<Command> = ended.into_iter().flat_map(|lease| self.proofs(lease)).collect();
            if !proofs.is_empty() {
                events.extend(self.round(proofs)?);
            }
        }
        Ok(events)
    }

    /// Ends a job together with the proofs that its chips are vacant: a node that answers at once.
    pub fn done(&self, job: JobId) -> Vec<Command> {
        let lease = self.cluster.job(job).and_then(|job| job.state.lease());
        let proofs = lease.into_iter().flat_map(|lease| self.proofs(lease));
        std::iter::once(Command::Done(job, Outcome::Succeeded)).chain(proofs).collect()
    }

    /// Counts the whole cluster anew.
    pub fn recount(&self) -> anyhow::Result<()> {
        let found = check(&self.cluster);
        let first = found.first().map(ToString::to_string).unwrap_or_default();
        ensure!(found.is_empty(), "round {}: {} violations, the first: {first}", self.rounds, found.len());
        Ok(())
    }

    /// Reports in which each node of a lease proves its chips vacant of it.
    fn proofs(&self, lease: LeaseId) -> Vec<Command> {
        let placements = self.cluster.lease(lease).map(|lease| lease.placements.as_slice()).unwrap_or_default();
        let mut reports: BTreeMap<NodeId, Report> = BTreeMap::new();
        for placement in placements {
            let Some(node) = self.cluster.node(&placement.node) else { continue };
            let report = reports.entry(placement.node.clone()).or_insert_with(|| Report {
                node: placement.node.clone(),
                session: node.session,
                health: Vec::new(),
                confirmed: Vec::new(),
                ladders: Vec::new(),
                vacant: Vec::new(),
                refused: Vec::new(),
                fenced: Vec::new(),
                faults: Vec::new(),
            });
            report.vacant.extend(placement.holds.iter().map(|hold| (hold.chip.clone(), lease, hold.epoch)));
        }
        reports.into_values().map(Command::Report).collect()
    }
}

/// The lease that this event ended.
fn ended_lease(event: &Event) -> Option<LeaseId> {
    match event {
        Event::LeaseEnded { lease, .. } => Some(*lease),
        _ => None,
    }
}

/// A job of whole chips that asks for nothing else: no CPU, no memory, any device class, in the queue `default`.
pub fn job(kind: Kind, priority: i32, replicas: u32, chips: u16) -> JobSpec {
    JobSpec {
        kind,
        name: kind.as_str().into(),
        queue: "default".into(),
        priority_class: None,
        priority,
        replicas,
        replicas_min: None,
        demand: ChipDemand::Chips(chips),
        cpu_milli: 0,
        memory_mib: 0,
        device_classes: Vec::new(),
        same: None,
        max_duration: None,
        preemptible: kind == Kind::Training,
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

/// The `number`th job of a run, as a submit.
pub fn new_job(number: u64, spec: &Arc<JobSpec>) -> NewJob {
    NewJob { id: job_id(number), spec: spec.clone() }
}

/// The id of the `number`th job of a run.
pub fn job_id(number: u64) -> JobId {
    JobId(Uuid::from_u128(u128::from(number) + 1))
}

/// Which job of a run has this id.
pub fn number_of(job: JobId) -> u64 {
    u64::try_from(job.0.as_u128().saturating_sub(1)).unwrap_or(u64::MAX)
}

fn registration(node: usize, chips: u16) -> anyhow::Result<Command> {
    let class = DeviceClass::new(CLASS)?;
    let facts = |chip: u16| -> anyhow::Result<(ChipFacts, Health)> {
        let facts = ChipFacts {
            id: ChipId::new(&format!("node-{node:05}-{chip}"))?,
            class: class.clone(),
            memory_mib: CHIP_MEMORY_MIB,
            vendor: "nvidia".into(),
            product: "NVIDIA H20".into(),
            serial: None,
            pci_bus_id: None,
            numa_node: None,
            link_peers: Vec::new(),
        };
        Ok((facts, Health::Healthy))
    };
    Ok(Command::Register {
        node: NodeId::new(&format!("node-{node:05}"))?,
        session: SessionId(Uuid::from_u128(node as u128 + 1)),
        boot_id: "boot".into(),
        facts: NodeFacts {
            link_domain: None,
            cpu_milli: NODE_CPU_MILLI,
            memory_mib: NODE_MEMORY_MIB,
            rack: None,
            agent_version: env!("CARGO_PKG_VERSION").into(),
            driver_version: None,
            labels: BTreeMap::new(),
        },
        chips: (0..chips).map(facts).collect::<anyhow::Result<_>>()?,
        seen: Vec::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_victim_leaves_after_its_grace_and_proves_it() {
        let mut world = VirtualCluster::uniform(1, 8, Some(1), |_| ()).expect("a fleet");
        let (low, high) = (Arc::new(job(Kind::Training, 100, 1, 8)), Arc::new(job(Kind::Inference, 900, 1, 4)));
        world.settle(vec![Command::Submit(vec![new_job(0, &low)])]).expect("a round");
        world.settle(vec![Command::Submit(vec![new_job(1, &high)])]).expect("a round");
        assert_eq!(world.cluster().next_due(), Some(Timestamp(30_000)));
        world.advance_to(Timestamp(30_000));
        let kinds: Vec<&str> = world.settle(Vec::new()).expect("a round").iter().map(Event::kind).collect();
        assert_eq!((kinds[0], kinds[1], kinds[9]), ("lease_ended", "chip_vacated", "lease_granted"));
        assert_eq!(world.double_grants(), 0);
    }
}
