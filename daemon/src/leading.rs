//! Leadership: waiting for it, taking it, renewing it every third of its life.

use crate::fault_point;
use crate::role::{HELD, Leader, Role, TTL};
use crate::store::leader::{self, Leadership};
use crate::store::trouble::Trouble;
use crate::store::{Result, Store, StoreError};
use sqlx::PgConnection;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// How often a standby looks after the leader.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// How long one look, or one renewal, may take.
const ANSWER_MAX: Duration = Duration::from_secs(2);

/// The leader's seat: the leadership, and the connection that renews it and holds the session lock of a living leader.
#[derive(Debug)]
pub struct Seat {
    /// Under which every round is written.
    pub leadership: Leadership,
    store: Store,
    connection: Option<PgConnection>,
    holds_lock: bool,
    role: Arc<Role>,
    taken: Instant,
}

/// How the keeping of a seat ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kept {
    /// It was given up, and the next daemon need not wait.
    Resigned,
    /// Another daemon has taken the lead.
    Deposed,
}

impl Seat {
    /// Waits for the lead and takes it, for as long as that takes; meanwhile `role` knows who leads. A living leader holds a
    /// session lock; got, it tells that the last one is gone and its expiry need not be waited for. `url` is where this
    /// daemon can be reached.
    pub async fn take(store: &Store, role: &Arc<Role>, url: &str) -> Seat {
        let (mut connection, mut said) = (None, None);
        loop {
            let taken = Instant::now();
            let tried = tokio::time::timeout(ANSWER_MAX, try_once(store, role, url, &mut connection)).await;
            match tried.unwrap_or(Err(StoreError::TooLate(ANSWER_MAX))) {
                Ok(Some(leadership)) => {
                    fault_point::reach("lead-taken");
                    tracing::info!(epoch = leadership.epoch, "took the lead");
                    let (store, role) = (store.clone(), role.clone());
                    return Seat { leadership, store, connection, holds_lock: true, role, taken };
                }
                Ok(None) => said = None,
                Err(error) => {
                    connection = None;
                    let trouble = Trouble::of(&error);
                    if said.replace(trouble) != Some(trouble) {
                        tracing::warn!(%error, "look after the lead");
                    }
                }
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// When the leadership was asked for: it counts from then.
    pub fn taken(&self) -> Instant {
        self.taken
    }

    /// Renews the leadership until it is told to resign or the lead is lost.
    pub async fn keep(mut self, resign: CancellationToken) -> Kept {
        let mut is_well = true;
        loop {
            tokio::select! {
                () = resign.cancelled() => break,
                () = tokio::time::sleep(if is_well { TTL / 3 } else { LOOK_EVERY }) => {}
            }
            // From when it is sent, not answered: the database's clock started in between.
            let sent = Instant::now();
            let renewed = tokio::time::timeout(ANSWER_MAX, self.renew()).await;
            match renewed.unwrap_or(Err(StoreError::TooLate(ANSWER_MAX))) {
                Ok(()) => {
                    self.role.renewed(sent);
                    is_well = true;
                }
                Err(StoreError::Deposed) => return Kept::Deposed,
                Err(error) => {
                    self.connection = None;
                    if std::mem::replace(&mut is_well, false) {
                        tracing::warn!(%error, "renew the lead; not renewed for {HELD:?}, it is not relied on any more");
                    }
                }
            }
        }
        match tokio::time::timeout(ANSWER_MAX, self.resign()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "give up the lead; it expires by itself"),
            Err(_) => tracing::warn!("giving up the lead takes too long; it expires by itself"),
        }
        Kept::Resigned
    }

    async fn renew(&mut self) -> Result<()> {
        let leadership = self.leadership;
        fault_point::reach("lead-before-renewing");
        leader::renew(self.connected().await?, leadership, TTL.as_secs_f64()).await?;
        if !self.holds_lock {
            let epoch = leadership.epoch;
            self.holds_lock = leader::try_alone(self.connected().await?, epoch).await?;
        }
        Ok(())
    }

    async fn resign(&mut self) -> Result<()> {
        let leadership = self.leadership;
        leader::resign(self.connected().await?, leadership).await
    }

    /// The connection, or a new one, if the old one is broken.
    async fn connected(&mut self) -> Result<&mut PgConnection> {
        if self.connection.is_none() {
            self.connection = Some(self.store.connect().await?);
            self.holds_lock = false;
        }
        self.connection.as_mut().ok_or(StoreError::TooLate(ANSWER_MAX))
    }
}

/// Looks who leads, and takes over when nobody does any more.
async fn try_once(
    store: &Store,
    role: &Role,
    url: &str,
    held: &mut Option<PgConnection>,
) -> Result<Option<Leadership>> {
    let connection = match held {
        Some(connection) => connection,
        None => held.insert(store.connect().await?),
    };
    let seen = leader::look(connection).await?;
    let alone = leader::try_alone(connection, seen.leadership.epoch).await?;
    let known = Leader { instance: seen.leadership.instance, epoch: seen.leadership.epoch, url: seen.url };
    let is_other = known.instance != store.instance() && !known.url.is_empty() && known.url != url;
    role.saw(Some(known).filter(|_| is_other && !alone && !seen.expired));
    if !(alone || seen.expired) {
        return Ok(None);
    }
    fault_point::reach("lead-before-taking");
    match leader::take_over(connection, store.instance(), url, alone, TTL.as_secs_f64()).await {
        // A leader that hangs in the middle of a round holds its row. It has had its time: its sessions are ended, which
        // undoes the round. One that is gone has left nothing that lasts.
        Err(error) if Trouble::of(&error) == Trouble::Slow && seen.expired => {
            let ended = leader::end_sessions_of(connection, seen.leadership.instance).await?;
            tracing::warn!(
                epoch = seen.leadership.epoch,
                ended,
                "the last leader hangs in a round; ended its sessions"
            );
            Ok(None)
        }
        taken => taken,
    }
}
