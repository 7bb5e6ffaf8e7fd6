//! Table `demand`: what jobs have asked for so far.

use super::{Result, json, unjson};
use chiptide_allocator::demand::Demand;
use sqlx::PgConnection;

/// Replaces it.
pub async fn replace(tx: &mut PgConnection, demand: &Demand) -> Result<()> {
    sqlx::query!(
        "insert into demand (body) values ($1::text::jsonb) on conflict (only_row) do update set body = excluded.body",
        json(demand)
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// What is known; nothing in a new database.
pub async fn load(tx: &mut PgConnection) -> Result<Demand> {
    let body = sqlx::query_scalar!("select body from demand").fetch_optional(tx).await?;
    body.map_or(Ok(Demand::default()), |body| unjson("demand", &"-", body))
}
