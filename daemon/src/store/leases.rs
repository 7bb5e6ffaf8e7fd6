//! Table `leases`: every lease, live and over.

use super::{Result, StoreError, column, expect_rows, json, moment, signed, unjson, unsigned};
use chiptide_model::{Cause, JobId, Lease, LeaseId, LeaseState, NodeId, Timestamp};
use chrono::{DateTime, Utc};
use sqlx::{PgConnection, PgPool, QueryBuilder};
use uuid::Uuid;

/// A lease to write.
#[derive(Clone, Debug)]
pub struct LeaseWrite {
    /// The lease as it is now.
    pub lease: Lease,
    /// Once it has ended: by when its chips must be proven vacant.
    pub vacate_by: Option<Timestamp>,
}

struct States {
    ids: Vec<Uuid>,
    states: Vec<String>,
    causes: Vec<Option<String>>,
    expires: Vec<Option<DateTime<Utc>>>,
    deadlines: Vec<Option<DateTime<Utc>>>,
    ended: Vec<Option<DateTime<Utc>>>,
    vacate_by: Vec<Option<DateTime<Utc>>>,
    confirmed: Vec<String>,
    extended: Vec<bool>,
}

/// State, cause, deadline and end of a lease, as its columns have them.
fn parts(state: &LeaseState) -> (&'static str, Option<&Cause>, Option<Timestamp>, Option<Timestamp>) {
    match state {
        LeaseState::Active => ("active", None, None, None),
        LeaseState::Revoking { cause, deadline } => ("revoking", Some(cause), Some(*deadline), None),
        LeaseState::Ended { cause, at } => ("ended", Some(cause), None, Some(*at)),
    }
}

fn states(leases: &[LeaseWrite]) -> States {
    let part = || leases.iter().map(|write| parts(&write.lease.state));
    // Names hold no comma, so a joined list carries the ragged array that UNNEST cannot.
    let confirmed = |lease: &Lease| lease.confirmed.iter().map(NodeId::as_str).collect::<Vec<_>>().join(",");
    States {
        ids: leases.iter().map(|write| write.lease.id.0).collect(),
        states: part().map(|(state, ..)| state.to_owned()).collect(),
        causes: part().map(|(_, cause, ..)| cause.map(json)).collect(),
        expires: leases.iter().map(|write| write.lease.expires_at.map(column)).collect(),
        deadlines: part().map(|(_, _, deadline, _)| deadline.map(column)).collect(),
        ended: part().map(|(.., ended)| ended.map(column)).collect(),
        vacate_by: leases.iter().map(|write| write.vacate_by.map(column)).collect(),
        confirmed: leases.iter().map(|write| confirmed(&write.lease)).collect(),
        extended: leases.iter().map(|write| write.lease.extended).collect(),
    }
}

/// Adds leases granted in this round, in the state they have at its end.
pub async fn insert(tx: &mut PgConnection, leases: &[LeaseWrite]) -> Result<()> {
    let s = states(leases);
    let jobs: Vec<Uuid> = leases.iter().map(|write| write.lease.job.0).collect();
    let attempts: Vec<i32> =
        leases.iter().map(|write| i32::try_from(write.lease.attempt).unwrap_or(i32::MAX)).collect();
    let granted: Vec<DateTime<Utc>> = leases.iter().map(|write| column(write.lease.granted_at)).collect();
    let ends: Vec<Option<DateTime<Utc>>> = leases.iter().map(|write| write.lease.ends_at.map(column)).collect();
    let extra: Vec<bool> = leases.iter().map(|write| write.lease.extra).collect();
    let policies: Vec<i64> = leases.iter().map(|write| signed(write.lease.policy_version)).collect();
    let placements: Vec<String> = leases.iter().map(|write| json(&write.lease.placements)).collect();
    let done = sqlx::query!(
        "insert into leases (id, job_id, attempt, state, cause, granted_at, expires_at, ends_at, deadline, ended_at,
             vacate_by, confirmed, placements, extra, policy_version)
         select id, job_id, attempt, state, cause::jsonb, granted_at, expires_at, ends_at, deadline, ended_at,
             vacate_by, string_to_array(confirmed, ','), placements::jsonb, extra, policy_version
         from unnest($1::uuid[], $2::uuid[], $3::int[], $4::text[], $5::text[], $6::timestamptz[], $7::timestamptz[],
                 $8::timestamptz[], $9::timestamptz[], $10::timestamptz[], $11::timestamptz[], $12::text[], $13::text[],
                 $14::boolean[], $15::bigint[])
             as l (id, job_id, attempt, state, cause, granted_at, expires_at, ends_at, deadline, ended_at, vacate_by,
                 confirmed, placements, extra, policy_version)",
        &s.ids,
        &jobs,
        &attempts,
        &s.states,
        &s.causes as _,
        &granted,
        &s.expires as _,
        &ends as _,
        &s.deadlines as _,
        &s.ended as _,
        &s.vacate_by as _,
        &s.confirmed,
        &placements,
        &extra,
        &policies
    )
    .execute(tx)
    .await?;
    expect_rows("add leases", leases.len(), &done)
}

/// Writes the state of leases that were there before this round; one that has ended cannot change.
pub async fn update(tx: &mut PgConnection, leases: &[LeaseWrite]) -> Result<()> {
    let s = states(leases);
    let done = sqlx::query!(
        "update leases set state = l.state, cause = l.cause::jsonb, expires_at = l.expires_at, deadline = l.deadline,
             ended_at = l.ended_at, vacate_by = l.vacate_by, confirmed = string_to_array(l.confirmed, ','),
             extended = l.extended
         from unnest($1::uuid[], $2::text[], $3::text[], $4::timestamptz[], $5::timestamptz[], $6::timestamptz[],
                 $7::timestamptz[], $8::text[], $9::boolean[])
             as l (id, state, cause, expires_at, deadline, ended_at, vacate_by, confirmed, extended)
         where leases.id = l.id and leases.state <> 'ended'",
        &s.ids,
        &s.states,
        &s.causes as _,
        &s.expires as _,
        &s.deadlines as _,
        &s.ended as _,
        &s.vacate_by as _,
        &s.confirmed,
        &s.extended
    )
    .execute(tx)
    .await?;
    expect_rows("write leases", leases.len(), &done)
}

#[derive(sqlx::FromRow)]
struct LeaseRow {
    id: Uuid,
    job_id: Uuid,
    attempt: i32,
    state: String,
    cause: Option<serde_json::Value>,
    granted_at: DateTime<Utc>,
    expires_at: Option<DateTime<Utc>>,
    ends_at: Option<DateTime<Utc>>,
    deadline: Option<DateTime<Utc>>,
    ended_at: Option<DateTime<Utc>>,
    confirmed: Vec<String>,
    placements: serde_json::Value,
    extra: bool,
    extended: bool,
    policy_version: i64,
}

impl LeaseRow {
    fn lease(self) -> Result<Lease> {
        let id = self.id;
        let unreadable = |detail: String| StoreError::Unreadable { table: "leases", row: id.to_string(), detail };
        let cause: Option<Cause> = self.cause.map(|cause| unjson("leases", &id, cause)).transpose()?;
        let state = match (self.state.as_str(), cause, self.deadline, self.ended_at) {
            ("active", None, None, None) => LeaseState::Active,
            ("revoking", Some(cause), Some(deadline), None) => {
                LeaseState::Revoking { cause, deadline: moment(deadline) }
            }
            ("ended", Some(cause), None, Some(at)) => LeaseState::Ended { cause, at: moment(at) },
            (state, ..) => return Err(unreadable(format!("state {state:?} does not fit its columns"))),
        };
        let confirmed = self.confirmed.iter().map(|name| NodeId::new(name).map_err(|e| unreadable(e.to_string())));
        Ok(Lease {
            id: LeaseId(id),
            job: JobId(self.job_id),
            attempt: unsigned("leases", &id, self.attempt.into())?,
            extra: self.extra,
            placements: unjson("leases", &id, self.placements)?,
            granted_at: moment(self.granted_at),
            expires_at: self.expires_at.map(moment),
            ends_at: self.ends_at.map(moment),
            state,
            confirmed: confirmed.collect::<Result<_>>()?,
            extended: self.extended,
            policy_version: unsigned("leases", &id, self.policy_version)?,
        })
    }
}

/// Every lease that is live or still has a chip to be proven vacant.
pub async fn load_in_memory(tx: &mut PgConnection) -> Result<Vec<Lease>> {
    let rows = sqlx::query_as!(
        LeaseRow,
        "select id, job_id, attempt, state, cause, granted_at, expires_at, ends_at, deadline, ended_at, confirmed,
             placements, extra, extended, policy_version
         from leases
         where state <> 'ended' or id in (select lease_id from holds) order by id"
    );
    rows.fetch_all(tx).await?.into_iter().map(LeaseRow::lease).collect()
}

/// One lease, live or over.
pub async fn get(pool: &PgPool, id: LeaseId) -> Result<Option<Lease>> {
    let row = sqlx::query_as!(
        LeaseRow,
        "select id, job_id, attempt, state, cause, granted_at, expires_at, ends_at, deadline, ended_at, confirmed,
             placements, extra, extended, policy_version
         from leases where id = $1",
        id.0
    );
    row.fetch_optional(pool).await?.map(LeaseRow::lease).transpose()
}

/// Which leases a list wants.
#[derive(Clone, Debug, Default)]
pub struct LeaseFilter {
    /// In one of these states; empty means any.
    pub states: Vec<String>,
    /// Of this job.
    pub job: Option<Uuid>,
    /// Of jobs of one of these queues; absent means any.
    pub queues: Option<Vec<String>>,
    /// Before this grant: lists go from the newest lease to the oldest.
    pub before: Option<(DateTime<Utc>, Uuid)>,
    /// At most so many.
    pub limit: i64,
}

/// One page of leases, newest first.
pub async fn list(pool: &PgPool, filter: &LeaseFilter) -> Result<Vec<Lease>> {
    let mut query = QueryBuilder::new(
        "select id, job_id, attempt, state, cause, granted_at, expires_at, ends_at, deadline, ended_at, confirmed,
             placements, extra, extended, policy_version
         from leases where true",
    );
    if !filter.states.is_empty() {
        query.push(" and state = any(").push_bind(&filter.states).push(")");
    }
    if let Some(job) = filter.job {
        query.push(" and job_id = ").push_bind(job);
    }
    if let Some(queues) = &filter.queues {
        query
            .push(" and exists (select from jobs where jobs.id = job_id and queue = any(")
            .push_bind(queues)
            .push("))");
    }
    if let Some((at, id)) = filter.before {
        query.push(" and (granted_at, id) < (").push_bind(at).push(", ").push_bind(id).push(")");
    }
    query.push(" order by granted_at desc, id desc limit ").push_bind(filter.limit);
    query.build_query_as::<LeaseRow>().fetch_all(pool).await?.into_iter().map(LeaseRow::lease).collect()
}
