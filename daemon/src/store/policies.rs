//! Table `policies`: every policy that was ever in force.

use super::{Result, json, signed, unjson};
use chiptide_model::Policy;
use sqlx::PgConnection;

/// Records a policy that comes into force.
pub async fn insert(tx: &mut PgConnection, policy: &Policy) -> Result<()> {
    sqlx::query!(
        "insert into policies (version, applied_at, body) values ($1, now(), $2::text::jsonb)",
        signed(policy.version),
        json(policy)
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// The policy in force; `None` in a new database.
pub async fn current(tx: &mut PgConnection) -> Result<Option<Policy>> {
    let row =
        sqlx::query!("select version, body from policies order by version desc limit 1").fetch_optional(tx).await?;
    row.map(|row| unjson("policies", &row.version, row.body)).transpose()
}
