//! Table `eviction_steps`: the steps by which leases under notice were emptied. Written with the events that say so; read
//! when somebody asks for one job or lease.

use super::{Result, StoreError, column, moment, signed, unsigned};
use chiptide_allocator::Touched;
use chiptide_model::{Event, JobId, LeaseId, LeaseState, NodeId, Quarantine, Timestamp};
use chrono::{DateTime, Utc};
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

/// Most steps told of one lease.
const TOLD_MAX: i64 = 10_000;

/// One step.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StepRow {
    /// The lease.
    pub lease: LeaseId,
    /// The word for it.
    pub step: String,
    /// When it was taken.
    pub at: Timestamp,
    /// By which node, where one did.
    pub node: Option<NodeId>,
    /// More about it, for people.
    pub detail: Option<String>,
}

/// Steps with the number of the event that each was told by.
pub type Numbered = Vec<(u64, StepRow)>;

/// The last eviction of a job.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LastEviction {
    /// The lease that was taken.
    pub lease: LeaseId,
    /// Which attempt of the job it was.
    pub attempt: u32,
    /// The word of its cause.
    pub cause: String,
    /// The job it made room for.
    pub for_job: Option<JobId>,
    /// Its steps, as they were told.
    pub steps: Vec<StepRow>,
}

/// The steps among the events of a round, of which the first has this number.
pub fn among(touched: &Touched, first_seq: u64, events: &[(Timestamp, Event)]) -> Numbered {
    let numbered = (first_seq..).zip(events);
    let mut found: Numbered =
        numbered.flat_map(|(seq, (at, event))| of(*at, event).into_iter().map(move |step| (seq, step))).collect();
    let was_taken = |state: &LeaseState| matches!(state, LeaseState::Ended { cause, .. } if cause.gives_notice());
    if let Some((at, _)) = events.last() {
        let last = first_seq + events.len() as u64 - 1;
        let vacated = touched.vacated_leases.values().filter(|lease| was_taken(&lease.state));
        found.extend(vacated.map(|lease| (last, StepRow::new(lease.id, "vacant", *at))));
    }
    found
}

fn of(at: Timestamp, event: &Event) -> Vec<StepRow> {
    let with = |lease: &LeaseId, step: &str, detail| vec![StepRow { detail, ..StepRow::new(*lease, step, at) }];
    match event {
        Event::LeaseRevoked { lease, deadline, .. } => {
            with(lease, "notice", Some(format!("it has {}", deadline.since(at))))
        }
        Event::LeaseExtended { lease, reason, .. } => {
            with(lease, "extension", Some(reason.clone()).filter(|said| !said.is_empty()))
        }
        Event::JobCheckpointed { under_notice: Some(lease), step, .. } => {
            with(lease, "checkpoint", step.map(|step| format!("step {step}")))
        }
        Event::LadderClimbed { lease, node, steps } => {
            let row = |taken: &chiptide_model::LadderStep| StepRow {
                node: Some(node.clone()),
                ..StepRow::new(*lease, taken.step.as_str(), taken.at)
            };
            steps.iter().map(row).collect()
        }
        Event::LeaseEnded { lease, cause, .. } if cause.gives_notice() => with(lease, "ended", None),
        Event::ChipQuarantined { chip, quarantine: Quarantine::NotVacated { lease } } => {
            with(lease, "quarantined", Some(format!("chip {chip}")))
        }
        _ => Vec::new(),
    }
}

impl StepRow {
    fn new(lease: LeaseId, step: &str, at: Timestamp) -> StepRow {
        StepRow { lease, step: step.to_owned(), at, node: None, detail: None }
    }
}

/// Adds steps.
pub async fn insert(tx: &mut PgConnection, steps: &Numbered) -> Result<()> {
    let seqs: Vec<i64> = steps.iter().map(|(seq, _)| signed(*seq)).collect();
    let leases: Vec<Uuid> = steps.iter().map(|(_, step)| step.lease.0).collect();
    let words: Vec<String> = steps.iter().map(|(_, step)| step.step.clone()).collect();
    let at: Vec<DateTime<Utc>> = steps.iter().map(|(_, step)| column(step.at)).collect();
    let nodes: Vec<Option<String>> = steps.iter().map(|(_, s)| s.node.as_ref().map(ToString::to_string)).collect();
    let details: Vec<Option<String>> = steps.iter().map(|(_, step)| step.detail.clone()).collect();
    sqlx::query!(
        "insert into eviction_steps (seq, lease_id, step, at, node, detail)
         select seq, lease_id, step, at, node, detail
         from unnest($1::bigint[], $2::uuid[], $3::text[], $4::timestamptz[], $5::text[], $6::text[])
             as s (seq, lease_id, step, at, node, detail)",
        &seqs,
        &leases,
        &words,
        &at,
        &nodes as _,
        &details as _
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// The steps of one lease, as they were told.
pub async fn of_lease(pool: &PgPool, lease: LeaseId) -> Result<Vec<StepRow>> {
    let rows = sqlx::query!(
        "select step, at, node, detail from eviction_steps where lease_id = $1 order by seq, at limit $2",
        lease.0,
        TOLD_MAX
    );
    let rows = rows.fetch_all(pool).await?;
    let unreadable =
        |detail: String| StoreError::Unreadable { table: "eviction_steps", row: lease.to_string(), detail };
    let read = rows.into_iter().map(|row| {
        let node =
            row.node.map(|node| NodeId::new(&node)).transpose().map_err(|error| unreadable(error.to_string()))?;
        Ok(StepRow { lease, step: row.step, at: moment(row.at), node, detail: row.detail })
    });
    read.collect()
}

/// The last eviction of a job.
pub async fn last_of_job(pool: &PgPool, job: JobId) -> Result<Option<LastEviction>> {
    let row = sqlx::query!(
        "select lease_id, attempt, cause, for_job from evictions
         where job_id = $1 order by at desc, extra, attempt desc limit 1",
        job.0
    );
    let Some(row) = row.fetch_optional(pool).await? else { return Ok(None) };
    let lease = LeaseId(row.lease_id);
    Ok(Some(LastEviction {
        lease,
        attempt: unsigned("evictions", &row.lease_id, row.attempt.into())?,
        cause: row.cause,
        for_job: row.for_job.map(JobId),
        steps: of_lease(pool, lease).await?,
    }))
}
