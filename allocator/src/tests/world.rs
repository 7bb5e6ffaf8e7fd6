//! A small language for tests: build a world, let things happen, read the story of the events.

use crate::{Ack, Cluster, Command, NewJob, Refusal, Report, Round, check, decide};
use chiptide_model::{
    Cause, ChipDemand, ChipFacts, ChipId, DeviceClass, Event, Fence, Health, Holder, JobId, JobSpec, Kind, LeaseId,
    Millis, Next, NodeFacts, NodeId, OnNodeLoss, Outcome, Policy, Quarantine, QueuePolicy, Quota, ReservationDrop,
    SessionId, Timestamp, Unfit,
};
use expect_test::Expect;
use std::collections::BTreeMap;
use std::sync::Arc;
use uuid::Uuid;

pub(super) const LOW: i32 = 100;
pub(super) const MID: i32 = 500;
pub(super) const HIGH: i32 = 900;

/// A draft and a committed cluster side by side, as in the daemon.
pub(super) struct World {
    pub(super) draft: Cluster,
    pub(super) committed: Cluster,
    pub(super) now: Timestamp,
    pub(super) log: Vec<(Timestamp, Event)>,
    pub(super) names: BTreeMap<String, JobId>,
    rounds: u128,
    told: usize,
}

/// A job in the making: `job("train").chips(8).replicas(2).priority(LOW)`.
#[derive(Clone)]
pub(super) struct Ask(JobSpec);

pub(super) fn world() -> World {
    let mut world = World {
        draft: Cluster::default(),
        committed: Cluster::default(),
        now: Timestamp(0),
        log: Vec::new(),
        names: BTreeMap::new(),
        rounds: 0,
        told: 0,
    };
    // Stories that are not about starting need not tell of it.
    let mut policy = Policy::default();
    policy.bounds.start = None;
    world.round(vec![Command::TakeOver { epoch: 1 }, Command::ApplyPolicy(policy)]);
    world.told = world.log.len();
    world
}

pub(super) fn job(name: &str) -> Ask {
    Ask(JobSpec {
        kind: Kind::Training,
        name: name.into(),
        queue: "default".into(),
        priority_class: None,
        priority: MID,
        replicas: 1,
        replicas_min: None,
        demand: ChipDemand::Chips(1),
        cpu_milli: 0,
        memory_mib: 0,
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
    })
}

impl Ask {
    pub(super) fn spec(self) -> JobSpec {
        self.0
    }
    pub(super) fn with(mut self, change: impl FnOnce(&mut JobSpec)) -> Ask {
        change(&mut self.0);
        self
    }
    pub(super) fn chips(self, n: u16) -> Ask {
        self.with(|spec| spec.demand = ChipDemand::Chips(n))
    }
    pub(super) fn share(self, slots: u16) -> Ask {
        self.with(|spec| spec.demand = ChipDemand::ShareSlots(slots))
    }
    pub(super) fn replicas(self, n: u32) -> Ask {
        self.with(|spec| spec.replicas = n)
    }
    pub(super) fn priority(self, value: i32) -> Ask {
        self.with(|spec| spec.priority = value)
    }
    pub(super) fn lasts(self, span: &str) -> Ask {
        let span = span.parse().expect("a duration");
        self.with(|spec| spec.max_duration = Some(span))
    }
    pub(super) fn fenced(self, ttl: &str) -> Ask {
        let ttl = ttl.parse().expect("a duration");
        let fence = Fence { ttl, kill: Millis::from_secs(10), watchdog: Millis::from_secs(5) };
        self.with(|spec| spec.on_node_loss = OnNodeLoss::Fence(fence))
    }
    pub(super) fn queue(self, name: &str) -> Ask {
        self.with(|spec| spec.queue = name.into())
    }
    pub(super) fn classes(self, names: &[&str]) -> Ask {
        self.with(|spec| spec.device_classes = names.iter().map(|name| class(name).into()).collect())
    }
}

/// A quota of chips of any class.
pub(super) fn chips(count: u32) -> Quota {
    Quota { normalised: Some(count), ..Quota::default() }
}

pub(super) fn class(name: &str) -> DeviceClass {
    DeviceClass::new(name).expect("a class name")
}

pub(super) fn node_id(name: &str) -> NodeId {
    NodeId::new(name).expect("a node name")
}

impl World {
    /// One round, with every guarantee the daemon relies on checked after it.
    pub(super) fn round(&mut self, commands: Vec<Command>) -> Vec<Result<Ack, Refusal>> {
        self.rounds += 1;
        let round = Round { now: self.now, seed: self.rounds << 64 };
        let mut twin = self.draft.clone();
        let decision = decide(&mut self.draft, commands.clone(), round);
        assert_eq!(decide(&mut twin, commands, round), decision, "the same state and commands give the same plan");
        assert_eq!(decision.unfounded, None);
        assert_eq!(check(&self.draft), Vec::new());
        assert!(self.draft.next_due().is_none_or(|due| due > self.now), "something is due and was not done");
        for event in &decision.events {
            self.committed.apply(self.now, event).expect("a committed event fits");
            self.log.push((self.now, event.clone()));
        }
        assert!(self.committed == self.draft, "memory is the fold of committed events");
        decision.answers
    }

    /// Changes the policy in force.
    pub(super) fn policy(mut self, change: impl FnOnce(&mut Policy)) -> World {
        let mut policy = self.draft.policy.clone();
        change(&mut policy);
        policy.version += 1;
        assert_eq!(policy.faults(), Vec::new());
        self.round(vec![Command::ApplyPolicy(policy)]);
        self.told = self.log.len();
        self
    }

    /// Adds a queue, or changes it: `queue("ads", |q| q.guaranteed = chips(8))`.
    pub(super) fn queue(self, name: &str, change: impl FnOnce(&mut QueuePolicy)) -> World {
        self.policy(|policy| change(policy.queues.entry(name.into()).or_default()))
    }

    pub(super) fn node(self, name: &str, chips: u16) -> World {
        self.node_of(name, "nvidia-h20", chips)
    }

    pub(super) fn node_of(mut self, name: &str, kind: &str, chips: u16) -> World {
        self.register(name, kind, chips, "boot-1");
        self.told = self.log.len();
        self
    }

    /// A node that is not like the others: `node_with("n1", 8, |facts, chips| facts.cpu_milli = 8_000)`.
    pub(super) fn node_with(
        mut self,
        name: &str,
        chips: u16,
        change: impl FnOnce(&mut NodeFacts, &mut [ChipFacts]),
    ) -> World {
        self.register_with(name, "nvidia-h20", chips, "boot-1", change);
        self.told = self.log.len();
        self
    }

    pub(super) fn register(&mut self, name: &str, kind: &str, chips: u16, boot_id: &str) -> Vec<Result<Ack, Refusal>> {
        self.register_with(name, kind, chips, boot_id, |_, _| {})
    }

    fn register_with(
        &mut self,
        name: &str,
        kind: &str,
        chips: u16,
        boot_id: &str,
        change: impl FnOnce(&mut NodeFacts, &mut [ChipFacts]),
    ) -> Vec<Result<Ack, Refusal>> {
        let mut facts = NodeFacts {
            cpu_milli: 64_000,
            memory_mib: 262_144,
            rack: None,
            link_domain: None,
            agent_version: "test".into(),
            driver_version: None,
            labels: BTreeMap::new(),
        };
        let chip = |i| ChipFacts {
            id: ChipId::new(&format!("{name}-{i}")).expect("a chip name"),
            class: class(kind),
            memory_mib: 16_384,
            vendor: "nvidia".into(),
            product: kind.into(),
            serial: None,
            pci_bus_id: None,
            numa_node: None,
            link_peers: Vec::new(),
        };
        let mut chips: Vec<ChipFacts> = (0..chips).map(chip).collect();
        change(&mut facts, &mut chips);
        self.round(vec![Command::Register {
            node: node_id(name),
            session: SessionId(Uuid::from_u128(self.rounds)),
            boot_id: boot_id.into(),
            facts,
            chips: chips.into_iter().map(|chip| (chip, Health::Healthy)).collect(),
            seen: Vec::new(),
        }])
    }

    /// Submits a job in a round of its own.
    pub(super) fn submit(&mut self, ask: Ask) -> Result<Ack, Refusal> {
        let id = JobId(Uuid::from_u128(self.names.len() as u128 + 1));
        self.names.insert(ask.0.name.clone(), id);
        self.round(vec![Command::Submit(vec![NewJob { id, spec: Arc::new(ask.0) }])]).remove(0)
    }

    /// Submits jobs together.
    pub(super) fn submit_all(&mut self, asks: Vec<Ask>) {
        let jobs = asks.into_iter().map(|ask| {
            let id = JobId(Uuid::from_u128(self.names.len() as u128 + 1));
            self.names.insert(ask.0.name.clone(), id);
            NewJob { id, spec: Arc::new(ask.0) }
        });
        let jobs = jobs.collect();
        self.round(vec![Command::Submit(jobs)]).remove(0).expect("accepted");
    }

    /// A job that holds a lease when the story begins.
    pub(super) fn lease(mut self, ask: Ask) -> World {
        let name = ask.0.name.clone();
        self.submit(ask).expect("accepted");
        assert!(self.lease_of(&name).is_some(), "{name} got no lease");
        self.told = self.log.len();
        self
    }

    pub(super) fn job_id(&self, name: &str) -> JobId {
        self.names[name]
    }

    pub(super) fn lease_of(&self, name: &str) -> Option<LeaseId> {
        self.draft.job(self.names[name]).and_then(|job| job.state.lease())
    }

    pub(super) fn after(&mut self, span: &str) {
        self.now = self.now + span.parse::<Millis>().expect("a duration");
        self.round(Vec::new());
    }

    pub(super) fn done(&mut self, name: &str) {
        self.round(vec![Command::Done(self.names[name], Outcome::Succeeded)]).remove(0).expect("a live job");
    }

    /// These nodes are not heard any more.
    pub(super) fn silent(&mut self, names: &[&str]) {
        self.round(names.iter().map(|name| Command::Silent(node_id(name))).collect());
    }

    /// Every node reports: proves vacant whatever must be, confirms whatever it carries.
    pub(super) fn nodes_report(&mut self) {
        let nodes: Vec<NodeId> = self.draft.fleet.nodes.iter().map(|node| node.id.clone()).collect();
        let reports = nodes.iter().map(|node| Command::Report(self.full_report(node))).collect();
        self.round(reports);
    }

    pub(super) fn full_report(&self, id: &NodeId) -> Report {
        let node = self.draft.node(id).expect("a known node");
        let chips = || node.chips.iter().map(|&ix| &self.draft.fleet.chips[ix]);
        let owed = chips().flat_map(|chip| {
            let vacating = chip.holds.iter().filter(|hold| hold.vacate_by.is_some());
            let orphan = match chip.quarantine {
                Some(Quarantine::Orphaned { lease, epoch }) => Some((chip.facts.id.clone(), lease, epoch)),
                _ => None,
            };
            vacating.map(|hold| (chip.facts.id.clone(), hold.lease, chip.epoch)).chain(orphan)
        });
        Report {
            node: id.clone(),
            session: node.session,
            health: Vec::new(),
            confirmed: node.leases.iter().copied().collect(),
            ladders: Vec::new(),
            vacant: owed.collect(),
            faults: Vec::new(),
            refused: Vec::new(),
            fenced: Vec::new(),
        }
    }

    /// What has happened since the story was last read.
    pub(super) fn story(&mut self) -> String {
        let lines: Vec<String> = self.log[self.told..].iter().map(|(at, event)| self.tell(*at, event)).collect();
        self.told = self.log.len();
        lines.join("\n")
    }

    pub(super) fn expect(&mut self, expected: Expect) {
        expected.assert_eq(&self.story());
    }

    fn name(&self, id: JobId) -> &str {
        self.names.iter().find(|(_, known)| **known == id).map_or("?", |(name, _)| name)
    }

    fn holder(&self, lease: LeaseId) -> &str {
        let granted = self.log.iter().find_map(|(_, event)| match event {
            Event::LeaseGranted { lease: known, job, .. } if *known == lease => Some(*job),
            _ => None,
        });
        granted.map_or("?", |job| self.name(job))
    }

    fn reserver<'a>(&'a self, holder: &'a Holder) -> &'a str {
        match holder {
            Holder::Job(job) => self.name(*job),
            Holder::Calendar(name) => name,
        }
    }

    fn is_extra(&self, lease: LeaseId) -> bool {
        let is =
            |event: &Event| matches!(event, Event::LeaseGranted { lease: known, extra: true, .. } if *known == lease);
        self.log.iter().any(|(_, event)| is(event))
    }

    fn tell(&self, at: Timestamp, event: &Event) -> String {
        let chips = |placements: &[chiptide_model::Placement]| -> String {
            let one = |hold: &chiptide_model::Hold| match hold.slots.iter().map(|s| s.count()).sum::<u16>() {
                1000 => hold.chip.to_string(),
                part => format!("{}/{part}", hold.chip),
            };
            placements.iter().flat_map(|p| p.holds.iter().map(one)).collect::<Vec<_>>().join(" ")
        };
        match event {
            Event::JobSubmitted { job, .. } => format!("{} submitted", self.name(*job)),
            Event::JobStarted { job } => format!("{} runs", self.name(*job)),
            Event::JobCheckpointed { job, .. } => format!("{} checkpoints", self.name(*job)),
            Event::WorkEnded { job, run, verdict, .. } => {
                format!("run {run} of {} is over: {verdict:?}", self.name(*job))
            }
            Event::JobRestarted { job, run } => format!("{} goes on with run {run}", self.name(*job)),
            Event::JobEnded { job, outcome } => format!("{} ended: {outcome:?}", self.name(*job)),
            Event::ClaimMade { job, placements, .. } => {
                format!("{} is promised {}", self.name(*job), chips(placements))
            }
            Event::ClaimDropped { job, why } => format!("{} loses its promise: {why:?}", self.name(*job)),
            Event::LeaseGranted { job, placements, extra: true, .. } => {
                format!("{} grows by {}", self.name(*job), chips(placements))
            }
            Event::LeaseGranted { job, placements, .. } => format!("{} gets {}", self.name(*job), chips(placements)),
            Event::LeaseRevoked { lease, cause: Cause::Preempt { for_job }, deadline } => {
                let grace = deadline.since(at);
                let verb = if self.is_extra(*lease) { "shrink" } else { "evict" };
                format!("{verb} {} for {} by +{grace}", self.holder(*lease), self.name(*for_job))
            }
            Event::LeaseRevoked { lease, cause: Cause::Reclaim { for_job }, deadline } => {
                let grace = deadline.since(at);
                format!("reclaim from {} for {} by +{grace}", self.holder(*lease), self.name(*for_job))
            }
            Event::LeaseRevoked { lease, cause, deadline } => {
                format!("revoke {} ({}) by +{}", self.holder(*lease), cause.as_str(), deadline.since(at))
            }
            Event::LeaseExtended { lease, deadline, .. } => {
                format!("{} may stay until +{}", self.holder(*lease), deadline.since(at))
            }
            Event::LadderClimbed { lease, node, steps } => {
                format!("{node} goes down the ladder with {}: {steps:?}", self.holder(*lease))
            }
            Event::LeaseEnded { lease, cause, next } => {
                let next = match next {
                    Next::Pending => "back to pending".into(),
                    Next::Unchanged => "the job goes on".into(),
                    Next::Ended(outcome) => format!("{outcome:?}"),
                };
                let what = if self.is_extra(*lease) { "extra lease" } else { "lease" };
                format!("{what} of {} ends ({}): {next}", self.holder(*lease), cause.as_str())
            }
            Event::ChipVacated { chip, lease, .. } => format!("{chip} is proven vacant of {}", self.holder(*lease)),
            Event::LeaseConfirmed { lease, node } => format!("{node} confirms {}", self.holder(*lease)),
            Event::NodeSilent { node } => format!("{node} is silent"),
            Event::NodeHeard { node } => format!("{node} is heard"),
            Event::NodeRegistered { node, .. } => format!("{node} registers"),
            Event::NodeCordoned { node, cordon } => format!("{} cordons {node}: {}", cordon.who, cordon.reason),
            Event::NodeUncordoned { node, who, reason } => format!("{who} gives {node} back: {reason}"),
            Event::NodeDeclaredOff { node, by, reason } => format!("{by} declares {node} off: {reason}"),
            Event::DatabaseReplaced { detail } => format!("the database is another one: {detail}"),
            Event::ChipEpochRaised { chip, epoch } => format!("{chip} goes to epoch {epoch}"),
            Event::ChipQuarantined { chip, .. } => format!("{chip} is quarantined"),
            Event::ChipRestored { chip } => format!("{chip} is restored"),
            Event::ChipFaulted { chip, fault } => format!("{chip} has {fault}"),
            Event::ChipFaultEnded { chip, fault, .. } => {
                format!("{} {} of {chip} is over", fault.dimension.as_str(), fault.code)
            }
            Event::ChipReleased { chip, who, reason } => format!("{who} releases {chip}: {reason}"),
            Event::ChipHealthChanged { chip, health } => format!("{chip} is {health:?}"),
            Event::LeaseRenewed { lease, expires_at } => {
                format!("{} renews by {}", self.holder(*lease), expires_at.since(at))
            }
            Event::LeaderTookOver { epoch } => format!("leader {epoch}"),
            Event::PolicyApplied { .. } => "policy".into(),
            Event::ReservationMade { holder, starts_at, placements, .. } => {
                let in_all = chips(placements);
                format!("{} has {} reserved from +{}", self.reserver(holder), in_all, starts_at.since(at))
            }
            Event::ReservationOpened { holder } => format!("the window of {} opens", self.reserver(holder)),
            Event::ReservationDropped { holder, why: ReservationDrop::Outranked { by } } => {
                format!("{} gives its reservation up to {}", self.reserver(holder), self.name(*by))
            }
            Event::ReservationDropped { holder, why } => {
                format!("{} has its reservation no more: {why:?}", self.reserver(holder))
            }
        }
    }
}
