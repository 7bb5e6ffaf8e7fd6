//! The daemon's life: open the store, serve, stand by and lead in turns, drain.

use crate::access::oidc::Oidc;
use crate::access::pace::{Pace, Rate};
use crate::access::{Tokens, keeping};
use crate::admission::Admission;
use crate::app::App;
use crate::audit::{self, Audit};
use crate::config::{self, Config};
use crate::doors::Doors;
use crate::forwarding::Forwarder;
use crate::health::Health;
use crate::renewals::Renewals;
use crate::rounds::Rounds;
use crate::shared::Shared;
use crate::store::Store;
use crate::turns::Turns;
use crate::{metrics, opening, policy_file, routes, store_watch, tls};
use anyhow::Context;
use axum_server::tls_rustls::{RustlsAcceptor, RustlsConfig};
use metrics_exporter_prometheus::PrometheusHandle;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How long open requests may take to finish at shutdown.
const DRAIN: Duration = Duration::from_secs(5);

/// How many join tokens may be tried a second, and at once.
const JOINS: (u32, u32) = (50, 2000);

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
    warn_if_open(&config);
    let listener = TcpListener::bind(config.listen).with_context(|| format!("listen on {}", config.listen))?;
    listener.set_nonblocking(true).context("set up the listener")?;
    let address = listener.local_addr().context("read the listener's address")?;
    let tls = tls::server_config(&config.tls).context("configuration of TLS")?;
    let scheme = if tls.is_some() { "https" } else { "http" };
    let (base, url) = (format!("{scheme}://{address}"), config.advertised(address));
    let store = Store::at(&database_url, config.database.limits()).context("configuration key \"database_url\"")?;
    let tokens = Arc::new(Tokens::default());
    let shared = Arc::new(Shared::new(config.agents.clone(), config.admission.event_watches, outside.health));
    let rounds = Rounds::closed(config.round_queue, shared.health.clone());
    let forwarder = Forwarder::new(store.instance(), &config.tls.ca)?;
    let (renewals, asked) = Renewals::channel();
    let (audit, told) = Audit::new();
    let app = App {
        shared: shared.clone(),
        rounds: rounds.clone(),
        renewals,
        store: store.clone(),
        admission: Arc::new(Admission::new(&config.admission)),
        body_limit: config.admission.body_limit,
        tokens: tokens.clone(),
        rules: Arc::default(),
        audit: Arc::new(audit),
        oidc: Oidc::new(&config.oidc)?.map(Arc::new),
        certificates: Arc::default(),
        joining: Arc::new((Pace::default(), Rate::new(JOINS.0, JOINS.1))),
        rate: Rate::new(config.access.requests_per_second, config.access.burst),
        anonymous_metrics: config.access.anonymous_metrics,
        started: std::time::Instant::now(),
        forwarder: forwarder.clone(),
    };
    let handle = axum_server::Handle::new();
    let server = tokio::spawn(serve_http(
        listener,
        handle.clone(),
        tls,
        routes::router(app, outside.metrics),
        config.admission.clone(),
    ));

    tokio::select! {
        () = opening::prepare(&store, &tokens, &shared) => {}
        () = stop.cancelled() => return Ok(()),
    }
    let file = Some(config.admin_token_file.as_path()).filter(|file| !file.as_os_str().is_empty());
    if let Some(token) = tokens.ensure_admin(&store, file, shared.now()).await? {
        announce(&token, file);
    }
    let watch = tokio::spawn(store_watch::watch(store.clone(), shared.clone(), stop.clone()));
    let all_told = CancellationToken::new();
    let auditing = tokio::spawn(audit::write(told, store.clone(), all_told.clone()));
    let pressing = tokio::spawn({
        let (shared, store, stop) = (shared.clone(), store.clone(), stop.clone());
        async move { shared.press.run(&shared, &store, stop).await }
    });
    let keeping = tokio::spawn(keeping::keep(tokens, store.clone(), stop.clone()));
    let renewing = tokio::spawn(asked.answer(store.renewals.clone(), store.instance(), shared.role.clone()));
    let turns = Turns { shared: shared.clone(), store: store.clone(), rounds, forwarder, base, url, data_dir };
    let ended = turns.take(policy, &stop).await;
    tracing::info!("draining");
    shared.stopping.cancel();
    stop.cancel();
    handle.graceful_shutdown(Some(DRAIN));
    server.await.context("join the server")?.context("serve")?;
    all_told.cancel();
    auditing.await.context("join the audit")?;
    renewing.abort();
    watch.await.context("join the store's watch")?;
    pressing.await.context("join the press of events")?;
    keeping.await.context("join the keeping of tokens")?;
    if let Some(term) = ended? {
        term.resign().await?;
    }
    store.close().await;
    tracing::info!("stopped");
    Ok(())
}

/// Tokens that travel unencrypted can be read on the way.
fn warn_if_open(config: &Config) {
    if !config.listen.ip().is_loopback() && !config.tls.is_on() {
        tracing::warn!(
            listen = %config.listen,
            "serving beyond this machine without TLS: whoever is on the way can read tokens and act by them"
        );
    }
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
    tls: Option<Arc<rustls::ServerConfig>>,
    router: axum::Router,
    limits: config::Admission,
) -> std::io::Result<()> {
    let doors = Doors::new(limits.connections);
    let service = router.into_make_service_with_connect_info::<std::net::SocketAddr>();
    let server = axum_server::from_tcp(listener)?.handle(handle).first_request_timeout(limits.head_limit);
    match tls {
        None => {
            let mut server = server.acceptor(doors);
            server.http_builder().http1().header_read_timeout(limits.head_limit);
            server.serve(service).await
        }
        Some(tls) => {
            let acceptor = RustlsAcceptor::new(RustlsConfig::from_config(tls)).acceptor(doors);
            let mut server = server.acceptor(acceptor);
            server.http_builder().http1().header_read_timeout(limits.head_limit);
            server.serve(service).await
        }
    }
}

/// Installs the metrics recorder, once a process.
pub fn install_metrics() -> Option<PrometheusHandle> {
    metrics::install().inspect_err(|error| tracing::warn!(%error, "install the metrics recorder")).ok()
}
