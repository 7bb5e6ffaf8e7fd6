//! Table `events`: the append-only log.

use super::leader::Leadership;
use super::{Result, StoreError, column, expect_rows, json, moment, signed, unjson};
use chiptide_model::{Event, Timestamp};
use chrono::{DateTime, Utc};
use sqlx::{PgConnection, PgPool};

/// Appends the events of one round, the first of them numbered `first`. The leader's guard (see
/// [`super::leader::guard`]) is part of the statement: a deposed leader appends nothing and is told so.
pub async fn append(
    tx: &mut PgConnection,
    leadership: Leadership,
    first: u64,
    events: &[(Timestamp, Event)],
) -> Result<()> {
    let seqs: Vec<i64> = (first..).take(events.len()).map(signed).collect();
    let kinds: Vec<String> = events.iter().map(|(_, event)| event.kind().to_owned()).collect();
    let bodies: Vec<String> = events.iter().map(|(_, event)| json(event)).collect();
    let times: Vec<DateTime<Utc>> = events.iter().map(|(at, _)| column(*at)).collect();
    let done = sqlx::query!(
        "with guard as materialized (select 1 from leader where instance = $6 and epoch = $3 for share)
         insert into events (seq, at, epoch, kind, body)
         select seq, at, $3, kind, body::jsonb
         from unnest($1::bigint[], $2::timestamptz[], $4::text[], $5::text[]) as e (seq, at, kind, body)
         where exists (select from guard)",
        &seqs,
        &times,
        signed(leadership.epoch),
        &kinds,
        &bodies,
        leadership.instance
    )
    .execute(tx)
    .await?;
    if done.rows_affected() == 0 && !events.is_empty() {
        return Err(StoreError::Deposed);
    }
    expect_rows("append events", events.len(), &done)
}

/// The log from `after` on, at most `limit` events: number, time, event.
pub async fn read(pool: &PgPool, after: u64, limit: i64) -> Result<Vec<(u64, Timestamp, Event)>> {
    let rows =
        sqlx::query!("select seq, at, body from events where seq > $1 order by seq limit $2", signed(after), limit)
            .fetch_all(pool)
            .await?;
    rows.into_iter()
        .map(|row| {
            Ok((super::unsigned("events", &row.seq, row.seq)?, moment(row.at), unjson("events", &row.seq, row.body)?))
        })
        .collect()
}

/// Number of the last event, for readers.
pub async fn end(pool: &PgPool) -> Result<u64> {
    last_seq(&mut *pool.acquire().await?).await
}

/// Number of the last event.
pub async fn last_seq(tx: &mut PgConnection) -> Result<u64> {
    let seq = sqlx::query_scalar!("select coalesce(max(seq), 0) as \"seq!\" from events").fetch_one(tx).await?;
    super::unsigned("events", &"max", seq)
}

/// When the last event happened; `None` in a new log.
pub async fn last_at(tx: &mut PgConnection) -> Result<Option<Timestamp>> {
    let at = sqlx::query_scalar!("select at from events order by seq desc limit 1").fetch_optional(tx).await?;
    Ok(at.map(moment))
}
