//! Two daemons on one database, one of which leads.

use super::LeaderFault;
use crate::faults::database::Database;
use crate::own_daemon::{DaemonOptions, OwnDaemon, make_dir};
use anyhow::bail;
use chiptide_api::Client;
use nix::sys::signal::Signal;
use std::path::PathBuf;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

/// Longest wait for a takeover, or for a daemon to come back; reached only when something is wrong.
const LONGEST: Duration = Duration::from_secs(60);

/// The daemons and their database.
#[derive(Debug)]
pub(super) struct Pair {
    daemons: [OwnDaemon; 2],
    // After the daemons: they end first.
    database: Database,
    ground: Ground,
}

/// The folder of a run. Dropping it removes it.
#[derive(Debug)]
struct Ground {
    path: PathBuf,
    keep: bool,
}

impl Drop for Ground {
    fn drop(&mut self) {
        if self.keep {
            eprintln!("kept {}", self.path.display());
        } else if let Err(error) = std::fs::remove_dir_all(&self.path) {
            eprintln!("could not remove {}: {error}", self.path.display());
        }
    }
}

impl Pair {
    /// Starts both, and waits until one leads and the other stands by.
    pub(super) async fn start() -> anyhow::Result<Pair> {
        let ground = Ground { path: make_dir("takeover")?, keep: false };
        let database = Database::start(&ground.path.join("postgres"), Vec::new()).await?;
        let options = DaemonOptions {
            database_url: Some(database.url().to_owned()),
            token_file: Some(ground.path.join("admin-token")),
            ..DaemonOptions::default()
        };
        let mut first = OwnDaemon::launch("takeover", options.clone())?;
        first.wait_ready().await?;
        let mut second = OwnDaemon::launch("takeover", options)?;
        second.wait_ready().await?;
        Ok(Pair { daemons: [first, second], database, ground })
    }

    /// Both addresses, each of the two first once.
    pub(super) fn urls(&self) -> anyhow::Result<(String, String)> {
        let (first, second) = (self.daemons[0].url()?, self.daemons[1].url()?);
        Ok((format!("{first},{second}"), format!("{second},{first}")))
    }

    pub(super) fn token(&self) -> &str {
        self.daemons[0].token()
    }

    pub(super) fn database_url(&self) -> &str {
        self.database.url()
    }

    /// Which of the two leads.
    pub(super) async fn leader(&self) -> anyhow::Result<usize> {
        let begun = Instant::now();
        loop {
            for index in 0..2 {
                if self.stands(index).await == Some(("leader".into(), "ready".into())) {
                    return Ok(index);
                }
            }
            if begun.elapsed() > LONGEST {
                bail!("neither daemon leads");
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Does this to a daemon.
    pub(super) fn hit(&mut self, index: usize, fault: LeaderFault) -> anyhow::Result<()> {
        match fault {
            LeaderFault::Kill => self.daemons[index].kill(),
            LeaderFault::Hang => self.daemons[index].signal(Signal::SIGSTOP),
        }
    }

    /// Waits until this daemon leads.
    pub(super) async fn wait_leads(&self, index: usize) -> anyhow::Result<()> {
        self.wait(index, "leader").await
    }

    /// Starts it again, or lets it run on, and waits until it stands by.
    pub(super) async fn bring_back(&mut self, index: usize, fault: LeaderFault) -> anyhow::Result<()> {
        match fault {
            LeaderFault::Kill => self.daemons[index].start_again()?,
            LeaderFault::Hang => self.daemons[index].signal(Signal::SIGCONT)?,
        }
        self.wait(index, "standby").await
    }

    async fn wait(&self, index: usize, role: &str) -> anyhow::Result<()> {
        let begun = Instant::now();
        while self.stands(index).await != Some((role.into(), "ready".into())) {
            if begun.elapsed() > LONGEST {
                bail!("daemon {index} is not a ready {role}; its log ends:\n{}", self.daemons[index].log_tail());
            }
            sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }

    /// Its role and status, if it answers.
    async fn stands(&self, index: usize) -> Option<(String, String)> {
        let client = Client::new(&self.daemons[index].url().ok()?, "").ok()?;
        let text = timeout(Duration::from_secs(1), client.text("/readyz")).await.ok()?.ok()?;
        let view: serde_json::Value = serde_json::from_str(&text).ok()?;
        Some((view["role"].as_str()?.to_owned(), view["status"].as_str()?.to_owned()))
    }

    /// Leaves all data behind, and says where.
    pub(super) fn keep(&mut self) {
        for daemon in &mut self.daemons {
            daemon.keep_dir();
        }
        self.ground.keep = true;
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        for daemon in &self.daemons {
            // One that is stopped would not hear that it shall end; one that is gone need not.
            let _ = daemon.signal(Signal::SIGCONT);
        }
    }
}
