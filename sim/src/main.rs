//! `chiptide-sim`: picks the program to run, and ends it in order on Ctrl-C.

use clap::{Parser, Subcommand};
use std::process::ExitCode;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// Clients and agents share the machine with what they measure: the less they cost, the better the figures.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Fleets of scripted nodes, a real trace replayed, loads, crashes, and the audit of what came of them.
#[derive(Parser)]
#[command(name = "chiptide-sim", version)]
struct Cli {
    #[command(subcommand)]
    program: Program,
}

#[derive(Subcommand)]
enum Program {
    #[command(flatten)]
    Alone(Alone),
    #[command(flatten)]
    Supervised(Supervised),
}

/// Programs that start nothing and listen to nothing: they need no runtime, and a signal ends them as it ends any process.
#[derive(Subcommand)]
enum Alone {
    Chaos(chiptide_sim::chaos::ChaosArgs),
    Tide(chiptide_sim::tide::TideArgs),
    Scale(chiptide_sim::scale::ScaleArgs),
    Pack(chiptide_sim::pack::PackArgs),
    #[command(hide = true)]
    Canary(chiptide_sim::faults::canary::CanaryArgs),
}

/// Programs with daemons, agents and connections of their own, which are put away in order.
#[derive(Subcommand)]
enum Supervised {
    Fleet(chiptide_sim::fleet::FleetArgs),
    Demo(chiptide_sim::demo::DemoArgs),
    Load(chiptide_sim::load::LoadArgs),
    IdleCost(chiptide_sim::idle_cost::IdleCostArgs),
    Backlog(chiptide_sim::backlog::BacklogArgs),
    Crash(chiptide_sim::crash::CrashArgs),
    Takeover(chiptide_sim::takeover::TakeoverArgs),
    Reconnect(chiptide_sim::reconnect::ReconnectArgs),
    Handover(chiptide_sim::handover::HandoverArgs),
    Faults(chiptide_sim::faults::run::FaultsArgs),
}

fn main() -> anyhow::Result<ExitCode> {
    match Cli::parse().program {
        Program::Alone(Alone::Chaos(args)) => chiptide_sim::chaos::run(&args),
        Program::Alone(Alone::Tide(args)) => chiptide_sim::tide::run(&args),
        Program::Alone(Alone::Scale(args)) => chiptide_sim::scale::run(&args),
        Program::Alone(Alone::Pack(args)) => chiptide_sim::pack::run(&args).map(|()| ExitCode::SUCCESS),
        Program::Alone(Alone::Canary(args)) => chiptide_sim::faults::canary::run(&args).map(|()| ExitCode::SUCCESS),
        Program::Supervised(program) => supervise(program),
    }
}

#[tokio::main]
async fn supervise(program: Supervised) -> anyhow::Result<ExitCode> {
    // Progress is told on stderr; of what the agents log, only errors would add to it.
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("error"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    chiptide_sim::machine::raise_open_files()?;
    let mut terminate = signal(SignalKind::terminate())?;
    // The arm that does not finish is dropped before the other's code runs: agents stop, an own daemon is ended.
    let program = Box::pin(run(program));
    tokio::select! {
        code = program => code,
        _ = tokio::signal::ctrl_c() => Ok(ended_by("SIGINT", 130)),
        _ = terminate.recv() => Ok(ended_by("SIGTERM", 143)),
    }
}

fn ended_by(signal: &str, code: u8) -> ExitCode {
    eprintln!("ended by {signal}; nothing is left running");
    ExitCode::from(code)
}

async fn run(program: Supervised) -> anyhow::Result<ExitCode> {
    match program {
        Supervised::Fleet(args) => chiptide_sim::fleet::run(args).await.map(|()| ExitCode::SUCCESS),
        Supervised::Demo(args) => Box::pin(chiptide_sim::demo::run(args)).await,
        Supervised::Load(args) => Box::pin(chiptide_sim::load::run(args)).await,
        Supervised::IdleCost(args) => chiptide_sim::idle_cost::run(args).await.map(|()| ExitCode::SUCCESS),
        Supervised::Backlog(args) => chiptide_sim::backlog::run(args).await,
        Supervised::Handover(args) => Box::pin(chiptide_sim::handover::run(args)).await,
        Supervised::Faults(args) => Box::pin(chiptide_sim::faults::run::run(args)).await,
        Supervised::Crash(args) => Box::pin(chiptide_sim::crash::run(args)).await,
        Supervised::Takeover(args) => Box::pin(chiptide_sim::takeover::run(args)).await,
        Supervised::Reconnect(args) => Box::pin(chiptide_sim::reconnect::run(args)).await,
    }
}
