//! `chiptide-sim scale`: how fast the allocator decides on a large fleet, and how much memory that takes.
//!
//! Everything goes through the production allocator's `decide`, without a daemon and without Postgres. Only the time
//! inside `decide` counts; memory is that of the whole process.

mod backlog;
mod durations;
mod filling;
mod gangs;
mod report;
#[cfg(test)]
mod tests;

pub use backlog::BacklogFigures;
pub use durations::DurationSummary;
pub use filling::FillingFigures;
pub use gangs::GangFigures;
pub use report::ScaleReport;

use crate::json_file;
use crate::machine::{Machine, ProcessMemory};
use clap::Args;
use std::path::PathBuf;
use std::process::ExitCode;

/// Measures decisions, rounds and memory on a large fleet.
#[derive(Args, Debug)]
pub struct ScaleArgs {
    /// Nodes of the fleet.
    #[arg(long, default_value_t = 10_000)]
    nodes: usize,
    /// Chips of each node.
    #[arg(long, default_value_t = 8)]
    chips_per_node: u16,
    /// Jobs that wait while the fleet is full.
    #[arg(long, default_value_t = 100_000)]
    pending: u64,
    /// How many different things these jobs ask for.
    #[arg(long, default_value_t = 500)]
    shapes: u64,
    /// Gangs of 64 chips that preempt across the full fleet.
    #[arg(long, default_value_t = 300)]
    gangs: u64,
    /// Where to write the report.
    #[arg(long)]
    json: Option<PathBuf>,
}

/// `chiptide-sim scale`.
pub fn run(args: &ScaleArgs) -> anyhow::Result<ExitCode> {
    let report = measure(args)?;
    println!("{}", report.table());
    json_file::write_if(args.json.as_deref(), &report)?;
    Ok(ExitCode::SUCCESS)
}

/// The backlog comes first: its memory must not be mistaken for what another part left behind.
fn measure(args: &ScaleArgs) -> anyhow::Result<ScaleReport> {
    let memory = || ProcessMemory::of(std::process::id());
    let memory_before = memory()?;
    let backlog = backlog::measure(args, memory)?;
    Ok(ScaleReport {
        machine: Machine::here(),
        nodes: args.nodes as u64,
        chips: args.nodes as u64 * u64::from(args.chips_per_node),
        memory_before,
        backlog,
        one_a_round: filling::measure(args, 1)?,
        many_a_round: filling::measure(args, filling::MANY)?,
        gangs: gangs::measure(args)?,
    })
}
