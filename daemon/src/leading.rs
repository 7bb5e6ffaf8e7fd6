//! Leadership: taking it, renewing it every third of its life, giving it up locally at two thirds.

use crate::store::leader::{self, Leadership};
use crate::store::{Store, StoreError};
use anyhow::Context;
use sqlx::{Connection, PgConnection};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// How long a leadership lives unless renewed.
pub const TTL: Duration = Duration::from_secs(6);

/// Waits for the lead and takes it. A living leader holds a session lock; got, it tells that the last one is gone and its
/// expiry need not be waited for. The returned connection holds that lock and must live as long as the leadership.
pub async fn take(store: &Store, url: &str) -> anyhow::Result<(Leadership, PgConnection)> {
    let instance = Uuid::new_v4();
    let mut connection = PgConnection::connect(url).await.context("connect for the leader's lock")?;
    let mut told = false;
    loop {
        let alone = leader::try_alone(&mut connection).await.context("try the leader's lock")?;
        let taken = leader::take_over(&store.writer, instance, alone, TTL.as_secs_f64()).await;
        if let Some(leadership) = taken.context("take the lead")? {
            tracing::info!(epoch = leadership.epoch, "took the lead");
            return Ok((leadership, connection));
        }
        if !told {
            tracing::warn!("another daemon leads this database; waiting for it to go");
            told = true;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Renews the leadership until it is cancelled (`Ok`) or lost (an error).
pub async fn keep(store: Store, leadership: Leadership, stop: CancellationToken) -> anyhow::Result<()> {
    let mut renewed = Instant::now();
    loop {
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = tokio::time::sleep(TTL / 3) => {}
        }
        let started = Instant::now();
        let renewal = tokio::time::timeout(TTL / 3, leader::renew(&store.writer, leadership, TTL.as_secs_f64())).await;
        match renewal {
            Ok(Ok(())) => renewed = started,
            Ok(Err(StoreError::Deposed)) => anyhow::bail!("another daemon has taken the lead"),
            Ok(Err(error)) => tracing::warn!(%error, "renew the lead"),
            Err(_) => tracing::warn!("renewing the lead takes too long"),
        }
        if renewed.elapsed() > TTL * 2 / 3 {
            tracing::warn!(
                age_ms = renewed.elapsed().as_millis() as u64,
                "the lead is not renewed; every commit is still fenced by its epoch"
            );
        }
    }
}
