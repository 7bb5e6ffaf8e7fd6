//! Table `policies`: every policy that was ever in force, by whom and why.

use super::{Result, column, json, moment, signed, unjson};
use chiptide_model::{Event, Policy, Timestamp};
use chrono::{DateTime, Utc};
use sqlx::{PgConnection, PgPool};

/// The author of a policy that came from the daemon's policy file.
pub const FILE: &str = "policy file";
/// The author of the policy that a new cluster starts with.
pub const START: &str = "first start";

/// A policy as it came into force.
#[derive(Clone, PartialEq, Debug)]
pub struct PolicyVersion {
    /// The policy with its version.
    pub policy: Policy,
    /// Who put it in force.
    pub author: String,
    /// Why, in their words; may be empty.
    pub reason: String,
    /// When.
    pub applied_at: Timestamp,
}

struct Row {
    version: i64,
    applied_at: DateTime<Utc>,
    author: String,
    reason: String,
    body: serde_json::Value,
}

impl Row {
    fn version(self) -> Result<PolicyVersion> {
        Ok(PolicyVersion {
            policy: unjson("policies", &self.version, self.body)?,
            author: self.author,
            reason: self.reason,
            applied_at: moment(self.applied_at),
        })
    }
}

/// The policies that came into force among the events of a round.
pub fn among(events: &[(Timestamp, Event)]) -> Vec<PolicyVersion> {
    let applied = events.iter().filter_map(|(at, event)| match event {
        Event::PolicyApplied { policy, author, reason } => Some(PolicyVersion {
            policy: policy.clone(),
            author: author.clone(),
            reason: reason.clone(),
            applied_at: *at,
        }),
        _ => None,
    });
    applied.collect()
}

/// Records a policy that comes into force.
pub async fn insert(tx: &mut PgConnection, version: &PolicyVersion) -> Result<()> {
    sqlx::query!(
        "insert into policies (version, applied_at, author, reason, body) values ($1, $2, $3, $4, $5::text::jsonb)",
        signed(version.policy.version),
        column(version.applied_at),
        version.author,
        version.reason,
        json(&version.policy)
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

/// The last policy that came from the policy file. Those of the time before authors were recorded all did.
pub async fn last_of_file(pool: &PgPool) -> Result<Option<Policy>> {
    let row =
        sqlx::query!("select version, body from policies where author in ($1, '') order by version desc limit 1", FILE);
    row.fetch_optional(pool).await?.map(|row| unjson("policies", &row.version, row.body)).transpose()
}

/// One version.
pub async fn get(pool: &PgPool, version: u64) -> Result<Option<PolicyVersion>> {
    let row = sqlx::query_as!(
        Row,
        "select version, applied_at, author, reason, body from policies where version = $1",
        signed(version)
    );
    row.fetch_optional(pool).await?.map(Row::version).transpose()
}

/// Versions before `before`, newest first.
pub async fn list(pool: &PgPool, before: Option<u64>, limit: i64) -> Result<Vec<PolicyVersion>> {
    let rows = sqlx::query_as!(
        Row,
        "select version, applied_at, author, reason, body from policies where version < $1
         order by version desc limit $2",
        before.map_or(i64::MAX, signed),
        limit
    );
    rows.fetch_all(pool).await?.into_iter().map(Row::version).collect()
}
