//! The faults: each hits the world once and heals before it comes back.

use super::world::World;
use nix::sys::signal::Signal;
use rand::RngExt;
use rand::rngs::StdRng;
use serde::Serialize;
use std::time::Duration;
use tokio::time::sleep;

/// What can be done to a world.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// The daemon is killed (SIGKILL) and started again.
    KillDaemon,
    /// An agent is killed and started again; what it runs goes on meanwhile.
    KillAgent,
    /// Postgres's postmaster is killed and started again.
    KillPostgres,
    /// Postgres is stopped as by `pg_ctl stop -m immediate`, stays away for a while, and recovers.
    StopPostgres,
    /// The daemon stands still (SIGSTOP) for longer than its leadership lives.
    PauseDaemon,
    /// An agent stands still for longer than a node may be silent.
    PauseAgent,
}

impl Fault {
    /// The kills: what a short run is made of.
    pub const KILLS: [Fault; 3] = [Fault::KillDaemon, Fault::KillAgent, Fault::KillPostgres];

    /// Hits the world, and answers once it is healed as far as that is up to us.
    pub async fn strike(self, world: &mut World, rng: &mut StdRng) -> anyhow::Result<()> {
        let away = Duration::from_millis(rng.random_range(0..600));
        match self {
            Fault::KillDaemon => {
                world.daemon.kill()?;
                sleep(away).await;
                world.daemon.start_again()
            }
            Fault::KillAgent => {
                let index = rng.random_range(0..world.nodes.len());
                world.nodes[index].kill()?;
                sleep(away).await;
                world.tend()
            }
            Fault::KillPostgres => {
                world.database.end(Signal::SIGKILL).await?;
                sleep(away).await;
                world.database.start_again().await
            }
            Fault::StopPostgres => {
                world.database.end(Signal::SIGQUIT).await?;
                world.pass(away * 8).await?;
                world.database.start_again().await
            }
            Fault::PauseDaemon => {
                world.daemon.signal(Signal::SIGSTOP)?;
                sleep(Duration::from_millis(rng.random_range(500..9000))).await;
                world.daemon.signal(Signal::SIGCONT)
            }
            Fault::PauseAgent => {
                let index = rng.random_range(0..world.nodes.len());
                world.nodes[index].signal(Signal::SIGSTOP)?;
                let paused = Duration::from_millis(rng.random_range(500..14_000));
                sleep(paused).await;
                world.nodes[index].signal(Signal::SIGCONT)
            }
        }
    }
}
