//! Opening the store: the schema brought up to date and the tokens read, for as long as that takes. A database that is away
//! or not fit is waited for, in a state that `/readyz` tells, and not a reason to end: whoever starts us again would meet
//! the same.

use crate::access::Tokens;
use crate::health::Witness;
use crate::shared::Shared;
use crate::store::trouble::Trouble;
use crate::store::{Result, Store};
use std::time::Duration;

/// The pause between two tries: the first, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));

/// Returns once the store can be used.
pub async fn prepare(store: &Store, tokens: &Tokens, shared: &Shared) {
    let mut pause = PAUSES.0;
    while let Err(error) = once(store, tokens).await {
        shared.health.trouble(Witness::Watch, Trouble::of(&error), &error.to_string(), shared.now());
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSES.1);
    }
    shared.health.well(Witness::Watch, shared.now());
}

async fn once(store: &Store, tokens: &Tokens) -> Result<()> {
    store.prepare().await?;
    tokens.load(store).await
}
