//! Whether the database is the one it was. A promoted replica or a restored backup may have forgotten grants that nodes have
//! acted on: then no session counts any more, and every node has to register and say which epochs it has seen.

use crate::store::identity::{self, Identity};
use crate::store::{Result, Store};

/// What is known of the database that a leader has just read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Sighting {
    /// To be noted with the round that answers it.
    pub(super) now: Identity,
    /// Set when it is another one than was noted, for the log.
    pub(super) replaced: Option<String>,
}

/// Compares the database with the one last noted; `None` when nothing has changed, or when we may not know.
pub(super) async fn look(store: &Store) -> Result<Option<Sighting>> {
    let mut connection = store.connect().await?;
    let now = match identity::read(&mut connection).await {
        Ok(now) => now,
        Err(error) => {
            // An account that may not read the control file: then a failover shows only in what nodes refuse.
            tracing::debug!(%error, "read which database this is");
            return Ok(None);
        }
    };
    let before = identity::noted(&mut connection).await?;
    let replaced = before.filter(|before| *before != now).map(|before| describe(before, now));
    if let Some(detail) = &replaced {
        tracing::error!(detail, "the database is not the one it was; every node has to register anew");
    }
    Ok((before != Some(now)).then_some(Sighting { now, replaced }))
}

fn describe(before: Identity, now: Identity) -> String {
    if before.system_identifier == now.system_identifier {
        return format!("timeline {} after {}", now.timeline, before.timeline);
    }
    format!("system {} after {}", now.system_identifier, before.system_identifier)
}
