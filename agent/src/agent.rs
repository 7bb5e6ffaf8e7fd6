//! One node's agent: it registers, and registers again whenever the daemon no longer knows it. What happens between two
//! registrations is in [`crate::session`].

use crate::backoff::Backoff;
use crate::complaints::{Complaints, Verdict};
use crate::faults::Watching;
use crate::fence::Fences;
use crate::host;
use crate::logs::Logs;
use crate::reading::NodeReading;
use crate::session::Session;
use crate::standing::Standing;
use crate::state::{StateDir, StateError};
use crate::weighing::Weighing;
use crate::wishing::Wishing;
use crate::work::Work;
use chiptide_api::node::{OrdersView, RegisterBody, RegisterView};
use chiptide_api::{Client, ClientError};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tracing::{error, info};
use uuid::Uuid;

/// How long a registration may take before it counts as unanswered.
const REGISTER_LIMIT: Duration = Duration::from_secs(15);
/// A session shorter than this is followed by a pause, so that two agents that claim one node do not chase each other.
const SHORT_SESSION: Duration = Duration::from_secs(5);

/// What an agent tells of its node beside the chips, and how it paces itself.
#[derive(Clone, Debug, Default)]
pub struct NodeConfig {
    /// The node's name.
    pub node: String,
    /// The kernel's boot id.
    pub boot_id: String,
    /// CPU offered to jobs, thousandths of a core.
    pub cpu_milli: u64,
    /// Memory offered to jobs, MiB.
    pub memory_mib: u64,
    /// The rack, if known.
    pub rack: Option<String>,
    /// The link fabric its chips share with those of other nodes.
    pub link_domain: Option<String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// How often to report; what the daemon asks for when absent.
    pub report_every: Option<Duration>,
    /// A reading older than this is reported as unreadable. Absent for a source that only speaks up on change.
    pub stale_after: Option<Duration>,
}

/// One node's agent. Cheap: one future, no threads of its own.
#[derive(Debug)]
pub struct Agent {
    pub(crate) config: NodeConfig,
    pub(crate) client: Client,
    pub(crate) readings: watch::Receiver<NodeReading>,
    pub(crate) orders: watch::Sender<OrdersView>,
    pub(crate) standing: Standing,
    pub(crate) complaints: Complaints,
    pub(crate) source_ended: bool,
    state: Option<StateDir>,
    pub(crate) work: Option<Work>,
    pub(crate) wishing: Option<Wishing>,
    pub(crate) logs: Option<Logs>,
    pub(crate) weighing: Option<Weighing>,
    pub(crate) watching: Option<Watching>,
    agent_id: Uuid,
}

impl Agent {
    /// An agent that has not spoken yet. `readings` is the newest reading, replaced by its source whenever it samples; it
    /// starts with the source's first. A source that drops its sender has ended, and its chips are unreadable from then on.
    pub fn new(config: NodeConfig, client: Client, readings: watch::Receiver<NodeReading>) -> Agent {
        Agent {
            complaints: Complaints::new(&config.node),
            config,
            client,
            readings,
            orders: watch::Sender::new(OrdersView::default()),
            standing: Standing::default(),
            source_ended: false,
            state: None,
            work: None,
            wishing: None,
            logs: None,
            weighing: None,
            watching: None,
            agent_id: Uuid::new_v4(),
        }
    }

    /// This agent, remembering across its own death what it keeps in `state`. Without, it remembers as long as it lives
    /// (a scripted node has no disk).
    pub fn remembering(mut self, state: StateDir) -> Result<Agent, StateError> {
        self.standing = Standing::after(state.epochs()?);
        self.state = Some(state);
        Ok(self)
    }

    /// This agent, running the workloads of its leases. Without, leases are carried and whoever holds them runs the work.
    pub fn running(mut self, mut work: Work) -> Agent {
        self.logs = Some(Logs::new(work.outputs()));
        let fences = Fences::after(work.deadlines().clone());
        self.wishing = Some(Wishing::new(work.view()).fenced(fences));
        self.work = Some(work);
        self
    }

    /// Puts what `standing` adds on disk, if it adds something; false when that failed, and it must not be acted on. This
    /// blocks for as long as the disk takes to sync a small file.
    pub(crate) fn keep(&mut self, standing: &Standing) -> bool {
        let Some(state) = self.state.as_ref().filter(|_| standing.epochs() != self.standing.epochs()) else {
            return true;
        };
        match state.keep_epochs(standing.epochs()) {
            Ok(()) => {
                self.complaints.kept();
                true
            }
            Err(error) => {
                self.complaints.not_kept(&error);
                false
            }
        }
    }

    /// A report sent at `sent` was answered as renewed. The guardians have the new deadlines before they count: a renewal that
    /// cannot be written is none.
    pub(crate) fn renew(&mut self, sent: Duration) {
        let (Some(wishing), Some(work)) = (&mut self.wishing, &mut self.work) else { return };
        let now = host::boot_time();
        let mut renewed = wishing.fences().clone();
        renewed.renew(sent, now);
        match work.keep_deadlines(&renewed.deadlines()) {
            Ok(()) => wishing.set_fences(renewed),
            Err(error) => error!(node = %self.config.node, "a renewal cannot be written, and does not count: {error}"),
        }
    }

    /// Fenced leases have come or gone with new orders.
    pub(crate) fn keep_deadlines(&mut self) {
        let (Some(wishing), Some(work)) = (&self.wishing, &mut self.work) else { return };
        let fences = wishing.fences();
        let present = |lease: Uuid| wishing.view().leases_present().any(|other| other == lease);
        let kept = work.keep_deadlines(&fences.deadlines());
        if let Err(error) = kept.and_then(|()| work.forget_deadlines(|lease| fences.knows(lease) || present(lease))) {
            error!(node = %self.config.node, "the deadlines of fenced leases cannot be kept: {error}");
        }
    }

    /// The node's wanted state as last received (a source of scripted chips follows it).
    pub fn orders(&self) -> watch::Receiver<OrdersView> {
        self.orders.subscribe()
    }

    /// Registers, then reports and polls until `stop` is true or its sender is gone. Never returns on network trouble.
    pub async fn run(mut self, stop: watch::Receiver<bool>) {
        tokio::select! {
            biased;
            () = stopped(stop) => {}
            never = self.live() => match never {},
        }
    }

    async fn live(&mut self) -> Infallible {
        let mut pause = Backoff::default();
        loop {
            let (told, registered) = self.register().await;
            let begun = Instant::now();
            Session::new(self, &told, &registered).serve().await;
            match begun.elapsed() < SHORT_SESSION {
                true => sleep(pause.next()).await,
                false => pause.reset(),
            }
        }
    }

    /// Registers, however long that takes. Answers the session and the reading it was told.
    async fn register(&mut self) -> (RegisterView, NodeReading) {
        let mut pause = Backoff::default();
        loop {
            let reading = self.reading();
            let body = self.register_body(&reading);
            let answer = timeout(REGISTER_LIMIT, self.client.register(&self.config.node, &body)).await;
            let wait = match answer {
                Ok(Ok(told)) => {
                    self.complaints.answered();
                    let (node, chips) = (&self.config.node, body.chips.len());
                    info!(%node, session = %told.session, chips, every = %told.report_every, "registered");
                    return (told, reading);
                }
                Ok(Err(error)) => self.after_refused_registration(&error, &mut pause),
                Err(_) => {
                    self.client.move_on();
                    self.complaints.unanswered("register", "no answer in time");
                    pause.next()
                }
            };
            sleep(wait).await;
        }
    }

    fn after_refused_registration(&mut self, error: &ClientError, pause: &mut Backoff) -> Duration {
        match self.complaints.judge("register", error) {
            Verdict::Retry(told) => pause.next_told(told),
            Verdict::Refused | Verdict::Register => pause.slow(),
        }
    }

    fn register_body(&self, reading: &NodeReading) -> RegisterBody {
        RegisterBody {
            boot_id: self.config.boot_id.clone(),
            agent_id: self.agent_id,
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            cpu_milli: self.config.cpu_milli,
            memory_mib: self.config.memory_mib,
            rack: self.config.rack.clone(),
            link_domain: self.config.link_domain.clone(),
            labels: self.config.labels.clone(),
            driver_version: reading.driver_version.clone(),
            chips: reading.chips.iter().map(|now| now.chip.clone()).collect(),
            seen: self.standing.seen(),
        }
    }

    /// The newest reading as it may be told now.
    pub(crate) fn reading(&mut self) -> NodeReading {
        let reading = self.readings.borrow_and_update().clone();
        if self.source_ended {
            return reading.all_unreadable("the chip source has ended");
        }
        let stale = self.config.stale_after.and_then(|limit| reading.gone_stale(Instant::now(), limit));
        stale.unwrap_or(reading)
    }
}

async fn stopped(mut stop: watch::Receiver<bool>) {
    // A sender that is gone can never say stop: then nobody wants this agent any more.
    let _ = stop.wait_for(|stop| *stop).await;
}
