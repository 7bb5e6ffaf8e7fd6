//! `chiptide-sim crash`: the daemon is killed again and again under load. Whatever it acknowledged must be there, once.

use crate::audit::{AuditReport, Auditor, Entry};
use crate::event_log;
use crate::fleet::{Fleet, TEARDOWN_MAX, uniform};
use crate::json_file;
use crate::latency::{Latencies, LatencySummary};
use crate::machine::Machine;
use crate::own_daemon::OwnDaemon;
use crate::progress::Progress;
use crate::scheduler::{Answer, Scheduler, has_chips};
use crate::single_chip;
use anyhow::Context;
use chiptide_api::job::{JobBody, KindBody};
use chiptide_model::{Event, Millis};
use clap::Args;
use futures_util::future::try_join_all;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

/// How long a client waits for the chips of a job before it cancels it.
const PATIENCE: Duration = Duration::from_secs(10);
/// Every so many submits are sent again under their key at once.
const AGAIN_EVERY: usize = 7;
/// Load after the last restart, so that what came before it is built upon.
const AFTERMATH: Duration = Duration::from_secs(2);

/// Kills the daemon under load and checks that nothing acknowledged was lost or doubled.
#[derive(Args, Debug)]
pub struct CrashArgs {
    /// How often to kill it.
    #[arg(long, default_value_t = 10)]
    times: u32,
    /// Nodes of the fleet.
    #[arg(long, default_value_t = 16)]
    nodes: usize,
    /// Clients that submit at once.
    #[arg(long, default_value_t = 16)]
    clients: usize,
    /// Seed of the moments; the same seed kills after the same delays.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Where to write the report.
    #[arg(long)]
    json: Option<PathBuf>,
}

/// What the crashes did.
#[derive(Clone, PartialEq, Debug, Default, Serialize)]
pub struct CrashReport {
    /// Where it ran.
    pub machine: Machine,
    /// Seed of the moments.
    pub seed: u64,
    /// Times the daemon was killed and started again.
    pub kills: u32,
    /// From the start of a killed daemon to ready.
    pub recovery: LatencySummary,
    /// Jobs acknowledged.
    pub acknowledged: u64,
    /// Acknowledged jobs that a look-up in the end did not find.
    pub missing: u64,
    /// Keys that a repeated submit answered with another job than before.
    pub changed: u64,
    /// Repeated submits in all.
    pub repeated: u64,
    /// Submits that are in the log more than once.
    pub doubled: u64,
    /// Leases the clients got.
    pub leased: u64,
    /// The audit of the event log.
    pub audit: AuditReport,
    /// Wall seconds in all.
    pub seconds: f64,
}

impl CrashReport {
    fn is_clean(&self) -> bool {
        self.missing == 0 && self.changed == 0 && self.doubled == 0 && self.audit.clean
    }
}

/// What one client was answered.
#[derive(Default)]
struct Answered {
    jobs: Vec<(JobBody, Answer)>,
    leased: u64,
    repeated: u64,
    changed: u64,
}

/// `chiptide-sim crash`. Fails when anything acknowledged was lost, doubled or changed, or the log violates a rule.
pub async fn run(args: CrashArgs) -> anyhow::Result<ExitCode> {
    let start = Instant::now();
    eprintln!("seed {}", args.seed);
    let mut daemon = OwnDaemon::start("crash").await?;
    let fleet = Fleet::start(uniform(args.nodes, 8, "NVIDIA H20"), &daemon.url()?, daemon.token(), TEARDOWN_MAX)?;
    let scheduler = Scheduler::new(daemon.client()?);
    fleet.wait_up(scheduler.client(), &Progress::start("registering nodes", fleet.size() as u64)).await?;

    let stop = watch::Sender::new(false);
    let clients = (0..args.clients).map(|index| client(&scheduler, index, stop.subscribe()));
    let killer = kill_again_and_again(&mut daemon, &args, &stop);
    let (answered, recovery) = tokio::try_join!(try_join_all(clients), killer)?;

    let mut report = CrashReport {
        machine: Machine::here(),
        seed: args.seed,
        kills: args.times,
        recovery: recovery.summary(),
        leased: answered.iter().map(|client| client.leased).sum(),
        repeated: answered.iter().map(|client| client.repeated).sum(),
        changed: answered.iter().map(|client| client.changed).sum(),
        ..CrashReport::default()
    };
    check_answers(&scheduler, &answered, &mut report).await?;
    let log = event_log::read(&daemon.postgres_url()?).await?;
    report.doubled = doubled(&log);
    let acknowledged = scheduler.acknowledged();
    report.audit =
        tokio::task::spawn_blocking(move || Auditor::audit(&log, &acknowledged)).await.context("audit the log")?;
    fleet.stop().await;
    report.seconds = start.elapsed().as_secs_f64();
    println!("{}", table(&report));
    json_file::write_if(args.json.as_deref(), &report)?;
    report.audit.first_violations.iter().for_each(|violation| eprintln!("{violation}"));
    if !report.is_clean() {
        daemon.keep_dir();
    }
    Ok(if report.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn kill_again_and_again(
    daemon: &mut OwnDaemon,
    args: &CrashArgs,
    stop: &watch::Sender<bool>,
) -> anyhow::Result<Latencies> {
    let (mut rng, mut recovery) = (StdRng::seed_from_u64(args.seed), Latencies::default());
    let progress = Progress::start("kills", u64::from(args.times));
    for kill in 1..=args.times {
        sleep(Duration::from_millis(rng.random_range(300..2500))).await;
        daemon.kill()?;
        let took = daemon.restart().await?;
        recovery.record(took);
        progress.show(u64::from(kill), &format!("ready again after {:.2} s", took.as_secs_f64()));
    }
    sleep(AFTERMATH).await;
    stop.send_replace(true);
    Ok(recovery)
}

/// One client: a job at a time, submitted, leased, done; the same key again whenever there was no answer.
async fn client(scheduler: &Scheduler, index: usize, stop: watch::Receiver<bool>) -> anyhow::Result<Answered> {
    let mut answered = Answered::default();
    while !*stop.borrow() {
        let name = format!("crash-{index}-{}", answered.jobs.len());
        let body = single_chip::job(name, KindBody::Training, "standard", Millis::from_secs(30));
        let answer = scheduler.submit(&body).await.context("submit a job")?;
        answered.jobs.push((body.clone(), answer.clone()));
        if answered.jobs.len() % AGAIN_EVERY == 0 {
            let again = scheduler.submit_again(&body, &answer.key).await.context("submit a job again")?;
            answered.repeated += 1;
            answered.changed += u64::from(again.id != answer.job.id);
        }
        let id = answer.job.id;
        match scheduler.watch(answer.job, Instant::now() + PATIENCE, has_chips).await.context("watch a job")? {
            Some(_) => {
                answered.leased += 1;
                scheduler.done(id).await.context("report a job done")?;
            }
            None => scheduler.cancel(id).await.context("cancel a job")?,
        }
    }
    Ok(answered)
}

/// Every acknowledged job is there, and its key still answers with it.
async fn check_answers(scheduler: &Scheduler, answered: &[Answered], report: &mut CrashReport) -> anyhow::Result<()> {
    let jobs: Vec<_> = answered.iter().flat_map(|client| &client.jobs).collect();
    let progress = Progress::start("jobs looked up", jobs.len() as u64);
    for (body, answer) in jobs {
        report.acknowledged += 1;
        report.missing += u64::from(scheduler.client().job(answer.job.id).await.is_err());
        let again = scheduler.submit_again(body, &answer.key).await.context("submit a job again")?;
        report.repeated += 1;
        report.changed += u64::from(again.id != answer.job.id);
        progress.at(report.acknowledged);
    }
    Ok(())
}

/// How many submits are in the log more than once. Each had a name of its own.
pub(crate) fn doubled(log: &[Entry]) -> u64 {
    let mut jobs: BTreeMap<&str, BTreeSet<_>> = BTreeMap::new();
    for entry in log {
        if let Event::JobSubmitted { job, spec, .. } = &entry.event {
            jobs.entry(&spec.name).or_default().insert((*job, entry.seq));
        }
    }
    jobs.values().filter(|times| times.len() > 1).count() as u64
}

fn table(report: &CrashReport) -> comfy_table::Table {
    let audit = &report.audit;
    crate::table::of([
        ("kills", format!("{} under load, seed {}", report.kills, report.seed)),
        ("ready again", report.recovery.to_string()),
        ("jobs", format!("{} acknowledged, {} leased", report.acknowledged, report.leased)),
        ("missing", report.missing.to_string()),
        ("in the log twice", report.doubled.to_string()),
        ("repeated submits", format!("{}, {} answered with another job", report.repeated, report.changed)),
        (
            "audit of the event log",
            format!(
                "{}: {} events, {} leaders, {} grants",
                if audit.clean { "clean" } else { "VIOLATED" },
                audit.events,
                audit.leaders,
                audit.grants
            ),
        ),
        ("machine", format!("{}; {:.0} s in all", report.machine, report.seconds)),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;
    use chiptide_model::{JobId, Policy};
    use std::sync::Arc;
    use uuid::Uuid;

    fn submitted(seq: i64, id: u128, name: &str) -> Entry {
        let body = single_chip::job(name.into(), KindBody::Training, "standard", Millis(0));
        let spec = Arc::new(body.into_spec(&Policy::default()).expect("a valid job"));
        let event = Event::JobSubmitted { job: JobId(Uuid::from_u128(id)), place: seq as u64, spec };
        Entry { seq, at_ms: 0, leader_epoch: 1, event }
    }

    #[test]
    fn a_submit_that_is_in_the_log_twice_is_found() {
        assert_eq!(doubled(&[submitted(1, 1, "a"), submitted(2, 2, "b")]), 0);
        assert_eq!(doubled(&[submitted(1, 1, "a"), submitted(2, 2, "a")]), 1);
        assert_eq!(doubled(&[submitted(1, 1, "a"), submitted(2, 1, "a")]), 1);
    }

    #[test]
    fn a_report_is_clean_only_when_everything_is() {
        let clean =
            CrashReport { audit: AuditReport { clean: true, ..AuditReport::default() }, ..CrashReport::default() };
        assert!(clean.is_clean());
        assert!(!CrashReport { missing: 1, ..clean.clone() }.is_clean());
        assert!(!CrashReport { doubled: 1, ..clean.clone() }.is_clean());
        assert!(!CrashReport { changed: 1, ..clean.clone() }.is_clean());
        assert!(!CrashReport { audit: AuditReport::default(), ..clean }.is_clean());
    }
}
