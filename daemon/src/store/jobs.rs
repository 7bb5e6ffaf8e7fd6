//! Table `jobs`: every job, live and over.

use super::{Result, StoreError, column, expect_rows, json, moment, signed, unjson, unsigned};
use chiptide_model::{Job, JobId, JobState, LeaseId, Outcome};
use chrono::{DateTime, Utc};
use sqlx::{PgConnection, PgPool, QueryBuilder};
use std::collections::BTreeSet;
use std::sync::Arc;
use uuid::Uuid;

/// The columns of a job's state, as arrays for one bulk statement.
struct States {
    ids: Vec<Uuid>,
    states: Vec<String>,
    reasons: Vec<Option<String>>,
    leases: Vec<Option<Uuid>>,
    deadlines: Vec<Option<DateTime<Utc>>>,
    attempts: Vec<i32>,
    preemptions: Vec<i32>,
    revisions: Vec<i64>,
    changed: Vec<DateTime<Utc>>,
    checkpointed: Vec<Option<DateTime<Utc>>>,
    /// Joined by commas: UNNEST cannot carry ragged arrays.
    evicted: Vec<String>,
    given_back: Vec<i32>,
    restarts: Vec<i32>,
}

fn states(jobs: &[Job]) -> States {
    let reason = |job: &Job| match &job.state {
        JobState::Ended(Outcome::Failed { reason }) => Some(reason.clone()),
        _ => None,
    };
    let deadline = |job: &Job| match &job.state {
        JobState::Preempting { deadline, .. } => Some(column(*deadline)),
        _ => None,
    };
    let evicted = |job: &Job| {
        let times: Vec<String> = job.evictions.iter().map(|at| column(*at).to_rfc3339()).collect();
        times.join(",")
    };
    let small = |n: u32| i32::try_from(n).unwrap_or(i32::MAX);
    States {
        ids: jobs.iter().map(|job| job.id.0).collect(),
        states: jobs.iter().map(|job| job.state.as_str().to_owned()).collect(),
        reasons: jobs.iter().map(reason).collect(),
        leases: jobs.iter().map(|job| job.state.lease().map(|lease| lease.0)).collect(),
        deadlines: jobs.iter().map(deadline).collect(),
        attempts: jobs.iter().map(|job| small(job.attempt)).collect(),
        preemptions: jobs.iter().map(|job| small(job.preemptions)).collect(),
        revisions: jobs.iter().map(|job| signed(job.revision)).collect(),
        changed: jobs.iter().map(|job| column(job.changed_at)).collect(),
        checkpointed: jobs.iter().map(|job| job.checkpointed_at.map(column)).collect(),
        evicted: jobs.iter().map(evicted).collect(),
        given_back: jobs.iter().map(|job| small(job.given_back)).collect(),
        restarts: jobs.iter().map(|job| small(job.restarts)).collect(),
    }
}

/// Adds jobs accepted in this round, in the state they have at its end.
pub async fn insert(tx: &mut PgConnection, jobs: &[Job]) -> Result<()> {
    let s = states(jobs);
    let places: Vec<i64> = jobs.iter().map(|job| signed(job.place)).collect();
    let kinds: Vec<String> = jobs.iter().map(|job| job.spec.kind.as_str().to_owned()).collect();
    let names: Vec<String> = jobs.iter().map(|job| job.spec.name.clone()).collect();
    let queues: Vec<String> = jobs.iter().map(|job| job.spec.queue.clone()).collect();
    let priorities: Vec<i32> = jobs.iter().map(|job| job.spec.priority).collect();
    let submitted: Vec<DateTime<Utc>> = jobs.iter().map(|job| column(job.submitted_at)).collect();
    let labels: Vec<String> = jobs.iter().map(|job| json(&job.spec.labels)).collect();
    let specs: Vec<String> = jobs.iter().map(|job| json(&*job.spec)).collect();
    let done = sqlx::query!(
        "insert into jobs (id, place, kind, name, queue, priority, state, reason, lease_id, deadline, attempt,
             preemptions, revision, submitted_at, changed_at, labels, spec, checkpointed_at, evicted_at, given_back)
         select id, place, kind, name, queue, priority, state, reason, lease_id, deadline, attempt,
             preemptions, revision, submitted_at, changed_at, labels::jsonb, spec::jsonb, checkpointed_at,
             string_to_array(evicted_at, ',')::timestamptz[], given_back
         from unnest($1::uuid[], $2::bigint[], $3::text[], $4::text[], $5::text[], $6::int[], $7::text[], $8::text[],
                 $9::uuid[], $10::timestamptz[], $11::int[], $12::int[], $13::bigint[], $14::timestamptz[],
                 $15::timestamptz[], $16::text[], $17::text[], $18::timestamptz[], $19::text[], $20::int[])
             as j (id, place, kind, name, queue, priority, state, reason, lease_id, deadline, attempt,
                 preemptions, revision, submitted_at, changed_at, labels, spec, checkpointed_at, evicted_at,
                 given_back)",
        &s.ids,
        &places,
        &kinds,
        &names,
        &queues,
        &priorities,
        &s.states,
        &s.reasons as _,
        &s.leases as _,
        &s.deadlines as _,
        &s.attempts,
        &s.preemptions,
        &s.revisions,
        &submitted,
        &s.changed,
        &labels,
        &specs,
        &s.checkpointed as _,
        &s.evicted,
        &s.given_back
    )
    .execute(tx)
    .await?;
    expect_rows("add jobs", jobs.len(), &done)
}

/// Writes the state of jobs that were there before this round; only a live job can change.
pub async fn update(tx: &mut PgConnection, jobs: &[Job]) -> Result<()> {
    let s = states(jobs);
    let done = sqlx::query!(
        "update jobs set state = j.state, reason = j.reason, lease_id = j.lease_id, deadline = j.deadline,
             attempt = j.attempt, preemptions = j.preemptions, revision = j.revision, changed_at = j.changed_at,
             checkpointed_at = j.checkpointed_at, evicted_at = string_to_array(j.evicted_at, ',')::timestamptz[],
             given_back = j.given_back, restarts = j.restarts
         from unnest($1::uuid[], $2::text[], $3::text[], $4::uuid[], $5::timestamptz[], $6::int[], $7::int[],
                 $8::bigint[], $9::timestamptz[], $10::timestamptz[], $11::text[], $12::int[], $13::int[])
             as j (id, state, reason, lease_id, deadline, attempt, preemptions, revision, changed_at, checkpointed_at,
                 evicted_at, given_back, restarts)
         where jobs.id = j.id and jobs.live",
        &s.ids,
        &s.states,
        &s.reasons as _,
        &s.leases as _,
        &s.deadlines as _,
        &s.attempts,
        &s.preemptions,
        &s.revisions,
        &s.changed,
        &s.checkpointed as _,
        &s.evicted,
        &s.given_back,
        &s.restarts
    )
    .execute(tx)
    .await?;
    expect_rows("write jobs", jobs.len(), &done)
}

/// A row of the table.
#[derive(sqlx::FromRow)]
struct JobRow {
    id: Uuid,
    place: i64,
    state: String,
    reason: Option<String>,
    lease_id: Option<Uuid>,
    deadline: Option<DateTime<Utc>>,
    attempt: i32,
    preemptions: i32,
    revision: i64,
    submitted_at: DateTime<Utc>,
    changed_at: DateTime<Utc>,
    spec: serde_json::Value,
    checkpointed_at: Option<DateTime<Utc>>,
    evicted_at: Vec<DateTime<Utc>>,
    given_back: i32,
    restarts: i32,
}

impl JobRow {
    fn job(self) -> Result<Job> {
        let unreadable = || StoreError::Unreadable {
            table: "jobs",
            row: self.id.to_string(),
            detail: format!("state {:?} does not fit its columns", self.state),
        };
        let lease = self.lease_id.map(LeaseId);
        let state = match (self.state.as_str(), lease, self.deadline) {
            ("pending", None, None) => JobState::Pending,
            ("leased", Some(lease), None) => JobState::Leased { lease },
            ("running", Some(lease), None) => JobState::Running { lease },
            ("preempting", Some(lease), Some(deadline)) => JobState::Preempting { lease, deadline: moment(deadline) },
            ("succeeded", None, None) => JobState::Ended(Outcome::Succeeded),
            ("failed", None, None) => {
                JobState::Ended(Outcome::Failed { reason: self.reason.clone().unwrap_or_default() })
            }
            ("cancelled", None, None) => JobState::Ended(Outcome::Cancelled),
            _ => return Err(unreadable()),
        };
        Ok(Job {
            id: JobId(self.id),
            spec: Arc::new(unjson("jobs", &self.id, self.spec)?),
            place: unsigned("jobs", &self.id, self.place)?,
            submitted_at: moment(self.submitted_at),
            state,
            attempt: unsigned("jobs", &self.id, self.attempt.into())?,
            preemptions: unsigned("jobs", &self.id, self.preemptions.into())?,
            evictions: self.evicted_at.into_iter().map(moment).collect(),
            checkpointed_at: self.checkpointed_at.map(moment),
            // The leases say which of them are extra.
            extras: BTreeSet::new(),
            given_back: unsigned("jobs", &self.id, self.given_back.into())?,
            restarts: unsigned("jobs", &self.id, self.restarts.into())?,
            changed_at: moment(self.changed_at),
            revision: unsigned("jobs", &self.id, self.revision)?,
        })
    }
}

/// Every live job.
pub async fn load_live(tx: &mut PgConnection) -> Result<Vec<Job>> {
    let rows = sqlx::query_as!(
        JobRow,
        "select id, place, state, reason, lease_id, deadline, attempt, preemptions, revision, submitted_at,
             changed_at, spec, checkpointed_at, evicted_at, given_back, restarts
         from jobs where live"
    );
    rows.fetch_all(tx).await?.into_iter().map(JobRow::job).collect()
}

/// The place of the last job ever accepted.
pub async fn last_place(tx: &mut PgConnection) -> Result<u64> {
    let place = sqlx::query_scalar!("select coalesce(max(place), 0) as \"place!\" from jobs").fetch_one(tx).await?;
    unsigned("jobs", &"max(place)", place)
}

/// One job, live or over.
pub async fn get(pool: &PgPool, id: JobId) -> Result<Option<Job>> {
    let row = sqlx::query_as!(
        JobRow,
        "select id, place, state, reason, lease_id, deadline, attempt, preemptions, revision, submitted_at,
             changed_at, spec, checkpointed_at, evicted_at, given_back, restarts
         from jobs where id = $1",
        id.0
    );
    row.fetch_optional(pool).await?.map(JobRow::job).transpose()
}

/// Which jobs a list wants.
#[derive(Clone, Debug, Default)]
pub struct JobFilter {
    /// In one of these states; empty means any.
    pub states: Vec<String>,
    /// Of this queue.
    pub queue: Option<String>,
    /// Of one of these; absent means any.
    pub queues: Option<Vec<String>>,
    /// Of this kind.
    pub kind: Option<String>,
    /// With this name.
    pub name: Option<String>,
    /// With all these labels.
    pub labels: Vec<(String, String)>,
    /// Before this place: lists go from the newest job to the oldest.
    pub before: Option<i64>,
    /// At most so many.
    pub limit: i64,
}

/// One page of jobs, newest first.
pub async fn list(pool: &PgPool, filter: &JobFilter) -> Result<Vec<Job>> {
    let mut query = QueryBuilder::new(
        "select id, place, state, reason, lease_id, deadline, attempt, preemptions, revision, submitted_at,
             changed_at, spec, checkpointed_at, evicted_at, given_back, restarts
         from jobs where true",
    );
    if !filter.states.is_empty() {
        query.push(" and state = any(").push_bind(&filter.states).push(")");
    }
    if let Some(queue) = &filter.queue {
        query.push(" and queue = ").push_bind(queue);
    }
    if let Some(queues) = &filter.queues {
        query.push(" and queue = any(").push_bind(queues).push(")");
    }
    if let Some(kind) = &filter.kind {
        query.push(" and kind = ").push_bind(kind);
    }
    if let Some(name) = &filter.name {
        query.push(" and name = ").push_bind(name);
    }
    for (key, value) in &filter.labels {
        query
            .push(" and labels @> jsonb_build_object(")
            .push_bind(key)
            .push("::text, ")
            .push_bind(value)
            .push("::text)");
    }
    if let Some(before) = filter.before {
        query.push(" and place < ").push_bind(before);
    }
    query.push(" order by place desc limit ").push_bind(filter.limit);
    query.build_query_as::<JobRow>().fetch_all(pool).await?.into_iter().map(JobRow::job).collect()
}
