//! Jobs through the whole cycle: submitted, leased, reported done at once, their chips proven vacant and granted again.

use crate::counters::{RoundCounters, RoundReport};
use crate::latency::{Latencies, LatencySummary};
use crate::progress::Progress;
use crate::scheduler::{Scheduler, has_chips};
use anyhow::{Context, bail};
use chiptide_api::job::JobBody;
use futures_util::future::try_join_all;
use serde::Serialize;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::Instant;

/// How long a job may wait for its chips.
const PATIENCE: Duration = Duration::from_secs(60);

/// What to do.
pub(super) struct Cycles<'a, B> {
    /// Names the jobs.
    pub(super) phase: &'static str,
    /// Clients at once, each with one job at a time.
    pub(super) clients: usize,
    /// Jobs in all.
    pub(super) jobs: u64,
    /// Makes a job of a name.
    pub(super) body: &'a B,
}

/// What came of it.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize)]
pub struct CyclesReport {
    /// Clients at once.
    pub clients: u64,
    /// Jobs submitted, leased and reported done.
    pub jobs: u64,
    /// Jobs answered as pending and leased later.
    pub answered_pending: u64,
    /// Seconds in all.
    pub seconds: f64,
    /// Submits answered a second. Each job is also reported done and its chips proven vacant in that time.
    pub submits_per_s: f64,
    /// Leases committed and answered a second.
    pub grants_per_s: f64,
    /// From submit to the answer.
    pub submit_to_answer: LatencySummary,
    /// From submit to the lease in hand, those answered pending included.
    pub submit_to_lease: LatencySummary,
    /// From done to its answer.
    pub done: LatencySummary,
    /// Rounds meanwhile.
    pub rounds: RoundReport,
    /// Jobs granted for each round; a round also takes in ends, confirmations and proofs of vacancy.
    pub jobs_per_round: Option<f64>,
}

#[derive(Default)]
struct Tally {
    answered_pending: u64,
    answer: Latencies,
    lease: Latencies,
    done: Latencies,
}

/// Runs the jobs through.
pub(super) async fn cycle<B>(
    scheduler: &Scheduler,
    cycles: &Cycles<'_, B>,
    progress: &Progress,
) -> anyhow::Result<CyclesReport>
where
    B: Fn(String) -> JobBody + Sync,
{
    let before = RoundCounters::read(scheduler.client()).await.context("read the round counters")?;
    let (start, next) = (Instant::now(), AtomicU64::new(0));
    let clients = (0..cycles.clients).map(|_| client(scheduler, cycles, &next, progress));
    let tallies = try_join_all(clients).await?;
    let seconds = start.elapsed().as_secs_f64();
    let after = RoundCounters::read(scheduler.client()).await.context("read the round counters")?;
    let mut total = Tally::default();
    for tally in &tallies {
        total.answered_pending += tally.answered_pending;
        total.answer.add(&tally.answer);
        total.lease.add(&tally.lease);
        total.done.add(&tally.done);
    }
    let rounds = after.since(before, seconds);
    Ok(CyclesReport {
        clients: cycles.clients as u64,
        jobs: total.lease.count(),
        answered_pending: total.answered_pending,
        seconds,
        submits_per_s: total.answer.count() as f64 / seconds,
        grants_per_s: total.lease.count() as f64 / seconds,
        submit_to_answer: total.answer.summary(),
        submit_to_lease: total.lease.summary(),
        done: total.done.summary(),
        jobs_per_round: (rounds.rounds > 0.0).then(|| total.lease.count() as f64 / rounds.rounds),
        rounds,
    })
}

/// One client: takes the next job as soon as its last one is over.
async fn client<B>(
    scheduler: &Scheduler,
    cycles: &Cycles<'_, B>,
    next: &AtomicU64,
    progress: &Progress,
) -> anyhow::Result<Tally>
where
    B: Fn(String) -> JobBody + Sync,
{
    let mut tally = Tally::default();
    loop {
        let index = next.fetch_add(1, Ordering::Relaxed);
        if index >= cycles.jobs {
            return Ok(tally);
        }
        let body = (cycles.body)(format!("{}-{index}", cycles.phase));
        let start = Instant::now();
        let answer = scheduler.submit(&body).await.context("submit a job")?;
        tally.answer.record(answer.took);
        tally.answered_pending += u64::from(!has_chips(&answer.job));
        let id = answer.job.id;
        let Some(leased) = scheduler.watch(answer.job, start + PATIENCE, has_chips).await.context("watch a job")?
        else {
            bail!("job {id} had no chips after {PATIENCE:?}");
        };
        tally.lease.record(start.elapsed());
        let start = Instant::now();
        scheduler.done(leased.id).await.context("report a job done")?;
        tally.done.record(start.elapsed());
        progress.at(index + 1);
    }
}
