//! Two daemons on one database, each behind a proxy of its own: one leads, the other stands by. Agents and clients know both
//! proxies. A daemon that ends when nobody meant it to is counted and started again, as a supervisor would.

use super::proxy::{Proxy, Upstream, Weather};
use crate::own_daemon::{DaemonOptions, OwnDaemon};
use anyhow::Context;
use chiptide_api::Client;
use nix::sys::signal::Signal;
use std::path::Path;
use std::time::Duration;
use tokio::time::timeout;

/// How long a daemon may take to say what it is, before it counts as not answering.
const ANSWER_MAX: Duration = Duration::from_millis(500);

/// After how long a node that does not report is silent: short, so that runs see much of it.
const SILENT_AFTER: &str = "5s";

/// The daemons.
#[derive(Debug)]
pub struct Daemons {
    daemons: [OwnDaemon; 2],
    /// Proxies before the two, one pair for every address that they are reached at.
    nets: Vec<[Proxy; 2]>,
    unasked: Vec<String>,
}

impl Daemons {
    /// Starts both on this database, with these flags; what they share is kept in `folder`.
    pub async fn start(database_url: String, folder: &Path, flags: Vec<String>) -> anyhow::Result<Daemons> {
        let options = DaemonOptions {
            database_url: Some(database_url),
            token_file: Some(folder.join("admin-token")),
            flags,
            env: vec![("CHIPTIDE_AGENTS__SILENT_AFTER".into(), SILENT_AFTER.into())],
        };
        // The first makes the token that the second finds.
        let mut first = OwnDaemon::launch("faults", options.clone())?;
        first.wait_ready().await?;
        let mut second = OwnDaemon::launch("faults", options)?;
        second.wait_ready().await?;
        let mut daemons = Daemons { daemons: [first, second], nets: Vec::new(), unasked: Vec::new() };
        daemons.open_door("127.0.0.1").await?;
        Ok(daemons)
    }

    /// Makes both reachable at another address of this machine; answers the number of this door. The loopback is door 0.
    pub async fn open_door(&mut self, host: &str) -> anyhow::Result<usize> {
        let [first, second] = &self.daemons;
        self.nets.push([in_front_of(first, host).await?, in_front_of(second, host).await?]);
        Ok(self.nets.len() - 1)
    }

    /// Where agents and clients find both at this door, the one of this number first.
    pub fn url(&self, door: usize, first: usize) -> anyhow::Result<String> {
        let url = |index: usize| self.nets[door][index % 2].url().context("a proxy of TCP");
        Ok(format!("{},{}", url(first)?, url(first + 1)?))
    }

    /// The admin's bearer token.
    pub fn token(&self) -> &str {
        self.daemons[0].token()
    }

    /// One of them.
    pub fn one(&mut self, index: usize) -> &mut OwnDaemon {
        &mut self.daemons[index % 2]
    }

    /// Changes the weather before one of them, or before both.
    pub fn set_weather(&self, before: Option<usize>, weather: Weather) {
        let hit = |index: &usize| before.is_none_or(|before| before == *index);
        for index in (0..2).filter(hit) {
            self.nets.iter().for_each(|pair| pair[index].set(weather));
        }
    }

    /// Which of the two says that it leads.
    pub async fn leader(&self) -> Option<usize> {
        for (index, daemon) in self.daemons.iter().enumerate() {
            if role(daemon).await.as_deref() == Some("leader") {
                return Some(index);
            }
        }
        None
    }

    /// Whether this one says that it stands by.
    pub async fn stands_by(&self, index: usize) -> bool {
        role(&self.daemons[index % 2]).await.as_deref() == Some("standby")
    }

    /// What one of them says is wrong, in a word; `None` when it does not answer.
    pub async fn complaint(&self, index: usize) -> Option<String> {
        view(&self.daemons[index % 2]).await.and_then(|view| view["reason"].as_str().map(str::to_owned))
    }

    /// Starts whichever has ended without being asked to.
    pub fn tend(&mut self) -> anyhow::Result<()> {
        for daemon in &mut self.daemons {
            if daemon.has_ended() {
                let said = daemon.log_tail();
                self.unasked.push(said.lines().last().unwrap_or_default().to_owned());
                daemon.start_again()?;
            }
        }
        Ok(())
    }

    /// The last words of those that ended without being hit.
    pub fn unasked(&self) -> &[String] {
        &self.unasked
    }

    /// Sends one of them a signal.
    pub fn signal(&self, index: usize, signal: Signal) -> anyhow::Result<()> {
        self.daemons[index % 2].signal(signal)
    }

    /// Leaves their data behind, and says where.
    pub fn keep(&mut self) {
        for daemon in &mut self.daemons {
            daemon.keep_dir();
        }
    }
}

/// A proxy before a daemon, which listens on this host.
async fn in_front_of(daemon: &OwnDaemon, host: &str) -> anyhow::Result<Proxy> {
    let address = daemon.url()?.trim_start_matches("http://").parse().context("read the daemon's address")?;
    Proxy::tcp(host, Upstream::Tcp(address)).await
}

/// What a daemon says of itself, if it answers and is ready.
async fn role(daemon: &OwnDaemon) -> Option<String> {
    let view = view(daemon).await.filter(|view| view["status"] == "ready")?;
    view["role"].as_str().map(str::to_owned)
}

/// What it answers at `/readyz`, ready or not.
async fn view(daemon: &OwnDaemon) -> Option<serde_json::Value> {
    let client = Client::new(&daemon.url().ok()?, "").ok()?;
    let text = timeout(ANSWER_MAX, client.text("/readyz")).await.ok()?.ok()?;
    serde_json::from_str(&text).ok()
}
