//! Reads the event log straight from Postgres, where it was committed. It never asks the daemon and never writes.

use crate::audit::Entry;
use anyhow::Context;
use chiptide_model::Event;
use futures_util::TryStreamExt;
use sqlx::types::Json;
use sqlx::{Connection, PgConnection};

/// Every event committed so far, in order.
pub async fn read(postgres_url: &str) -> anyhow::Result<Vec<Entry>> {
    let mut postgres = PgConnection::connect(postgres_url).await.context("connect to Postgres for the audit")?;
    let sql = "select seq, (extract(epoch from at) * 1000)::bigint, epoch, body from events order by seq";
    let mut rows = sqlx::query_as::<_, (i64, i64, i64, Json<Event>)>(sql).fetch(&mut postgres);
    let mut log = Vec::new();
    while let Some((seq, at_ms, epoch, Json(event))) = rows.try_next().await.context("read the event log")? {
        let leader_epoch = u64::try_from(epoch).context("read the epoch of an event")?;
        log.push(Entry { seq, at_ms, leader_epoch, event });
    }
    drop(rows);
    postgres.close().await.context("close the audit's connection")?;
    Ok(log)
}
