//! `chiptide-sim load`: what one daemon on one Postgres can do. Every figure is of durable grants: answered after their
//! commit. The same Postgres, alone and at the same concurrency, is measured in the same run as the yardstick.

mod cycles;
mod postgres_alone;
mod preempting;
mod report;

use crate::audit::Auditor;
use crate::event_log;
use crate::fleet::{Fleet, TEARDOWN_MAX, uniform};
use crate::json_file;
use crate::machine::{Machine, ProcessMemory};
use crate::own_daemon::OwnDaemon;
use crate::progress::{Progress, done, step};
use crate::scheduler::Scheduler;
use crate::single_chip;
use anyhow::{Context, bail};
use chiptide_api::Client;
use chiptide_api::job::{JobBody, KindBody};
use chiptide_model::Millis;
use clap::Args;
pub use cycles::CyclesReport;
use cycles::{Cycles, cycle};
pub use postgres_alone::PostgresReport;
pub use preempting::PreemptingReport;
pub use report::LoadReport;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use tokio::time::{Instant, sleep};

const STEPS: u32 = 5;

/// Measures grants a second and their latency, against a daemon that commits every one of them.
#[derive(Args, Debug)]
pub struct LoadArgs {
    /// A running daemon; without it the load starts one of its own, with a private Postgres.
    #[arg(long, requires = "token_file", requires = "postgres_url")]
    url: Option<String>,
    /// File that holds the admin's bearer token of that daemon.
    #[arg(long)]
    token_file: Option<PathBuf>,
    /// The database of that daemon.
    #[arg(long)]
    postgres_url: Option<String>,
    /// Nodes of the in-process fleet.
    #[arg(long, default_value_t = 128)]
    nodes: usize,
    /// Chips of each node.
    #[arg(long, default_value_t = 8)]
    chips_per_node: u32,
    /// Single-chip jobs under full load.
    #[arg(long, default_value_t = 20_000)]
    jobs: u64,
    /// Clients that submit at once under full load.
    #[arg(long, default_value_t = 64)]
    clients: usize,
    /// Jobs of the light load, one client.
    #[arg(long, default_value_t = 500)]
    light_jobs: u64,
    /// Gangs under full load; by default an eighth of `--jobs`.
    #[arg(long)]
    gangs: Option<u64>,
    /// Replicas of a gang.
    #[arg(long, default_value_t = 4)]
    gang: u64,
    /// Chips of each replica of a gang.
    #[arg(long, default_value_t = 2)]
    chips_per_replica: u64,
    /// Preempting submits, one after another.
    #[arg(long, default_value_t = 200)]
    preempts: u64,
    /// Where to write the report.
    #[arg(long)]
    json: Option<PathBuf>,
}

/// The daemon under load, and what can be seen of it.
struct Site {
    url: String,
    token: String,
    postgres_url: String,
    /// Ours, if it is.
    own: Option<OwnDaemon>,
}

impl Site {
    async fn open(args: &LoadArgs) -> anyhow::Result<Site> {
        match (&args.url, &args.token_file, &args.postgres_url) {
            (Some(url), Some(file), Some(postgres_url)) => {
                let token = std::fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
                let token = token.trim().to_owned();
                Ok(Site { url: url.clone(), token, postgres_url: postgres_url.clone(), own: None })
            }
            (None, None, None) => {
                let own = OwnDaemon::start("load").await?;
                let (url, token, postgres_url) = (own.url()?, own.token().to_owned(), own.postgres_url()?);
                Ok(Site { url, token, postgres_url, own: Some(own) })
            }
            _ => bail!("give --url, --token-file and --postgres-url together, or none of them"),
        }
    }

    fn scheduler(&self) -> anyhow::Result<Scheduler> {
        Ok(Scheduler::new(Client::new(&self.url, &self.token)?))
    }
}

/// `chiptide-sim load`. Fails when the event log violates a rule.
pub async fn run(args: LoadArgs) -> anyhow::Result<ExitCode> {
    let start = Instant::now();
    let site = Site::open(&args).await?;
    let fleet =
        Fleet::start(uniform(args.nodes, args.chips_per_node, "NVIDIA H20"), &site.url, &site.token, TEARDOWN_MAX)?;
    let scheduler = site.scheduler()?;
    fleet.wait_up(scheduler.client(), &Progress::start("registering nodes", fleet.size() as u64)).await?;
    let mut report = measure(&args, &site, &fleet, &scheduler).await?;
    fleet.stop().await;
    report.seconds = start.elapsed().as_secs_f64();
    println!("{}", report.table());
    json_file::write_if(args.json.as_deref(), &report)?;
    report.audit.first_violations.iter().for_each(|violation| eprintln!("{violation}"));
    Ok(if report.audit.clean { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn measure(args: &LoadArgs, site: &Site, fleet: &Fleet, scheduler: &Scheduler) -> anyhow::Result<LoadReport> {
    let single = |name| single_chip::job(name, KindBody::Training, "standard", Millis::from_secs(30));
    let gang = |name| {
        let (replicas, chips) = (args.gang, args.chips_per_replica);
        single_chip::gang(name, KindBody::Training, "standard", Millis::from_secs(30), replicas, chips)
    };
    let gangs = args.gangs.unwrap_or(args.jobs / 8);
    step(1, STEPS, "light load: one client");
    let light = run_cycles(scheduler, "light", 1, args.light_jobs, &single).await?;
    step(2, STEPS, &format!("full load: {} clients, single chips", args.clients));
    let full = run_cycles(scheduler, "full", args.clients, args.jobs, &single).await?;
    step(
        3,
        STEPS,
        &format!("full load: {} clients, gangs of {} × {}", args.clients, args.gang, args.chips_per_replica),
    );
    let gangs = run_cycles(scheduler, "gang", args.clients, gangs, &gang).await?;
    step(4, STEPS, "the same Postgres, alone");
    sleep(Duration::from_secs(2)).await;
    let postgres = postgres_alone::measure(&site.postgres_url, args.clients).await?;
    done(&format!(
        "{:.0} commits/s of one row, {:.0} rows/s in bulk",
        postgres.commits_per_s, postgres.bulk_rows_per_s
    ));
    step(5, STEPS, "preempting grants, on a full fleet");
    let preempting = preempting::measure(scheduler, fleet.chips(), args.preempts).await?;
    done(&format!("submit to committed decision: {}", preempting.decision));
    let log = event_log::read(&site.postgres_url).await?;
    let acknowledged = scheduler.acknowledged();
    let audit =
        tokio::task::spawn_blocking(move || Auditor::audit(&log, &acknowledged)).await.context("audit the log")?;
    Ok(LoadReport {
        machine: Machine::here(),
        nodes: fleet.size() as u64,
        chips: fleet.chips(),
        clients: args.clients as u64,
        grants_per_commit_alone: full.grants_per_s / postgres.commits_per_s.max(f64::EPSILON),
        gangs_per_commit_alone: gangs.grants_per_s / postgres.commits_per_s.max(f64::EPSILON),
        daemon_memory: site.own.as_ref().map(|own| ProcessMemory::of(own.pid())).transpose()?,
        light,
        full,
        gangs,
        postgres,
        preempting,
        audit,
        seconds: 0.0,
    })
}

async fn run_cycles(
    scheduler: &Scheduler,
    phase: &'static str,
    clients: usize,
    jobs: u64,
    body: &(impl Fn(String) -> JobBody + Sync),
) -> anyhow::Result<CyclesReport> {
    let progress = Progress::start("jobs through", jobs);
    let report = cycle(scheduler, &Cycles { phase, clients, jobs, body }, &progress).await?;
    drop(progress);
    done(&format!("{:.0} grants/s, submit to lease {}", report.grants_per_s, report.submit_to_lease));
    Ok(report)
}
