//! Table `join_tokens`: what lets a new agent in, once.

use super::{Result, tokens};
use crate::access::tokens::Minted;
use crate::store::tokens::TokenRow;
use chiptide_api::access::Role;
use chrono::{DateTime, Utc};
use sqlx::{Connection, PgConnection, PgPool};

/// Adds a join token.
pub async fn insert(
    pool: &PgPool,
    minted: &Minted,
    node: Option<&str>,
    by: &str,
    expires_at: DateTime<Utc>,
) -> Result<()> {
    let insert = sqlx::query!(
        "insert into join_tokens (id, secret_sha256, node, created_by, expires_at) values ($1, $2, $3, $4, $5)",
        minted.id,
        minted.secret_sha256,
        node,
        by,
        expires_at
    );
    insert.execute(pool).await?;
    Ok(())
}

/// How a join token was taken.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Joined {
    /// The node has this credential now, and these it has no more.
    Credential {
        /// The new one.
        row: Box<TokenRow>,
        /// Those that were revoked for it.
        revoked: Vec<String>,
    },
    /// There is no such join token, or it is used, void, or another node's.
    NotTaken,
    /// It names no node, and this node has a credential already.
    NodeTaken,
}

/// Takes a join token and makes the node's credential, both or neither.
pub async fn join(pool: &PgPool, id: &str, secret_sha256: &[u8], node: &str, minted: &Minted) -> Result<Joined> {
    let mut connection = pool.acquire().await?;
    let mut tx = connection.begin().await?;
    let taken = sqlx::query!(
        "update join_tokens set used_at = now(), used_for = $3
         where id = $1 and secret_sha256 = $2 and used_at is null and expires_at > now() and (node is null or node = $3)
         returning node",
        id,
        secret_sha256,
        node
    );
    let Some(taken) = taken.fetch_optional(&mut *tx).await? else { return Ok(Joined::NotTaken) };
    // Two that join for one node wait for each other here.
    sqlx::query!("select pg_advisory_xact_lock(hashtextextended('join ' || $1, 0))", node).execute(&mut *tx).await?;
    let has_one = sqlx::query_scalar!(
        "select exists (select from tokens where node = $1 and revoked_at is null
             and (expires_at is null or expires_at > now())) as \"has!\"",
        node
    );
    if taken.node.is_none() && has_one.fetch_one(&mut *tx).await? {
        // Dropped with the transaction, so the join token is still good for a node that has none.
        return Ok(Joined::NodeTaken);
    }
    let revoked = sqlx::query_scalar!(
        "update tokens set revoked_at = now(), version = version + 1 where node = $1 and revoked_at is null returning id",
        node
    );
    let revoked = revoked.fetch_all(&mut *tx).await?;
    let row = credential(minted, node, &format!("join:{id}"));
    tokens::insert(&mut tx, &row).await?;
    tx.commit().await?;
    Ok(Joined::Credential { row: Box::new(row), revoked })
}

/// Adds a credential to a node in place of an older one, which stays good for `grace_s` seconds more: its owner may not have got this answer.
pub async fn rotate(connection: &mut PgConnection, row: &TokenRow, old: &str, grace_s: i32) -> Result<()> {
    let mut tx = connection.begin().await?;
    tokens::insert(&mut tx, row).await?;
    let ends = sqlx::query!(
        "update tokens set expires_at = least(expires_at, now() + make_interval(secs => $3)), version = version + 1
         where id = $1 and node = $2 and revoked_at is null",
        old,
        row.node,
        f64::from(grace_s)
    );
    ends.execute(&mut *tx).await?;
    Ok(tx.commit().await?)
}

/// A node's credential as it will be stored.
pub fn credential(minted: &Minted, node: &str, by: &str) -> TokenRow {
    TokenRow {
        name: format!("the agent of {node}"),
        node: Some(node.to_owned()),
        created_by: Some(by.to_owned()),
        ..TokenRow::of(minted, Role::Agent)
    }
}
