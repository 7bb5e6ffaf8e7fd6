//! `chiptide-sim pack`: the placement experiment of "Beware of Fragmentation" (Q. Weng et al., USENIX ATC 2023) on the
//! openb trace, with the production allocator or a published policy, in memory and on a virtual clock.

mod baseline;
mod bound;
mod fragmentation;
mod product;
mod report;
mod run;
mod trace;

use crate::json_file;
use crate::progress::Progress;
use anyhow::{Context, ensure};
pub use baseline::Ties;
use baseline::{Baseline, Rule};
use clap::{Args, ValueEnum};
use report::{BoundReport, Figure, PackReport, by_level};
use run::{LEVELS, Outcome, Placer};
use std::collections::BTreeMap;
use std::path::PathBuf;
use trace::Trace;

/// Places a trace of tasks on a fleet, one by one, and reports how much of the fleet could be allocated.
#[derive(Args, Debug)]
pub struct PackArgs {
    /// Nodes: sn, cpu_milli, memory_mib, gpu, model
    #[arg(long)]
    nodes: PathBuf,
    /// Tasks, plain or gzipped: cpu_milli, memory_mib, num_gpu, gpu_milli, gpu_spec
    #[arg(long)]
    tasks: PathBuf,
    /// Seeds of the shuffle: one, or first..last
    #[arg(long, default_value = "42..51", value_parser = parse_seeds)]
    seeds: Seeds,
    /// GPU requested in all, against the capacity
    #[arg(long, default_value_t = 1.3)]
    ratio: f64,
    /// Who places
    #[arg(long, value_enum, default_value = "chiptide")]
    policy: PolicyArg,
    /// How a published policy breaks ties; Chiptide has no choice here
    #[arg(long, value_enum, default_value = "name")]
    ties: Ties,
    /// Leave out the bound
    #[arg(long)]
    no_bound: bool,
    /// Write the figures here too
    #[arg(long)]
    json: Option<PathBuf>,
}

/// Seeds to run.
#[derive(Clone, Debug)]
struct Seeds(Vec<u64>);

fn parse_seeds(text: &str) -> Result<Seeds, String> {
    let number = |text: &str| text.parse::<u64>().map_err(|_| format!("{text:?} is no seed"));
    let seeds = match text.split_once("..") {
        Some((first, last)) => (number(first)?..=number(last.trim_start_matches('='))?).collect(),
        None => vec![number(text)?],
    };
    if seeds.is_empty() || seeds.len() > 1000 { Err("between 1 and 1000 seeds".into()) } else { Ok(Seeds(seeds)) }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum PolicyArg {
    Chiptide,
    Fgd,
    Bestfit,
    Firstfit,
    Packing,
    Random,
}

impl PolicyArg {
    fn placer(self, ties: Ties, trace: &Trace, seed: u64) -> anyhow::Result<Box<dyn Placer>> {
        let rule = match self {
            PolicyArg::Chiptide => return Ok(Box::new(product::Product::of(trace)?)),
            PolicyArg::Fgd => Rule::Fgd,
            PolicyArg::Bestfit => Rule::BestFit,
            PolicyArg::Firstfit => Rule::FirstFit,
            PolicyArg::Packing => Rule::Packing,
            PolicyArg::Random => Rule::Random,
        };
        Ok(Box::new(Baseline::of(rule, ties, trace, seed)))
    }
}

/// Runs the experiment for every seed and reports.
pub fn run(args: &PackArgs) -> anyhow::Result<()> {
    ensure!(args.ratio > 0.0 && args.ratio <= 10.0, "--ratio must be above 0 and at most 10");
    let trace = Trace::read(&args.nodes, &args.tasks)?;
    let seeds = &args.seeds.0;
    let progress = Progress::start("placing", seeds.len() as u64);
    let mut outcomes: Vec<Outcome> = Vec::new();
    for seed in seeds {
        let arrivals = trace.arrivals(*seed, args.ratio);
        let mut placer = args.policy.placer(args.ties, &trace, *seed)?;
        outcomes.push(run::run(&trace, &arrivals, placer.as_mut()).with_context(|| format!("seed {seed}"))?);
        progress.at(outcomes.len() as u64);
    }
    drop(progress);
    let report = report(args, &trace, &outcomes)?;
    report.print();
    json_file::write_if(args.json.as_deref(), &report)
}

fn report(args: &PackArgs, trace: &Trace, outcomes: &[Outcome]) -> anyhow::Result<PackReport> {
    let figure = |of: &dyn Fn(&Outcome) -> f64| Figure::of(&outcomes.iter().map(of).collect::<Vec<f64>>());
    let rates: Vec<f64> = outcomes.iter().filter_map(|outcome| outcome.rate).collect();
    let name = |value: Option<clap::builder::PossibleValue>| value.map_or(String::new(), |v| v.get_name().to_owned());
    let ties = if args.policy == PolicyArg::Chiptide { "tight".into() } else { name(args.ties.to_possible_value()) };
    Ok(PackReport {
        policy: name(args.policy.to_possible_value()),
        ties,
        nodes: trace.nodes.len(),
        gpus: trace.capacity() as f64 / 1000.0,
        tasks: trace.tasks.len(),
        ratio: args.ratio,
        seeds: args.seeds.0.clone(),
        allocated_pct: by_level(outcomes, |outcome| &outcome.allocated),
        fragmented_pct: by_level(outcomes, |outcome| &outcome.fragmented),
        idle_gpus: figure(&|outcome| outcome.idle_gpus),
        placed: figure(&|outcome| outcome.placed as f64),
        dropped: figure(&|outcome| outcome.dropped as f64),
        rounds_per_s: (!rates.is_empty()).then(|| Figure::of(&rates)),
        bound: if args.no_bound { None } else { Some(bounds(args, trace)?) },
    })
}

fn bounds(args: &PackArgs, trace: &Trace) -> anyhow::Result<BoundReport> {
    let prices = bound::Prices::of(&trace.tasks)?;
    let progress = Progress::start("bounding", args.seeds.0.len() as u64);
    let mut levels: BTreeMap<u64, Vec<f64>> = BTreeMap::new();
    let mut run_out = Vec::new();
    for seed in &args.seeds.0 {
        let arrivals = trace.arrivals(*seed, args.ratio);
        for level in LEVELS.into_iter().filter(|level| *level as f64 <= args.ratio * 100.0 + 0.5) {
            levels.entry(level).or_default().push(bound::bound(trace, &prices, &arrivals, level)?);
        }
        run_out.push(prices.run_out(trace, &arrivals));
        progress.at(run_out.len() as u64);
    }
    Ok(BoundReport::of(levels, &run_out))
}
