//! Asks the database once a second whether it serves, on a connection of its own: an idle daemon notices an outage too, and
//! a failover. Only looks; the rounds find out for themselves what they can write.

use crate::health::{Health, Witness};
use crate::shared::Shared;
use crate::store::identity::{self, Identity};
use crate::store::trouble::Trouble;
use crate::store::{Result, Store, StoreError, durability};
use sqlx::PgConnection;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How often it asks.
const EVERY: Duration = Duration::from_secs(1);
/// How long an answer may take.
const ANSWER_MAX: Duration = Duration::from_secs(2);

/// Watches until `stop` is cancelled.
pub async fn watch(store: Store, shared: Arc<Shared>, stop: CancellationToken) {
    let mut connection = None;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(EVERY) => {}
        }
        match tokio::time::timeout(ANSWER_MAX, look(&store, &shared.health, &mut connection)).await {
            Ok(Ok(())) => shared.health.well(Witness::Watch, shared.now()),
            Ok(Err(error)) => {
                connection = None;
                shared.health.trouble(Witness::Watch, Trouble::of(&error), &error.to_string(), shared.now());
            }
            Err(_) => {
                connection = None;
                let late = StoreError::TooLate(ANSWER_MAX);
                shared.health.trouble(Witness::Watch, Trouble::Slow, &late.to_string(), shared.now());
            }
        }
    }
}

async fn look(store: &Store, health: &Health, held: &mut Option<PgConnection>) -> Result<()> {
    let connection = match held {
        Some(connection) => connection,
        None => {
            let mut connection = store.connect().await?;
            health.warn(durability::warnings(&mut connection).await?);
            identify(&mut connection, health).await;
            held.insert(connection)
        }
    };
    crate::store::is_writable(connection).await
}

/// Reads which database it is, and says so when it has become another.
async fn identify(connection: &mut PgConnection, health: &Health) {
    let now = match identity::read(connection).await {
        Ok(now) => now,
        // An account that may not read the control file: then a failover shows only in what was lost.
        Err(error) => return tracing::debug!(%error, "read which database this is"),
    };
    let before = match health.identified(now) {
        Some(before) => Some(before),
        None => identity::noted(connection).await.unwrap_or_default(),
    };
    if let Some(before) = before.filter(|before| *before != now) {
        tell_failover(before, now);
    }
}

fn tell_failover(before: Identity, now: Identity) {
    if before.system_identifier != now.system_identifier {
        tracing::error!(?before, ?now, "this is another database than before: a copy, or one restored from a backup?");
    } else {
        let (before, now) = (before.timeline, now.timeline);
        tracing::error!(before, now, "the database is on another timeline: a replica was promoted");
    }
}
