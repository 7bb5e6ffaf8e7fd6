//! A rehearsal: what commands would do if they were decided now. The same code as a round, on a copy of the cluster that is
//! thrown away.

use crate::cluster::Cluster;
use crate::command::{Ack, Command, Refusal};
use crate::decide::{Decision, Round, decide};
use crate::quota::QueueUse;
use chiptide_model::{Cause, Event, JobId, JobState, LeaseId, Millis, Placement, Timestamp};
use std::collections::BTreeMap;

/// A lease that would be taken.
#[derive(Clone, PartialEq, Debug)]
pub struct Evicted {
    /// The lease.
    pub lease: LeaseId,
    /// Its job.
    pub job: JobId,
    /// The word of the cause: `preempt`, `reclaim`, `consolidate`.
    pub cause: &'static str,
    /// The job it would make room for.
    pub for_job: Option<JobId>,
    /// By when it would have to leave.
    pub deadline: Timestamp,
    /// Slots it holds.
    pub slots: u64,
    /// Work it would lose, slot-milliseconds.
    pub lost_slot_ms: u64,
}

/// A job that would start.
#[derive(Clone, PartialEq, Debug)]
pub struct Started {
    /// The job.
    pub job: JobId,
    /// Slots it would get.
    pub slots: u64,
    /// How long it has waited.
    pub waited: Millis,
    /// When the last of its chips would have been left at the latest; `None` when they are free now.
    pub promised_by: Option<Timestamp>,
}

/// The jobs of one queue that wait and are promised nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Waiting {
    /// How many.
    pub jobs: u64,
    /// How long the one that has waited longest has.
    pub longest: Millis,
}

/// What would happen.
#[derive(Clone, Debug)]
pub struct Rehearsal {
    /// The cluster as it would be.
    pub after: Cluster,
    /// One answer a command.
    pub answers: Vec<Result<Ack, Refusal>>,
    /// Leases that would be taken.
    pub evicted: Vec<Evicted>,
    /// Jobs that would start.
    pub started: Vec<Started>,
    /// What each queue holds and may hold now.
    pub uses_before: Vec<QueueUse>,
    /// The same afterwards.
    pub uses_after: Vec<QueueUse>,
    /// Who waits now, by queue.
    pub waiting_before: BTreeMap<String, Waiting>,
    /// The same afterwards.
    pub waiting_after: BTreeMap<String, Waiting>,
    /// What would be decided, line by line: equal lines, equal plan.
    pub plan: Vec<String>,
}

/// Rehearses commands on a copy of the cluster.
pub fn rehearse(mut cluster: Cluster, commands: Vec<Command>, round: Round) -> Rehearsal {
    // What the clock would do anyway is not told as the commands' doing.
    decide(&mut cluster, Vec::new(), round);
    let new_jobs = new_jobs(&commands);
    let (uses_before, waiting_before) = (cluster.queue_uses(round.now), waiting(&cluster, round.now));
    let Decision { events, answers, .. } = decide(&mut cluster, commands, round);
    let (evicted, started) = told(&cluster, &events, round.now);
    Rehearsal {
        uses_after: cluster.queue_uses(round.now),
        waiting_after: waiting(&cluster, round.now),
        plan: plan(&events, &new_jobs),
        after: cluster,
        answers,
        evicted,
        started,
        uses_before,
        waiting_before,
    }
}

/// The jobs that commands submit, in order.
pub fn new_jobs(commands: &[Command]) -> Vec<JobId> {
    let submitted = commands.iter().filter_map(|command| match command {
        Command::Submit(jobs) => Some(jobs),
        _ => None,
    });
    submitted.flatten().map(|job| job.id).collect()
}

/// What a run of events decides, line by line. What is minted or counted anew each time, ids of new leases and jobs, times
/// and epochs, is left out: the same decision gives the same lines.
pub fn plan(events: &[Event], new_jobs: &[JobId]) -> Vec<String> {
    let name = |job: &JobId| match new_jobs.iter().position(|new| new == job) {
        Some(at) => format!("new job {at}"),
        None => format!("job {job}"),
    };
    let line = |event: &Event| match event {
        Event::PolicyApplied { policy, .. } => Some(format!("policy {policy:?}")),
        Event::LeaseRevoked { lease, cause, .. } => Some(format!("take lease {lease}: {}", cause.as_str())),
        Event::ClaimMade { job, placements, .. } => Some(format!("promise {}:{}", name(job), places(placements))),
        Event::LeaseGranted { job, placements, extra, .. } => {
            let what = if *extra { "grant an extra" } else { "grant" };
            Some(format!("{what} {}:{}", name(job), places(placements)))
        }
        _ => None,
    };
    events.iter().filter_map(line).collect()
}

fn places(placements: &[Placement]) -> String {
    let holds = |placement: &Placement| {
        let chips = placement.holds.iter().map(|hold| format!(" {} {:?}", hold.chip, hold.slots));
        format!(" {}{}", placement.node, chips.collect::<String>())
    };
    placements.iter().map(holds).collect()
}

fn slots(placements: &[Placement]) -> u64 {
    let holds = placements.iter().flat_map(|placement| &placement.holds);
    holds.flat_map(|hold| &hold.slots).map(|slots| u64::from(slots.count())).sum()
}

/// Who would be taken and who would start, as events say it.
fn told(after: &Cluster, events: &[Event], now: Timestamp) -> (Vec<Evicted>, Vec<Started>) {
    let (mut evicted, mut started) = (Vec::new(), Vec::new());
    let mut leave_by: BTreeMap<LeaseId, Timestamp> = BTreeMap::new();
    let mut start = |job: &JobId, placements: &[Placement], promised_by| {
        let waited = after.job(*job).map_or(Millis::default(), |job| now.since(job.submitted_at));
        started.push(Started { job: *job, slots: slots(placements), waited, promised_by });
    };
    for event in events {
        match event {
            Event::LeaseRevoked { lease, cause, deadline } if !matches!(cause, Cause::MaxDuration) => {
                leave_by.insert(*lease, *deadline);
                let Some(record) = after.lease(*lease) else { continue };
                evicted.push(Evicted {
                    lease: *lease,
                    job: record.job,
                    cause: cause.as_str(),
                    for_job: cause.for_job(),
                    deadline: *deadline,
                    slots: record.slot_total(),
                    lost_slot_ms: after.eviction_cost(record, now).lost_slot_ms,
                });
            }
            Event::ClaimMade { job, placements, victims, .. } => {
                let last = victims.iter().filter_map(|victim| leave_by.get(victim)).max().copied();
                start(job, placements, Some(last.unwrap_or(now)));
            }
            Event::LeaseGranted { job, placements, extra: false, .. } => start(job, placements, None),
            _ => {}
        }
    }
    (evicted, started)
}

/// Who waits, by queue.
fn waiting(cluster: &Cluster, now: Timestamp) -> BTreeMap<String, Waiting> {
    let mut queues: BTreeMap<&str, Waiting> = BTreeMap::new();
    for job in cluster.jobs.values().filter(|job| job.state == JobState::Pending) {
        if cluster.claims.contains_key(&job.id) {
            continue;
        }
        let queue = queues.entry(&job.spec.queue).or_default();
        queue.jobs += 1;
        queue.longest = queue.longest.max(now.since(job.submitted_at));
    }
    queues.into_iter().map(|(name, waiting)| (name.to_owned(), waiting)).collect()
}
