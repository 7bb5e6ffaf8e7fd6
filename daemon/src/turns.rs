//! Standing by and leading, in turns: a daemon that loses the lead becomes a standby again, in the same process.

use crate::following;
use crate::forwarding::Forwarder;
use crate::leading::Seat;
use crate::metrics;
use crate::rounds::Rounds;
use crate::shared::Shared;
use crate::store::trouble::Trouble;
use crate::store::{Store, StoreError};
use crate::term::{Ended, Term};
use crate::whole_file;
use anyhow::Context;
use chiptide_model::Policy;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// The pause before the lead is tried for again, after it could not be taken up.
const PAUSE: Duration = Duration::from_secs(1);

/// What both turns need.
#[derive(Debug)]
pub(crate) struct Turns {
    pub(crate) shared: Arc<Shared>,
    pub(crate) store: Store,
    pub(crate) rounds: Rounds,
    pub(crate) forwarder: Forwarder,
    /// Where this daemon listens.
    pub(crate) base: String,
    /// Where other daemons reach it.
    pub(crate) url: String,
    pub(crate) data_dir: PathBuf,
}

impl Turns {
    /// Takes turns until `stop` is cancelled, and answers the term under way then; an error when something of ours broke.
    pub(crate) async fn take(
        &self,
        mut policy: Option<Policy>,
        stop: &CancellationToken,
    ) -> anyhow::Result<Option<Term>> {
        metrics::leading(false);
        loop {
            let Some(seat) = self.stand_by(stop).await? else { return Ok(None) };
            let epoch = seat.leadership.epoch;
            // Only the first time: later another daemon, or an admin, may have put another policy in force.
            let mut term = match Term::begin(&self.shared, &self.store, &self.rounds, seat, policy.take()).await {
                Ok(term) => term,
                Err(error) if may_pass(&error) => {
                    tracing::warn!("could not take up the lead: {error:#}");
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
                Err(error) => return Err(error),
            };
            self.tell_url()?;
            tracing::info!(url = %self.base, epoch, "serving");
            let ended = tokio::select! {
                () = stop.cancelled() => return Ok(Some(term)),
                ended = term.lost() => ended,
            };
            term.clear().await;
            match ended {
                Ended::Deposed => tracing::warn!(epoch, "another daemon has taken the lead; standing by"),
                Ended::Broken(error) => return Err(error),
            }
        }
    }

    /// Follows the leader until the lead is ours; `None` when `stop` is cancelled first.
    async fn stand_by(&self, stop: &CancellationToken) -> anyhow::Result<Option<Seat>> {
        let over = CancellationToken::new();
        let following = tokio::spawn(following::follow(self.shared.clone(), self.store.clone(), over.clone()));
        let probing = tokio::spawn(self.forwarder.clone().probe(self.shared.role.clone(), over.clone()));
        let told = async {
            self.shared.role.standing_by().await;
            self.tell_url()?;
            tracing::info!(url = %self.base, leader = self.shared.role.leader().map(|leader| leader.url), "standing by");
            std::future::pending::<anyhow::Result<()>>().await
        };
        let seat = tokio::select! {
            seat = Seat::take(&self.store, &self.shared.role, &self.url) => Ok(Some(seat)),
            () = stop.cancelled() => Ok(None),
            failed = told => failed.map(|()| None),
        };
        over.cancel();
        following.await.context("join the following")?;
        probing.await.context("join the asking after the leader")?;
        seat
    }

    /// Says in a file where we serve, for whoever has started us.
    fn tell_url(&self) -> anyhow::Result<()> {
        whole_file::write(&self.data_dir.join("daemon.url"), &self.base, 0o644).context("write daemon.url")
    }
}

/// Whether the lead may be taken up another time: it was the database's fault, or another was faster.
fn may_pass(error: &anyhow::Error) -> bool {
    match error.downcast_ref::<StoreError>() {
        Some(StoreError::Deposed) => true,
        Some(error) => Trouble::of(error) != Trouble::Inconsistent,
        None => false,
    }
}
