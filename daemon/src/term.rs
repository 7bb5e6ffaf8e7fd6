//! One term of leadership: the rounds, the renewal and the watch of silent nodes, from taking the seat to losing it or
//! giving it up.

use crate::health::Witness;
use crate::leading::{Kept, Seat};
use crate::metrics;
use crate::rounds::{self, Led, Rounds};
use crate::shared::Shared;
use crate::store::{Store, StoreError, idempotency_keys};
use crate::usage;
use anyhow::Context;
use chiptide_allocator::Command;
use chiptide_model::Policy;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// How often to look for silent nodes.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// A term under way.
#[derive(Debug)]
pub struct Term {
    shared: Arc<Shared>,
    rounds: Rounds,
    led: Led,
    keeping: JoinHandle<Kept>,
    resign: CancellationToken,
    silence: JoinHandle<()>,
    accounts: JoinHandle<()>,
    over: CancellationToken,
}

/// How a term ended.
#[derive(Debug)]
pub enum Ended {
    /// Another daemon has taken the lead.
    Deposed,
    /// By a fault of ours, which whoever starts the daemon has to see.
    Broken(anyhow::Error),
}

impl Term {
    /// Takes up the lead from this seat: reads the cluster, writes the takeover, opens the queue. Fails when the database
    /// does, or another has taken the seat meanwhile.
    pub async fn begin(
        shared: &Arc<Shared>,
        store: &Store,
        rounds: &Rounds,
        seat: Seat,
        policy: Option<Policy>,
    ) -> anyhow::Result<Term> {
        let (leadership, taken) = (seat.leadership, seat.taken());
        let resign = CancellationToken::new();
        // Renewed from now on: reading a large cluster may take longer than the leadership lasts.
        shared.role.lead(leadership.epoch, taken);
        let keeping = tokio::spawn(seat.keep(resign.clone()));
        // The connections of an earlier term belong to its runtime, which is gone.
        let writing = store.with_new_writer();
        let led = rounds::spawn(shared.clone(), writing, leadership, rounds.open(), policy);
        let led = async {
            let mut led = led?;
            led.leading().await.map(|()| led)
        };
        let led = match led.await {
            Ok(led) => led,
            Err(error) => {
                rounds.close();
                keeping.abort();
                shared.role.step_down();
                return Err(error);
            }
        };
        shared.set_ready(true);
        metrics::took_over();
        let over = CancellationToken::new();
        let silence = tokio::spawn(watch_silence(shared.clone(), rounds.clone(), store.clone(), over.clone()));
        let accounts = tokio::spawn(usage::keep(shared.clone(), store.clone(), leadership, over.clone()));
        Ok(Term { shared: shared.clone(), rounds: rounds.clone(), led, keeping, resign, silence, accounts, over })
    }

    /// Waits for the end that nobody asked for.
    ///
    /// Cancel-safe: an end that comes while nobody waits is told to the next call.
    pub async fn lost(&mut self) -> Ended {
        let ended = tokio::select! {
            ended = self.led.ended() => match ended {
                Err(error) if is_deposed(&error) => Ended::Deposed,
                Err(error) => Ended::Broken(error),
                Ok(()) => Ended::Broken(anyhow::anyhow!("the round loop ended by itself")),
            },
            kept = &mut self.keeping => match kept {
                Ok(_) => Ended::Deposed,
                Err(error) => Ended::Broken(anyhow::Error::new(error).context("the renewal broke")),
            },
        };
        // From here on nothing is answered as the leader.
        self.shared.role.step_down();
        self.shared.set_ready(false);
        ended
    }

    /// Clears away what a lost term has left: callers still waiting get their answers or an error.
    pub async fn clear(mut self) {
        self.rounds.close();
        self.over.cancel();
        self.keeping.abort();
        // How it ended is known by now.
        let _ = self.led.ended().await;
        // What these rounds met with the database ends with them: nobody else would take it back.
        self.shared.health.well(Witness::Rounds, self.shared.now());
        if let Err(error) = self.accounts.await {
            tracing::error!(%error, "the keeping of accounts broke");
        }
        if let Err(error) = self.silence.await {
            tracing::error!(%error, "the watch of silent nodes broke");
        }
        self.shared.watchers.wake_all();
    }

    /// Ends the term in order: what has come in is committed, then the lead is given up.
    pub async fn resign(mut self) -> anyhow::Result<()> {
        self.over.cancel();
        self.silence.await.context("join the watch of silent nodes")?;
        self.accounts.await.context("join the keeping of accounts")?;
        self.rounds.close();
        let ended = self.led.ended().await;
        self.resign.cancel();
        self.keeping.await.context("join the renewal")?;
        self.shared.role.step_down();
        match ended {
            Err(error) if is_deposed(&error) => Ok(()),
            ended => ended,
        }
    }
}

/// Whether an error means that another daemon has taken the lead.
pub fn is_deposed(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref::<StoreError>(), Some(StoreError::Deposed))
}

/// Watches for nodes that do not report any more; and, since it is awake anyway, forgets old idempotency keys.
async fn watch_silence(shared: Arc<Shared>, rounds: Rounds, store: Store, stop: CancellationToken) {
    let (mut forgotten, mut looked, mut not_before) = (Instant::now(), Instant::now(), Instant::now());
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
        // Who was away itself, stopped or starved, has heard nobody: that says nothing of the nodes.
        if looked.elapsed() > LOOK_EVERY * 4 {
            not_before = Instant::now() + shared.agents.silent_after;
        }
        looked = Instant::now();
        if looked < not_before || shared.health.unwritable().is_some() {
            continue;
        }
        let silent = shared.telemetry.declare_silent(&shared.cluster(), shared.agents.silent_after, looked);
        let mut told = Vec::with_capacity(silent.len());
        for node in silent {
            tracing::warn!(node = %node, "the node is silent");
            told.push(rounds.tell(Command::Silent(node)).await);
        }
        // What was declared is taken back only once the ledger has it or has dropped it.
        for answer in told {
            let _ = answer.await;
        }
        if forgotten.elapsed() > Duration::from_secs(600) {
            forgotten = Instant::now();
            match idempotency_keys::forget_old(&store.reader).await {
                Ok(count) => tracing::debug!(count, "forgot old idempotency keys"),
                Err(error) => tracing::warn!(%error, "forget old idempotency keys"),
            }
        }
    }
}
