//! What the round loop writes and the handlers read: the committed cluster, telemetry, watchers, and whether we serve.

use crate::clock::Clock;
use crate::config::Agents;
use crate::event_log::{Press, Tail};
use crate::health::Health;
use crate::log_desk::LogDesk;
use crate::role::Role;
use crate::telemetry::Telemetry;
use crate::watchers::Watchers;
use chiptide_allocator::Cluster;
use chiptide_api::node::RegisterView;
use chiptide_model::{Millis, SessionId, Timestamp};
use parking_lot::RwLock;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// Jobs explained at the same time.
const EXPLAINING_MAX: usize = 2;

/// State shared between the round loop and the handlers.
#[derive(Debug)]
pub struct Shared {
    cluster: Arc<RwLock<Cluster>>,
    /// Who waits for what.
    pub watchers: Watchers,
    /// The last events that were committed.
    pub tail: Tail,
    /// Prints them for those who watch.
    pub press: Press,
    /// Asks whoever keeps the accounts to bring them up to date.
    pub usage: crate::usage::Desk,
    /// Places for those who watch.
    pub watch_places: Arc<tokio::sync::Semaphore>,
    /// Newest readings.
    pub telemetry: Telemetry,
    /// Readers of workloads' output.
    pub logs: LogDesk,
    /// How agents are to report.
    pub agents: Agents,
    /// Turns to explain a job: each holds the cluster for milliseconds, and a round waits to apply.
    pub explaining: tokio::sync::Semaphore,
    /// The turn to rehearse a change: each takes a copy of the whole cluster.
    pub rehearsing: tokio::sync::Semaphore,
    /// Cancelled at shutdown, so that long-polls end.
    pub stopping: CancellationToken,
    /// How well we can serve.
    pub health: Arc<Health>,
    /// Who leads.
    pub role: Arc<Role>,
    clock: Clock,
}

impl Shared {
    /// An empty, not yet ready state, that tells its health there and lets so many watch events.
    pub fn new(agents: Agents, watches: u32, health: Arc<Health>) -> Shared {
        Shared {
            cluster: Arc::default(),
            watchers: Watchers::default(),
            tail: Tail::default(),
            press: Press::default(),
            usage: crate::usage::Desk::default(),
            watch_places: Arc::new(tokio::sync::Semaphore::new(watches as usize)),
            telemetry: Telemetry::default(),
            logs: LogDesk::default(),
            agents,
            explaining: tokio::sync::Semaphore::new(EXPLAINING_MAX),
            rehearsing: tokio::sync::Semaphore::new(1),
            stopping: CancellationToken::new(),
            health,
            role: Arc::default(),
            clock: Clock::default(),
        }
    }

    /// Reads the committed cluster. Keep it short: the round loop waits to apply.
    pub fn cluster(&self) -> parking_lot::RwLockReadGuard<'_, Cluster> {
        self.cluster.read()
    }

    pub(crate) fn cluster_arc(&self) -> Arc<RwLock<Cluster>> {
        self.cluster.clone()
    }

    /// The time, in milliseconds; never before a time it has told already, and no faster for a step of the wall clock.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Whether the daemon leads, by its own clock too, and its memory is whole.
    pub fn leads(&self) -> bool {
        self.health.is_led() && self.role.leads()
    }

    /// Says whether the daemon may serve.
    pub fn set_ready(&self, ready: bool) {
        self.health.lead(ready, self.now());
    }

    /// The answer to a registration.
    pub fn registered(&self, session: SessionId) -> RegisterView {
        let span = |span: std::time::Duration| Millis(span.as_millis() as u64);
        RegisterView {
            session: session.0,
            report_every: span(self.agents.report_every),
            silent_after: span(self.agents.silent_after),
        }
    }
}
