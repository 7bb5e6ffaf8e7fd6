//! `chiptide-sim reconnect`: the daemon dies under a whole fleet, and with it every session. How long until each agent is
//! back, and was a lease lost or a node called silent on the way?

mod report;

use crate::counters::sum;
use crate::event_log;
use crate::fleet::{Fleet, TEARDOWN_MAX, uniform};
use crate::json_file;
use crate::machine::{Machine, ProcessMemory, cpu_time};
use crate::own_daemon::OwnDaemon;
use crate::progress::Progress;
use crate::scheduler::Scheduler;
use crate::single_chip;
use anyhow::{Context, bail};
use chiptide_api::job::KindBody;
use chiptide_api::{Client, ClientError};
use chiptide_model::Millis;
use clap::Args;
pub use report::ReconnectReport;
use sqlx::{Connection, PgConnection};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

/// How long the fleet may take.
const BACK_MAX: Duration = Duration::from_secs(300);
/// Jobs of one submit.
const JOBS_PER_CALL: usize = 500;

/// Drops every session of a fleet and measures its return.
#[derive(Args, Debug)]
pub struct ReconnectArgs {
    /// Nodes of the fleet, each with an agent.
    #[arg(long, default_value_t = 1000)]
    nodes: usize,
    /// Chips of each node.
    #[arg(long, default_value_t = 8)]
    chips_per_node: u32,
    /// How long the daemon is away, seconds.
    #[arg(long, default_value_t = 5)]
    down: u64,
    /// Keep the sessions: agents then only report, and need not register.
    #[arg(long)]
    keep_sessions: bool,
    /// How long to watch afterwards for nodes that are called silent, seconds.
    #[arg(long, default_value_t = 20)]
    watch: u64,
    /// Where to write the report.
    #[arg(long)]
    json: Option<PathBuf>,
}

/// `chiptide-sim reconnect`. Fails when a lease was lost, or a node called silent that was not.
pub async fn run(args: ReconnectArgs) -> anyhow::Result<ExitCode> {
    let mut daemon = OwnDaemon::start("reconnect").await?;
    let nodes = uniform(args.nodes, args.chips_per_node, "NVIDIA H20");
    let fleet = Fleet::start(nodes, &daemon.url()?, daemon.token(), TEARDOWN_MAX)?;
    let scheduler = Scheduler::new(daemon.client()?);
    fleet.wait_up(scheduler.client(), &Progress::start("registering nodes", fleet.size() as u64)).await?;
    hold_a_chip_of_each(&scheduler, args.nodes).await?;
    let before = leases(scheduler.client()).await?;

    if !args.keep_sessions {
        forget_sessions(&daemon.postgres_url()?).await?;
    }
    daemon.kill()?;
    sleep(Duration::from_secs(args.down)).await;
    let ready = daemon.restart().await?;
    let cpu_before = cpu_time(daemon.pid())?;
    wait_back(scheduler.client(), fleet.size() as u64).await?;
    let cpu = cpu_time(daemon.pid())?.saturating_sub(cpu_before);
    let progress = Progress::start("seconds watched", args.watch);
    for second in 0..args.watch {
        progress.at(second);
        sleep(Duration::from_secs(1)).await;
    }
    drop(progress);

    let after = leases(scheduler.client()).await?;
    let page = scheduler.client().text("/metrics").await?;
    let mut report = ReconnectReport {
        machine: Machine::here(),
        nodes: fleet.size() as u64,
        chips: fleet.chips(),
        down_s: args.down,
        sessions_kept: args.keep_sessions,
        ready_ms: ready.as_millis() as u64,
        leases: before.len() as u64,
        leases_lost: before.difference(&after).count() as u64,
        shed: sum(&page, "chiptide_requests_shed_total") as u64,
        daemon_cpu_s: cpu.as_secs_f64(),
        daemon_memory: ProcessMemory::of(daemon.pid())?,
        ..ReconnectReport::default()
    };
    report.read_log(&event_log::read(&daemon.postgres_url()?).await?);
    fleet.stop().await;
    println!("{}", report.table());
    json_file::write_if(args.json.as_deref(), &report)?;
    Ok(if report.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// One job for each node, and waits until all run.
async fn hold_a_chip_of_each(scheduler: &Scheduler, jobs: usize) -> anyhow::Result<()> {
    let numbers: Vec<usize> = (0..jobs).collect();
    for numbers in numbers.chunks(JOBS_PER_CALL) {
        let job = |n: &usize| single_chip::job(format!("held-{n}"), KindBody::Training, "standard", Millis(0));
        let bodies: Vec<_> = numbers.iter().map(job).collect();
        scheduler.submit_many(&bodies).await.context("submit jobs")?;
    }
    let (start, progress) = (Instant::now(), Progress::start("jobs running", jobs as u64));
    loop {
        let page = scheduler.client().text("/metrics").await?;
        let running = sum_of(&page, "chiptide_jobs{state=\"running\"}");
        progress.at(running);
        if running == jobs as u64 {
            return Ok(());
        }
        if start.elapsed() > BACK_MAX {
            bail!("only {running} of {jobs} jobs run");
        }
        sleep(Duration::from_millis(250)).await;
    }
}

/// The live leases.
async fn leases(client: &Client) -> Result<BTreeSet<Uuid>, ClientError> {
    let (mut found, mut cursor) = (BTreeSet::new(), None);
    loop {
        let mut filters = vec![("limit", "500".to_owned())];
        filters.extend(cursor.map(|cursor| ("cursor", cursor)));
        let page = client.leases(&filters).await?;
        found.extend(page.items.iter().map(|lease| lease.id));
        match page.next_cursor {
            Some(next) => cursor = Some(next),
            None => return Ok(found),
        }
    }
}

/// Makes the next daemon know none of the sessions that the agents report under.
async fn forget_sessions(postgres_url: &str) -> anyhow::Result<()> {
    let mut postgres = PgConnection::connect(postgres_url).await.context("connect to Postgres")?;
    sqlx::query("update nodes set session = gen_random_uuid()")
        .execute(&mut postgres)
        .await
        .context("forget sessions")?;
    postgres.close().await.context("close the connection")
}

/// Waits until no chip is unknown.
async fn wait_back(client: &Client, nodes: u64) -> anyhow::Result<()> {
    let (start, progress) = (Instant::now(), Progress::start("nodes back", nodes));
    loop {
        // A daemon that has too much to do may refuse this once; it is asked again.
        if let Ok(page) = client.text("/metrics").await {
            let heard = sum_of(&page, "chiptide_events_total{kind=\"node_heard\"}");
            progress.at(heard + sum_of(&page, "chiptide_events_total{kind=\"node_registered\"}"));
            if sum_of(&page, "chiptide_chips{state=\"unknown\"}") == 0 {
                return Ok(());
            }
        }
        if start.elapsed() > BACK_MAX {
            bail!("the fleet was not back after {BACK_MAX:?}");
        }
        sleep(Duration::from_millis(100)).await;
    }
}

/// The value of one line of the metrics page; 0 where it is not there yet.
fn sum_of(page: &str, series: &str) -> u64 {
    let value = page.lines().find_map(|line| line.strip_prefix(series)?.trim().parse::<f64>().ok());
    value.unwrap_or(0.0) as u64
}
