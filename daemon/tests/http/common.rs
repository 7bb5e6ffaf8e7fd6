//! A real daemon on a real Postgres, driven over real HTTP: one database a test, in one throw-away cluster a run.

use chiptide_allocator::{Cluster, Snapshot};
use chiptide_api::Client;
use chiptide_api::job::{JobBody, JobView};
use chiptide_api::node::{
    ChipBody, ChipReport, HealthBody, OrdersView, RegisterBody, RegisterView, ReportBody, ReportView, VacantBody,
};
use chiptide_daemon::config::{Config, Flags};
use chiptide_daemon::serve::{self, Outside};
use chiptide_daemon::store::{Store, events, load};
use clap::Parser;
use serde_json::json;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Longest a test waits for anything; reached only by a failing one.
pub(crate) const SOON: Duration = Duration::from_secs(20);

static DATABASES: AtomicU32 = AtomicU32::new(0);

pub(crate) struct Daemon {
    pub(crate) base: String,
    pub(crate) token: String,
    pub(crate) client: Client,
    pub(crate) database_url: String,
    dir: tempfile::TempDir,
    stop: CancellationToken,
    task: JoinHandle<anyhow::Result<()>>,
}

impl Daemon {
    /// A daemon on a new database.
    pub(crate) async fn start() -> Daemon {
        Daemon::start_in(tempfile::tempdir().expect("a directory")).await
    }

    /// A daemon on a new database, with this policy in its file.
    pub(crate) async fn with_policy(text: &str) -> Daemon {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::write(dir.path().join("policy.yaml"), text).expect("written");
        Daemon::start_in(dir).await
    }

    /// A daemon on a new database, with this configuration in its file.
    pub(crate) async fn with_config(text: &str) -> Daemon {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::write(dir.path().join("chiptided.toml"), text).expect("written");
        Daemon::start_in(dir).await
    }

    /// Writes another policy into the file; the next start puts it in force.
    pub(crate) fn write_policy(&self, text: &str) {
        std::fs::write(self.dir.path().join("policy.yaml"), text).expect("written");
    }

    async fn start_in(dir: tempfile::TempDir) -> Daemon {
        let number = DATABASES.fetch_add(1, Ordering::Relaxed);
        let name = format!("test_{}_{number}", std::process::id());
        let url = tokio::task::spawn_blocking(move || {
            let cluster = chiptide_postgres::throwaway();
            cluster.ensure_database(&name).expect("a database");
            cluster.url(&name)
        });
        Daemon::on(url.await.expect("a URL"), dir).await
    }

    /// A daemon on this database.
    pub(crate) async fn on(database_url: String, dir: tempfile::TempDir) -> Daemon {
        let token_file = dir.path().join("admin-token");
        let url_file = dir.path().join("daemon.url");
        drop(std::fs::remove_file(&url_file));
        let policy_file = dir.path().join("policy.yaml");
        let mut flags =
            vec!["chiptided", "--listen", "127.0.0.1:0", "--admin-token-file", token_file.to_str().expect("UTF-8")];
        if policy_file.exists() {
            flags.extend(["--policy-file", policy_file.to_str().expect("UTF-8")]);
        }
        let config_file = dir.path().join("chiptided.toml");
        if config_file.exists() {
            flags.extend(["--config", config_file.to_str().expect("UTF-8")]);
        }
        let config = Config::load(&Flags::parse_from(flags)).expect("a valid configuration");
        let stop = CancellationToken::new();
        let run = serve::run(config, dir.path().to_owned(), database_url.clone(), Outside::default(), stop.clone());
        let mut task = tokio::spawn(run);
        let base = tokio::time::timeout(SOON, async {
            loop {
                if let Ok(url) = std::fs::read_to_string(&url_file) {
                    return url.trim().to_owned();
                }
                tokio::select! {
                    ended = &mut task => panic!("the daemon ended at start: {ended:?}"),
                    () = tokio::time::sleep(Duration::from_millis(5)) => {}
                }
            }
        });
        let base = base.await.expect("the daemon serves");
        let token = std::fs::read_to_string(&token_file).expect("a token").trim().to_owned();
        let client = Client::new(&base, &token).expect("a client");
        Daemon { base, token, client, database_url, dir, stop, task }
    }

    /// Another daemon on the same database, with an admin token of its own.
    pub(crate) async fn another(&self) -> Daemon {
        Daemon::on(self.database_url.clone(), tempfile::tempdir().expect("a directory")).await
    }

    /// Stops it in order.
    pub(crate) async fn stop(self) {
        self.stop.cancel();
        tokio::time::timeout(SOON, self.task).await.expect("it stops").expect("no panic").expect("in order");
    }

    /// Stops it in order and starts another on the same database.
    pub(crate) async fn restart(self) -> Daemon {
        self.stop.cancel();
        tokio::time::timeout(SOON, self.task).await.expect("it stops").expect("no panic").expect("in order");
        Daemon::on(self.database_url, self.dir).await
    }

    /// Sends a raw request with the right token.
    pub(crate) async fn send(
        &self,
        method: &str,
        path: &str,
        body: impl Into<reqwest::Body>,
    ) -> (u16, serde_json::Value) {
        self.send_keyed(method, path, body, None).await
    }

    pub(crate) async fn send_keyed(
        &self,
        method: &str,
        path: &str,
        body: impl Into<reqwest::Body>,
        key: Option<&str>,
    ) -> (u16, serde_json::Value) {
        let method = method.parse().expect("a method");
        let mut request = reqwest::Client::new()
            .request(method, format!("{}{path}", self.base))
            .bearer_auth(&self.token)
            .header("content-type", "application/json")
            .body(body);
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        let answer = request.send().await.expect("an answer");
        let status = answer.status().as_u16();
        (status, answer.json().await.unwrap_or_default())
    }

    /// The cluster as the tables hold it, and as the log folds to it.
    pub(crate) async fn stored_and_folded(&self) -> (Snapshot, Snapshot) {
        let store = Store::open(&self.database_url).await.expect("a store");
        let stored = load::load(&store).await.expect("readable tables");
        let mut folded = Cluster::default();
        for (_, at, event) in events::read(&store.reader, 0, i64::MAX).await.expect("a readable log") {
            folded.apply(at, &event).expect("the log replays");
        }
        store.close().await;
        (Snapshot::of(&stored), Snapshot::of(&folded))
    }
}

/// A job body from JSON, over what every test job has.
pub(crate) fn job(extra: serde_json::Value) -> JobBody {
    let mut body = json!({"kind": "training", "name": "job", "chips": 1});
    for (key, value) in extra.as_object().expect("an object") {
        body[key] = value.clone();
    }
    serde_json::from_value(body).expect("a job body")
}

/// The test's own agent: does what it is told, no more.
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) session: Uuid,
    pub(crate) chips: Vec<String>,
    pub(crate) seq: u64,
    client: Client,
}

pub(crate) fn registration(name: &str, chips: usize) -> RegisterBody {
    RegisterBody {
        boot_id: "boot-1".into(),
        agent_id: Uuid::new_v4(),
        agent_version: "test".into(),
        cpu_milli: 64_000,
        memory_mib: 262_144,
        rack: None,
        link_domain: None,
        labels: Default::default(),
        driver_version: None,
        chips: (0..chips).map(|i| chip_body(&format!("{name}-gpu{i}"))).collect(),
        seen: Vec::new(),
    }
}

pub(crate) fn chip_body(id: &str) -> ChipBody {
    ChipBody {
        id: id.into(),
        vendor: "nvidia".into(),
        product: "NVIDIA H20".into(),
        device_class: None,
        memory_mib: 98_304,
        serial: None,
        pci_bus_id: None,
        numa_node: None,
        link_peers: Vec::new(),
        health: HealthBody::Healthy,
    }
}

impl Node {
    pub(crate) async fn register(daemon: &Daemon, name: &str, chips: usize) -> Node {
        let body = registration(name, chips);
        let RegisterView { session, .. } = daemon.client.register(name, &body).await.expect("registered");
        let chips = body.chips.into_iter().map(|chip| chip.id).collect();
        Node { name: name.into(), session, chips, seq: 0, client: daemon.client.clone() }
    }

    /// Takes up a session with a daemon that has been restarted.
    pub(crate) fn join(&mut self, daemon: &Daemon, session: Uuid) {
        (self.client, self.session, self.seq) = (daemon.client.clone(), session, 0);
    }

    pub(crate) fn report_body(&mut self) -> ReportBody {
        self.seq += 1;
        let chip =
            |id: &String| ChipReport { id: id.clone(), health: HealthBody::Healthy, reading: Default::default() };
        ReportBody {
            session: self.session,
            boot_id: "boot-1".into(),
            seq: self.seq,
            chips: self.chips.iter().map(chip).collect(),
            confirmed: Vec::new(),
            vacant: Vec::new(),
            refused: Vec::new(),
            fenced: Vec::new(),
            work: Vec::new(),
            faults: Vec::new(),
            ladders: Vec::new(),
            orders_seen: None,
        }
    }

    pub(crate) async fn orders(&self) -> OrdersView {
        self.client.orders(&self.name, self.session, None, Default::default()).await.expect("orders")
    }

    /// Sends a report.
    pub(crate) async fn send(&self, report: &ReportBody) -> ReportView {
        self.client.report(&self.name, report).await.expect("accepted")
    }

    /// Confirms every lease and proves every chip vacant that the newest orders ask for.
    pub(crate) async fn obey(&mut self) -> ReportView {
        let orders = self.orders().await;
        let mut report = self.report_body();
        report.confirmed = orders.leases.iter().map(|lease| lease.lease).collect();
        let proof = |order: &chiptide_api::node::VacateOrder| VacantBody {
            chip: order.chip.clone(),
            lease: order.lease,
            epoch: order.epoch,
        };
        report.vacant = orders.vacate.iter().map(proof).collect();
        self.client.report(&self.name, &report).await.expect("accepted")
    }
}

/// The state of a job and the chips of its lease.
pub(crate) fn standing(job: &JobView) -> (String, Vec<String>) {
    let placements = job.lease.iter().flat_map(|lease| &lease.placements);
    (job.state.clone(), placements.flat_map(|p| p.chips.iter().map(|c| c.chip.clone())).collect())
}
