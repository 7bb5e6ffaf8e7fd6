//! What events are about: an event names a lease or a job, and readers ask by queue and node as well.

use crate::shared::Shared;
use crate::store::{Result, log_subjects};
use chiptide_model::{ChipId, Event, Holder, JobId, LeaseId, NodeId, Timestamp};
use rustc_hash::{FxHashMap, FxHashSet};
use sqlx::PgPool;
use std::sync::Arc;

/// Most of each kind that is remembered; then all is forgotten and learned anew.
const KNOWN_MAX: usize = 100_000;

/// An event with its position and its moment.
pub type Numbered<'a> = (u64, Timestamp, &'a Event);

/// What one event is about.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct About {
    /// The job.
    pub job: Option<JobId>,
    /// Its queue.
    pub queue: Option<Arc<str>>,
    /// The lease.
    pub lease: Option<LeaseId>,
    /// The chip.
    pub chip: Option<ChipId>,
    /// The nodes: of a lease, those it spans.
    pub nodes: Arc<[NodeId]>,
}

/// Which queue a job is in, which job and nodes a lease has, which node a chip is on. None of these ever changes, so what was
/// learned stays true.
#[derive(Debug, Default)]
pub struct Directory {
    queues: FxHashMap<JobId, Arc<str>>,
    leases: FxHashMap<LeaseId, (JobId, Arc<[NodeId]>)>,
    chips: FxHashMap<ChipId, Arc<[NodeId]>>,
}

#[derive(Debug, Default)]
struct Missing {
    jobs: FxHashSet<JobId>,
    leases: FxHashSet<LeaseId>,
    chips: FxHashSet<ChipId>,
}

impl Missing {
    fn is_empty(&self) -> bool {
        self.jobs.is_empty() && self.leases.is_empty() && self.chips.is_empty()
    }
}

impl Directory {
    /// Learns all that is needed to tell what these events are about: from themselves, from the cluster in memory, and from
    /// the tables.
    pub async fn learn(&mut self, events: &[Numbered<'_>], shared: &Shared, pool: &PgPool) -> Result<()> {
        if self.queues.len().max(self.leases.len()).max(self.chips.len()) > KNOWN_MAX {
            *self = Directory::default();
        }
        events.iter().for_each(|(_, _, event)| self.note(event));
        let missing = self.missing(events);
        if missing.is_empty() {
            return Ok(());
        }
        self.learn_from_memory(&missing, shared);
        let missing = self.missing(events);
        if missing.is_empty() {
            return Ok(());
        }
        for (lease, job, placements) in log_subjects::leases(pool, missing.leases.iter().copied()).await? {
            let mut nodes: Vec<NodeId> = placements.into_iter().map(|placement| placement.node).collect();
            nodes.sort();
            nodes.dedup();
            self.leases.insert(lease, (job, nodes.into()));
        }
        let jobs = missing.leases.iter().filter_map(|lease| self.leases.get(lease)).map(|(job, _)| *job);
        let jobs: FxHashSet<JobId> = jobs.chain(missing.jobs).filter(|job| !self.queues.contains_key(job)).collect();
        let queues = log_subjects::queues(pool, jobs.into_iter()).await?;
        self.queues.extend(queues.into_iter().map(|(job, queue)| (job, queue.into())));
        let chips = log_subjects::nodes_of_chips(pool, missing.chips.into_iter()).await?;
        self.chips.extend(chips.into_iter().map(|(chip, node)| (chip, Arc::from([node]))));
        Ok(())
    }

    fn note(&mut self, event: &Event) {
        match event {
            Event::JobSubmitted { job, spec, .. } => drop(self.queues.insert(*job, spec.queue.as_str().into())),
            Event::LeaseGranted { lease, job, placements, .. } => {
                let mut nodes: Vec<NodeId> = placements.iter().map(|placement| placement.node.clone()).collect();
                nodes.sort();
                nodes.dedup();
                self.leases.insert(*lease, (*job, nodes.into()));
            }
            Event::NodeRegistered { node, chips, .. } => {
                let on: Arc<[NodeId]> = Arc::from([node.clone()]);
                self.chips.extend(chips.iter().map(|(chip, _)| (chip.id.clone(), on.clone())));
            }
            _ => {}
        }
    }

    fn missing(&self, events: &[Numbered<'_>]) -> Missing {
        let mut missing = Missing::default();
        for (_, _, event) in events {
            let subject = Subject::of(event);
            let lease = subject.lease.and_then(|lease| {
                let known = self.leases.get(&lease);
                known.is_none().then(|| missing.leases.insert(lease));
                known
            });
            let job = subject.job.or(lease.map(|(job, _)| *job));
            missing.jobs.extend(job.filter(|job| !self.queues.contains_key(job)));
            missing.chips.extend(subject.chip.filter(|chip| !self.chips.contains_key(*chip)).cloned());
        }
        missing
    }

    fn learn_from_memory(&mut self, missing: &Missing, shared: &Shared) {
        let cluster = shared.cluster();
        for lease in missing.leases.iter().filter_map(|id| cluster.lease(*id)) {
            self.leases.insert(lease.id, (lease.job, lease.nodes().into_iter().collect()));
        }
        let of_leases = missing.leases.iter().filter_map(|id| cluster.lease(*id)).map(|lease| lease.job);
        for job in missing.jobs.iter().copied().chain(of_leases).filter_map(|id| cluster.job(id)) {
            self.queues.insert(job.id, job.spec.queue.as_str().into());
        }
        for (chip, known) in missing.chips.iter().filter_map(|id| Some((id, cluster.chip(id)?))) {
            self.chips.insert(chip.clone(), Arc::from([cluster.fleet.nodes[known.node].id.clone()]));
        }
    }

    /// What an event is about, as far as it was learned.
    pub fn about(&self, event: &Event) -> About {
        let subject = Subject::of(event);
        let of_lease = subject.lease.and_then(|lease| self.leases.get(&lease));
        let job = subject.job.or(of_lease.map(|(job, _)| *job));
        let nodes = match (subject.node, subject.chip) {
            (Some(node), _) => Arc::from([node.clone()]),
            (None, Some(chip)) => self.chips.get(chip).cloned().unwrap_or_default(),
            (None, None) => of_lease.map(|(_, nodes)| nodes.clone()).unwrap_or_default(),
        };
        About {
            queue: job.and_then(|job| self.queues.get(&job)).cloned(),
            job,
            lease: subject.lease,
            chip: subject.chip.cloned(),
            nodes,
        }
    }
}

/// What an event itself names.
#[derive(Debug, Default)]
struct Subject<'a> {
    job: Option<JobId>,
    lease: Option<LeaseId>,
    chip: Option<&'a ChipId>,
    node: Option<&'a NodeId>,
}

impl Subject<'_> {
    fn of(event: &Event) -> Subject<'_> {
        let none = Subject::default();
        match event {
            Event::LeaderTookOver { .. } | Event::PolicyApplied { .. } | Event::DatabaseReplaced { .. } => none,
            Event::NodeRegistered { node, .. }
            | Event::NodeHeard { node }
            | Event::NodeSilent { node }
            | Event::NodeCordoned { node, .. }
            | Event::NodeUncordoned { node, .. }
            | Event::NodeDeclaredOff { node, .. } => Subject { node: Some(node), ..none },
            Event::ChipEpochRaised { chip, .. }
            | Event::ChipHealthChanged { chip, .. }
            | Event::ChipQuarantined { chip, .. }
            | Event::ChipRestored { chip }
            | Event::ChipFaulted { chip, .. }
            | Event::ChipFaultEnded { chip, .. }
            | Event::ChipReleased { chip, .. } => Subject { chip: Some(chip), ..none },
            Event::ChipVacated { chip, lease, .. } => Subject { chip: Some(chip), lease: Some(*lease), ..none },
            Event::JobSubmitted { job, .. }
            | Event::JobStarted { job }
            | Event::JobRestarted { job, .. }
            | Event::JobEnded { job, .. }
            | Event::ClaimMade { job, .. }
            | Event::ClaimDropped { job, .. } => Subject { job: Some(*job), ..none },
            Event::JobCheckpointed { job, under_notice, .. } => {
                Subject { job: Some(*job), lease: *under_notice, ..none }
            }
            Event::ReservationMade { holder, .. }
            | Event::ReservationOpened { holder }
            | Event::ReservationDropped { holder, .. } => match holder {
                Holder::Job(job) => Subject { job: Some(*job), ..none },
                Holder::Calendar(_) => none,
            },
            Event::WorkEnded { lease, job, .. } | Event::LeaseGranted { lease, job, .. } => {
                Subject { job: Some(*job), lease: Some(*lease), ..none }
            }
            Event::LeaseConfirmed { lease, node } | Event::LadderClimbed { lease, node, .. } => {
                Subject { lease: Some(*lease), node: Some(node), ..none }
            }
            Event::LeaseRenewed { lease, .. }
            | Event::LeaseRevoked { lease, .. }
            | Event::LeaseExtended { lease, .. }
            | Event::LeaseEnded { lease, .. } => Subject { lease: Some(*lease), ..none },
        }
    }
}
