//! `chiptide-sim faults`: load, faults, healing, and the verdict.

use super::checker::History;
use super::evidence;
use super::fault::Fault;
use super::load::{Answered, Clients, LIMIT, LIMITED};
use super::promotion::Promotion;
use super::report::FaultsReport;
use super::service;
use super::world::{VACATE_MS, World};
use crate::audit::Entry;
use crate::event_log;
use crate::json_file;
use crate::latency::Latencies;
use crate::machine::Machine;
use crate::own_daemon::program;
use crate::progress::Progress;
use crate::scheduler::Scheduler;
use anyhow::Context;
use chiptide_model::{Event, JobId};
use clap::Args;
use futures_util::future::try_join_all;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

/// How long all jobs may take to get to their end once nothing is hit any more; longer is stuck.
const SETTLE_MAX: Duration = Duration::from_secs(120);
/// How often to look whether they have.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Hits a real cluster on this machine with real faults and judges what came of it.
#[derive(Args, Clone, Debug)]
pub struct FaultsArgs {
    /// How many faults.
    #[arg(long, default_value_t = 30)]
    pub faults: u64,
    /// Stop hitting after so many minutes, however many faults there were.
    #[arg(long)]
    pub minutes: Option<f64>,
    /// Which faults; by default the three kills.
    #[arg(long, value_enum, value_delimiter = ',')]
    pub kinds: Vec<Fault>,
    /// Every kind of fault there is.
    #[arg(long, conflicts_with = "kinds")]
    pub all: bool,
    /// One kind after the other, instead of any at random.
    #[arg(long)]
    pub in_turn: bool,
    /// Nodes.
    #[arg(long, default_value_t = 3)]
    pub nodes: usize,
    /// Chips of each.
    #[arg(long, default_value_t = 3)]
    pub chips: u32,
    /// Clients that submit at once.
    #[arg(long, default_value_t = 8)]
    pub clients: u64,
    /// Seed of faults and load.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Longest pause between two faults, milliseconds.
    #[arg(long, default_value_t = 1500)]
    pub pause_ms: u64,
    /// Where to write the report.
    #[arg(long)]
    pub json: Option<PathBuf>,
    /// Leave the data behind whatever the verdict.
    #[arg(long)]
    pub keep: bool,
}

impl Default for FaultsArgs {
    fn default() -> Self {
        FaultsArgs {
            faults: 30,
            minutes: None,
            kinds: Vec::new(),
            all: false,
            in_turn: false,
            nodes: 3,
            chips: 3,
            clients: 8,
            seed: 1,
            pause_ms: 1500,
            json: None,
            keep: false,
        }
    }
}

const POINTS: [Fault; 2] = [Fault::PointDaemon, Fault::PointAgent];

/// When a fault hit and when it was healed as far as that was up to us, milliseconds since 1970.
type Strikes = Vec<(Fault, i64, i64)>;

/// `chiptide-sim faults`. Fails when an invariant does not hold.
pub async fn run(args: FaultsArgs) -> anyhow::Result<ExitCode> {
    let report = measure(&args).await?;
    println!("{}", report.table());
    json_file::write_if(args.json.as_deref(), &report)?;
    if let Some(smallest) = &report.verdict.smallest {
        eprintln!("the smallest window with a violation:\n  {smallest}");
    }
    report.verdict.first.iter().for_each(|violation| eprintln!("{violation}"));
    Ok(if report.verdict.clean { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs it and answers the report; for tests.
pub async fn measure(args: &FaultsArgs) -> anyhow::Result<FaultsReport> {
    let begun = Instant::now();
    eprintln!("seed {}", args.seed);
    let mut world = World::start(args.nodes, args.chips).await?;
    let scheduler = Scheduler::new(world.client()?);
    let root = world.ground.path().to_owned();
    let clients = Clients { scheduler: &scheduler, canary: program("chiptide-sim")?, root: &root, seed: args.seed };
    let stop = watch::Sender::new(false);
    let load = try_join_all((0..args.clients).map(|index| clients.one(index, stop.subscribe())));
    let (answered, strikes) = tokio::try_join!(load, hit(&mut world, args, &stop))?;
    let answered: Vec<Answered> = answered.into_iter().flatten().collect();
    settle(&mut world, &scheduler, &answered).await?;

    let mut history = gather(&mut world, &scheduler, &answered).await?;
    history.hits = hits(&strikes, &history.log);
    let next_grant = next_grants(&strikes, &history.log).into_iter().collect::<Latencies>().summary();
    let mut report = FaultsReport {
        machine: Machine::here(),
        seed: args.seed,
        full_told: world.full_told,
        next_grant,
        unasked_ends: world.daemons.unasked().len() as u64,
        unasked: world.daemons.unasked().to_vec(),
        ..FaultsReport::default()
    };
    for (fault, ..) in &strikes {
        *report.faults.entry(*fault).or_default() += 1;
    }
    report.points = world.points_met.clone();
    report.kills = strikes.iter().filter(|(fault, ..)| Fault::KILLS.contains(fault)).count() as u64;
    for (_, state) in &history.acknowledged {
        *report.outcomes.entry(state.clone().unwrap_or_else(|| "unknown".into())).or_default() += 1;
    }
    report.verdict = tokio::task::spawn_blocking(move || history.judge()).await.context("judge")?;
    report.seconds = begun.elapsed().as_secs_f64();
    if args.keep || !report.verdict.clean {
        world.keep();
    }
    Ok(report)
}

/// Hits the world again and again, then tells the clients to stop.
async fn hit(world: &mut World, args: &FaultsArgs, stop: &watch::Sender<bool>) -> anyhow::Result<Strikes> {
    let kinds = match args.kinds.as_slice() {
        // There are fifty points: they come up as often as three other faults.
        [] if args.all => [<Fault as clap::ValueEnum>::value_variants(), &POINTS, &POINTS].concat(),
        [] => Fault::KILLS.to_vec(),
        kinds => kinds.to_vec(),
    };
    let (kinds, impossible): (Vec<Fault>, Vec<Fault>) =
        kinds.into_iter().partition(|fault| fault.is_impossible(world).is_none());
    for fault in impossible {
        eprintln!("skipped: {fault:?} ({})", fault.is_impossible(world).unwrap_or_default());
    }
    anyhow::ensure!(!kinds.is_empty(), "none of these faults is possible here");
    let (mut rng, mut strikes) = (StdRng::seed_from_u64(args.seed), Strikes::new());
    let until = args.minutes.map(|minutes| Instant::now() + Duration::from_secs_f64(minutes * 60.0));
    let progress = Progress::start("faults", args.faults);
    world.pass(Duration::from_secs(2)).await?;
    for number in 1..=args.faults {
        if until.is_some_and(|until| Instant::now() >= until) {
            break;
        }
        let fault = match args.in_turn {
            true => kinds[(number - 1) as usize % kinds.len()],
            false => kinds[rng.random_range(0..kinds.len())],
        };
        let begun = wall_ms();
        fault.strike(world, &mut rng).await.with_context(|| format!("{fault:?}"))?;
        strikes.push((fault, begun, wall_ms()));
        let pause = rng.random_range(args.pause_ms / 5..args.pause_ms.max(1));
        world.pass(Duration::from_millis(pause)).await?;
        progress.show(number, &format!("{fault:?} at {} ms", world.age_ms()));
    }
    // So that what was hit last is built upon.
    world.pass(Duration::from_secs(3)).await?;
    stop.send_replace(true);
    Ok(strikes)
}

fn wall_ms() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// Waits until every job is over and no chip is being vacated; what is not by then is for the checker to name.
async fn settle(world: &mut World, scheduler: &Scheduler, answered: &[Answered]) -> anyhow::Result<()> {
    let until = Instant::now() + SETTLE_MAX;
    let progress = Progress::start("settling", answered.len() as u64);
    let lost = forgotten_jobs(&world.promotions);
    let all = answered.iter().map(|answered| answered.job.id);
    let mut open: Vec<uuid::Uuid> = all.filter(|job| !lost.contains(job)).collect();
    // An end that was forgotten has to be told again: its client has gone on to other jobs.
    let mut tells = world.promotions.iter().any(|promotion| !promotion.lost().is_empty());
    while Instant::now() < until {
        world.tend()?;
        if std::mem::take(&mut tells) {
            for job in &open {
                scheduler.cancel(*job).await.context("cancel a job whose end was forgotten")?;
            }
        }
        service::bring_back(world).await?;
        let mut still = Vec::new();
        for job in open {
            match scheduler.client().job(job).await {
                Ok(view) if view.is_ended() => {}
                // A daemon that is just coming back says nothing of any job; one it does not know is asked for again.
                _ => still.push(job),
            }
        }
        open = still;
        progress.at((answered.len() - open.len()) as u64);
        let leaving = scheduler.client().chips(&[("state", "reclaiming".into())]).await;
        if open.is_empty() && leaving.is_ok_and(|page| page.items.is_empty()) {
            break;
        }
        sleep(LOOK_EVERY).await;
    }
    Ok(())
}

async fn gather(world: &mut World, scheduler: &Scheduler, answered: &[Answered]) -> anyhow::Result<History> {
    let mut acknowledged = Vec::new();
    for Answered { job, .. } in answered {
        let state = scheduler.client().job(job.id).await.ok().map(|view| view.state);
        acknowledged.push((JobId(job.id), state));
    }
    let lost = forgotten_jobs(&world.promotions);
    for Answered { body, key, job } in answered.iter().step_by(5).filter(|answered| !lost.contains(&answered.job.id)) {
        let again = scheduler.submit_again(body, key).await.context("submit a job again")?;
        if again.id != job.id {
            // Its id is in no log under that name: the checker will miss the first.
            acknowledged.push((JobId(again.id), None));
        }
    }
    let log = event_log::read(world.database.url()).await?;
    let promotions = world.promotions.clone();
    let (mut proofs, mut epochs) = (Vec::new(), BTreeMap::new());
    for node in &mut world.nodes {
        node.kill()?;
        proofs.extend(evidence::proofs(&node.home().join("agent.log"))?);
        epochs.extend(evidence::epochs(&node.home().join("state"))?);
    }
    Ok(History {
        doubled: doubled(&log),
        log,
        testimonies: evidence::testimonies(world.ground.path())?,
        proofs,
        epochs,
        promotions,
        hits: Vec::new(),
        acknowledged,
        vacate_bound_ms: i64::try_from(VACATE_MS).unwrap_or(i64::MAX),
        limits: BTreeMap::from([(LIMITED.to_owned(), LIMIT)]),
    })
}

/// Jobs whose submit a promoted replica has forgotten.
fn forgotten_jobs(promotions: &[Promotion]) -> BTreeSet<uuid::Uuid> {
    let events = promotions.iter().flat_map(Promotion::lost).map(|entry| &entry.event);
    let submitted = |event: &Event| match event {
        Event::JobSubmitted { job, .. } => Some(job.0),
        _ => None,
    };
    events.filter_map(submitted).collect()
}

/// Names that were submitted more than once. Each client gives each job a name of its own.
fn doubled(log: &[Entry]) -> BTreeSet<String> {
    let (mut met, mut doubled) = (BTreeSet::new(), BTreeSet::new());
    for entry in log {
        if let Event::JobSubmitted { spec, .. } = &entry.event
            && !met.insert(&spec.name)
        {
            doubled.insert(spec.name.clone());
        }
    }
    doubled
}

/// Each hit, until the first event that was committed once it was healed.
fn hits(strikes: &Strikes, log: &[Entry]) -> Vec<(i64, i64)> {
    let back = |healed: i64| log.get(log.partition_point(|entry| entry.at_ms < healed)).map_or(healed, |e| e.at_ms);
    strikes.iter().map(|(_, begun, healed)| (*begun, back(*healed))).collect()
}

/// From every fault to the first grant after it.
fn next_grants(strikes: &Strikes, log: &[Entry]) -> Vec<Duration> {
    let grants: Vec<i64> =
        log.iter().filter(|entry| matches!(entry.event, Event::LeaseGranted { .. })).map(|entry| entry.at_ms).collect();
    let next = |at: &i64| grants.get(grants.partition_point(|grant| grant < at)).map(|grant| grant - at);
    let ms = strikes.iter().filter_map(|(_, at, _)| u64::try_from(next(at)?).ok());
    ms.map(Duration::from_millis).collect()
}
