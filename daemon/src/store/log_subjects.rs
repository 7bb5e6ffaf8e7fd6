//! What the log's events are about, where they do not say it themselves: read for those who follow the log.

use super::{Result, StoreError, unjson};
use chiptide_model::{ChipId, JobId, LeaseId, NodeId, Placement};
use sqlx::PgPool;
use uuid::Uuid;

/// The job and the placements of leases.
pub async fn leases(
    pool: &PgPool,
    leases: impl Iterator<Item = LeaseId>,
) -> Result<Vec<(LeaseId, JobId, Vec<Placement>)>> {
    let ids: Vec<Uuid> = leases.map(|lease| lease.0).collect();
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let rows =
        sqlx::query!("select id, job_id, placements from leases where id = any($1)", &ids).fetch_all(pool).await?;
    let lease = |id: Uuid, job, placements| Ok((LeaseId(id), JobId(job), unjson("leases", &id, placements)?));
    rows.into_iter().map(|row| lease(row.id, row.job_id, row.placements)).collect()
}

/// The queues of jobs.
pub async fn queues(pool: &PgPool, jobs: impl Iterator<Item = JobId>) -> Result<Vec<(JobId, String)>> {
    let ids: Vec<Uuid> = jobs.map(|job| job.0).collect();
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let rows = sqlx::query!("select id, queue from jobs where id = any($1)", &ids).fetch_all(pool).await?;
    Ok(rows.into_iter().map(|row| (JobId(row.id), row.queue)).collect())
}

/// The nodes of chips.
pub async fn nodes_of_chips(pool: &PgPool, chips: impl Iterator<Item = ChipId>) -> Result<Vec<(ChipId, NodeId)>> {
    let ids: Vec<String> = chips.map(|chip| chip.to_string()).collect();
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let rows = sqlx::query!("select id, node_id from chips where id = any($1)", &ids).fetch_all(pool).await?;
    let unreadable = |row: &str, error: chiptide_model::InvalidName| StoreError::Unreadable {
        table: "chips",
        row: row.to_owned(),
        detail: error.to_string(),
    };
    let parse = |id: &str, node: &str| -> Result<(ChipId, NodeId)> {
        let chip = ChipId::new(id).map_err(|error| unreadable(id, error))?;
        Ok((chip, NodeId::new(node).map_err(|error| unreadable(id, error))?))
    };
    rows.iter().map(|row| parse(&row.id, &row.node_id)).collect()
}
