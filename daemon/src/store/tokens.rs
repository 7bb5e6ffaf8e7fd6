//! Table `tokens`: bearer tokens, kept as hashes. A row is never removed, only revoked.

use super::{Result, column};
use crate::access::tokens::Minted;
use chiptide_api::access::{Role, TokenView};
use chiptide_model::Timestamp;
use chrono::{DateTime, Utc};
use sqlx::{PgConnection, PgPool};

/// A token as stored, as far as it opens something.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TokenRow {
    /// Its public part.
    pub id: String,
    /// SHA-256 of its secret part.
    pub secret_sha256: Vec<u8>,
    /// What it is for.
    pub name: String,
    /// What it allows.
    pub role: String,
    /// The queues of a scheduler.
    pub queues: Vec<String>,
    /// The node of an agent.
    pub node: Option<String>,
    /// Who made it.
    pub created_by: Option<String>,
    /// When it becomes void.
    pub expires_at: Option<DateTime<Utc>>,
    /// Grows with every change.
    pub version: i64,
}

impl TokenRow {
    /// A token of this role, for nothing and nobody in particular.
    pub fn of(minted: &Minted, role: Role) -> TokenRow {
        TokenRow {
            id: minted.id.clone(),
            secret_sha256: minted.secret_sha256.clone(),
            name: String::new(),
            role: role.as_str().to_owned(),
            queues: Vec::new(),
            node: None,
            created_by: None,
            expires_at: None,
            version: 1,
        }
    }
}

/// Every token that is not revoked and not long void.
pub async fn in_force(pool: &PgPool) -> Result<Vec<TokenRow>> {
    let rows = sqlx::query_as!(
        TokenRow,
        "select id, secret_sha256, name, role, queues, node, created_by, expires_at, version from tokens
         where revoked_at is null and (expires_at is null or expires_at > now() - interval '1 hour')"
    );
    Ok(rows.fetch_all(pool).await?)
}

/// One token that is not revoked, by its public part.
pub async fn find_in_force(pool: &PgPool, id: &str) -> Result<Option<TokenRow>> {
    let row = sqlx::query_as!(
        TokenRow,
        "select id, secret_sha256, name, role, queues, node, created_by, expires_at, version from tokens
         where id = $1 and revoked_at is null",
        id
    );
    Ok(row.fetch_optional(pool).await?)
}

/// A number that differs whenever the tokens in force may be others.
pub async fn changes(pool: &PgPool) -> Result<i64> {
    let sum = sqlx::query_scalar!("select coalesce(sum(version), 0)::bigint as \"sum!\" from tokens");
    Ok(sum.fetch_one(pool).await?)
}

/// Adds a token.
pub async fn insert(connection: &mut PgConnection, row: &TokenRow) -> Result<DateTime<Utc>> {
    let created = sqlx::query_scalar!(
        "insert into tokens (id, secret_sha256, name, role, queues, node, created_by, expires_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8) returning created_at",
        row.id,
        row.secret_sha256,
        row.name,
        row.role,
        &row.queues,
        row.node,
        row.created_by,
        row.expires_at
    );
    Ok(created.fetch_one(connection).await?)
}

/// Revokes a token, if it is there; one that is revoked already stays as it is.
pub async fn revoke(connection: &mut PgConnection, id: &str) -> Result<()> {
    let revoke = sqlx::query!(
        "update tokens set revoked_at = now(), version = version + 1 where id = $1 and revoked_at is null",
        id
    );
    revoke.execute(connection).await?;
    Ok(())
}

/// One token as it is told.
pub async fn get(connection: &mut PgConnection, id: &str) -> Result<Option<TokenView>> {
    let row = sqlx::query_as!(
        ToldRow,
        "select id, name, role, queues, node, created_by, created_at, expires_at, revoked_at, last_used_at
         from tokens where id = $1",
        id
    );
    Ok(row.fetch_optional(connection).await?.map(ToldRow::view))
}

/// One page of tokens, newest first, from before this one on.
pub async fn list(pool: &PgPool, before: Option<(DateTime<Utc>, String)>, limit: i64) -> Result<Vec<TokenView>> {
    let (at, id) = before.unzip();
    let rows = sqlx::query_as!(
        ToldRow,
        "select id, name, role, queues, node, created_by, created_at, expires_at, revoked_at, last_used_at
         from tokens where $1::timestamptz is null or (created_at, id) < ($1, $2)
         order by created_at desc, id desc limit $3",
        at,
        id,
        limit
    );
    Ok(rows.fetch_all(pool).await?.into_iter().map(ToldRow::view).collect())
}

/// Writes down when tokens were last used.
pub async fn write_uses(pool: &PgPool, uses: &[(String, Timestamp)]) -> Result<()> {
    if uses.is_empty() {
        return Ok(());
    }
    let (ids, times): (Vec<String>, Vec<DateTime<Utc>>) = uses.iter().map(|(id, at)| (id.clone(), column(*at))).unzip();
    let write = sqlx::query!(
        "update tokens t set last_used_at = greatest(t.last_used_at, u.at)
         from unnest($1::text[], $2::timestamptz[]) as u (id, at) where t.id = u.id",
        &ids,
        &times
    );
    write.execute(pool).await?;
    Ok(())
}

/// A token as it is told.
struct ToldRow {
    id: String,
    name: String,
    role: String,
    queues: Vec<String>,
    node: Option<String>,
    created_by: Option<String>,
    created_at: DateTime<Utc>,
    expires_at: Option<DateTime<Utc>>,
    revoked_at: Option<DateTime<Utc>>,
    last_used_at: Option<DateTime<Utc>>,
}

impl ToldRow {
    fn view(self) -> TokenView {
        TokenView {
            id: self.id,
            name: self.name,
            // The table's check knows no other; of one that a later version adds, nothing more is allowed than here.
            role: Role::named(&self.role).unwrap_or(Role::Agent),
            queues: self.queues,
            node: self.node,
            created_by: self.created_by,
            created_at: self.created_at,
            expires_at: self.expires_at,
            revoked_at: self.revoked_at,
            last_used_at: self.last_used_at,
        }
    }
}
