//! Tables `queue_usage` and `queue_preemptions`: what the queues used of late, and when their jobs were preempted.

use super::{Result, StoreError, column, moment, signed, unsigned};
use chiptide_allocator::{PastUse, QueuePast};
use chiptide_model::{DeviceClass, Timestamp};
use chrono::{DateTime, Utc};
use sqlx::PgConnection;

/// Replaces what is kept of these queues.
pub async fn replace(tx: &mut PgConnection, past: &[QueuePast]) -> Result<()> {
    let idle = past.iter().filter(|queue| queue.uses.is_empty());
    let idle: Vec<String> = idle.map(|queue| queue.queue.clone()).collect();
    if !idle.is_empty() {
        sqlx::query!("delete from queue_usage where queue = any($1)", &idle).execute(&mut *tx).await?;
    }
    let rows = || past.iter().flat_map(|queue| &queue.uses);
    let of: Vec<String> = rows().map(|row| row.queue.clone()).collect();
    let classes: Vec<String> = rows().map(|row| row.class.to_string()).collect();
    let averages: Vec<i64> = rows().map(|row| signed(row.average)).collect();
    let as_of: Vec<DateTime<Utc>> = rows().map(|row| column(row.as_of)).collect();
    sqlx::query!(
        "insert into queue_usage (queue, device_class, average, as_of)
         select queue, device_class, average, as_of
         from unnest($1::text[], $2::text[], $3::bigint[], $4::timestamptz[]) as u (queue, device_class, average, as_of)
         on conflict (queue, device_class) do update set average = excluded.average, as_of = excluded.as_of",
        &of,
        &classes,
        &averages,
        &as_of
    )
    .execute(&mut *tx)
    .await?;
    for queue in past.iter().filter(|queue| queue.is_newly_preempted) {
        let at: Vec<DateTime<Utc>> = queue.preempted.iter().map(|at| column(*at)).collect();
        sqlx::query!(
            "insert into queue_preemptions (queue, at) values ($1, $2)
             on conflict (queue) do update set at = excluded.at",
            queue.queue,
            &at
        )
        .execute(&mut *tx)
        .await?;
    }
    Ok(())
}

/// What every queue used of late.
pub async fn load_uses(tx: &mut PgConnection) -> Result<Vec<PastUse>> {
    let rows = sqlx::query!("select queue, device_class, average, as_of from queue_usage order by 1, 2");
    let rows = rows.fetch_all(tx).await?;
    let read = rows.into_iter().map(|row| {
        Ok(PastUse {
            class: DeviceClass::new(&row.device_class).map_err(|error| StoreError::Unreadable {
                table: "queue_usage",
                row: row.queue.clone(),
                detail: error.to_string(),
            })?,
            average: unsigned("queue_usage", &row.queue, row.average)?,
            as_of: moment(row.as_of),
            queue: row.queue,
        })
    });
    read.collect()
}

/// When jobs of each queue were preempted.
pub async fn load_preempted(tx: &mut PgConnection) -> Result<Vec<(String, Vec<Timestamp>)>> {
    let rows = sqlx::query!("select queue, at from queue_preemptions order by queue").fetch_all(tx).await?;
    Ok(rows.into_iter().map(|row| (row.queue, row.at.into_iter().map(moment).collect())).collect())
}
