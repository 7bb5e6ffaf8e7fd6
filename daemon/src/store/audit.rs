//! Table `audit`: who did what, or was refused. Appended in bulk, never changed (a trigger sees to it).

use super::{Result, column, expect_rows};
use crate::audit::Entry;
use chiptide_api::access::AuditView;
use chrono::{DateTime, Utc};
use sqlx::{FromRow, PgPool, QueryBuilder};

/// Appends these entries.
pub async fn append(pool: &PgPool, entries: &[Entry]) -> Result<()> {
    let text = |of: fn(&Entry) -> String| -> Vec<String> { entries.iter().map(of).collect() };
    let maybe = |of: fn(&Entry) -> Option<String>| -> Vec<Option<String>> { entries.iter().map(of).collect() };
    let times: Vec<DateTime<Utc>> = entries.iter().map(|entry| column(entry.at)).collect();
    let statuses: Vec<i16> = entries.iter().map(|entry| i16::try_from(entry.status).unwrap_or(500)).collect();
    let done = sqlx::query!(
        "insert into audit
             (at, who, name, role, action, target, address, request_id, outcome, status, code, before, after)
         select at, who, name, role, action, target, address, request_id, outcome, status, code, before::jsonb, after::jsonb
         from unnest($1::timestamptz[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[],
                     $8::text[], $9::text[], $10::smallint[], $11::text[], $12::text[], $13::text[])
             as e (at, who, name, role, action, target, address, request_id, outcome, status, code, before, after)",
        &times,
        &text(|entry| entry.who.clone()),
        &text(|entry| entry.name.clone()),
        &maybe(|entry| entry.role.map(|role| role.as_str().to_owned())) as &[Option<String>],
        &text(|entry| entry.action.clone()),
        &maybe(|entry| entry.target.clone()) as &[Option<String>],
        &text(|entry| entry.address.clone()),
        &text(|entry| entry.request_id.clone()),
        &text(|entry| entry.outcome.as_str().to_owned()),
        &statuses,
        &maybe(|entry| entry.code.clone()) as &[Option<String>],
        &maybe(|entry| entry.before.as_ref().map(|before| before.to_string())) as &[Option<String>],
        &maybe(|entry| entry.after.as_ref().map(|after| after.to_string())) as &[Option<String>]
    );
    expect_rows("append to the audit", entries.len(), &done.execute(pool).await?)
}

/// Which entries a list wants.
#[derive(Clone, Debug, Default)]
pub struct AuditFilter {
    /// Of this caller.
    pub who: Option<String>,
    /// Of this method and route.
    pub action: Option<String>,
    /// About this target.
    pub target: Option<String>,
    /// With this outcome.
    pub outcome: Option<String>,
    /// At this moment or later.
    pub from: Option<DateTime<Utc>>,
    /// Before this moment.
    pub to: Option<DateTime<Utc>>,
    /// Before this number: lists go from the newest to the oldest.
    pub before: Option<i64>,
    /// At most so many.
    pub limit: i64,
}

/// One page of the audit, newest first.
pub async fn list(pool: &PgPool, filter: &AuditFilter) -> Result<Vec<AuditView>> {
    let mut query = QueryBuilder::new(
        "select seq, at, who, name, role, action, target, address, request_id, outcome, status, code, before, after
         from audit where true",
    );
    let texts = [
        (" and who = ", &filter.who),
        (" and action = ", &filter.action),
        (" and target = ", &filter.target),
        (" and outcome = ", &filter.outcome),
    ];
    for (clause, value) in texts {
        if let Some(value) = value {
            query.push(clause).push_bind(value);
        }
    }
    if let Some(from) = filter.from {
        query.push(" and at >= ").push_bind(from);
    }
    if let Some(to) = filter.to {
        query.push(" and at < ").push_bind(to);
    }
    if let Some(before) = filter.before {
        query.push(" and seq < ").push_bind(before);
    }
    query.push(" order by seq desc limit ").push_bind(filter.limit);
    Ok(query.build_query_as::<AuditRow>().fetch_all(pool).await?.into_iter().map(AuditRow::view).collect())
}

#[derive(FromRow)]
struct AuditRow {
    seq: i64,
    at: DateTime<Utc>,
    who: String,
    name: String,
    role: Option<String>,
    action: String,
    target: Option<String>,
    address: String,
    request_id: String,
    outcome: String,
    status: i16,
    code: Option<String>,
    before: Option<serde_json::Value>,
    after: Option<serde_json::Value>,
}

impl AuditRow {
    fn view(self) -> AuditView {
        AuditView {
            seq: self.seq.unsigned_abs(),
            at: self.at,
            who: self.who,
            name: self.name,
            role: self.role,
            action: self.action,
            target: self.target,
            address: self.address,
            request_id: self.request_id,
            outcome: self.outcome,
            status: self.status.unsigned_abs(),
            code: self.code,
            before: self.before,
            after: self.after,
        }
    }
}
