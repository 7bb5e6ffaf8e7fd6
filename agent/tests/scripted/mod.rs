//! A daemon that says what a test tells it to, over real HTTP, and a node whose readings the test sets.

use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use chiptide_agent::{Agent, ChipNow, NodeConfig, NodeReading};
use chiptide_api::chip::{ChipProcess, Reading};
use chiptide_api::logs::{LogAnswer, LogOrder};
use chiptide_api::node::{
    ChipBody, ChipOrder, HealthBody, LeaseOrder, OrdersView, RegisterBody, RegisterView, ReportBody, ReportView,
    VacateOrder,
};
use chiptide_api::{Client, Problem};
use std::collections::BTreeMap;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use uuid::Uuid;

/// How long anything a test waits for may take: a bound on failure, never a pause.
const BOUND: Duration = Duration::from_secs(20);

/// What the daemon heard.
#[derive(Debug)]
pub(crate) enum Heard {
    Registered(RegisterBody),
    Reported(ReportBody),
    Brought(LogAnswer, Vec<u8>),
}

struct Script {
    report_every: chiptide_model::Millis,
    session: watch::Sender<Uuid>,
    orders: watch::Sender<OrdersView>,
    heard: mpsc::UnboundedSender<Heard>,
    refuse_reports: Mutex<Vec<(u16, &'static str)>>,
    renews: AtomicBool,
}

/// The scripted daemon.
pub(crate) struct Daemon {
    pub(crate) url: String,
    script: Arc<Script>,
    heard: mpsc::UnboundedReceiver<Heard>,
}

/// The scripted daemon and a scripted node that talks to it.
pub(crate) struct World {
    daemon: Daemon,
    pub(crate) readings: watch::Sender<NodeReading>,
    /// The orders as a scripted source would follow them.
    pub(crate) followed: watch::Receiver<OrdersView>,
    agent: JoinHandle<()>,
    _stop: watch::Sender<bool>,
}

impl Deref for World {
    type Target = Daemon;
    fn deref(&self) -> &Daemon {
        &self.daemon
    }
}

impl DerefMut for World {
    fn deref_mut(&mut self) -> &mut Daemon {
        &mut self.daemon
    }
}

impl World {
    /// A node with these chips, whose daemon asks for a report every `report_every`.
    pub(crate) async fn start(report_every: &str, chips: Vec<ChipNow>) -> World {
        World::with(Daemon::start(report_every).await, chips, |agent| agent)
    }

    /// The same with an agent that is made ready by `prepare`, and a daemon that may have met other agents.
    pub(crate) fn with(daemon: Daemon, chips: Vec<ChipNow>, prepare: impl FnOnce(Agent) -> Agent) -> World {
        let (readings, newest) = watch::channel(reading(chips));
        let config =
            NodeConfig { node: "n1".into(), boot_id: "boot".into(), cpu_milli: 64_000, ..NodeConfig::default() };
        let agent = prepare(Agent::new(config, Client::new(&daemon.url, "token").expect("a client"), newest));
        let followed = agent.orders();
        let (stop, stopped) = watch::channel(false);
        let agent = tokio::spawn(agent.run(stopped));
        World { daemon, readings, followed, agent, _stop: stop }
    }

    /// The agent dies between any two of its steps; its daemon lives on.
    pub(crate) async fn kill(self) -> Daemon {
        self.agent.abort();
        let _ = self.agent.await;
        self.daemon
    }

    /// Gives new orders and waits until the agent has them.
    pub(crate) async fn order(&mut self, revision: &str, leases: Vec<LeaseOrder>, vacate: Vec<VacateOrder>) {
        self.give(revision, leases, vacate);
        let seen = timeout(BOUND, self.followed.wait_for(|orders| orders.revision == revision)).await;
        seen.expect("in time").expect("the agent lives");
    }

    /// The source samples: these chips, now.
    pub(crate) fn sample(&self, chips: Vec<ChipNow>) {
        self.readings.send_replace(reading(chips));
    }
}

impl Daemon {
    /// A daemon that asks for a report every `report_every`.
    pub(crate) async fn start(report_every: &str) -> Daemon {
        let (heard_tx, heard) = mpsc::unbounded_channel();
        let script = Arc::new(Script {
            report_every: report_every.parse().expect("a duration"),
            session: watch::Sender::new(Uuid::new_v4()),
            orders: watch::Sender::new(OrdersView { revision: "r0".into(), ..OrdersView::default() }),
            heard: heard_tx,
            refuse_reports: Mutex::default(),
            renews: AtomicBool::new(false),
        });
        let routes = Router::new()
            .route("/v1/nodes/{node}/register", post(register))
            .route("/v1/nodes/{node}/report", post(report))
            .route("/v1/nodes/{node}/orders", get(orders))
            .route("/v1/nodes/{node}/logs", post(logs))
            .with_state(script.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("its address"));
        tokio::spawn(async move { axum::serve(listener, routes).await });
        Daemon { url, script, heard }
    }

    /// Gives new orders.
    pub(crate) fn give(&self, revision: &str, leases: Vec<LeaseOrder>, vacate: Vec<VacateOrder>) {
        self.script.orders.send_replace(OrdersView {
            revision: revision.into(),
            leases,
            vacate,
            ..OrdersView::default()
        });
    }

    /// Gives new orders that ask for output.
    pub(crate) fn ask_for(&self, revision: &str, leases: Vec<LeaseOrder>, wanted_logs: Vec<LogOrder>) {
        let orders = OrdersView { revision: revision.into(), leases, wanted_logs, ..OrdersView::default() };
        self.script.orders.send_replace(orders);
    }

    /// Waits for the answer to a wish for output.
    pub(crate) async fn brought(&mut self) -> (LogAnswer, Vec<u8>) {
        loop {
            if let Heard::Brought(told, bytes) = self.next().await {
                return (told, bytes);
            }
        }
    }

    /// The next thing the daemon hears.
    pub(crate) async fn next(&mut self) -> Heard {
        timeout(BOUND, self.heard.recv()).await.expect("in time").expect("the daemon lives")
    }

    /// Waits for a registration; reports before it are passed over.
    pub(crate) async fn registered(&mut self) -> RegisterBody {
        loop {
            if let Heard::Registered(body) = self.next().await {
                return body;
            }
        }
    }

    /// Waits for the first report that `wanted` accepts.
    pub(crate) async fn reported(&mut self, wanted: impl Fn(&ReportBody) -> bool) -> ReportBody {
        loop {
            match self.next().await {
                Heard::Reported(body) if wanted(&body) => return body,
                _ => {}
            }
        }
    }

    /// The daemon forgets the session.
    pub(crate) fn forget_session(&self) {
        self.script.session.send_replace(Uuid::new_v4());
    }

    /// The daemon's session in force.
    pub(crate) fn session(&self) -> Uuid {
        *self.script.session.borrow()
    }

    /// Whether reports renew fenced leases from now on.
    pub(crate) fn renew(&self, renews: bool) {
        self.script.renews.store(renews, Ordering::SeqCst);
    }

    /// The next report is refused with this.
    pub(crate) fn refuse_next_report(&self, status: u16, code: &'static str) {
        self.script.refuse_reports.lock().expect("no panic").push((status, code));
    }
}

async fn register(State(script): State<Arc<Script>>, Json(body): Json<RegisterBody>) -> Json<RegisterView> {
    let _ = script.heard.send(Heard::Registered(body));
    let (session, report_every) = (*script.session.borrow(), script.report_every);
    Json(RegisterView { session, report_every, silent_after: chiptide_model::Millis::from_secs(10) })
}

async fn report(State(script): State<Arc<Script>>, Json(body): Json<ReportBody>) -> Response {
    if body.session != *script.session.borrow() {
        return refusal(409, "stale_session");
    }
    if let Some((status, code)) = script.refuse_reports.lock().expect("no panic").pop() {
        return refusal(status, code);
    }
    let orders = script.orders.borrow().clone();
    let newer = (body.orders_seen.as_ref() != Some(&orders.revision)).then_some(orders);
    let _ = script.heard.send(Heard::Reported(body));
    let renewed = script.renews.load(Ordering::SeqCst);
    Json(ReportView { accepted: true, renewed, orders: newer }).into_response()
}

async fn logs(
    State(script): State<Arc<Script>>,
    Query(told): Query<LogAnswer>,
    bytes: axum::body::Bytes,
) -> Json<serde_json::Value> {
    let _ = script.heard.send(Heard::Brought(told, bytes.to_vec()));
    Json(serde_json::json!({}))
}

async fn orders(
    State(script): State<Arc<Script>>,
    Path(_): Path<String>,
    Query(query): Query<BTreeMap<String, String>>,
) -> Response {
    let (mut orders, mut session) = (script.orders.subscribe(), script.session.subscribe());
    let asked: Uuid = query["session"].parse().expect("a session");
    let wait: chiptide_model::Millis = query["wait"].parse().expect("a duration");
    let news = async {
        tokio::select! {
            _ = orders.wait_for(|orders| Some(&orders.revision) != query.get("after")) => {}
            _ = session.wait_for(|session| *session != asked) => {}
        }
    };
    let _ = timeout(Duration::from_millis(wait.0), news).await;
    match *script.session.borrow() == asked {
        true => Json(script.orders.borrow().clone()).into_response(),
        false => refusal(409, "stale_session"),
    }
}

fn refusal(status: u16, code: &str) -> Response {
    let (kind, title) = (format!("/problems/{code}"), code.to_owned());
    let (code, detail) = (code.to_owned(), String::new());
    let problem = Problem { kind, title, status, code, detail, field: None, request_id: None, retry_after: None };
    (StatusCode::from_u16(status).expect("a status"), Json(problem)).into_response()
}

fn reading(chips: Vec<ChipNow>) -> NodeReading {
    NodeReading { taken: Instant::now(), driver_version: Some("scripted 1".into()), chips }
}

/// A healthy chip with these processes, each owned by a lease where that is known.
pub(crate) fn chip(id: &str, processes: &[(u32, Option<Uuid>)]) -> ChipNow {
    let chip = ChipBody {
        id: id.into(),
        vendor: "nvidia".into(),
        product: "NVIDIA H20".into(),
        device_class: None,
        memory_mib: 97_871,
        serial: None,
        pci_bus_id: None,
        numa_node: None,
        link_peers: vec![],
        health: HealthBody::Healthy,
    };
    let listed = processes.iter().map(|(pid, _)| ChipProcess { pid: *pid, memory_mib: None }).collect();
    let owners = processes.iter().filter_map(|(pid, lease)| lease.map(|lease| (*pid, lease))).collect();
    let reading = Reading { processes: Some(listed), ..Reading::default() };
    ChipNow { chip, reading, owners, signs: Default::default() }
}

/// The chip, of which nothing can be read.
pub(crate) fn unreadable(mut now: ChipNow) -> ChipNow {
    now.chip.health = HealthBody::Unreadable { detail: "no answer".into() };
    ChipNow { reading: Reading::default(), owners: BTreeMap::new(), ..now }
}

/// A live lease on one chip.
pub(crate) fn lease(lease: Uuid, chip: &str, epoch: u64) -> LeaseOrder {
    let chips = vec![ChipOrder { chip: chip.into(), slots: 500, epoch }];
    LeaseOrder {
        lease,
        job: Uuid::new_v4(),
        confirmed: false,
        deadline: None,
        ends_in: None,
        fence: None,
        chips,
        work: None,
    }
}

/// An order to prove a chip vacant.
pub(crate) fn vacate(lease: Uuid, chip: &str, epoch: u64) -> VacateOrder {
    VacateOrder { chip: chip.into(), lease, epoch }
}
