//! A full fleet with a long queue: what it weighs, and what a round costs while nobody in it can start.

use super::ScaleArgs;
use super::durations::us;
use super::filling::Jobs;
use crate::machine::ProcessMemory;
use crate::virtual_cluster::{VirtualCluster, job, job_id, new_job};
use chiptide_allocator::rehearsal::rehearse;
use chiptide_allocator::{Command, PolicyChange, Round};
use chiptide_model::{JobSpec, Kind};
use serde::Serialize;
use std::sync::Arc;
use std::time::Instant;

/// Jobs that wait are submitted so many to a round, as many as one call may bring.
const SUBMITTED_TOGETHER: u64 = 1000;
/// Priority of what runs; all that wait are below it, so nobody can be preempted and everybody has to be tried.
const RUNNING_PRIORITY: i32 = 900;

/// Rounds with a long queue.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct BacklogFigures {
    /// Jobs that run.
    pub running: u64,
    /// Jobs that wait.
    pub pending: u64,
    /// Different things they ask for.
    pub shapes: u64,
    /// The slowest round that accepted a thousand of them, microseconds.
    pub submit_thousand_max_us: f64,
    /// A round right after they were all submitted in one, without the submit: every shape is tried, microseconds.
    pub first_round_us: f64,
    /// A round when nothing was freed, microseconds.
    pub idle_round_us: f64,
    /// The round in which one chip was freed, microseconds.
    pub freed_round_us: f64,
    /// A copy of the cluster, made under its read lock before a dry run, microseconds.
    pub dry_run_copy_us: f64,
    /// A dry run of a policy in which every shape is tried, the copy included, microseconds.
    pub dry_run_us: f64,
    /// Memory with fleet and queue as they are.
    pub memory: ProcessMemory,
}

pub(super) fn measure(
    args: &ScaleArgs,
    memory: impl Fn() -> anyhow::Result<ProcessMemory>,
) -> anyhow::Result<BacklogFigures> {
    let mut world = VirtualCluster::uniform(args.nodes, args.chips_per_node, None, |_| ())?;
    let running = Jobs::filling(args.nodes, args.chips_per_node, RUNNING_PRIORITY, |spec| spec.preemptible = false);
    running.submit(&mut world, SUBMITTED_TOGETHER)?;
    let running_count = world.cluster().leases().count() as u64;
    let mut figures = BacklogFigures {
        running: running_count,
        pending: args.pending,
        shapes: args.shapes,
        submit_thousand_max_us: submit(&mut world, args, running.count)?,
        first_round_us: 0.0,
        idle_round_us: round(&mut world, Vec::new())?,
        freed_round_us: 0.0,
        dry_run_copy_us: 0.0,
        dry_run_us: 0.0,
        memory: memory()?,
    };
    // Done and proven vacant in one round: one chip is free, and every shape is worth another try.
    let freed = world.done(job_id(0));
    figures.freed_round_us = round(&mut world, freed)?;
    // A change of policy makes every shape worth a try, as the first round after a restart does.
    let policy = world.cluster().policy.clone();
    figures.first_round_us = round(&mut world, vec![Command::ApplyPolicy(policy)])?;
    dry_run(&world, &mut figures);
    Ok(figures)
}

/// A dry run as the daemon makes it, of a policy that changes what one queue is owed.
fn dry_run(world: &VirtualCluster, figures: &mut BacklogFigures) {
    let mut policy = world.cluster().policy.clone();
    policy.queues.entry("training".into()).or_default().guaranteed.normalised = Some(1);
    let change = PolicyChange { policy, after: None, author: String::new(), reason: String::new() };
    let started = Instant::now();
    let copy = world.cluster().clone();
    figures.dry_run_copy_us = us(started.elapsed());
    let round = Round { now: copy.at, seed: 1 };
    let told = rehearse(copy, vec![Command::ChangePolicy(Box::new(change))], round);
    figures.dry_run_us = us(started.elapsed());
    // The daemon frees the copy after the answer is made.
    drop(told);
}

/// Submits the jobs that cannot start. Answers how long the slowest round took.
fn submit(world: &mut VirtualCluster, args: &ScaleArgs, first: u64) -> anyhow::Result<f64> {
    let specs: Vec<Arc<JobSpec>> = (0..args.shapes).map(|shape| Arc::new(waiting(args, shape))).collect();
    let (mut slowest, mut next) = (0.0f64, 0);
    while next < args.pending {
        let until = args.pending.min(next + SUBMITTED_TOGETHER);
        let jobs = (next..until).map(|number| new_job(first + number, &specs[(number % args.shapes) as usize]));
        slowest = slowest.max(round(world, vec![Command::Submit(jobs.collect())])?);
        next = until;
    }
    Ok(slowest)
}

fn round(world: &mut VirtualCluster, commands: Vec<Command>) -> anyhow::Result<f64> {
    world.round(commands)?;
    Ok(us(world.deciding()))
}

/// One of the shapes that wait: at least two chips, in gangs of all sizes, of five priorities.
fn waiting(args: &ScaleArgs, shape: u64) -> JobSpec {
    let chips = [2, 4, 8][(shape % 3) as usize].min(args.chips_per_node);
    let replicas = [1, 2, 4, 8][(shape / 3 % 4) as usize];
    let priority = [100, 200, 300, 400, 500][(shape / 12 % 5) as usize];
    JobSpec { cpu_milli: 1 + shape, ..job(Kind::Training, priority, replicas, chips) }
}
