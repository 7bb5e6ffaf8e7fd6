//! Table `evictions`: every lease that was taken from its job, or lost, with the weighing behind it.

use super::{Result, column, json, moment, signed, unjson, unsigned};
use chiptide_allocator::explain::EvictedFor;
use chiptide_allocator::{Cluster, Touched};
use chiptide_model::{Cause, Choice, Event, JobId, LeaseId, Timestamp};
use chrono::{DateTime, Utc};
use sqlx::{PgConnection, PgPool};
use std::collections::{BTreeMap, BTreeSet};
use uuid::Uuid;

/// Most evictions told of one job, the newest first.
pub const TOLD_MAX: i64 = 100;

/// One eviction.
#[derive(Clone, PartialEq, Debug)]
pub struct Eviction {
    /// The lease.
    pub lease: LeaseId,
    /// Its job.
    pub job: JobId,
    /// Which attempt of the job it was.
    pub attempt: u32,
    /// Whether it held an extra replica only, so that the job ran on.
    pub extra: bool,
    /// The job's queue.
    pub queue: String,
    /// When notice was given, or the lease was lost.
    pub at: Timestamp,
    /// By when the holder had to leave.
    pub deadline: Timestamp,
    /// The word of its cause.
    pub cause: String,
    /// What a fault was.
    pub detail: Option<String>,
    /// The job it made room for.
    pub for_job: Option<JobId>,
    /// Chips it held, wholly or in part.
    pub chips: u32,
    /// Slots it held.
    pub slots: u64,
    /// Work it lost, slot-milliseconds.
    pub lost_slot_ms: u64,
    /// Why this lease and no other.
    pub choice: Option<Choice>,
    /// Version of the policy it was decided under; 0 where that was not recorded yet.
    pub policy_version: u64,
}

/// The evictions among the events of a round, once a lease: notice first, or the loss that came without one.
pub fn among(after: &Cluster, touched: &Touched, events: &[(Timestamp, Event)]) -> Vec<Eviction> {
    let mut choices: BTreeMap<LeaseId, &Choice> = BTreeMap::new();
    for (_, event) in events {
        if let Event::ClaimMade { victims, choice, .. } = event {
            choices.extend(victims.iter().map(|victim| (*victim, choice)));
        }
    }
    let mut told = BTreeSet::new();
    let mut evictions = Vec::new();
    let mut policy_version = version_before(after, events);
    for (at, event) in events {
        if let Event::PolicyApplied { policy, .. } = event {
            policy_version = policy.version;
        }
        let (id, cause, deadline) = match event {
            Event::LeaseRevoked { lease, cause, deadline } => (*lease, cause, *deadline),
            Event::LeaseEnded {
                lease,
                cause: cause @ (Cause::Fault { .. } | Cause::NodeLost { .. } | Cause::Fenced { .. } | Cause::Expired),
                ..
            } => (*lease, cause, *at),
            _ => continue,
        };
        let Some(lease) = after.lease(id).or_else(|| touched.vacated_leases.get(&id)) else { continue };
        let job = after.job(lease.job).or_else(|| touched.ended_jobs.get(&lease.job));
        let Some(job) = job.filter(|_| told.insert(id)) else { continue };
        let choice = choices.get(&id).copied();
        let holds = lease.placements.iter().flat_map(|placement| &placement.holds);
        let chips: BTreeSet<_> = holds.map(|hold| &hold.chip).collect();
        let lost = choice.and_then(|choice| choice.cost_of(id)).map(|cost| cost.lost_slot_ms);
        evictions.push(Eviction {
            lease: id,
            job: job.id,
            attempt: lease.attempt,
            extra: lease.extra,
            queue: job.spec.queue.clone(),
            at: *at,
            deadline: deadline.max(*at),
            cause: cause.as_str().into(),
            detail: match cause {
                Cause::Fault { node, detail } => Some(format!("{node}: {detail}")),
                Cause::NodeLost { node } | Cause::Fenced { node } | Cause::Drain { node } => Some(node.to_string()),
                _ => None,
            },
            for_job: cause.for_job(),
            chips: u32::try_from(chips.len()).unwrap_or(u32::MAX),
            slots: lease.slot_total(),
            lost_slot_ms: lost.unwrap_or_else(|| after.eviction_cost(lease, *at).lost_slot_ms),
            choice: choice.cloned(),
            policy_version,
        });
    }
    evictions
}

/// The policy version that a run of events began under.
fn version_before(after: &Cluster, events: &[(Timestamp, Event)]) -> u64 {
    let first = events.iter().find_map(|(_, event)| match event {
        Event::PolicyApplied { policy, .. } => Some(policy.version.saturating_sub(1)),
        _ => None,
    });
    first.unwrap_or(after.policy.version)
}

/// Adds evictions. One that is known stays as it was told first: a lease under notice may still be lost.
pub async fn insert(tx: &mut PgConnection, evictions: &[Eviction]) -> Result<()> {
    let leases: Vec<Uuid> = evictions.iter().map(|e| e.lease.0).collect();
    let jobs: Vec<Uuid> = evictions.iter().map(|e| e.job.0).collect();
    let attempts: Vec<i32> = evictions.iter().map(|e| i32::try_from(e.attempt).unwrap_or(i32::MAX)).collect();
    let extra: Vec<bool> = evictions.iter().map(|e| e.extra).collect();
    let queues: Vec<String> = evictions.iter().map(|e| e.queue.clone()).collect();
    let at: Vec<DateTime<Utc>> = evictions.iter().map(|e| column(e.at)).collect();
    let deadlines: Vec<DateTime<Utc>> = evictions.iter().map(|e| column(e.deadline)).collect();
    let causes: Vec<String> = evictions.iter().map(|e| e.cause.clone()).collect();
    let details: Vec<Option<String>> = evictions.iter().map(|e| e.detail.clone()).collect();
    let for_jobs: Vec<Option<Uuid>> = evictions.iter().map(|e| e.for_job.map(|job| job.0)).collect();
    let chips: Vec<i32> = evictions.iter().map(|e| i32::try_from(e.chips).unwrap_or(i32::MAX)).collect();
    let slots: Vec<i64> = evictions.iter().map(|e| signed(e.slots)).collect();
    let lost: Vec<i64> = evictions.iter().map(|e| signed(e.lost_slot_ms)).collect();
    let policies: Vec<i64> = evictions.iter().map(|e| signed(e.policy_version)).collect();
    let choices: Vec<Option<String>> = evictions.iter().map(|e| e.choice.as_ref().map(json)).collect();
    sqlx::query!(
        "insert into evictions (lease_id, job_id, attempt, queue, at, deadline, cause, detail, for_job, chips, slots,
             lost_slot_ms, choice, extra, policy_version)
         select lease_id, job_id, attempt, queue, at, deadline, cause, detail, for_job, chips, slots, lost_slot_ms,
             choice::jsonb, extra, policy_version
         from unnest($1::uuid[], $2::uuid[], $3::int[], $4::text[], $5::timestamptz[], $6::timestamptz[], $7::text[],
                 $8::text[], $9::uuid[], $10::int[], $11::bigint[], $12::bigint[], $13::text[],
                 $14::boolean[], $15::bigint[])
             as e (lease_id, job_id, attempt, queue, at, deadline, cause, detail, for_job, chips, slots, lost_slot_ms,
                 choice, extra, policy_version)
         on conflict (lease_id) do nothing",
        &leases,
        &jobs,
        &attempts,
        &queues,
        &at,
        &deadlines,
        &causes,
        &details as _,
        &for_jobs as _,
        &chips,
        &slots,
        &lost,
        &choices as _,
        &extra,
        &policies
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// The evictions of a job, newest first, each with what is known of the job it made room for.
pub async fn of_job(pool: &PgPool, job: JobId) -> Result<Vec<(Eviction, Option<EvictedFor>)>> {
    let rows = sqlx::query!(
        "select e.lease_id, e.attempt, e.extra, e.queue, e.at, e.deadline, e.cause, e.detail, e.for_job, e.chips, e.slots,
             e.lost_slot_ms, e.choice, e.policy_version, j.name as \"for_name?\", j.queue as \"for_queue?\", j.priority as \"for_priority?\"
         from evictions e left join jobs j on j.id = e.for_job
         where e.job_id = $1 order by e.at desc, e.attempt desc limit $2",
        job.0,
        TOLD_MAX
    );
    let rows = rows.fetch_all(pool).await?;
    let read = rows.into_iter().map(|row| {
        let of = &row.lease_id;
        let for_whom = match (row.for_name, row.for_queue, row.for_priority) {
            (Some(name), Some(queue), Some(priority)) => Some(EvictedFor { name, queue, priority }),
            _ => None,
        };
        let eviction = Eviction {
            lease: LeaseId(row.lease_id),
            job,
            attempt: unsigned("evictions", of, row.attempt.into())?,
            extra: row.extra,
            queue: row.queue,
            at: moment(row.at),
            deadline: moment(row.deadline),
            cause: row.cause,
            detail: row.detail,
            for_job: row.for_job.map(JobId),
            chips: unsigned("evictions", of, row.chips.into())?,
            slots: unsigned("evictions", of, row.slots)?,
            lost_slot_ms: unsigned("evictions", of, row.lost_slot_ms)?,
            choice: row.choice.map(|choice| unjson("evictions", of, choice)).transpose()?,
            policy_version: unsigned("evictions", of, row.policy_version)?,
        };
        Ok((eviction, for_whom))
    });
    read.collect()
}
