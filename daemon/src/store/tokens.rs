//! Table `tokens`: bearer tokens, kept as hashes.

use super::Result;
use sqlx::PgPool;

/// A token as stored.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TokenRow {
    /// Its public part.
    pub id: String,
    /// SHA-256 of its secret part.
    pub secret_sha256: Vec<u8>,
}

/// Every token.
pub async fn load(pool: &PgPool) -> Result<Vec<TokenRow>> {
    Ok(sqlx::query_as!(TokenRow, "select id, secret_sha256 from tokens").fetch_all(pool).await?)
}

/// One token, by its public part.
pub async fn find(pool: &PgPool, id: &str) -> Result<Option<TokenRow>> {
    let row = sqlx::query_as!(TokenRow, "select id, secret_sha256 from tokens where id = $1", id);
    Ok(row.fetch_optional(pool).await?)
}

/// Adds an admin token.
pub async fn insert_admin(pool: &PgPool, id: &str, secret_sha256: &[u8]) -> Result<()> {
    sqlx::query!("insert into tokens (id, secret_sha256, role) values ($1, $2, 'admin')", id, secret_sha256)
        .execute(pool)
        .await?;
    Ok(())
}
