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
use std::sync::Mutex;
use std::time::Duration;
use tokio::time::{Instant, sleep_until};
use uuid::Uuid;

/// Calls in flight at once.
const CALLS_MAX: usize = 32;
/// Clones submitted in one call.
const CLONES_PER_CALL: usize = 50;
/// Clones submitted at most.
pub(super) const CLONES_MAX: usize = 4000;
/// The fleet counts as full once less than this share of a call's clones finds room.
const FULL_BELOW: f64 = 0.2;
/// The replay passes as if it took this much of the trace's time, so that some lives end in it and most do not.
const SPAN_S: f64 = 300.0;
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
    /// Jobs whose life in the trace ended during the replay; reported done.
    pub finished: u64,
    /// Seconds of the trace's lives that pass during the replay.
    pub span_s: f64,
    /// Seconds it took to submit the tasks.
    pub seconds: f64,
    /// From submit to the answer with a lease, for the tasks answered with one.
    pub submit_to_lease: LatencySummary,
}

/// The lives of the trace's jobs, counted in tasks submitted rather than seconds: a slow machine replays the same story.
#[derive(Debug)]
struct Lives {
    tasks_per_second: f64,
    /// Jobs to be reported done, by the task before which that happens.
    ends: Mutex<BTreeMap<usize, Vec<Uuid>>>,
}

impl Lives {
    /// Lives in a replay of so many tasks.
    fn of(tasks: usize) -> Lives {
        Lives { tasks_per_second: tasks as f64 / SPAN_S, ends: Mutex::default() }
    }

    /// The job of task number `index` begins its life.
    fn begin(&self, job: Uuid, task: &Task, index: usize) {
        let life = (task.life_s() as f64 * self.tasks_per_second) as usize;
        // Poisoning would need a panic in one of these short sections.
        if let Ok(mut ends) = self.ends.lock() {
            ends.entry(index.saturating_add(life)).or_default().push(job);
        }
    }

    /// The jobs whose life ends before task number `index`.
    fn over_before(&self, index: usize) -> Vec<Uuid> {
        let Ok(mut ends) = self.ends.lock() else { return Vec::new() };
        let later = ends.split_off(&index);
        std::mem::replace(&mut *ends, later).into_values().flatten().collect()
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
    tasks: &[Task],
    over: Duration,
    progress: &Progress,
) -> anyhow::Result<ReplayReport> {
    let (start, tally, lives) = (Instant::now(), Mutex::new(Tally::default()), Lives::of(tasks.len()));
    let gap = over.div_f64(tasks.len().max(1) as f64);
    let submits = stream::iter(tasks.iter().enumerate()).map(|(index, task)| {
        let (tally, lives) = (&tally, &lives);
        async move {
            sleep_until(start + gap.mul_f64(index as f64)).await;
            let over = lives.over_before(index);
            for job in &over {
                scheduler.done(*job).await?;
            }
            let answer = scheduler.submit(&task.job(task.name.clone(), GRACE)).await;
            let Ok(mut tally) = tally.lock() else { return Ok(()) };
            tally.report.tasks += 1;
            tally.report.finished += over.len() as u64;
            if task.serves() {
                tally.report.inference += 1
            } else {
                tally.report.training += 1
            };
            match answer {
                Ok(answer) if has_chips(&answer.job) => {
                    tally.report.leased_at_once += 1;
                    tally.latencies.record(answer.took);
                    lives.begin(answer.job.id, task, index);
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
        span_s: SPAN_S,
        seconds: start.elapsed().as_secs_f64(),
        submit_to_lease: tally.latencies.summary(),
        ..tally.report
    })
}

/// Submits clones of best-effort tasks until hardly any finds room. They outlive the demo.
pub(super) async fn fill(
    scheduler: &Scheduler,
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
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_life_ends_after_as_many_tasks_as_it_lasts() {
        let (lives, job) = (Lives::of(600), Uuid::from_u128(1));
        let mut task = crate::openb::tasks(1).expect("the embedded tasks").remove(0);
        (task.scheduled_time, task.deletion_time) = (Some(100), 110);
        lives.begin(job, &task, 5);
        assert!(lives.over_before(25).is_empty());
        assert_eq!(lives.over_before(26), [job]);
        assert!(lives.over_before(600).is_empty(), "once only");
    }
}
