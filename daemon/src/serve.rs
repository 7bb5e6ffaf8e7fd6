//! The daemon's life: open the store, lead, serve, drain.

use crate::admission::Admission;
use crate::app::App;
use crate::auth::Tokens;
use crate::config::{self, Config};
use crate::doors::Doors;
use crate::health::Health;
use crate::leading::Seat;
use crate::renewals::Renewals;
use crate::rounds::{self, Rounds};
use crate::shared::Shared;
use crate::store::{Store, idempotency_keys};
use crate::{metrics, opening, policy_file, routes, store_watch, whole_file};
use anyhow::Context;
use chiptide_allocator::Command;
use metrics_exporter_prometheus::PrometheusHandle;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// How long open requests may take to finish at shutdown.
const DRAIN: Duration = Duration::from_secs(5);

/// What the process gives the daemon.
#[derive(Debug, Default)]
pub struct Outside {
    /// The metrics recorder; there is one a process.
    pub metrics: Option<PrometheusHandle>,
    /// Where the daemon and the keeper of its own Postgres tell how they are.
    pub health: Arc<Health>,
}

/// Runs the daemon on a database until `stop` is cancelled, then drains and returns. Writes `daemon.url` into the data
/// directory once it serves.
pub async fn run(
    config: Config,
    data_dir: PathBuf,
    database_url: String,
    outside: Outside,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let policy = match config.policy_file.as_os_str().is_empty() {
        true => None,
        false => Some(policy_file::read(&config.policy_file)?),
    };
    let listener = TcpListener::bind(config.listen).with_context(|| format!("listen on {}", config.listen))?;
    listener.set_nonblocking(true).context("set up the listener")?;
    let base = format!("http://{}", listener.local_addr().context("read the listener's address")?);
    let store = Store::at(&database_url, config.database.limits()).context("configuration key \"database_url\"")?;
    let tokens = Arc::new(Tokens::default());
    let shared = Arc::new(Shared::new(config.agents.clone(), outside.health));
    let (rounds, entries) = Rounds::channel(config.round_queue, shared.health.clone());
    let (renewals, asked) = Renewals::channel();
    let app = App {
        shared: shared.clone(),
        rounds: rounds.clone(),
        renewals,
        store: store.clone(),
        admission: Arc::new(Admission::new(&config.admission)),
        body_limit: config.admission.body_limit,
        tokens: tokens.clone(),
    };
    let handle = axum_server::Handle::new();
    let server = tokio::spawn(serve_http(
        listener,
        handle.clone(),
        routes::router(app, outside.metrics),
        config.admission.clone(),
    ));

    tokio::select! {
        () = opening::prepare(&store, &tokens, &shared) => {}
        () = stop.cancelled() => return Ok(()),
    }
    let file = Some(config.admin_token_file.as_path()).filter(|file| !file.as_os_str().is_empty());
    if let Some(token) = tokens.ensure_admin(&store, file).await? {
        announce(&token, file);
    }
    let watch = tokio::spawn(store_watch::watch(store.clone(), shared.clone(), stop.clone()));
    let seat = tokio::select! {
        taken = Seat::take(&database_url) => taken?,
        () = stop.cancelled() => return Ok(()),
    };
    let epoch = seat.leadership.epoch;
    let renewing = tokio::spawn(asked.answer(store.renewals.clone(), seat.leadership));
    let mut led = rounds::spawn(shared.clone(), store.clone(), seat.leadership, entries, policy)?;
    led.leading().await?;
    let resign = CancellationToken::new();
    let mut keep_task = tokio::spawn(seat.keep(resign.clone()));
    let silence = tokio::spawn(watch_silence(shared.clone(), rounds.clone(), store.clone(), stop.clone()));
    shared.set_ready(true);
    whole_file::write(&data_dir.join("daemon.url"), &base, 0o644).context("write daemon.url")?;
    tracing::info!(url = %base, epoch, "serving");

    let lost = tokio::select! {
        () = stop.cancelled() => None,
        ended = led.ended() => Some(ended),
        ended = &mut keep_task => Some(ended.context("the renewal broke").and_then(|ended| ended)),
    };
    tracing::info!("draining");
    shared.stopping.cancel();
    stop.cancel();
    handle.graceful_shutdown(Some(DRAIN));
    server.await.context("join the server")?.context("serve")?;
    silence.await.context("join the silence watch")?;
    renewing.abort();
    watch.await.context("join the store's watch")?;
    drop(rounds);
    if lost.is_none() {
        led.ended().await?;
        resign.cancel();
        keep_task.await.context("join the renewal")??;
    }
    store.close().await;
    tracing::info!("stopped");
    lost.unwrap_or(Ok(()))
}

fn announce(token: &str, file: Option<&Path>) {
    match file {
        Some(file) => tracing::info!(file = %file.display(), "made an admin token"),
        None => println!("admin token (shown once, kept only as a hash): {token}"),
    }
}

async fn serve_http(
    listener: TcpListener,
    handle: axum_server::Handle<std::net::SocketAddr>,
    router: axum::Router,
    limits: config::Admission,
) -> std::io::Result<()> {
    let mut server = axum_server::from_tcp(listener)?.handle(handle).acceptor(Doors::new(limits.connections));
    server = server.first_request_timeout(limits.head_limit);
    server.http_builder().http1().header_read_timeout(limits.head_limit);
    server.serve(router.into_make_service()).await
}

/// How often to look for silent nodes.
const LOOK_EVERY: Duration = Duration::from_millis(500);

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

/// Installs the metrics recorder, once a process.
pub fn install_metrics() -> Option<PrometheusHandle> {
    metrics::install().inspect_err(|error| tracing::warn!(%error, "install the metrics recorder")).ok()
}
