//! Keeps the tokens in memory as the table has them, and writes down, now and then, when each was last used.

use super::tokens::Tokens;
use crate::store::{Result, Store, tokens};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// How often the table is looked at: so long may a token that was revoked at another daemon still be taken for good here,
/// while the database answers.
pub const EVERY: Duration = Duration::from_secs(2);
/// How often last uses are written down.
const WRITE_EVERY: Duration = Duration::from_secs(30);

/// Keeps them until `stop` is cancelled, then writes down what is left.
pub async fn keep(tokens: Arc<Tokens>, store: Store, stop: CancellationToken) {
    let (mut seen, mut written, mut is_well) = (None, Instant::now(), true);
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            () = tokio::time::sleep(EVERY) => {}
        }
        let mut done = look(&tokens, &store, &mut seen).await;
        if done.is_ok() && written.elapsed() >= WRITE_EVERY {
            written = Instant::now();
            done = tokens::write_uses(&store.reader, &tokens.uses()).await;
        }
        if let Err(error) = &done
            && is_well
        {
            tracing::warn!(%error, "keep the tokens");
        }
        is_well = done.is_ok();
    }
    if let Err(error) = tokens::write_uses(&store.reader, &tokens.uses()).await {
        tracing::warn!(%error, "write down when tokens were last used");
    }
}

/// Reads the table again if it has changed.
async fn look(tokens: &Tokens, store: &Store, seen: &mut Option<i64>) -> Result<()> {
    let now = tokens::changes(&store.reader).await?;
    if *seen != Some(now) {
        tokens.load(store).await?;
        *seen = Some(now);
    }
    Ok(())
}
