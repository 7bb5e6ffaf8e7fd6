//! The trace, replayed: its tasks in file order, squeezed into seconds, then clones of its best-effort tasks until the
//! fleet is nearly full.

use crate::latency::{Latencies, LatencySummary};
use crate::openb::{Qos, Task};
use crate::progress::Progress;
use crate::scheduler::{Scheduler, has_chips};
use anyhow::Context;
use chiptide_api::ClientError;
use chiptide_model::Millis;
use futures_util::{StreamExt, stream};
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

/// Calls in flight at once.
const CALLS_MAX: usize = 32;
/// Clones submitted in one call.
const CLONES_PER_CALL: usize = 50;
/// Clones submitted at most.
const CLONES_MAX: usize = 4000;
/// The fleet counts as full once less than this share of a call's clones finds room.
const FULL_BELOW: f64 = 0.2;
/// Seed of the choice of clones.
const SEED: u64 = 2023;
/// What training is told to need between notice and end; short, so that a demo can show both ways to leave.
pub(super) const GRACE: Millis = Millis(2000);

/// What came of the replay.
#[derive(Clone, PartialEq, Debug, Default, Serialize)]
pub struct ReplayReport {
    /// Tasks of the trace submitted.
    pub tasks: u64,
    /// Of these, inference (queue `inference`, class `serving`).
    pub inference: u64,
    /// Of these, training (queue `training`, class `best-effort`).
    pub training: u64,
    /// Clones of the trace's best-effort tasks, submitted to fill what the trace leaves free.
    pub clones: u64,
    /// Jobs answered with a lease.
    pub leased_at_once: u64,
    /// Jobs answered as pending, with reasons.
    pub answered_pending: u64,
    /// Jobs refused, by code.
    pub refused: BTreeMap<String, u64>,
    /// Jobs whose life in the trace, scaled, ended during the replay; reported done.
    pub finished: u64,
    /// One second of a task's life in the trace is this many seconds here.
    pub life_scale: f64,
    /// Seconds it took to submit the tasks.
    pub seconds: f64,
    /// From submit to the answer with a lease, for the tasks answered with one.
    pub submit_to_lease: LatencySummary,
}

/// The lives of the trace's jobs: each is reported done when its time has come, as long as lives go on.
#[derive(Debug)]
pub(super) struct Lives {
    scheduler: Arc<Scheduler>,
    scale: f64,
    go_on: watch::Sender<bool>,
    running: Mutex<JoinSet<()>>,
    finished: Arc<AtomicU64>,
}

impl Lives {
    pub(super) fn new(scheduler: &Arc<Scheduler>, scale: f64) -> Lives {
        Lives {
            scheduler: Arc::clone(scheduler),
            scale,
            go_on: watch::Sender::new(true),
            running: Mutex::new(JoinSet::new()),
            finished: Arc::default(),
        }
    }

    /// Nobody finishes any more: what the spike measures is preemption, not luck.
    pub(super) fn pause(&self) {
        self.go_on.send_replace(false);
    }

    fn begin(&self, job: Uuid, task: &Task) {
        let (scheduler, finished, mut go_on) =
            (Arc::clone(&self.scheduler), Arc::clone(&self.finished), self.go_on.subscribe());
        let life = Duration::from_secs_f64(task.life_s() as f64 * self.scale);
        let live = async move {
            sleep(life).await;
            if go_on.wait_for(|go_on| *go_on).await.is_ok() && scheduler.done(job).await.is_ok() {
                finished.fetch_add(1, Ordering::Relaxed);
            }
        };
        // Poisoning would need a panic while spawning.
        if let Ok(mut running) = self.running.lock() {
            running.spawn(live);
        }
    }
}

#[derive(Default)]
struct Tally {
    report: ReplayReport,
    latencies: Latencies,
}

/// Submits the tasks over `over`, in file order.
pub(super) async fn replay(
    scheduler: &Scheduler,
    lives: &Lives,
    tasks: &[Task],
    over: Duration,
    progress: &Progress,
) -> anyhow::Result<ReplayReport> {
    let (start, tally) = (Instant::now(), Mutex::new(Tally::default()));
    let gap = over.div_f64(tasks.len().max(1) as f64);
    let submits = stream::iter(tasks.iter().enumerate()).map(|(index, task)| {
        let tally = &tally;
        async move {
            tokio::time::sleep_until(start + gap.mul_f64(index as f64)).await;
            let answer = scheduler.submit(&task.job(task.name.clone(), GRACE)).await;
            let Ok(mut tally) = tally.lock() else { return Ok(()) };
            tally.report.tasks += 1;
            if task.serves() {
                tally.report.inference += 1
            } else {
                tally.report.training += 1
            };
            match answer {
                Ok(answer) if has_chips(&answer.job) => {
                    tally.report.leased_at_once += 1;
                    tally.latencies.record(answer.took);
                    lives.begin(answer.job.id, task);
                }
                Ok(_) => tally.report.answered_pending += 1,
                Err(ClientError::Refused(problem)) => *tally.report.refused.entry(problem.code).or_default() += 1,
                Err(error) => return Err(error),
            }
            let done = tally.report.tasks;
            let pending = tally.report.answered_pending;
            progress.show(done, &format!("{} leased, {pending} waiting", tally.report.leased_at_once));
            Ok(())
        }
    });
    let mut submits = submits.buffer_unordered(CALLS_MAX);
    while let Some(submitted) = submits.next().await {
        submitted.context("submit a task of the trace")?;
    }
    drop(submits);
    let tally = tally.into_inner().unwrap_or_default();
    Ok(ReplayReport {
        life_scale: lives.scale,
        seconds: start.elapsed().as_secs_f64(),
        submit_to_lease: tally.latencies.summary(),
        ..tally.report
    })
}

/// Submits clones of best-effort tasks until hardly any finds room. They outlive the demo.
pub(super) async fn fill(
    scheduler: &Scheduler,
    lives: &Lives,
    tasks: &[Task],
    report: &mut ReplayReport,
    progress: &Progress,
) -> anyhow::Result<()> {
    let best_effort: Vec<&Task> = tasks.iter().filter(|task| task.qos == Qos::BestEffort).collect();
    let mut rng = StdRng::seed_from_u64(SEED);
    for call in 0..CLONES_MAX / CLONES_PER_CALL {
        let picks: Vec<&Task> = (0..CLONES_PER_CALL).filter_map(|_| best_effort.choose(&mut rng).copied()).collect();
        if picks.is_empty() {
            break;
        }
        let name = |index: usize, task: &Task| format!("{}-clone-{}", task.name, call * CLONES_PER_CALL + index);
        let jobs: Vec<_> = picks.iter().enumerate().map(|(i, task)| task.job(name(i, task), GRACE)).collect();
        let answered = scheduler.submit_many(&jobs).await.context("submit clones of best-effort tasks")?;
        let leased = answered.iter().filter(|job| has_chips(job)).count();
        report.clones += answered.len() as u64;
        report.leased_at_once += leased as u64;
        report.answered_pending += (answered.len() - leased) as u64;
        progress.show(report.clones, &format!("{leased} of the last {} found room", answered.len()));
        if (leased as f64) < FULL_BELOW * answered.len() as f64 {
            break;
        }
    }
    report.finished = lives.finished.load(Ordering::Relaxed);
    Ok(())
}
