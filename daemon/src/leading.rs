//! Leadership: taking it, renewing it every third of its life, warning when it is not renewed in two thirds.

use crate::fault_point;
use crate::store::StoreError;
use crate::store::leader::{self, Leadership};
use anyhow::Context;
use sqlx::{Connection, PgConnection};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// How long a leadership lives unless renewed.
pub const TTL: Duration = Duration::from_secs(6);

/// The leader's seat: the leadership, and the connection that renews it and holds the session lock of a living leader.
#[derive(Debug)]
pub struct Seat {
    /// Under which every round is written.
    pub leadership: Leadership,
    url: String,
    connection: PgConnection,
}

impl Seat {
    /// Waits for the lead and takes it. A living leader holds a session lock; got, it tells that the last one is gone
    /// and its expiry need not be waited for.
    pub async fn take(url: &str) -> anyhow::Result<Seat> {
        let instance = Uuid::new_v4();
        let mut connection = PgConnection::connect(url).await.context("connect for the leader's lock")?;
        let mut told = false;
        loop {
            let alone = leader::try_alone(&mut connection).await.context("try the leader's lock")?;
            fault_point::reach("lead-before-taking");
            let taken = leader::take_over(&mut connection, instance, alone, TTL.as_secs_f64()).await;
            if let Some(leadership) = taken.context("take the lead")? {
                fault_point::reach("lead-taken");
                tracing::info!(epoch = leadership.epoch, "took the lead");
                return Ok(Seat { leadership, url: url.to_owned(), connection });
            }
            if !told {
                tracing::warn!("another daemon leads this database; waiting for it to go");
                told = true;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Renews the leadership until it is told to resign (`Ok`) or the lead is lost (an error).
    pub async fn keep(mut self, resign: CancellationToken) -> anyhow::Result<()> {
        let mut renewed = Instant::now();
        loop {
            tokio::select! {
                () = resign.cancelled() => break,
                () = tokio::time::sleep(TTL / 3) => {}
            }
            let started = Instant::now();
            match tokio::time::timeout(TTL / 3, self.renew()).await {
                Ok(Ok(())) => renewed = started,
                Ok(Err(StoreError::Deposed)) => anyhow::bail!("another daemon has taken the lead"),
                Ok(Err(error)) => tracing::warn!(%error, "renew the lead"),
                Err(_) => tracing::warn!("renewing the lead takes too long"),
            }
            if renewed.elapsed() > TTL * 2 / 3 {
                let age_ms = renewed.elapsed().as_millis() as u64;
                tracing::warn!(age_ms, "the lead is not renewed; every commit is still fenced by its epoch");
            }
        }
        leader::resign(&mut self.connection, self.leadership).await.context("give up the lead")
    }

    /// Renews, over a new connection if the old one is broken; the new one takes the session lock as well.
    async fn renew(&mut self) -> Result<(), StoreError> {
        if self.connection.ping().await.is_err() {
            self.connection = PgConnection::connect(&self.url).await?;
            leader::try_alone(&mut self.connection).await?;
        }
        fault_point::reach("lead-before-renewing");
        leader::renew(&mut self.connection, self.leadership, TTL.as_secs_f64()).await
    }
}
