//! `chiptide-sim idle-cost`: what a fleet that does nothing costs the daemon. Agents report, nobody submits.

use crate::fleet::{Fleet, TEARDOWN_MAX, uniform};
use crate::json_file;
use crate::machine::{Machine, ProcessMemory, cpu_time, family_cpu_time};
use crate::own_daemon::OwnDaemon;
use crate::progress::Progress;
use anyhow::Context;
use clap::Args;
use serde::Serialize;
use std::path::PathBuf;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// From the last registration to the measurement: registrations are not idleness.
const SETTLE: Duration = Duration::from_secs(5);

/// Measures the daemon's CPU while nodes only report.
#[derive(Args, Debug)]
pub struct IdleCostArgs {
    /// Nodes.
    #[arg(long, default_value_t = 1000)]
    nodes: usize,
    /// Chips of each node.
    #[arg(long, default_value_t = 8)]
    chips_per_node: u32,
    /// How long to measure.
    #[arg(long, default_value_t = 30)]
    seconds: u64,
    /// Where to write the report.
    #[arg(long)]
    json: Option<PathBuf>,
}

/// What idleness costs.
#[derive(Clone, PartialEq, Debug, Default, Serialize)]
pub struct IdleCostReport {
    /// Where it ran.
    pub machine: Machine,
    /// Nodes, each with an agent that reports every two seconds.
    pub nodes: u64,
    /// Chips they report.
    pub chips: u64,
    /// Seconds measured.
    pub seconds: f64,
    /// CPU seconds the daemon used meanwhile (its Postgres counts apart).
    pub daemon_cpu_s: f64,
    /// The same, as a share of one core.
    pub daemon_core_share: f64,
    /// Microseconds of the daemon's CPU for each report.
    pub daemon_cpu_us_per_report: f64,
    /// CPU seconds its Postgres used meanwhile.
    pub postgres_cpu_s: f64,
    /// Memory of the daemon.
    pub daemon_memory: ProcessMemory,
}

/// `chiptide-sim idle-cost`.
pub async fn run(args: IdleCostArgs) -> anyhow::Result<()> {
    let daemon = OwnDaemon::start("idle").await?;
    let nodes = uniform(args.nodes, args.chips_per_node, "NVIDIA H20");
    let fleet = Fleet::start(nodes, &daemon.url()?, daemon.token(), TEARDOWN_MAX)?;
    fleet.wait_up(&daemon.client()?, &Progress::start("registering nodes", fleet.size() as u64)).await?;
    sleep(SETTLE).await;
    let progress = Progress::start("seconds of idleness", args.seconds);
    let (start, before, postgres_before) = (Instant::now(), cpu_time(daemon.pid())?, postgres_cpu_time(&daemon)?);
    for second in 0..args.seconds {
        progress.at(second);
        sleep(Duration::from_secs(1)).await;
    }
    let (seconds, used) = (start.elapsed().as_secs_f64(), cpu_time(daemon.pid())?.saturating_sub(before).as_secs_f64());
    let postgres_cpu_s = postgres_cpu_time(&daemon)?.saturating_sub(postgres_before).as_secs_f64();
    drop(progress);
    let reports = fleet.size() as f64 * seconds / 2.0;
    let report = IdleCostReport {
        machine: Machine::here(),
        nodes: fleet.size() as u64,
        chips: fleet.chips(),
        seconds,
        daemon_cpu_s: used,
        daemon_core_share: used / seconds,
        daemon_cpu_us_per_report: 1e6 * used / reports.max(1.0),
        postgres_cpu_s,
        daemon_memory: ProcessMemory::of(daemon.pid())?,
    };
    fleet.stop().await;
    println!("{}", table(&report));
    json_file::write_if(args.json.as_deref(), &report)
}

fn postgres_cpu_time(daemon: &OwnDaemon) -> anyhow::Result<Duration> {
    family_cpu_time(daemon.postgres_pid().context("find the daemon's Postgres")?)
}

fn table(report: &IdleCostReport) -> comfy_table::Table {
    crate::table::of([
        ("fleet", format!("{} nodes, {} chips, a report every 2 s each", report.nodes, report.chips)),
        ("daemon's CPU", format!("{:.1} % of one core over {:.0} s", 100.0 * report.daemon_core_share, report.seconds)),
        ("its Postgres's CPU", format!("{:.1} % of one core", 100.0 * report.postgres_cpu_s / report.seconds)),
        ("for each report", format!("{:.0} µs", report.daemon_cpu_us_per_report)),
        ("daemon's memory", format!("{} MiB", report.daemon_memory.resident_mib)),
        ("machine", report.machine.to_string()),
    ])
}
