//! Preempting grants: the fleet is full of training, and every submit needs somebody's chip.

use crate::latency::{Latencies, LatencySummary};
use crate::scheduler::{Scheduler, has_chips};
use crate::single_chip;
use anyhow::Context;
use chiptide_api::job::{JOBS_PER_CALL_MAX, KindBody};
use chiptide_model::Millis;
use futures_util::{StreamExt, TryStreamExt, stream};
use serde::Serialize;
use tokio::time::Instant;

/// The victims' grace: longer than the measurement, so that no chip comes free during it.
const GRACE: Millis = Millis::from_secs(60);
/// Jobs ended in calls that overlap.
const ENDS_AT_ONCE: usize = 32;

/// What came of it.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize)]
pub struct PreemptingReport {
    /// Training jobs that fill the fleet.
    pub filled: u64,
    /// High-priority jobs submitted, one after another.
    pub submitted: u64,
    /// Answered with a promise: the decision to preempt was committed by then.
    pub promised: u64,
    /// Answered with a lease: a chip was free after all.
    pub leased: u64,
    /// Seconds in all.
    pub seconds: f64,
    /// Decisions a second.
    pub decisions_per_s: f64,
    /// From submit to the answer, which is after the commit.
    pub decision: LatencySummary,
}

/// Fills the fleet, preempts one job after another, and clears up.
pub(super) async fn measure(scheduler: &Scheduler, chips: u64, preempts: u64) -> anyhow::Result<PreemptingReport> {
    let mut report = PreemptingReport::default();
    let bodies: Vec<_> = (0..chips)
        .map(|index| single_chip::job(format!("filler-{index}"), KindBody::Training, "best-effort", GRACE))
        .collect();
    let mut jobs = Vec::new();
    for bodies in bodies.chunks(JOBS_PER_CALL_MAX) {
        let answered = scheduler.submit_many(bodies).await.context("fill the fleet")?;
        report.filled += answered.iter().filter(|job| has_chips(job)).count() as u64;
        jobs.extend(answered.into_iter().map(|job| job.id));
    }
    let (start, mut decision) = (Instant::now(), Latencies::default());
    let mut preemptors = Vec::new();
    for index in 0..preempts {
        let body = single_chip::job(format!("preemptor-{index}"), KindBody::Inference, "urgent", GRACE);
        let answer = scheduler.submit(&body).await.context("submit a preemptor")?;
        decision.record(answer.took);
        report.submitted += 1;
        report.promised += u64::from(answer.job.promise.is_some());
        report.leased += u64::from(has_chips(&answer.job));
        preemptors.push(answer.job.id);
    }
    report.seconds = start.elapsed().as_secs_f64();
    report.decisions_per_s = report.submitted as f64 / report.seconds.max(f64::EPSILON);
    report.decision = decision.summary();
    // Preemptors first, so that no chip of a filler goes to one of them on the way out.
    for ending in [preemptors, jobs] {
        let ends = stream::iter(&ending).map(|job| scheduler.cancel(*job)).buffer_unordered(ENDS_AT_ONCE);
        ends.try_collect::<Vec<()>>().await.context("clear up")?;
    }
    Ok(report)
}
