//! Keeps the daemon's own Postgres running: started again when it dies, with a pause that grows. The daemon lives on
//! meanwhile, as with any database that is away.

use crate::health::Health;
use crate::store::trouble::Trouble;
use chiptide_postgres::{Cluster, Options};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

/// How often to look whether it lives.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// The pause before a new start: the first, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));
/// After this long without a death, the next one is the first again.
const CALM: Duration = Duration::from_secs(60);

/// The daemon's own Postgres, and how to start it.
#[derive(Debug)]
pub struct OwnPostgres {
    options: Options,
    cluster: Option<Cluster>,
    started: Instant,
    pause: Duration,
}

impl OwnPostgres {
    /// Starts it for the first time; what fails now is for whoever starts the daemon to mend.
    ///
    /// Call this and [`OwnPostgres::keep`] from one thread, which outlives it: the server is told to stop when the thread
    /// that forked it ends.
    pub fn start(options: Options) -> anyhow::Result<OwnPostgres> {
        let cluster = Some(Cluster::start(&options)?);
        Ok(OwnPostgres { options, cluster, started: Instant::now(), pause: PAUSES.0 })
    }

    /// The running server; `None` between its death and its next start.
    pub fn cluster(&self) -> Option<&Cluster> {
        self.cluster.as_ref()
    }

    /// Keeps it running until `done` is told or dropped, and says in `health` when it does not.
    pub fn keep(&mut self, health: &Arc<Health>, done: &Receiver<()>) {
        let mut wait = LOOK_EVERY;
        while matches!(done.recv_timeout(wait), Err(RecvTimeoutError::Timeout)) {
            wait = match &mut self.cluster {
                Some(cluster) => match cluster.try_wait() {
                    Ok(None) => LOOK_EVERY,
                    Ok(Some(how)) => self.on_death(health, &how),
                    Err(error) => self.on_death(health, &format!("{error:#}")),
                },
                None => self.start_again(health),
            };
        }
    }

    /// Stops it in order.
    pub fn stop(self) -> anyhow::Result<()> {
        self.cluster.map_or(Ok(()), Cluster::stop)
    }

    fn on_death(&mut self, health: &Health, how: &str) -> Duration {
        self.cluster = None;
        if self.started.elapsed() > CALM {
            self.pause = PAUSES.0;
        }
        let pause_ms = self.pause.as_millis() as u64;
        tracing::error!(how, pause_ms, "the private Postgres died; starting it again");
        health
            .own_postgres(Some((Trouble::Starting, format!("the private Postgres died ({how}) and is started again"))));
        self.next_pause()
    }

    fn start_again(&mut self, health: &Health) -> Duration {
        match Cluster::start(&self.options) {
            Ok(cluster) => {
                tracing::info!(pid = cluster.pid(), "the private Postgres is up again");
                (self.cluster, self.started) = (Some(cluster), Instant::now());
                health.own_postgres(None);
                LOOK_EVERY
            }
            Err(error) => {
                let detail = format!("{error:#}");
                let pause_ms = self.pause.as_millis() as u64;
                tracing::error!(pause_ms, "the private Postgres does not start: {detail}");
                // All that a server tells when it cannot start is its log.
                let is_full = detail.contains("No space left on device");
                let trouble = if is_full { Trouble::DiskFull } else { Trouble::Unreachable };
                health.own_postgres(Some((trouble, format!("the private Postgres does not start: {detail}"))));
                self.next_pause()
            }
        }
    }

    fn next_pause(&mut self) -> Duration {
        let pause = self.pause;
        self.pause = (self.pause * 2).min(PAUSES.1);
        pause
    }
}
