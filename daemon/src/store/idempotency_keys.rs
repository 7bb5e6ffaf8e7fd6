//! Table `idempotency_keys`: answers already given.

use super::{Result, expect_rows};
use sqlx::{PgConnection, PgPool};

/// A key as its sender named it, and what it was sent with.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Key {
    /// Whose key it is.
    pub principal: String,
    /// The key.
    pub key: String,
    /// SHA-256 of method, path and body.
    pub request_hash: Vec<u8>,
}

/// An answer as it was given.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Recorded {
    /// The key it answers.
    pub key: Key,
    /// HTTP status.
    pub status: u16,
    /// JSON body.
    pub body: String,
}

/// Answers already given to any of these keys.
pub async fn find(pool: &PgPool, keys: &[Key]) -> Result<Vec<Recorded>> {
    let principals: Vec<String> = keys.iter().map(|key| key.principal.clone()).collect();
    let names: Vec<String> = keys.iter().map(|key| key.key.clone()).collect();
    let rows = sqlx::query!(
        "select i.principal, i.key, i.request_hash, i.status, i.body
         from unnest($1::text[], $2::text[]) as k (principal, key)
         join idempotency_keys i on i.principal = k.principal and i.key = k.key",
        &principals,
        &names
    );
    let rows = rows.fetch_all(pool).await?;
    let recorded = rows.into_iter().map(|row| Recorded {
        key: Key { principal: row.principal, key: row.key, request_hash: row.request_hash },
        status: u16::try_from(row.status).unwrap_or(500),
        body: row.body,
    });
    Ok(recorded.collect())
}

/// Records the answers of a round.
pub async fn insert(tx: &mut PgConnection, answers: &[Recorded]) -> Result<()> {
    let principals: Vec<String> = answers.iter().map(|answer| answer.key.principal.clone()).collect();
    let keys: Vec<String> = answers.iter().map(|answer| answer.key.key.clone()).collect();
    let hashes: Vec<Vec<u8>> = answers.iter().map(|answer| answer.key.request_hash.clone()).collect();
    let statuses: Vec<i16> = answers.iter().map(|answer| i16::try_from(answer.status).unwrap_or(500)).collect();
    let bodies: Vec<String> = answers.iter().map(|answer| answer.body.clone()).collect();
    let done = sqlx::query!(
        "insert into idempotency_keys (principal, key, request_hash, status, body, created_at)
         select principal, key, request_hash, status, body, now()
         from unnest($1::text[], $2::text[], $3::bytea[], $4::smallint[], $5::text[])
             as a (principal, key, request_hash, status, body)",
        &principals,
        &keys,
        &hashes,
        &statuses,
        &bodies
    )
    .execute(tx)
    .await?;
    expect_rows("record answers", answers.len(), &done)
}

/// Forgets answers older than a day.
pub async fn forget_old(pool: &PgPool) -> Result<u64> {
    let done = sqlx::query!("delete from idempotency_keys where created_at < now() - interval '24 hours'")
        .execute(pool)
        .await?;
    Ok(done.rows_affected())
}
