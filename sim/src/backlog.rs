//! `chiptide-sim backlog`: a queue of a hundred thousand jobs. What it weighs, and how soon a daemon that was killed
//! with it is ready again.

use crate::fleet::{Fleet, TEARDOWN_MAX, uniform};
use crate::json_file;
use crate::latency::{Latencies, LatencySummary};
use crate::machine::{Machine, ProcessMemory};
use crate::own_daemon::OwnDaemon;
use crate::progress::Progress;
use crate::scheduler::{Scheduler, has_chips};
use crate::single_chip;
use anyhow::Context;
use chiptide_api::job::{JOBS_PER_CALL_MAX, KindBody};
use chiptide_model::Millis;
use clap::Args;
use serde::Serialize;
use std::path::PathBuf;
use std::process::ExitCode;
use tokio::time::Instant;

/// Jobs looked up again after the restart, spread over the whole backlog.
const LOOKED_UP: usize = 200;

/// Measures memory and restart with a large backlog.
#[derive(Args, Debug)]
pub struct BacklogArgs {
    /// Jobs that find no room.
    #[arg(long, default_value_t = 100_000)]
    pending: usize,
    /// Jobs that run, each on a chip of its own.
    #[arg(long, default_value_t = 10_000)]
    running: usize,
    /// Chips of each node; there are as many nodes as the running jobs need.
    #[arg(long, default_value_t = 8)]
    chips_per_node: u32,
    /// Where to write the report.
    #[arg(long)]
    json: Option<PathBuf>,
}

/// A backlog in figures.
#[derive(Clone, PartialEq, Debug, Default, Serialize)]
pub struct BacklogReport {
    /// Where it ran.
    pub machine: Machine,
    /// Nodes.
    pub nodes: u64,
    /// Chips.
    pub chips: u64,
    /// Jobs answered with a lease.
    pub leased: u64,
    /// Jobs answered as pending.
    pub pending: u64,
    /// Jobs accepted a second while the fleet filled, 1,000 to a call.
    pub leased_per_s: f64,
    /// Jobs accepted a second while the backlog grew, 1,000 to a call.
    pub pending_per_s: f64,
    /// From submit of 1,000 jobs that must wait to the answer.
    pub submit_thousand: LatencySummary,
    /// Memory of the daemon with the fleet full and no backlog.
    pub memory_before: ProcessMemory,
    /// Memory of the daemon with the backlog.
    pub memory_with_backlog: ProcessMemory,
    /// From the start of a killed daemon to ready, in seconds.
    pub restart_to_ready_s: f64,
    /// Memory of the daemon that was started again.
    pub memory_after_restart: ProcessMemory,
    /// Jobs looked up after the restart.
    pub looked_up: u64,
    /// Of these, not found, or found in another state than pending or with a lease.
    pub lost: u64,
}

/// `chiptide-sim backlog`. Fails when a job was lost over the restart.
pub async fn run(args: BacklogArgs) -> anyhow::Result<ExitCode> {
    let mut daemon = OwnDaemon::start("backlog").await?;
    let nodes = args.running.div_ceil(args.chips_per_node as usize);
    let shapes = uniform(nodes, args.chips_per_node, "NVIDIA H20");
    let fleet = Fleet::start(shapes, &daemon.url()?, daemon.token(), TEARDOWN_MAX)?;
    let scheduler = Scheduler::new(daemon.client()?);
    fleet.wait_up(scheduler.client(), &Progress::start("registering nodes", fleet.size() as u64)).await?;

    let mut report = BacklogReport {
        machine: Machine::here(),
        nodes: fleet.size() as u64,
        chips: fleet.chips(),
        ..BacklogReport::default()
    };
    let (leased_per_s, _) = submit(&scheduler, "running", fleet.chips() as usize, &mut report).await?;
    report.memory_before = ProcessMemory::of(daemon.pid())?;
    let (pending_per_s, thousands) = submit(&scheduler, "waiting", args.pending, &mut report).await?;
    (report.leased_per_s, report.pending_per_s) = (leased_per_s, pending_per_s);
    report.submit_thousand = thousands;
    report.memory_with_backlog = ProcessMemory::of(daemon.pid())?;

    daemon.kill()?;
    report.restart_to_ready_s = daemon.restart().await?.as_secs_f64();
    report.memory_after_restart = ProcessMemory::of(daemon.pid())?;
    look_up(&scheduler, &mut report).await;
    fleet.stop().await;
    println!("{}", table(&report));
    json_file::write_if(args.json.as_deref(), &report)?;
    Ok(if report.lost == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Submits `count` jobs, 1,000 to a call. Answers jobs a second and the latency of a call.
async fn submit(
    scheduler: &Scheduler,
    name: &str,
    count: usize,
    report: &mut BacklogReport,
) -> anyhow::Result<(f64, LatencySummary)> {
    let progress = Progress::start(&format!("{name} jobs submitted"), count as u64);
    let body =
        |index| single_chip::job(format!("{name}-{index}"), KindBody::Training, "standard", Millis::from_secs(30));
    let (start, mut calls) = (Instant::now(), Latencies::default());
    let mut submitted = 0;
    while submitted < count {
        let until = count.min(submitted + JOBS_PER_CALL_MAX);
        let bodies: Vec<_> = (submitted..until).map(body).collect();
        let call = Instant::now();
        let jobs = scheduler.submit_many(&bodies).await.context("submit a thousand jobs")?;
        calls.record(call.elapsed());
        let leased = jobs.iter().filter(|job| has_chips(job)).count() as u64;
        report.leased += leased;
        report.pending += jobs.len() as u64 - leased;
        submitted = until;
        progress.at(submitted as u64);
    }
    Ok((count as f64 / start.elapsed().as_secs_f64().max(f64::EPSILON), calls.summary()))
}

async fn look_up(scheduler: &Scheduler, report: &mut BacklogReport) {
    let jobs = scheduler.acknowledged();
    for job in jobs.iter().step_by(jobs.len().div_ceil(LOOKED_UP).max(1)) {
        report.looked_up += 1;
        let found = scheduler.client().job(job.0).await;
        let is_there = found.is_ok_and(|found| found.state == "pending" || has_chips(&found));
        report.lost += u64::from(!is_there);
    }
}

fn table(report: &BacklogReport) -> comfy_table::Table {
    let memory =
        |memory: ProcessMemory| format!("{} MiB resident, {} MiB at its peak", memory.resident_mib, memory.peak_mib);
    crate::table::of([
        ("fleet", format!("{} nodes, {} chips", report.nodes, report.chips)),
        ("jobs", format!("{} leased, {} pending", report.leased, report.pending)),
        ("accepted", format!("{:.0}/s while there was room, {:.0}/s after", report.leased_per_s, report.pending_per_s)),
        ("1,000 jobs that must wait", report.submit_thousand.to_string()),
        ("memory, fleet full", memory(report.memory_before)),
        ("memory, with the backlog", memory(report.memory_with_backlog)),
        ("memory, after the restart", memory(report.memory_after_restart)),
        ("killed and started again", format!("ready after {:.2} s", report.restart_to_ready_s)),
        ("looked up afterwards", format!("{} jobs, {} lost", report.looked_up, report.lost)),
        ("machine", report.machine.to_string()),
    ])
}
