//! The thread that keeps the clusters: Postgres is told to stop when the thread that forked it ends.

use super::DATABASE;
use anyhow::{Context, ensure};
use chiptide_postgres::{Cluster, Options, copy};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::path::{Path, PathBuf};
use std::sync::mpsc::Receiver;
use std::thread::sleep;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// How long a server that was sent a signal may take to end, and a replica to follow.
const LONGEST: Duration = Duration::from_secs(60);

/// Where a cluster answers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct At {
    /// Its URL, database included.
    pub(super) url: String,
    /// The folder of its socket.
    pub(super) socket_dir: PathBuf,
}

/// What can be asked of the clusters.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Ask {
    /// Send the primary this signal and wait until it has ended.
    End(Signal),
    /// Start it again, if it does not run.
    Start,
    /// Make a replica of it in this folder; commits wait for it, or not.
    Follow { home: PathBuf, synchronous: bool },
    /// Let the replica hear nothing more.
    Deafen,
    /// Make the replica the primary; the old one, which must have ended, becomes the past.
    Promote,
    /// Start the past again, beside the primary.
    WakePast,
    /// End the past for good, and remove its files.
    BuryPast,
}

/// An ask, with where the answer goes.
pub(super) type Asked = (Ask, oneshot::Sender<anyhow::Result<Option<At>>>);

/// A cluster and what it is started with.
#[derive(Debug)]
struct Server {
    options: Options,
    running: Option<Cluster>,
}

#[derive(Debug)]
struct Keeper {
    primary: Server,
    replica: Option<Server>,
    past: Option<Server>,
}

/// Starts a cluster and does what it is asked until nobody can ask any more.
pub(super) fn keep(options: Options, answer: oneshot::Sender<anyhow::Result<At>>, asked: &Receiver<Asked>) {
    let mut keeper = Keeper { primary: Server { options, running: None }, replica: None, past: None };
    let first = keeper.primary.start().and_then(|cluster| {
        cluster.ensure_database(DATABASE)?;
        Ok(at(cluster))
    });
    let has_started = first.is_ok();
    // Whoever asked has gone: nobody will ask again, and the loop below ends at once.
    drop(answer.send(first));
    while has_started && let Ok((ask, answer)) = asked.recv() {
        drop(answer.send(keeper.do_it(ask)));
    }
}

fn at(cluster: &Cluster) -> At {
    At { url: cluster.url(DATABASE), socket_dir: cluster.address().socket_dir().to_owned() }
}

impl Keeper {
    fn do_it(&mut self, ask: Ask) -> anyhow::Result<Option<At>> {
        match ask {
            Ask::End(signal) => self.primary.end(signal)?,
            Ask::Start => drop(self.primary.start()?),
            Ask::Follow { home, synchronous } => self.follow(&home, synchronous)?,
            Ask::Deafen => {
                let replica = self.replica()?;
                replica.stop_following()?;
                wait_until("the replica to hear nothing", || Ok(!replica.is_following()?))?;
            }
            Ask::Promote => {
                ensure!(self.primary.running.is_none(), "the old primary still runs");
                self.replica()?.promote()?;
                let replica = self.replica.take().context("there is a replica")?;
                let now = replica.running.as_ref().map(at);
                self.past = Some(std::mem::replace(&mut self.primary, replica));
                return Ok(now);
            }
            Ask::WakePast => return self.past.as_mut().context("there is a past")?.start().map(|past| Some(at(past))),
            Ask::BuryPast => {
                let mut past = self.past.take().context("there is a past")?;
                past.end(Signal::SIGQUIT)?;
                std::fs::remove_dir_all(&past.options.data_dir).context("remove the old primary")?;
            }
        }
        Ok(None)
    }

    fn replica(&self) -> anyhow::Result<&Cluster> {
        self.replica.as_ref().and_then(|replica| replica.running.as_ref()).context("there is a replica")
    }

    fn follow(&mut self, home: &Path, synchronous: bool) -> anyhow::Result<()> {
        let primary = self.primary.running.as_ref().context("the primary runs")?;
        copy(primary.address(), home)?;
        let mut replica =
            Server { options: Options { data_dir: home.to_owned(), ..self.primary.options.clone() }, running: None };
        replica.start()?;
        self.replica = Some(replica);
        primary.set_synchronous(synchronous)?;
        let state = if synchronous { "sync" } else { "async" };
        wait_until("the replica to follow", || Ok(primary.followers(state)? == 1))
    }
}

impl Server {
    fn start(&mut self) -> anyhow::Result<&Cluster> {
        // One that has ended by itself, for want of a disk say, is started again.
        if let Some(running) = &mut self.running
            && running.try_wait()?.is_some()
        {
            self.running = None;
        }
        match &mut self.running {
            Some(running) => Ok(running),
            none => Ok(none.insert(Cluster::start(&self.options)?)),
        }
    }

    fn end(&mut self, signal: Signal) -> anyhow::Result<()> {
        let Some(cluster) = &mut self.running else { return Ok(()) };
        if cluster.try_wait()?.is_none() {
            kill(Pid::from_raw(cluster.pid().cast_signed()), signal)
                .with_context(|| format!("{signal} to Postgres"))?;
        }
        let begun = Instant::now();
        while cluster.try_wait()?.is_none() {
            ensure!(begun.elapsed() < LONGEST, "Postgres does not end of {signal}");
            sleep(Duration::from_millis(2));
        }
        self.running = None;
        Ok(())
    }
}

fn wait_until(what: &str, is_so: impl Fn() -> anyhow::Result<bool>) -> anyhow::Result<()> {
    let begun = Instant::now();
    while !is_so()? {
        ensure!(begun.elapsed() < LONGEST, "waited in vain for {what}");
        sleep(Duration::from_millis(20));
    }
    Ok(())
}
