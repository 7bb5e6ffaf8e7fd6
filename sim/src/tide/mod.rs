//! `chiptide-sim tide`: TIDE-14, two weeks of real inference demand and real training jobs on one fleet.
//!
//! Inference demand steps every ten minutes in replicas that each need one node; a shortage evicts training. The
//! production allocator decides, the clock is virtual.

mod replay;
mod serving;
mod tally;
#[cfg(test)]
mod tests;
mod trace;
mod training;
mod victim;

pub use tally::TideReport;
pub use victim::Victim;

use crate::json_file;
use crate::virtual_cluster::{self, VirtualCluster};
use chiptide_model::{DeviceClass, Reserve};
use clap::Args;
use replay::{NODE_CHIPS, Replay};
use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;
use tally::Setting;
use trace::{Demand, TrainingJob};

/// Replays inference demand and training jobs against the allocator under a virtual clock.
#[derive(Args, Debug)]
pub struct TideArgs {
    /// Inference demand: CSV (.gz), a column `t` in seconds, then GPUs of m-large, m-mid and m-small.
    #[arg(long)]
    hp: PathBuf,
    /// Training jobs: CSV (.gz) with `sec` of submit, `dur` in seconds and `num_gpus`.
    #[arg(long)]
    lp: PathBuf,
    /// Nodes bought for inference, of 8 chips each.
    #[arg(long, default_value_t = 40)]
    inf_nodes: usize,
    /// Nodes bought for training, of 8 chips each. All nodes serve both.
    #[arg(long, default_value_t = 56)]
    train_nodes: usize,
    /// Which training lease goes first.
    #[arg(long, value_enum, default_value_t = Victim::Lost)]
    victim: Victim,
    /// Chips that training must leave free: `none` or `fixed:N`.
    #[arg(long, default_value = "none")]
    reserve: Kept,
    /// Recount the whole cluster after this many rounds.
    #[arg(long, default_value_t = 500)]
    recount_every: u64,
    /// Where to write the report.
    #[arg(long)]
    json: Option<PathBuf>,
}

/// The reserve keeps blocks of this many chips: the largest replica that is served.
const BLOCK: u16 = 4;

/// Chips that training must leave free.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kept {
    None,
    Fixed(u32),
}

impl Kept {
    /// The reserve of the policy: in blocks that hold the largest replica of the trace.
    fn policy(self) -> Option<Reserve> {
        let Kept::Fixed(chips) = self else { return None };
        let class = DeviceClass::new(virtual_cluster::CLASS).ok()?;
        Some(Reserve { min_priority: replay::INFERENCE_PRIORITY, chips: [(class, chips)].into(), block: BLOCK })
    }
}

impl FromStr for Kept {
    type Err = String;
    fn from_str(text: &str) -> Result<Kept, String> {
        match text.split_once(':') {
            None if text == "none" => Ok(Kept::None),
            Some(("fixed", chips)) => chips.parse().map(Kept::Fixed).map_err(|error| format!("{chips:?}: {error}")),
            _ => Err(format!("{text:?} is neither `none` nor `fixed:N`")),
        }
    }
}

/// `chiptide-sim tide`. Fails when a chip was granted twice.
pub fn run(args: &TideArgs) -> anyhow::Result<ExitCode> {
    let demand = trace::read_demand(&args.hp)?;
    let jobs = trace::read_training(&args.lp)?;
    let report = replay(&demand, &jobs, args)?;
    println!("{}", table(&report));
    json_file::write_if(args.json.as_deref(), &report)?;
    Ok(if report.double_grants == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn replay(demand: &Demand, jobs: &[TrainingJob], args: &TideArgs) -> anyhow::Result<TideReport> {
    let nodes = args.inf_nodes + args.train_nodes;
    let world = VirtualCluster::uniform(nodes, NODE_CHIPS as u16, Some(args.recount_every.max(1)), |policy| {
        policy.reserve = args.reserve.policy();
    })?;
    let mut replay = Replay::of(world, demand, jobs, args.victim);
    replay.play()?;
    let Replay { world, tally, .. } = replay;
    Ok(tally.report(Setting {
        gpus: world.cluster().fleet.chips.len() as u64,
        victim: args.victim.as_str().into(),
        reserve: match args.reserve {
            Kept::None => "none".into(),
            Kept::Fixed(chips) => format!("fixed:{chips}"),
        },
        span: demand.span(),
        rounds: world.rounds(),
        double_grants: world.double_grants(),
    }))
}

fn by_size(report: &TideReport) -> String {
    let one = |(gpus, mean): (&u64, &f64)| format!("{gpus} GPUs {mean:.0} s");
    report.queue_mean_s_by_gpus.iter().map(one).collect::<Vec<_>>().join(", ")
}

fn table(report: &TideReport) -> comfy_table::Table {
    crate::table::of([
        ("fleet", format!("{} GPUs, victims {}, reserve {}", report.gpus, report.victim, report.reserve)),
        ("inference granted at once", format!("{:.2} % of GPUs", report.immediate_pct)),
        ("lease wait, p99", format!("{:.1} s", report.lease_wait_p99_s)),
        ("evictions", format!("{} of {} runs, {:.2} %", report.evictions, report.runs, report.evictions_per_run_pct)),
        ("evicted for", format!("{} replicas, {} for want of a node", report.claims, report.claims_by_shape)),
        ("training waits", format!("{:.0} s on average; {}", report.queue_mean_s, by_size(report))),
        (
            "submit to end",
            format!("mean {:.2} h, p50 {:.2} h, p95 {:.2} h", report.jct_mean_h, report.jct_p50_h, report.jct_p95_h),
        ),
        ("allocated", format!("{:.2} %, of use {:.2} %", report.allocated_pct, report.goodput_pct)),
        ("wasted", format!("{:.1} GPU-h, work lost {:.1}", report.wasted_gpu_h, report.lost_gpu_h)),
        ("audit", format!("{} rounds, {} chips granted twice", report.rounds, report.double_grants)),
    ])
}
