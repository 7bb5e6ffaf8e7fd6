//! `chiptide-sim takeover`: two daemons on one database, under load. The one that leads is killed, or stopped with its
//! connections open, again and again: how long until the other acknowledges a write, and is anything lost or there twice?

mod clients;
mod pair;
mod report;

use crate::audit::Auditor;
use crate::crash::doubled;
use crate::event_log;
use crate::fleet::{Fleet, TEARDOWN_MAX, uniform};
use crate::json_file;
use crate::machine::Machine;
use crate::progress::Progress;
use anyhow::{Context, bail};
use chiptide_api::Client;
use chiptide_model::JobId;
use clap::{Args, ValueEnum};
use clients::{Acknowledged, Load};
use futures_util::future::try_join_all;
use pair::Pair;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
pub use report::TakeoverReport;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

/// Load after each takeover, so that what came of it is built upon.
const AFTERMATH: Duration = Duration::from_secs(1);

/// Ends or stops the leading daemon under load, and measures how long until the other leads.
#[derive(Args, Debug)]
pub struct TakeoverArgs {
    /// How often.
    #[arg(long, default_value_t = 10)]
    times: u32,
    /// What happens to the leader; by default each in turn.
    #[arg(long)]
    fault: Option<LeaderFault>,
    /// Nodes of the fleet, of 8 chips each.
    #[arg(long, default_value_t = 16)]
    nodes: usize,
    /// Clients that submit at once. Half of them talk to the one daemon first, half to the other.
    #[arg(long, default_value_t = 8)]
    clients: usize,
    /// Seed of the moments.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Where to write the report.
    #[arg(long)]
    json: Option<PathBuf>,
}

/// What happens to the leader.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum LeaderFault {
    /// SIGKILL.
    Kill,
    /// SIGSTOP, with its connections open, until the other has taken over; then SIGCONT.
    Hang,
}

/// `chiptide-sim takeover`. Fails when anything acknowledged was lost, changed or is there twice, the log violates a rule,
/// a takeover took longer than it may, or a leader that was stopped did not become a standby.
pub async fn run(args: TakeoverArgs) -> anyhow::Result<ExitCode> {
    let start = Instant::now();
    eprintln!("seed {}", args.seed);
    let mut pair = Pair::start().await?;
    let (there, back) = pair.urls()?;
    let fleet = Fleet::start(uniform(args.nodes, 8, "NVIDIA H20"), &there, pair.token(), TEARDOWN_MAX)?;
    let client = Client::new(&there, pair.token())?;
    fleet.wait_up(&client, &Progress::start("registering nodes", fleet.size() as u64)).await?;

    let load = Load::default();
    let stop = watch::Sender::new(false);
    let mut clients = Vec::new();
    for index in 0..args.clients {
        let client = Client::new(if index % 2 == 0 { &there } else { &back }, pair.token())?;
        clients.push(load.run(client, index, stop.subscribe()));
    }
    let hitting = hit_again_and_again(&mut pair, &args, &load, &stop);
    let (acknowledged, mut report) = tokio::try_join!(try_join_all(clients), hitting)?;
    let acknowledged: Vec<Acknowledged> = acknowledged.into_iter().flatten().collect();
    clients::check(&client, &acknowledged, &mut report).await?;
    let log = event_log::read(pair.database_url()).await?;
    report.doubled = doubled(&log);
    let known: Vec<JobId> = acknowledged.iter().map(|answer| JobId(answer.id)).collect();
    report.audit = tokio::task::spawn_blocking(move || Auditor::audit(&log, &known)).await.context("audit the log")?;
    fleet.stop().await;
    report.machine = Machine::here();
    report.seed = args.seed;
    report.seconds = start.elapsed().as_secs_f64();
    println!("{}", report.table());
    json_file::write_if(args.json.as_deref(), &report)?;
    report.audit.first_violations.iter().for_each(|violation| eprintln!("{violation}"));
    if !report.is_clean() {
        pair.keep();
    }
    Ok(if report.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn hit_again_and_again(
    pair: &mut Pair,
    args: &TakeoverArgs,
    load: &Load,
    stop: &watch::Sender<bool>,
) -> anyhow::Result<TakeoverReport> {
    let (mut rng, mut report) = (StdRng::seed_from_u64(args.seed), TakeoverReport::default());
    let progress = Progress::start("takeovers", u64::from(args.times));
    for time in 1..=args.times {
        let fault = args.fault.unwrap_or(if time % 2 == 1 { LeaderFault::Kill } else { LeaderFault::Hang });
        sleep(Duration::from_millis(rng.random_range(500..2500))).await;
        let (leader, hit) = (pair.leader().await?, Instant::now());
        pair.hit(leader, fault)?;
        pair.wait_leads(1 - leader).await?;
        load.wait_acknowledged_after(Instant::now()).await?;
        let Some(took) = load.longest_silence_after(hit) else { bail!("nothing was acknowledged") };
        sleep(AFTERMATH).await;
        pair.bring_back(leader, fault).await?;
        let took_ms = took.as_secs_f64() * 1000.0;
        match fault {
            LeaderFault::Kill => report.killed_ms.push(took_ms),
            LeaderFault::Hang => report.hung_ms.push(took_ms),
        }
        progress.show(u64::from(time), &format!("{fault:?}: {:.2} s", took.as_secs_f64()));
    }
    stop.send_replace(true);
    Ok(report)
}
