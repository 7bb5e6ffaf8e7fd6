//! What a handler is given.

use crate::auth::Tokens;
use crate::renewals::Renewals;
use crate::rounds::Rounds;
use crate::shared::Shared;
use crate::store::Store;
use std::sync::Arc;

/// What a handler is given.
#[derive(Clone, Debug)]
pub struct App {
    /// The shared state.
    pub shared: Arc<Shared>,
    /// The way into a round.
    pub rounds: Rounds,
    /// Whether this daemon still leads, for reports that renew fenced leases.
    pub renewals: Renewals,
    /// Postgres, for reads.
    pub store: Store,
    /// Who may come in.
    pub tokens: Arc<Tokens>,
}
