//! Table `work_ends`: how each run of a job's replicas ended. Written with the event; read when somebody asks for one job.

use super::{Result, column, json, moment, unjson, unsigned};
use chiptide_allocator::{Cluster, Touched};
use chiptide_model::{Event, JobId, LeaseId, ReplicaEnd, Timestamp, Verdict};
use chrono::{DateTime, Utc};
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

/// Most runs told of one job, the newest first.
pub const TOLD_MAX: i64 = 20;

/// The end of one run.
#[derive(Clone, PartialEq, Debug)]
pub struct RunEnd {
    /// The lease it ran under.
    pub lease: LeaseId,
    /// Its job.
    pub job: JobId,
    /// Which attempt of the job.
    pub attempt: u32,
    /// Which run of the job.
    pub run: u32,
    /// When it was known.
    pub at: Timestamp,
    /// What failed, for people.
    pub failure: Option<String>,
    /// How each replica ended that had.
    pub replicas: Vec<ReplicaEnd>,
}

/// The ends of runs among the events of a round.
pub fn among(after: &Cluster, touched: &Touched, events: &[(Timestamp, Event)]) -> Vec<RunEnd> {
    let end = |(at, event): &(Timestamp, Event)| {
        let Event::WorkEnded { lease, job, run, verdict, replicas } = event else { return None };
        let attempt = after.lease(*lease).or_else(|| touched.vacated_leases.get(lease))?.attempt;
        let failure = match verdict {
            Verdict::Failed { reason } => Some(reason.clone()),
            Verdict::Succeeded | Verdict::Left => None,
        };
        let (lease, job, run, replicas) = (*lease, *job, *run, replicas.clone());
        Some(RunEnd { lease, job, attempt, run, at: *at, failure, replicas })
    };
    events.iter().filter_map(end).collect()
}

/// Adds the ends of runs.
pub async fn insert(tx: &mut PgConnection, ends: &[RunEnd]) -> Result<()> {
    let number = |n: u32| i32::try_from(n).unwrap_or(i32::MAX);
    let leases: Vec<Uuid> = ends.iter().map(|end| end.lease.0).collect();
    let runs: Vec<i32> = ends.iter().map(|end| number(end.run)).collect();
    let jobs: Vec<Uuid> = ends.iter().map(|end| end.job.0).collect();
    let attempts: Vec<i32> = ends.iter().map(|end| number(end.attempt)).collect();
    let at: Vec<DateTime<Utc>> = ends.iter().map(|end| column(end.at)).collect();
    let failures: Vec<Option<String>> = ends.iter().map(|end| end.failure.clone()).collect();
    let replicas: Vec<String> = ends.iter().map(|end| json(&end.replicas)).collect();
    sqlx::query!(
        "insert into work_ends (lease_id, run, job_id, attempt, at, failure, replicas)
         select lease_id, run, job_id, attempt, at, failure, replicas::jsonb
         from unnest($1::uuid[], $2::int[], $3::uuid[], $4::int[], $5::timestamptz[], $6::text[], $7::text[])
             as e (lease_id, run, job_id, attempt, at, failure, replicas)
         on conflict (lease_id, run) do nothing",
        &leases,
        &runs,
        &jobs,
        &attempts,
        &at,
        &failures as _,
        &replicas
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// The ends of a job's runs, newest first.
pub async fn of_job(pool: &PgPool, job: JobId) -> Result<Vec<RunEnd>> {
    let rows = sqlx::query!(
        "select lease_id, run, attempt, at, failure, replicas from work_ends
         where job_id = $1 order by at desc, run desc limit $2",
        job.0,
        TOLD_MAX
    );
    let rows = rows.fetch_all(pool).await?;
    let read = rows.into_iter().map(|row| {
        let of = &row.lease_id;
        Ok(RunEnd {
            lease: LeaseId(row.lease_id),
            job,
            attempt: unsigned("work_ends", of, row.attempt.into())?,
            run: unsigned("work_ends", of, row.run.into())?,
            at: moment(row.at),
            failure: row.failure,
            replicas: unjson("work_ends", of, row.replicas)?,
        })
    });
    read.collect()
}
