//! The transaction of a round: the log and the current state it folds to, all or nothing.

use super::consolidations::{self, Moves};
use super::evictions::Eviction;
use super::holds::HoldWrite;
use super::idempotency_keys::Recorded;
use super::identity::{self, Identity};
use super::leader::{Leadership, guard};
use super::leases::LeaseWrite;
use super::policies::PolicyVersion;
use super::{
    Result, Store, chips, claims, demand, events, eviction_steps, evictions, holds, idempotency_keys, jobs, leases,
    nodes, policies, queue_usage, reservations, work_ends,
};
use crate::fault_point;
use chiptide_allocator::demand::Demand;
use chiptide_allocator::fleet::{Chip, ChipIx, Node, NodeIx};
use chiptide_allocator::{Claim, Cluster, QueuePast, Reservation, Touched};
use chiptide_model::{ChipId, Event, Holder, Job, JobId, Lease, LeaseId, LeaseState, NodeId, Timestamp};
use std::collections::BTreeSet;

/// Everything a round writes, gathered from the draft so that the next round may already change it.
#[derive(Debug, Default)]
pub struct Commit {
    first_seq: u64,
    events: Vec<(Timestamp, Event)>,
    answers: Vec<Recorded>,
    policies: Vec<PolicyVersion>,
    /// Who the database is, where that is to be noted.
    pub identity: Option<Identity>,
    nodes: Vec<(NodeIx, Node)>,
    new_chips: Vec<(ChipIx, NodeId, Chip)>,
    chips: Vec<(ChipIx, NodeId, Chip)>,
    epochs: Vec<(ChipId, u64, u64)>,
    new_jobs: Vec<Job>,
    jobs: Vec<Job>,
    new_leases: Vec<LeaseWrite>,
    leases: Vec<LeaseWrite>,
    new_holds: Vec<HoldWrite>,
    proven: Vec<(ChipIx, LeaseId)>,
    claims: Vec<(JobId, Option<Claim>)>,
    evictions: Vec<Eviction>,
    eviction_steps: eviction_steps::Numbered,
    work_ends: Vec<work_ends::RunEnd>,
    queues: Vec<QueuePast>,
    reservations: Vec<(Holder, Option<Reservation>)>,
    moves: Moves,
    demand: Option<Demand>,
}

impl Commit {
    /// Gathers what a round writes: its events, the answers to keyed requests, and the rows it touched as `after` has them.
    pub fn of(after: &Cluster, touched: &Touched, events: Vec<(Timestamp, Event)>, answers: Vec<Recorded>) -> Commit {
        let mut commit = Commit { first_seq: after.seq + 1 - events.len() as u64, answers, ..Commit::default() };
        commit.policies = policies::among(&events);
        commit.gather_fleet(after, touched);
        commit.gather_work(after, touched, &events);
        commit.evictions = evictions::among(after, touched, &events);
        commit.eviction_steps = eviction_steps::among(touched, commit.first_seq, &events);
        commit.work_ends = work_ends::among(after, touched, &events);
        commit.queues = after.queue_past(touched);
        let set_aside = |holder: &Holder| (holder.clone(), after.reservation(holder).cloned());
        commit.demand = touched.demand.then(|| after.demand.clone());
        commit.reservations = touched.reservations.iter().map(set_aside).collect();
        let moved = |gang: &JobId| (*gang, after.moved_for(*gang).collect());
        commit.moves.gangs = touched.consolidations.iter().map(moved).collect();
        commit.moves.last = after.moved_at().filter(|_| !touched.consolidations.is_empty());
        commit.events = events;
        commit
    }

    fn gather_fleet(&mut self, after: &Cluster, touched: &Touched) {
        let node = |id: &NodeId| after.node_at(id).map(|(ix, node)| (ix, node.clone()));
        self.nodes = touched.nodes.iter().filter_map(node).collect();
        let chip = |id: &ChipId| {
            let (ix, chip) = after.chip_at(id)?;
            Some((ix, after.fleet.nodes[chip.node].id.clone(), chip.clone()))
        };
        self.new_chips = touched.new_chips.iter().filter_map(chip).collect();
        self.chips = touched.chip_facts.difference(&touched.new_chips).filter_map(chip).collect();
        let raised = touched.epochs.iter().filter(|(id, _)| !touched.new_chips.contains(*id));
        self.epochs = raised.filter_map(|(id, from)| Some((id.clone(), *from, after.chip(id)?.epoch))).collect();
    }

    fn gather_work(&mut self, after: &Cluster, touched: &Touched, events: &[(Timestamp, Event)]) {
        let mut submitted: BTreeSet<JobId> = BTreeSet::new();
        let mut granted: BTreeSet<LeaseId> = BTreeSet::new();
        let mut ended: BTreeSet<LeaseId> = BTreeSet::new();
        let mut vacated: BTreeSet<(&ChipId, LeaseId)> = BTreeSet::new();
        for (_, event) in events {
            match event {
                Event::JobSubmitted { job, .. } => drop(submitted.insert(*job)),
                Event::LeaseGranted { lease, .. } => drop(granted.insert(*lease)),
                Event::LeaseEnded { lease, .. } => drop(ended.insert(*lease)),
                Event::ChipVacated { chip, lease, .. } => drop(vacated.insert((chip, *lease))),
                _ => {}
            }
        }
        let jobs = touched.jobs.iter().filter_map(|id| after.job(*id)).chain(touched.ended_jobs.values()).cloned();
        (self.new_jobs, self.jobs) = jobs.partition(|job| submitted.contains(&job.id));
        // A lease that ended in an earlier round has its last row; that its chips are vacant is told by its holds.
        let changed = |lease: &&Lease| granted.contains(&lease.id) || lease.is_live() || ended.contains(&lease.id);
        let leases = touched.leases.iter().filter_map(|id| after.lease(*id)).chain(touched.vacated_leases.values());
        let write = |lease: &Lease| LeaseWrite { lease: lease.clone(), vacate_by: vacate_by(after, lease) };
        (self.new_leases, self.leases) =
            leases.filter(changed).map(write).partition(|write| granted.contains(&write.lease.id));
        let number = |chip: &ChipId| after.chip_at(chip).map(|(ix, _)| ix);
        for lease in self.new_leases.iter().map(|write| &write.lease) {
            let holds = lease.placements.iter().flat_map(|placement| &placement.holds);
            let still_there = holds.filter(|hold| !vacated.contains(&(&hold.chip, lease.id)));
            self.new_holds.extend(still_there.filter_map(|hold| Some((lease.id, number(&hold.chip)?, hold.clone()))));
        }
        let proven = vacated.iter().filter(|(_, lease)| !granted.contains(lease));
        self.proven = proven.filter_map(|(chip, lease)| Some((number(chip)?, *lease))).collect();
        self.claims = touched.claims.iter().map(|job| (*job, after.claim(*job).cloned())).collect();
    }

    /// The number of its last event, if it has any: once that is in the log, the whole round is.
    pub fn last_seq(&self) -> Option<u64> {
        let count = self.events.len() as u64;
        (count > 0).then(|| self.first_seq + count - 1)
    }

    /// The number of its first event, if it has any.
    pub fn first_seq(&self) -> u64 {
        self.first_seq
    }

    /// The events, to be applied to memory once they are committed.
    pub fn into_events(self) -> Vec<(Timestamp, Event)> {
        self.events
    }

    /// Writes the round in one transaction. On an error nothing is known to be written (a lost connection may have
    /// committed): the caller reloads. `syncing` is called when all is written but the disk, before the word to commit
    /// is sent: without that call, the round cannot land.
    pub async fn write(&self, store: &Store, leadership: Leadership, syncing: impl FnOnce()) -> Result<()> {
        fault_point::reach("commit-before-begin");
        let mut tx = store.writer.begin().await?;
        match self.events.as_slice() {
            [] => guard(&mut tx, leadership).await?,
            events => events::append(&mut tx, leadership, self.first_seq, events).await?,
        }
        fault_point::reach("commit-events");
        self.write_fleet(&mut tx).await?;
        fault_point::reach("commit-fleet");
        self.write_work(&mut tx).await?;
        fault_point::reach("commit-work");
        if !self.answers.is_empty() {
            idempotency_keys::insert(&mut tx, &self.answers).await?;
            fault_point::reach("commit-answers");
        }
        syncing();
        fault_point::reach("commit-before-commit");
        tx.commit().await?;
        fault_point::reach("commit-after-commit");
        Ok(())
    }

    async fn write_fleet(&self, tx: &mut sqlx::PgConnection) -> Result<()> {
        if let Some(identity) = self.identity {
            identity::note(tx, identity).await?;
        }
        for version in &self.policies {
            policies::insert(tx, version).await?;
        }
        if !self.nodes.is_empty() {
            nodes::upsert(tx, &self.nodes).await?;
            fault_point::reach("commit-nodes");
        }
        if !self.new_chips.is_empty() {
            chips::insert(tx, &self.new_chips).await?;
        }
        if !self.epochs.is_empty() {
            chips::raise_epochs(tx, &self.epochs).await?;
            fault_point::reach("commit-epochs");
        }
        if !self.chips.is_empty() {
            chips::update(tx, &self.chips).await?;
        }
        Ok(())
    }

    /// Leases, jobs, holds and claims, in the order that the checks between them need: what ends goes first, then jobs,
    /// then what is new.
    async fn write_work(&self, tx: &mut sqlx::PgConnection) -> Result<()> {
        if !self.leases.is_empty() {
            leases::update(tx, &self.leases).await?;
            fault_point::reach("commit-leases-ended");
        }
        if !self.new_jobs.is_empty() {
            jobs::insert(tx, &self.new_jobs).await?;
            fault_point::reach("commit-jobs-new");
        }
        if !self.jobs.is_empty() {
            jobs::update(tx, &self.jobs).await?;
        }
        if !self.new_leases.is_empty() {
            leases::insert(tx, &self.new_leases).await?;
            fault_point::reach("commit-leases-new");
        }
        if !self.proven.is_empty() {
            holds::delete(tx, &self.proven).await?;
            fault_point::reach("commit-holds-proven");
        }
        if !self.new_holds.is_empty() {
            holds::insert(tx, &self.new_holds).await?;
            fault_point::reach("commit-holds-new");
        }
        if !self.claims.is_empty() {
            claims::replace(tx, &self.claims).await?;
            fault_point::reach("commit-claims");
        }
        if !self.evictions.is_empty() {
            evictions::insert(tx, &self.evictions).await?;
            fault_point::reach("commit-evictions");
        }
        if !self.eviction_steps.is_empty() {
            eviction_steps::insert(tx, &self.eviction_steps).await?;
        }
        if !self.work_ends.is_empty() {
            work_ends::insert(tx, &self.work_ends).await?;
        }
        if !self.queues.is_empty() {
            queue_usage::replace(tx, &self.queues).await?;
        }
        if let Some(learned) = &self.demand {
            demand::replace(tx, learned).await?;
        }
        if !self.reservations.is_empty() {
            reservations::replace(tx, &self.reservations).await?;
        }
        if !self.moves.gangs.is_empty() {
            consolidations::replace(tx, &self.moves).await?;
        }
        Ok(())
    }
}

/// By when the chips of an ended lease must be proven vacant.
fn vacate_by(cluster: &Cluster, lease: &Lease) -> Option<Timestamp> {
    match &lease.state {
        LeaseState::Ended { at, .. } => Some(*at + cluster.policy.bounds.vacate),
        _ => None,
    }
}
