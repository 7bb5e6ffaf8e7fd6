//! `chiptide-sim chaos`: whole stories of the protocol, each drawn from a seed: the production allocator, the production
//! agent's decisions and the store's semantics under virtual time, with every fault we know how to make. What must never be
//! is recounted after each step; at the end faults stop, and everything must finish. `docs/chaos.md` says how to read it.

mod agent;
mod clients;
mod daemon;
mod database;
mod lead;
mod letter;
mod node;
mod orders;
mod recount;
mod report;
mod rules;
mod shrink;
mod step;
#[cfg(test)]
mod tests;
mod world;

pub use report::ChaosReport;
pub use rules::{MUTANTS, Rules};
pub use step::{Kind, Step, story};

use crate::json_file;
use crate::progress::Progress;
use clap::Args;
use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Instant as Started;
use tokio::time::Instant;
use world::World;

/// Seeded stories of crashes, losses, pauses and lies, with the production allocator and the production agent's decisions.
#[derive(Args, Debug)]
pub struct ChaosArgs {
    /// Which seeds: `0..10000`, or one.
    #[arg(long, default_value = "0..1000")]
    seeds: Seeds,
    /// Steps of each story.
    #[arg(long, default_value_t = 400)]
    steps: usize,
    /// Tells the stories with one rule of the protocol switched off, to see that it is noticed.
    #[arg(long, value_parser = mutant)]
    without: Option<(&'static str, Rules)>,
    /// Threads; as many as there are cores when absent.
    #[arg(long)]
    threads: Option<usize>,
    /// Where to write the report.
    #[arg(long)]
    json: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug)]
struct Seeds {
    from: u64,
    to: u64,
}

impl FromStr for Seeds {
    type Err = String;

    fn from_str(text: &str) -> Result<Seeds, String> {
        let number = |text: &str| text.parse::<u64>().map_err(|_| format!("{text:?} is not a seed"));
        let (from, to) = match text.split_once("..") {
            Some((from, to)) => (number(from)?, number(to)?),
            None => (number(text)?, number(text)?.saturating_add(1)),
        };
        if from < to { Ok(Seeds { from, to }) } else { Err(format!("{text:?} names no seed")) }
    }
}

/// The rule of this name, switched off.
fn mutant(text: &str) -> Result<(&'static str, Rules), String> {
    let known = MUTANTS.map(|(name, _)| name).join(", ");
    MUTANTS.into_iter().find(|(name, _)| *name == text).ok_or_else(|| format!("no such rule; known are: {known}"))
}

/// How one story went.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Told {
    /// What must not be and was, with the number of the step after which it was found; none in a good story.
    pub found: Option<(usize, String)>,
    /// Virtual milliseconds.
    pub lasted_ms: u64,
    /// Events in the log at the end.
    pub events: u64,
    /// Leases granted.
    pub grants: u64,
    /// Faults that struck.
    pub faults: u64,
    /// Jobs that clients submitted.
    pub jobs: u64,
}

/// Tells a story in the world of `seed` to its end, or to the first thing that must not be.
pub fn tell(seed: u64, steps: &[Step], rules: Rules) -> Told {
    let mut world = World::new(seed, rules, Instant::now());
    world.begin();
    let mut at = 0;
    while at < steps.len() && world.found.is_empty() {
        world.step(steps[at]);
        at += 1;
    }
    if world.found.is_empty() {
        world.end();
    }
    Told {
        found: world.found.first().map(|what| (at, what.clone())),
        lasted_ms: world.now,
        events: world.database.log.len() as u64,
        grants: world.recount.grants,
        faults: world.faults,
        jobs: world.clients.count(),
    }
}

/// Tells all stories; fails when one of them has gone wrong.
pub fn run(args: &ChaosArgs) -> anyhow::Result<ExitCode> {
    let started = Started::now();
    let threads = args.threads.unwrap_or_else(|| thread::available_parallelism().map_or(1, usize::from)).max(1);
    let rules = args.without.map_or_else(Rules::default, |(_, rules)| rules);
    let next = AtomicU64::new(args.seeds.from);
    let report = Mutex::new(ChaosReport::of(args.seeds.from, args.seeds.to, args.steps));
    let progress = Progress::start("stories told", args.seeds.to.saturating_sub(args.seeds.from));
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let mut mine = ChaosReport::default();
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= args.seeds.to {
                        break;
                    }
                    mine.take(seed, args.steps, rules);
                    progress.at(seed - args.seeds.from);
                }
                report.lock().unwrap_or_else(std::sync::PoisonError::into_inner).add(mine);
            });
        }
    });
    drop(progress);
    let mut report = report.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    report.finish(started.elapsed(), threads);
    report.print();
    if let Some(path) = &args.json {
        json_file::write(path, &report)?;
    }
    Ok(if report.violations == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
