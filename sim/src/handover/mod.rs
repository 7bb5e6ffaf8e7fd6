//! `chiptide-sim handover`: how long a chip takes from one holder to the next, with a real daemon, a real agent and real
//! processes. Every moment is taken by the clock of this program, from before a call is sent until its answer has come, so
//! the figures are what a scheduler sees: commit, notice, TERM, proof of vacancy and the next commit included.

mod measure;
mod report;

use crate::faults::canary::Manner;
use crate::faults::node::{Ground, Node, NodeOptions};
use crate::json_file;
use crate::machine::Machine;
use crate::own_daemon::OwnDaemon;
use crate::scheduler::Scheduler;
use clap::Args;
use measure::Bench;
pub use report::HandoverReport;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

/// Measures how long chips take from one holder to the next.
#[derive(Args, Debug)]
pub struct HandoverArgs {
    /// Samples of a release and of a preemption each.
    #[arg(long, default_value_t = 200)]
    samples: u32,
    /// Samples of a workload that ignores everything.
    #[arg(long, default_value_t = 10)]
    stubborn_samples: u32,
    /// Chips of the node; all but one are busy with work that stays.
    #[arg(long, default_value_t = 8)]
    chips: u32,
    /// The agent's `kill_after`, milliseconds: what a workload that ignores SIGTERM has beyond its grace.
    #[arg(long, default_value_t = 500)]
    kill_after_ms: u64,
    /// Leave the data of the run behind.
    #[arg(long)]
    keep: bool,
    /// Where to write the report.
    #[arg(long)]
    json: Option<PathBuf>,
}

/// `chiptide-sim handover`. Fails when a bound is missed.
pub async fn run(args: HandoverArgs) -> anyhow::Result<ExitCode> {
    let begun = Instant::now();
    let mut ground = Ground::make("handover")?;
    let mut daemon = OwnDaemon::start("handover").await?;
    let options = NodeOptions { chips: args.chips, kill_after_ms: args.kill_after_ms, ..NodeOptions::default() };
    let mut node = Node::make(&ground, "n1", options)?;
    node.start(&daemon.url()?, daemon.token())?;
    let scheduler = Scheduler::new(daemon.client()?);
    node.wait_up(scheduler.client()).await?;

    let bench = Bench::new(&scheduler, &ground);
    bench.fill(args.chips.saturating_sub(1)).await?;
    let released = bench.releases(args.samples).await?;
    let exited = bench.exits(args.samples / 4).await?;
    let preempted = bench.preemptions(args.samples, Manner::Polite, 0).await?;
    let stubborn = bench.preemptions(args.stubborn_samples, Manner::Stubborn, 2000).await?;
    let report = HandoverReport {
        machine: Machine::here(),
        chips: args.chips,
        kill_after_ms: args.kill_after_ms,
        release_to_grant: released.summary(),
        exit_to_grant: exited.summary(),
        preemption_to_grant: preempted.summary(),
        stubborn_grace_2s_to_grant: stubborn.summary(),
        seconds: begun.elapsed().as_secs_f64(),
    };
    println!("{}", report.table());
    json_file::write_if(args.json.as_deref(), &report)?;
    if args.keep {
        ground.keep();
        daemon.keep_dir();
    }
    let missed = report.missed();
    missed.iter().for_each(|missed| eprintln!("missed: {missed}"));
    Ok(if missed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
