//! `chiptided`. Starts a private Postgres if no database is given, then leads and serves until SIGTERM or SIGINT.

use anyhow::Context;
use chiptide_daemon::config::{Config, Flags, LogFormat};
use chiptide_daemon::fault_point;
use chiptide_daemon::health::Health;
use chiptide_daemon::own_postgres::OwnPostgres;
use chiptide_daemon::serve::Outside;
use chiptide_daemon::{serve, whole_file};
use clap::Parser;
use std::io::IsTerminal;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

/// A round and a request are many small allocations; the C library's allocator was a tenth of their time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The database the daemon makes for itself.
const DATABASE: &str = "chiptide";

fn main() -> ExitCode {
    match start() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("chiptided: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start() -> anyhow::Result<()> {
    // Two providers could be compiled in one day; choosing here keeps rustls from panicking then.
    drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
    fault_point::set_up();
    let flags = Flags::parse();
    let config = Config::load(&flags)?;
    if flags.print_config {
        print!("{}", print(&config)?);
        return Ok(());
    }
    log(&config)?;
    let data_dir = config.data_dir()?;
    std::fs::create_dir_all(&data_dir).with_context(|| format!("make {}", data_dir.display()))?;
    if !config.database_url.is_empty() {
        return lead(&config, &data_dir, config.database_url.clone(), None);
    }
    // Postgres dies with the thread that forked it: this one, which lives as long as the process.
    let own = OwnPostgres::start(chiptide_postgres::Options {
        data_dir: data_dir.join("postgres"),
        bin_dir: Some(config.postgres_bin_dir.clone()).filter(|dir| !dir.as_os_str().is_empty()),
        durable: true,
        settings: Vec::new(),
    });
    let mut own = own.context("start the private Postgres")?;
    let cluster = own.cluster().context("the private Postgres is gone already")?;
    cluster.ensure_database(DATABASE).context("make the database")?;
    let url = cluster.url(DATABASE);
    whole_file::write(&data_dir.join("postgres.url"), &url, 0o644).context("write postgres.url")?;
    let led = lead(&config, &data_dir, url, Some(&mut own));
    own.stop().context("stop the private Postgres")?;
    led
}

fn print(config: &Config) -> anyhow::Result<String> {
    let mut shown = config.clone();
    // A password in the URL is nobody's business on a terminal.
    if let (Some(at), Some(scheme)) = (shown.database_url.rfind('@'), shown.database_url.find("://")) {
        let user = shown.database_url[scheme + 3..at].split(':').next().unwrap_or_default().to_owned();
        shown.database_url.replace_range(scheme + 3..at, &format!("{user}:***"));
    }
    toml::to_string(&shown).context("write the configuration")
}

fn log(config: &Config) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&config.log.filter)
        .with_context(|| format!("configuration key \"log.filter\": {:?}", config.log.filter))?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match config.log.format {
        LogFormat::Human => builder.with_target(false).with_ansi(std::io::stderr().is_terminal()).init(),
        LogFormat::Json => builder.json().init(),
    }
    Ok(())
}

/// Serves on the runtime's threads, while this one keeps Postgres.
fn lead(config: &Config, data_dir: &Path, url: String, own: Option<&mut OwnPostgres>) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("start the runtime")?;
    let (stop, health) = (CancellationToken::new(), Arc::new(Health::default()));
    runtime.block_on(async { stop_on_signals(stop.clone()) })?;
    let outside = Outside { metrics: serve::install_metrics(), health: health.clone() };
    let serving = serve::run(config.clone(), data_dir.to_owned(), url, outside, stop);
    let (ended, done) = std::sync::mpsc::channel::<()>();
    let served = runtime.spawn(async move {
        // Dropped at the end, also by a panic: that ends the keeping.
        let _ended = ended;
        serving.await
    });
    if let Some(own) = own {
        own.keep(&health, &done);
    }
    runtime.block_on(served).context("the daemon broke")?
}

fn stop_on_signals(stop: CancellationToken) -> anyhow::Result<()> {
    let mut term = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
    tokio::spawn(async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = interrupt.recv() => {}
        }
        stop.cancel();
    });
    Ok(())
}
