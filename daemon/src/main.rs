//! `chiptided`. Starts a private Postgres if no database is given, then leads and serves until SIGTERM or SIGINT.

use anyhow::Context;
use chiptide_daemon::config::{Config, Flags, LogFormat};
use chiptide_daemon::{serve, whole_file};
use chiptide_postgres::Cluster;
use clap::Parser;
use std::io::IsTerminal;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;
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
    let options = chiptide_postgres::Options {
        data_dir: data_dir.join("postgres"),
        bin_dir: Some(config.postgres_bin_dir.clone()).filter(|dir| !dir.as_os_str().is_empty()),
        durable: true,
        settings: Vec::new(),
    };
    let mut cluster = Cluster::start(&options).context("start the private Postgres")?;
    cluster.ensure_database(DATABASE).context("make the database")?;
    let url = cluster.url(DATABASE);
    whole_file::write(&data_dir.join("postgres.url"), &url, 0o644).context("write postgres.url")?;
    let led = lead(&config, &data_dir, url, Some(&mut cluster));
    cluster.stop().context("stop the private Postgres")?;
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

fn lead(config: &Config, data_dir: &Path, url: String, own: Option<&mut Cluster>) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("start the runtime")?;
    let metrics = serve::install_metrics();
    runtime.block_on(async {
        let stop = CancellationToken::new();
        let mut term = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
        let stopped = stop.clone();
        tokio::spawn(async move {
            tokio::select! {
                _ = term.recv() => {}
                _ = interrupt.recv() => {}
            }
            stopped.cancel();
        });
        tokio::select! {
            served = serve::run(config.clone(), data_dir.to_owned(), url, metrics, stop) => served,
            died = death_of(own) => Err(died),
        }
    })
}

/// Waits for the private Postgres to die by itself. Without it there is nothing to lead: whoever runs the daemon starts
/// it again, and it starts Postgres.
async fn death_of(own: Option<&mut Cluster>) -> anyhow::Error {
    let Some(cluster) = own else { return std::future::pending().await };
    loop {
        tokio::time::sleep(Duration::from_millis(500)).await;
        match cluster.try_wait() {
            Ok(None) => {}
            Ok(Some(how)) => return anyhow::anyhow!("the private Postgres died: {how}"),
            Err(error) => return error.context("watch the private Postgres"),
        }
    }
}
