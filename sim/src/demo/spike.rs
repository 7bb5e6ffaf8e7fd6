//! The spike: inference that does not fit, at high priority. Training gives way, and comes back when the spike ebbs.

use super::trace::GRACE;
use super::victims::Victims;
use crate::latency::{Latencies, LatencySummary};
use crate::openb::class_of;
use crate::progress::Progress;
use crate::scheduler::{Scheduler, has_chips};
use anyhow::Context;
use chiptide_api::job::{ClassBody, JobBody, JobView, KindBody, PriorityBody, UnfitBody};
use futures_util::{StreamExt, TryStreamExt, stream};
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Over how long the spike rises.
const RISE: Duration = Duration::from_secs(3);
/// How long a spike job may wait for its chips before the demo goes on without it.
const PATIENCE: Duration = Duration::from_secs(20);
/// Spike jobs ended in calls that overlap.
const ENDS_AT_ONCE: usize = 32;
/// Jobs of a whole node each at most; more would find no node that training alone holds.
const WHOLE_NODES_MAX: u64 = 8;

/// What came of the spike.
#[derive(Clone, PartialEq, Debug, Default, Serialize)]
pub struct SpikeReport {
    /// Inference jobs submitted.
    pub jobs: u64,
    /// Chips they ask for in all.
    pub chips: u64,
    /// Jobs answered with a lease: they fitted.
    pub leased_at_once: u64,
    /// Jobs answered with a promise: training had been given notice for them by the time of the answer.
    pub promised_at_once: u64,
    /// Jobs that had all their chips within the demo's patience.
    pub in_hand: u64,
    /// Jobs that still waited when the spike was over, by reason.
    pub still_waiting: BTreeMap<String, u64>,
    /// From submit to the answer, which is after the decision has been committed.
    pub decision: LatencySummary,
    /// From submit to all chips in hand, for all jobs.
    pub all_chips_in_hand: LatencySummary,
    /// The same, for jobs that had to wait for training to leave.
    pub all_chips_in_hand_after_preemption: LatencySummary,
}

/// What came of training once the spike was over.
#[derive(Clone, PartialEq, Debug, Default, Serialize)]
pub struct EbbReport {
    /// Training jobs whose chips were taken.
    pub preempted: u64,
    /// Of these, released early by their holder, as after a checkpoint.
    pub released_early: u64,
    /// Of these, held until their grace was over.
    pub waited_out_grace: u64,
    /// Had chips again before the spike was over.
    pub back_during_spike: u64,
    /// Had chips again after it.
    pub back_after_ebb: u64,
    /// Did not within the demo's patience.
    pub still_waiting: u64,
    /// From the first spike job done to chips again.
    pub return_after_ebb: LatencySummary,
}

struct Landed {
    job: JobView,
    decision: Duration,
    in_hand: Option<Duration>,
    at_once: bool,
    promised: bool,
}

/// A spike under way: what has been submitted for it.
#[derive(Debug, Default)]
pub(super) struct Spike {
    jobs: Vec<JobView>,
}

impl Spike {
    /// Submits about `chips` chips of inference and waits until the jobs have them, or patience is over.
    pub(super) async fn rise(scheduler: &Scheduler, chips: u64) -> anyhow::Result<(Spike, SpikeReport)> {
        let bodies = jobs(chips);
        let progress = Progress::start("spike jobs", bodies.len() as u64);
        let (start, gap) = (Instant::now(), RISE.div_f64(bodies.len().max(1) as f64));
        let mut report = SpikeReport {
            jobs: bodies.len() as u64,
            chips: bodies.iter().map(chips_of).sum(),
            ..SpikeReport::default()
        };
        let landings = stream::iter(bodies.iter().enumerate()).map(|(index, body)| async move {
            tokio::time::sleep_until(start + gap.mul_f64(index as f64)).await;
            land(scheduler, body).await
        });
        let mut landings = landings.buffer_unordered(bodies.len().max(1));
        let (mut spike, mut decision, mut in_hand, mut taken) =
            (Spike::default(), Latencies::default(), Latencies::default(), Latencies::default());
        while let Some(landed) = landings.try_next().await.context("submit the spike")? {
            report.leased_at_once += u64::from(landed.at_once);
            report.promised_at_once += u64::from(landed.promised);
            decision.record(landed.decision);
            if let Some(took) = landed.in_hand {
                report.in_hand += 1;
                in_hand.record(took);
                if !landed.at_once {
                    taken.record(took);
                }
            } else {
                *report.still_waiting.entry(why(&landed.job)).or_default() += 1;
            }
            spike.jobs.push(landed.job);
            progress.show(spike.jobs.len() as u64, &format!("{} have their chips", report.in_hand));
        }
        report.decision = decision.summary();
        report.all_chips_in_hand = in_hand.summary();
        report.all_chips_in_hand_after_preemption = taken.summary();
        Ok((spike, report))
    }

    /// Ends the spike, and waits for its victims to get chips again.
    pub(super) async fn ebb(self, scheduler: &Arc<Scheduler>, victims: Victims) -> anyhow::Result<EbbReport> {
        let taken = victims.stop().await?;
        let mut report = EbbReport { preempted: taken.len() as u64, ..EbbReport::default() };
        report.released_early = taken.values().filter(|victim| victim.released).count() as u64;
        report.waited_out_grace = report.preempted - report.released_early;
        let mut away = Vec::new();
        for (id, victim) in &taken {
            let job = scheduler.client().job(*id).await.context("look after a preempted job")?;
            match has_chips(&job) && job.attempt > victim.attempt {
                true => report.back_during_spike += 1,
                false => away.push((job, victim.attempt)),
            }
        }
        let start = Instant::now();
        let away_count = away.len().max(1);
        let watchers = stream::iter(away).map(|(job, attempt)| async move {
            let is_back = |job: &JobView| has_chips(job) && job.attempt > attempt;
            let back = scheduler.watch(job, start + PATIENCE, is_back).await?;
            Ok::<_, chiptide_api::ClientError>(back.map(|_| start.elapsed()))
        });
        let watchers = watchers.buffer_unordered(away_count).try_collect::<Vec<_>>();
        let ends = stream::iter(&self.jobs).map(|job| scheduler.done(job.id));
        let ends = ends.buffer_unordered(ENDS_AT_ONCE).try_collect::<Vec<_>>();
        let _progress = Progress::start("training back", away_count as u64);
        let (back, _) = tokio::try_join!(watchers, ends).context("end the spike")?;
        let returned: Latencies = back.into_iter().flatten().collect();
        report.back_after_ebb = returned.count();
        report.still_waiting = report.preempted - report.back_during_spike - report.back_after_ebb;
        report.return_after_ebb = returned.summary();
        Ok(report)
    }
}

async fn land(scheduler: &Scheduler, body: &JobBody) -> Result<Landed, chiptide_api::ClientError> {
    let start = Instant::now();
    let answer = scheduler.submit(body).await?;
    let (at_once, promised) = (has_chips(&answer.job), answer.job.promise.is_some());
    let landed = scheduler.watch(answer.job.clone(), start + PATIENCE, has_chips).await?;
    let in_hand = landed.as_ref().map(|_| start.elapsed());
    let job = match landed {
        Some(job) => job,
        None => scheduler.client().job(answer.job.id).await?,
    };
    Ok(Landed { job, decision: answer.took, in_hand, at_once, promised })
}

fn why(job: &JobView) -> String {
    job.reasons.first().map_or_else(|| "promised".to_owned(), |reason| reason.code.clone())
}

fn chips_of(job: &JobBody) -> u64 {
    job.replicas.unwrap_or(1) * job.chips.unwrap_or(0)
}

/// Jobs of several shapes, in turn, until they ask for `chips` chips.
fn jobs(chips: u64) -> Vec<JobBody> {
    // Replicas, chips of each, models. Whole nodes come first and only a few times.
    const TURN: [(u64, u64, &[&str]); 5] =
        [(2, 2, &["G2"]), (1, 1, &["T4", "G2"]), (4, 1, &["G2"]), (1, 2, &["G2"]), (1, 1, &["T4"])];
    let whole_nodes = (chips / 50).min(WHOLE_NODES_MAX) as usize;
    let first = std::iter::repeat_n((1, 8, &["G2"] as &[&str]), whole_nodes);
    let mut jobs = Vec::new();
    let mut left = chips;
    for (replicas, each, models) in first.chain(TURN.into_iter().cycle()) {
        if left == 0 {
            break;
        }
        let (replicas, each) = if replicas * each > left { (1, 1) } else { (replicas, each) };
        left -= replicas * each;
        jobs.push(job(jobs.len(), replicas, each, models));
    }
    // Mixed, so that the large ones do not all come first.
    let apart = jobs.len() / whole_nodes.max(1);
    (0..whole_nodes.min(jobs.len())).rev().for_each(|index| jobs.swap(index, index * apart));
    jobs
}

fn job(index: usize, replicas: u64, chips: u64, models: &[&str]) -> JobBody {
    JobBody {
        kind: KindBody::Inference,
        name: format!("spike-{index}-{replicas}x{chips}"),
        queue: "inference".into(),
        priority_class: Some(PriorityBody::Class("urgent".into())),
        replicas: Some(replicas),
        chips: Some(chips),
        share: None,
        cpu_milli: 4000 * chips,
        memory_mib: 16_384 * chips,
        device_classes: models.iter().map(|model| ClassBody::Name(class_of(model).to_string())).collect(),
        same: None,
        max_duration: None,
        preemptible: None,
        grace: Some(GRACE),
        checkpoint_every: None,
        restart_cost: None,
        min_runtime: None,
        preemption_budget: None,
        replicas_min: None,
        replicas_max: None,
        lease_ttl: None,
        on_node_loss: None,
        unfit: UnfitBody::Wait,
        labels: BTreeMap::from([("demo".to_owned(), "spike".to_owned())]),
        workload: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chiptide_model::Policy;

    #[test]
    fn a_spike_asks_for_exactly_what_it_is_told() {
        for chips in [1, 7, 64, 400, 601] {
            let jobs = jobs(chips);
            assert_eq!(jobs.iter().map(chips_of).sum::<u64>(), chips);
            assert!(jobs.into_iter().all(|job| job.into_spec(&Policy::default()).is_ok_and(|spec| !spec.preemptible)));
        }
    }

    #[test]
    fn whole_nodes_are_spread_over_the_spike() {
        let jobs = jobs(400);
        let whole: Vec<usize> = (0..jobs.len()).filter(|i| jobs[*i].chips == Some(8)).collect();
        assert_eq!(whole.len(), WHOLE_NODES_MAX as usize);
        assert!(whole[whole.len() - 1] > jobs.len() / 2, "{whole:?} of {}", jobs.len());
    }
}
