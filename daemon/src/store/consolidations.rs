//! Tables `consolidations` and `last_consolidation`: who was moved for whom, and when last.

use super::{Result, column, moment};
use chiptide_model::{JobId, Timestamp};
use sqlx::PgConnection;
use std::collections::BTreeSet;
use uuid::Uuid;

/// What a round has changed.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Moves {
    /// Gangs with the jobs moved for them; none when the gang is over.
    pub gangs: Vec<(JobId, Vec<JobId>)>,
    /// When the last move was ordered.
    pub last: Option<Timestamp>,
}

/// Replaces what is kept of these gangs.
pub async fn replace(tx: &mut PgConnection, moves: &Moves) -> Result<()> {
    let gangs: Vec<Uuid> = moves.gangs.iter().map(|(gang, _)| gang.0).collect();
    sqlx::query!("delete from consolidations where gang = any($1)", &gangs).execute(&mut *tx).await?;
    for (gang, moved) in moves.gangs.iter().filter(|(_, moved)| !moved.is_empty()) {
        let moved: Vec<Uuid> = moved.iter().map(|job| job.0).collect();
        sqlx::query!("insert into consolidations (gang, moved) values ($1, $2)", gang.0, &moved)
            .execute(&mut *tx)
            .await?;
    }
    if let Some(last) = moves.last {
        sqlx::query!(
            "insert into last_consolidation (at) values ($1) on conflict (only_row) do update set at = excluded.at",
            column(last)
        )
        .execute(tx)
        .await?;
    }
    Ok(())
}

/// Jobs moved for each live gang.
pub async fn load_moved(tx: &mut PgConnection) -> Result<Vec<(JobId, BTreeSet<JobId>)>> {
    let rows = sqlx::query!("select gang, moved from consolidations order by gang").fetch_all(tx).await?;
    Ok(rows.into_iter().map(|row| (JobId(row.gang), row.moved.into_iter().map(JobId).collect())).collect())
}

/// When the last move was ordered.
pub async fn load_last(tx: &mut PgConnection) -> Result<Option<Timestamp>> {
    let at = sqlx::query_scalar!("select at from last_consolidation").fetch_optional(tx).await?;
    Ok(at.map(moment))
}
