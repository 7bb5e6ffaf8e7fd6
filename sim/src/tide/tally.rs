//! What a replay adds up to.

use chiptide_model::{Millis, Timestamp};
use serde::Serialize;
use std::collections::BTreeMap;

/// Running sums of a replay.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// Chip-milliseconds held within the span, by inference and by training.
    pub inference_held: u64,
    pub training_held: u64,
    /// Chips asked for by new replicas, and those granted at the moment they were asked for.
    pub chips_asked: u64,
    pub chips_at_once: u64,
    /// How long each replica waited for its lease.
    pub lease_waits: Vec<Millis>,
    /// Leases granted to training, those taken back, and the claims that took them.
    pub runs: u64,
    pub evictions: u64,
    pub claims: u64,
    /// Claims made although the whole fleet had as many free chips as the replica needs: none on one node.
    pub claims_by_shape: u64,
    /// Chip-milliseconds of work done again, and spent on restarts.
    pub work_lost: u64,
    pub restarting: u64,
    /// Of each training job that ended: time waited in all (by its size), and time from submit to end.
    pub waits: BTreeMap<u64, Vec<Millis>>,
    pub completions: Vec<Millis>,
}

/// The figures of a replay. Field names are stable.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct TideReport {
    /// Chips of the fleet.
    pub gpus: u64,
    /// The comparison policy for victims; `lost` is the product's own.
    pub victim: String,
    /// Chips kept from training.
    pub reserve: String,
    /// Inference chips granted at the moment they were asked for, of all asked for, %.
    pub immediate_pct: f64,
    /// 99th percentile of the time from asking for a replica to its lease, seconds.
    pub lease_wait_p99_s: f64,
    /// Training leases taken back, of all granted, %.
    pub evictions_per_run_pct: f64,
    /// Training leases taken back.
    pub evictions: u64,
    /// Training leases granted.
    pub runs: u64,
    /// Replicas that training was evicted for.
    pub claims: u64,
    /// Of these, made although enough chips were free, but not on one node.
    pub claims_by_shape: u64,
    /// Mean time a training job waited in all, seconds.
    pub queue_mean_s: f64,
    /// The same for the jobs of each size in chips.
    pub queue_mean_s_by_gpus: BTreeMap<u64, f64>,
    /// Time from submit to end of a training job, hours: mean.
    pub jct_mean_h: f64,
    /// Median.
    pub jct_p50_h: f64,
    /// 95th percentile.
    pub jct_p95_h: f64,
    /// Chips held over the span of the demand, of all, %.
    pub allocated_pct: f64,
    /// The same without the work lost and the restarts, %.
    pub goodput_pct: f64,
    /// Work lost and restarts, GPU-hours.
    pub wasted_gpu_h: f64,
    /// Of these, work done since a checkpoint.
    pub lost_gpu_h: f64,
    /// Training jobs that ended.
    pub training_jobs: u64,
    /// Rounds decided.
    pub rounds: u64,
    /// Grants of chips that were not vacant, found from the events alone.
    pub double_grants: u64,
}

/// What a report needs besides the sums.
pub(super) struct Setting {
    pub gpus: u64,
    pub victim: String,
    pub reserve: String,
    pub span: (Timestamp, Timestamp),
    pub rounds: u64,
    pub double_grants: u64,
}

impl Tally {
    /// Chips were held from one moment to the next; only what lies within the span counts.
    pub(super) fn held(&mut self, from: Timestamp, to: Timestamp, span: (Timestamp, Timestamp), held: (u64, u64)) {
        let within = to.min(span.1).since(from.max(span.0)).0;
        self.inference_held += held.0 * within;
        self.training_held += held.1 * within;
    }

    pub(super) fn report(mut self, setting: Setting) -> TideReport {
        self.lease_waits.sort_unstable();
        self.completions.sort_unstable();
        let offered = setting.gpus * setting.span.1.since(setting.span.0).0;
        let held = self.inference_held + self.training_held;
        let wasted = self.work_lost + self.restarting;
        TideReport {
            gpus: setting.gpus,
            victim: setting.victim,
            reserve: setting.reserve,
            immediate_pct: percent(self.chips_at_once, self.chips_asked),
            lease_wait_p99_s: seconds(percentile(&self.lease_waits, 0.99)),
            evictions_per_run_pct: percent(self.evictions, self.runs),
            evictions: self.evictions,
            runs: self.runs,
            claims: self.claims,
            claims_by_shape: self.claims_by_shape,
            queue_mean_s: mean_s(self.waits.values().flatten()),
            queue_mean_s_by_gpus: self.waits.iter().map(|(gpus, waits)| (*gpus, mean_s(waits.iter()))).collect(),
            jct_mean_h: rounded(mean_s(self.completions.iter()) / 3600.0),
            jct_p50_h: rounded(seconds(percentile(&self.completions, 0.5)) / 3600.0),
            jct_p95_h: rounded(seconds(percentile(&self.completions, 0.95)) / 3600.0),
            allocated_pct: percent(held, offered),
            goodput_pct: percent(held.saturating_sub(wasted), offered),
            wasted_gpu_h: rounded(seconds(Millis(wasted)) / 3600.0),
            lost_gpu_h: rounded(seconds(Millis(self.work_lost)) / 3600.0),
            training_jobs: self.completions.len() as u64,
            rounds: setting.rounds,
            double_grants: setting.double_grants,
        }
    }
}

fn percent(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { rounded(100.0 * part as f64 / whole as f64) }
}

fn seconds(span: Millis) -> f64 {
    rounded(span.0 as f64 / 1000.0)
}

fn mean_s<'a>(spans: impl Iterator<Item = &'a Millis>) -> f64 {
    let (sum, count) = spans.fold((0, 0u64), |(sum, count), span| (sum + u128::from(span.0), count + 1));
    if count == 0 { 0.0 } else { rounded(sum as f64 / 1000.0 / count as f64) }
}

/// The value below which this part of the sorted spans lies (nearest rank).
fn percentile(sorted: &[Millis], part: f64) -> Millis {
    let rank = (part * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or_default()
}

/// Four digits behind the point: more would say nothing.
fn rounded(value: f64) -> f64 {
    (value * 10_000.0).round() / 10_000.0
}
