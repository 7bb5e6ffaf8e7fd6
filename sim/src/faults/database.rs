//! The Postgres of a run: a durable cluster of our own that can be killed and started again while daemons use it.

use anyhow::{Context, anyhow};
use chiptide_postgres::{Cluster, Options};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle, sleep};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// The database the daemons share.
const DATABASE: &str = "chiptide";
/// The name of the socket of a Postgres on its usual port.
pub(super) const SOCKET: &str = ".s.PGSQL.5432";
/// How long a server that was sent a signal may take to end.
const END_MAX: Duration = Duration::from_secs(60);

/// The cluster. Dropping it stops it and removes its files.
#[derive(Debug)]
pub struct Database {
    url: String,
    socket_dir: PathBuf,
    home: PathBuf,
    asks: Option<Sender<Ask>>,
    keeper: Option<JoinHandle<()>>,
    keep: bool,
}

/// What the keeper is asked for, with where the answer goes.
#[derive(Debug)]
enum Ask {
    /// Send this signal and wait until the server has ended.
    End(Signal, oneshot::Sender<anyhow::Result<()>>),
    /// Start it again.
    Start(oneshot::Sender<anyhow::Result<()>>),
}

impl Database {
    /// Starts one in a fresh folder, in which `settings` win over our own.
    pub async fn start(home: &Path, settings: Vec<(String, String)>) -> anyhow::Result<Database> {
        let options = Options { data_dir: home.to_owned(), bin_dir: None, durable: true, settings };
        let (asks, asked) = channel();
        let (answer, started) = oneshot::channel();
        // The server is told to stop when the thread that forked it ends: this one stays for as long as the run lasts.
        let keeper = thread::Builder::new().name("database".into()).spawn(move || keep(&options, answer, &asked));
        let keeper = keeper.context("start the thread of the database")?;
        let (url, socket_dir) = started.await.context("the thread of the database died")??;
        Ok(Database { url, socket_dir, home: home.to_owned(), asks: Some(asks), keeper: Some(keeper), keep: false })
    }

    /// Where it answers, database included.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The socket it answers on, and its URL for who reaches it by a socket of the same name in another folder.
    pub fn through(&self, folder: &Path) -> (PathBuf, String) {
        let (ours, theirs) = (self.socket_dir.display().to_string(), folder.display().to_string());
        (self.socket_dir.join(SOCKET), self.url.replace(&ours, &theirs))
    }

    /// Ends the server by a signal: SIGKILL leaves everything as it is, SIGQUIT is an immediate stop.
    pub async fn end(&self, signal: Signal) -> anyhow::Result<()> {
        self.ask(|answer| Ask::End(signal, answer)).await
    }

    /// Starts it again, recovery included.
    pub async fn start_again(&self) -> anyhow::Result<()> {
        self.ask(Ask::Start).await
    }

    /// Leaves its files behind.
    pub fn keep(&mut self) {
        self.keep = true;
    }

    async fn ask(&self, ask: impl FnOnce(oneshot::Sender<anyhow::Result<()>>) -> Ask) -> anyhow::Result<()> {
        let (answer, answered) = oneshot::channel();
        let asks = self.asks.as_ref().context("the database is being dropped")?;
        asks.send(ask(answer)).map_err(|_| anyhow!("the thread of the database died"))?;
        answered.await.context("the thread of the database died")?
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        self.asks = None;
        if let Some(keeper) = self.keeper.take()
            && keeper.join().is_err()
        {
            eprintln!("the thread of the database had died");
        }
        if self.keep {
            eprintln!("kept {}", self.home.display());
        } else if let Err(error) = std::fs::remove_dir_all(&self.home) {
            eprintln!("could not remove {}: {error}", self.home.display());
        }
    }
}

fn keep(options: &Options, answer: oneshot::Sender<anyhow::Result<(String, PathBuf)>>, asked: &Receiver<Ask>) {
    let first = Cluster::start(options).and_then(|cluster| {
        cluster.ensure_database(DATABASE)?;
        let url = cluster.url(DATABASE);
        Ok((cluster, url))
    });
    let mut running = match first {
        Ok((cluster, url)) => {
            // Whoever asked has gone: nobody will ask again, and the loop below ends at once.
            drop(answer.send(Ok((url, cluster.address().socket_dir().to_owned()))));
            Some(cluster)
        }
        Err(error) => return drop(answer.send(Err(error))),
    };
    while let Ok(ask) = asked.recv() {
        match ask {
            Ask::End(signal, answer) => drop(answer.send(end(&mut running, signal))),
            Ask::Start(answer) => drop(answer.send(start(&mut running, options))),
        }
    }
}

fn end(running: &mut Option<Cluster>, signal: Signal) -> anyhow::Result<()> {
    let Some(cluster) = running else { return Ok(()) };
    kill(Pid::from_raw(cluster.pid().cast_signed()), signal).with_context(|| format!("{signal} to Postgres"))?;
    let begun = Instant::now();
    while cluster.try_wait()?.is_none() {
        anyhow::ensure!(begun.elapsed() < END_MAX, "Postgres does not end of {signal}");
        sleep(Duration::from_millis(2));
    }
    *running = None;
    Ok(())
}

fn start(running: &mut Option<Cluster>, options: &Options) -> anyhow::Result<()> {
    if running.is_none() {
        *running = Some(Cluster::start(options)?);
    }
    Ok(())
}
