//! The Postgres of a run: a durable cluster of our own that can be killed and started again while daemons use it, and
//! replaced by a replica.

mod keeper;

use anyhow::{Context, anyhow};
use chiptide_postgres::Options;
use keeper::{Ask, Asked, At, keep};
use nix::sys::signal::Signal;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Sender, channel};
use std::thread::{self, JoinHandle};
use tokio::sync::oneshot;

/// The database the daemons share.
const DATABASE: &str = "chiptide";
/// The name of the socket of a Postgres on its usual port.
pub(super) const SOCKET: &str = ".s.PGSQL.5432";

/// The clusters. Dropping it stops them; their files go with the folder they are in.
#[derive(Debug)]
pub struct Database {
    at: At,
    home: PathBuf,
    made: u32,
    asks: Option<Sender<Asked>>,
    keeper: Option<JoinHandle<()>>,
}

impl Database {
    /// Starts one in a fresh folder, in which `settings` win over our own.
    pub async fn start(home: &Path, settings: Vec<(String, String)>) -> anyhow::Result<Database> {
        let options = Options { data_dir: home.join("1"), bin_dir: None, durable: true, settings };
        let (asks, asked) = channel();
        let (answer, started) = oneshot::channel();
        let keeper = thread::Builder::new().name("database".into()).spawn(move || keep(options, answer, &asked));
        let keeper = Some(keeper.context("start the thread of the database")?);
        let at = started.await.context("the thread of the database died")??;
        Ok(Database { at, home: home.to_owned(), made: 1, asks: Some(asks), keeper })
    }

    /// Where the primary answers, database included.
    pub fn url(&self) -> &str {
        &self.at.url
    }

    /// The primary's socket.
    pub fn socket(&self) -> PathBuf {
        self.at.socket_dir.join(SOCKET)
    }

    /// Its URL for who reaches it by a socket of the same name in another folder.
    pub fn url_through(&self, folder: &Path) -> String {
        self.at.url.replace(&self.at.socket_dir.display().to_string(), &folder.display().to_string())
    }

    /// Ends the primary by a signal: SIGKILL leaves everything as it is, SIGQUIT is an immediate stop.
    pub async fn end(&self, signal: Signal) -> anyhow::Result<()> {
        self.ask(Ask::End(signal)).await.map(drop)
    }

    /// Starts it again, recovery included.
    pub async fn start_again(&self) -> anyhow::Result<()> {
        self.ask(Ask::Start).await.map(drop)
    }

    /// Makes a replica and waits until it follows. Commits wait for it, if it is synchronous.
    pub async fn follow(&mut self, synchronous: bool) -> anyhow::Result<()> {
        self.made += 1;
        let home = self.home.join(self.made.to_string());
        self.ask(Ask::Follow { home, synchronous }).await.map(drop)
    }

    /// Lets the replica hear nothing more: what is committed from now on, it will lack.
    pub async fn deafen_replica(&self) -> anyhow::Result<()> {
        self.ask(Ask::Deafen).await.map(drop)
    }

    /// Makes the replica the primary, once the old one has ended.
    pub async fn promote(&mut self) -> anyhow::Result<()> {
        self.at = self.ask(Ask::Promote).await?.context("a primary")?;
        Ok(())
    }

    /// Starts the old primary again, beside the new one; answers its URL.
    pub async fn wake_past(&self) -> anyhow::Result<String> {
        Ok(self.ask(Ask::WakePast).await?.context("an old primary")?.url)
    }

    /// Ends the old primary for good.
    pub async fn bury_past(&self) -> anyhow::Result<()> {
        self.ask(Ask::BuryPast).await.map(drop)
    }

    async fn ask(&self, ask: Ask) -> anyhow::Result<Option<At>> {
        let (answer, answered) = oneshot::channel();
        let asks = self.asks.as_ref().context("the database is being dropped")?;
        asks.send((ask, answer)).map_err(|_| anyhow!("the thread of the database died"))?;
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
    }
}
