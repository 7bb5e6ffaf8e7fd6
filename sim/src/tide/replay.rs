//! The replay: whatever comes next in time happens, and the allocator decides a round for it.

use super::serving::Serving;
use super::tally::Tally;
use super::trace::{Demand, TrainingJob};
use super::training::{CHECKPOINT_EVERY, Training, restart_of};
use super::victim::Victim;
use crate::virtual_cluster::{VirtualCluster, job, job_id, new_job, number_of};
use anyhow::Context;
use chiptide_allocator::Command;
use chiptide_model::{Cause, Event, JobId, JobSpec, Kind, LeaseId, Millis, Next, NodeId, Placement, Timestamp};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Chips of a node; a larger gang takes whole nodes.
pub(super) const NODE_CHIPS: u32 = 8;
pub(super) const INFERENCE_PRIORITY: i32 = 800;
const TRAINING_PRIORITY: i32 = 100;

/// A replay in progress.
pub(super) struct Replay<'a> {
    pub world: VirtualCluster,
    pub tally: Tally,
    demand: &'a Demand,
    jobs: &'a [TrainingJob],
    victim: Victim,
    training: Training,
    serving: Serving,
    /// Next step of the demand, next training job, next number of an inference job.
    next_step: usize,
    next_job: usize,
    next_number: u64,
    /// Chips held now by inference and by training.
    held: (u64, u64),
    /// Whose each lease is, and how many chips it has.
    leases: BTreeMap<LeaseId, (JobId, u64)>,
    /// The spec of each kind of job, made once.
    specs: BTreeMap<(Kind, u32, Option<Millis>), Arc<JobSpec>>,
}

impl<'a> Replay<'a> {
    pub(super) fn of(world: VirtualCluster, demand: &'a Demand, jobs: &'a [TrainingJob], victim: Victim) -> Replay<'a> {
        Replay {
            world,
            tally: Tally::default(),
            demand,
            jobs,
            victim,
            training: Training::of(jobs),
            serving: Serving::of(&demand.replica_chips),
            next_step: 0,
            next_job: 0,
            // Training jobs have the numbers of their rows.
            next_number: jobs.len() as u64,
            held: (0, 0),
            leases: BTreeMap::new(),
            specs: BTreeMap::new(),
        }
    }

    /// Plays to the end of the demand and on until every training job is through.
    pub(super) fn play(&mut self) -> anyhow::Result<()> {
        let mut last = None;
        while let Some(now) = self.next_moment() {
            if let Some(last) = last.replace(now) {
                self.tally.held(last, now, self.demand.span(), self.held);
            }
            self.world.advance_to(now);
            let mut commands = self.end_runs(now);
            commands.extend(self.follow_demand(now));
            commands.extend(self.submit_training(now));
            for event in self.world.settle(commands)? {
                self.on_event(now, &event).with_context(|| format!("at {} s", now.0 / 1000))?;
            }
        }
        self.world.recount()
    }

    fn next_moment(&mut self) -> Option<Timestamp> {
        let step = self.demand.steps.get(self.next_step).map(|step| step.at);
        let job = self.jobs.get(self.next_job).map(|job| job.submitted_at);
        [step, job, self.training.next_end(), self.world.cluster().next_due()].into_iter().flatten().min()
    }

    fn end_runs(&mut self, now: Timestamp) -> Vec<Command> {
        let ended = self.training.take_ended(now);
        ended.into_iter().flat_map(|number| self.world.done(job_id(number as u64))).collect()
    }

    /// Replicas that are no longer wanted leave before new ones are asked for.
    fn follow_demand(&mut self, now: Timestamp) -> Vec<Command> {
        let Some(step) = self.demand.steps.get(self.next_step).filter(|step| step.at <= now) else { return Vec::new() };
        self.next_step += 1;
        let (mut commands, mut submits) = (Vec::new(), Vec::new());
        for (service, wanted) in step.replicas.iter().enumerate() {
            for ended in self.serving.take_surplus(service, *wanted) {
                self.tally.lease_waits.extend(ended.unserved_since.map(|since| now.since(since)));
                commands.extend(self.world.done(job_id(ended.number)));
            }
            for _ in 0..self.serving.missing(service, *wanted) {
                let chips = self.demand.replica_chips[service];
                self.serving.ask(service, self.next_number, now);
                self.tally.chips_asked += u64::from(chips);
                submits.push(new_job(self.next_number, &self.spec(Kind::Inference, u32::from(chips), None)));
                self.next_number += 1;
            }
        }
        commands.push(Command::Submit(submits));
        commands
    }

    fn submit_training(&mut self, now: Timestamp) -> Vec<Command> {
        let mut submits = Vec::new();
        while let Some(job) = self.jobs.get(self.next_job).filter(|job| job.submitted_at <= now) {
            let told = self.victim.checkpoint_told(self.next_job as u64, CHECKPOINT_EVERY);
            let spec = self.spec(Kind::Training, job.chips, Some(told));
            submits.push(new_job(self.next_job as u64, &spec));
            self.next_job += 1;
        }
        if submits.is_empty() { Vec::new() } else { vec![Command::Submit(submits)] }
    }

    /// Up to a node's chips in one replica, more as replicas of whole nodes.
    fn spec(&mut self, kind: Kind, chips: u32, checkpoint_every: Option<Millis>) -> Arc<JobSpec> {
        let priority = if kind == Kind::Inference { INFERENCE_PRIORITY } else { TRAINING_PRIORITY };
        let (replicas, each) = if chips <= NODE_CHIPS { (1, chips) } else { (chips.div_ceil(NODE_CHIPS), NODE_CHIPS) };
        let restart_cost = checkpoint_every.map(|_| restart_of(chips));
        let make =
            || Arc::new(JobSpec { checkpoint_every, restart_cost, ..job(kind, priority, replicas, each as u16) });
        self.specs.entry((kind, chips, checkpoint_every)).or_insert_with(make).clone()
    }

    fn on_event(&mut self, now: Timestamp, event: &Event) -> anyhow::Result<()> {
        match event {
            Event::LeaseGranted { lease, job, placements, .. } => {
                let chips = chips_of(placements);
                self.leases.insert(*lease, (*job, chips));
                match self.training_number(*job) {
                    Some(number) => {
                        self.training.start(number, now);
                        self.tally.runs += 1;
                        self.held.1 += chips;
                    }
                    None => {
                        let node = &placements.first().context("a lease of nothing")?.node;
                        self.on_served(now, *job, node);
                        self.held.0 += chips;
                    }
                }
            }
            Event::LeaseEnded { lease, cause, next } => {
                let (job, chips) = self.leases.remove(lease).context("the end of a lease that was never granted")?;
                match self.training_number(job) {
                    Some(number) => {
                        self.on_run_ended(now, number, chips, cause, next);
                        self.held.1 -= chips;
                    }
                    None => self.held.0 -= chips,
                }
            }
            Event::ClaimMade { placements, victims, .. } if !victims.is_empty() => {
                let free = self.world.cluster().fleet.chips.len() as u64 - self.held.0 - self.held.1;
                self.tally.claims += 1;
                self.tally.claims_by_shape += u64::from(free >= chips_of(placements));
            }
            _ => {}
        }
        Ok(())
    }

    fn on_served(&mut self, now: Timestamp, job: JobId, node: &NodeId) {
        let Some((chips, asked_at)) = self.serving.place(number_of(job), node) else { return };
        let wait = now.since(asked_at);
        self.tally.lease_waits.push(wait);
        self.tally.chips_at_once += if wait == Millis(0) { chips } else { 0 };
    }

    fn on_run_ended(&mut self, now: Timestamp, number: usize, chips: u64, cause: &Cause, next: &Next) {
        match next {
            Next::Pending => {
                let loss = self.training.evict(number, now);
                self.tally.evictions += u64::from(matches!(cause, Cause::Preempt { .. }));
                self.tally.work_lost += loss.work.0 * chips;
                self.tally.restarting += loss.restart.0 * chips;
            }
            // Only elastic jobs shrink, and none here is.
            Next::Unchanged => {}
            Next::Ended(_) => {
                let (waited, took) = self.training.spans(number, now);
                self.tally.waits.entry(chips).or_default().push(waited);
                self.tally.completions.push(took);
            }
        }
    }

    /// The number of a training job, which is that of its row; inference has the numbers after these.
    fn training_number(&self, job: JobId) -> Option<usize> {
        usize::try_from(number_of(job)).ok().filter(|number| *number < self.jobs.len())
    }
}

fn chips_of(placements: &[Placement]) -> u64 {
    placements.iter().map(|placement| placement.holds.len() as u64).sum()
}
