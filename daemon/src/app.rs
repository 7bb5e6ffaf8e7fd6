//! What a handler is given.

use crate::access::Tokens;
use crate::access::certificates::Certificates;
use crate::access::oidc::Oidc;
use crate::access::pace::{Pace, Rate};
use crate::admission::Admission;
use crate::audit::Audit;
use crate::forwarding::Forwarder;
use crate::renewals::Renewals;
use crate::rounds::Rounds;
use crate::routes::problem::Refused;
use crate::routes::rules::Rules;
use crate::shared::Shared;
use crate::store::{self, Store, StoreError};
use sqlx::PgPool;
use std::sync::Arc;
use std::time::{Duration, Instant};

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
    /// Who is let in when too many come.
    pub admission: Arc<Admission>,
    /// How long a client may take to send a body.
    pub body_limit: Duration,
    /// Who may come in.
    pub tokens: Arc<Tokens>,
    /// Which right each route takes.
    pub rules: Arc<Rules>,
    /// Where what is called is kept.
    pub audit: Arc<Audit>,
    /// The identity provider whose tokens are taken.
    pub oidc: Option<Arc<Oidc>>,
    /// The client certificates seen so far.
    pub certificates: Arc<Certificates>,
    /// How fast join tokens may be tried, by all together.
    pub joining: Arc<(Pace, Rate)>,
    /// How fast one caller may come.
    pub rate: Rate,
    /// Whether metrics are read without a token.
    pub anonymous_metrics: bool,
    /// When the daemon started: what rates count from.
    pub started: Instant,
    /// The way to the leader.
    pub forwarder: Forwarder,
}

impl App {
    /// Reads tables, for at most as long as a request may wait for them. Refuses at once while the database is known not
    /// to answer; what memory holds need not come through here.
    pub async fn tables<T>(&self, read: impl AsyncFnOnce(&PgPool) -> store::Result<T>) -> Result<T, Refused> {
        if let Some(known) = self.shared.health.complaint().filter(|known| known.trouble.bars_reads()) {
            return Err(Refused::store_unavailable(known.trouble));
        }
        let limit = self.store.limits().read;
        let read = tokio::time::timeout(limit, read(&self.store.reader)).await;
        Ok(read.unwrap_or(Err(StoreError::TooLate(limit)))?)
    }
}
