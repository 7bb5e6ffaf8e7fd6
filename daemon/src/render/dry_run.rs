//! A rehearsal as the wire shows it.

use super::policy_changed;
use chiptide_allocator::explain::Explainer;
use chiptide_allocator::rehearsal::{Evicted, Rehearsal, Started, Waiting};
use chiptide_allocator::{Cluster, QueueUse};
use chiptide_api::dry_run::{
    DryRunEvictionView, DryRunQueueState, DryRunQueueView, DryRunStartView, DryRunView, TOLD_MAX,
};
use chiptide_api::job::JobView;
use chiptide_api::time::to_utc;
use chiptide_model::{JobId, Policy, SLOTS_PER_CHIP};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

/// The name of a plan: equal decisions, equal names.
pub fn plan_name(lines: &[String]) -> String {
    let mut hash = Sha256::new();
    for line in lines {
        hash.update(line);
        hash.update(b"\n");
    }
    hash.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

/// What a policy in the place of `before`, or these new jobs, would do.
pub fn dry_run(told: &Rehearsal, before: &Policy, new_jobs: &[JobId]) -> DryRunView {
    let (changes, warnings) = match told.after.policy.version == before.version {
        true => Default::default(),
        false => policy_changed(&told.after, before, &told.after.policy),
    };
    let mut explainer = Explainer::of(&told.after);
    let mut job_view = |id: &JobId| -> Option<JobView> {
        let job = told.after.job(*id)?;
        Some(super::job(&mut explainer, job))
    };
    DryRunView {
        plan: plan_name(&told.plan),
        policy_version: before.version,
        changes,
        warnings,
        evictions_total: told.evicted.len() as u64,
        evictions: told.evicted.iter().take(TOLD_MAX).map(|evicted| eviction(told, evicted, new_jobs)).collect(),
        starts_total: told.started.len() as u64,
        starts: told.started.iter().take(TOLD_MAX).map(|started| start(&told.after, started)).collect(),
        queues: queues(told),
        jobs: new_jobs.iter().filter_map(&mut job_view).collect(),
    }
}

fn name_and_queue(cluster: &Cluster, job: JobId) -> (String, String) {
    cluster.job(job).map(|job| (job.spec.name.clone(), job.spec.queue.clone())).unwrap_or_default()
}

fn eviction(told: &Rehearsal, evicted: &Evicted, new_jobs: &[JobId]) -> DryRunEvictionView {
    let (name, queue) = name_and_queue(&told.after, evicted.job);
    DryRunEvictionView {
        lease: evicted.lease.0,
        job: evicted.job.0,
        name,
        queue,
        cause: evicted.cause.into(),
        for_job: evicted.for_job.filter(|job| !new_jobs.contains(job)).map(|job| job.0),
        deadline: to_utc(evicted.deadline),
        chips: chips(evicted.slots),
        lost_chip_seconds: chips(evicted.lost_slot_ms) / 1000.0,
    }
}

fn start(cluster: &Cluster, started: &Started) -> DryRunStartView {
    let (name, queue) = name_and_queue(cluster, started.job);
    DryRunStartView {
        job: started.job.0,
        name,
        queue,
        chips: chips(started.slots),
        waited: started.waited,
        promised_by: started.promised_by.map(to_utc),
    }
}

/// The queues for which something changes.
fn queues(told: &Rehearsal) -> Vec<DryRunQueueView> {
    let after: BTreeMap<&str, &QueueUse> = told.uses_after.iter().map(|used| (used.queue.as_str(), used)).collect();
    let before: BTreeMap<&str, &QueueUse> = told.uses_before.iter().map(|used| (used.queue.as_str(), used)).collect();
    let names: std::collections::BTreeSet<&str> = before.keys().chain(after.keys()).copied().collect();
    let views = names.into_iter().map(|name| DryRunQueueView {
        name: name.to_owned(),
        before: state(before.get(name).copied(), told.waiting_before.get(name)),
        after: state(after.get(name).copied(), told.waiting_after.get(name)),
    });
    views.filter(|queue| queue.before != queue.after).collect()
}

fn state(used: Option<&QueueUse>, waiting: Option<&Waiting>) -> DryRunQueueState {
    let waiting = waiting.copied().unwrap_or_default();
    let column = used.and_then(|used| used.columns.iter().find(|column| column.class.is_none()));
    DryRunQueueState {
        used: column.map_or(0.0, |column| chips(column.used.saturating_sub(column.leaving))),
        guaranteed: column.map_or(0.0, |column| chips(column.guaranteed)),
        limit: column.and_then(|column| column.limit).map(chips),
        borrowed: column.map_or(0.0, |column| chips(column.borrowed)),
        waiting: waiting.jobs,
        longest_wait: waiting.longest,
    }
}

fn chips(slots: u64) -> f64 {
    slots as f64 / f64::from(SLOTS_PER_CHIP)
}
