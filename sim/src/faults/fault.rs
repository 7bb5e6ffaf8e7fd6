//! The faults: each hits the world once and heals before it comes back.

use super::hardware;
use super::points;
use super::promotion;
use super::proxy::Weather;
use super::service;
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
    /// A daemon, the leader or the standby, is killed (SIGKILL) and started again.
    KillDaemon,
    /// An agent is killed and started again; what it runs goes on meanwhile.
    KillAgent,
    /// Postgres's postmaster is killed and started again.
    KillPostgres,
    /// Postgres is stopped as by `pg_ctl stop -m immediate`, stays away for a while, and recovers.
    StopPostgres,
    /// A daemon stands still (SIGSTOP), often for longer than its leadership lives.
    PauseDaemon,
    /// An agent stands still for longer than a node may be silent.
    PauseAgent,
    /// The leader is killed, and the standby that takes over ends itself (SIGABRT, nothing flushed) at the next fault point.
    PointDaemon,
    /// An agent, or one of its guardians, ends itself at the next of its fault points.
    PointAgent,
    /// Everything between agents, clients and the daemon comes late.
    SlowNet,
    /// Connections to the daemon are closed once the question has been carried, or after half of the answer.
    CutNet,
    /// Connections to the daemon stay open and carry nothing.
    DeafNet,
    /// Everything is asked of the daemon twice, on two connections.
    TwiceNet,
    /// Everything between the daemon and Postgres comes late.
    SlowPostgres,
    /// Connections to Postgres are closed once the question has been carried: whether a commit landed is not known.
    CutPostgres,
    /// Connections to Postgres stay open and carry nothing.
    DeafPostgres,
    /// Postgres is killed, and a synchronous replica promoted in its place.
    PromoteSynchronous,
    /// Postgres is killed, and an asynchronous replica that lacks the tail promoted in its place: what was acknowledged last
    /// is forgotten.
    PromoteLagging,
    /// The disk of the database has no room left, for a while.
    FullPostgres,
    /// The disk of an agent's state has no room left, for a while.
    FullAgent,
    /// The routes to a node, from it, or both, lead nowhere.
    CutRoutes,
    /// The driver tells of an XID on a chip.
    Xid,
    /// An admin takes a chip out of service, and brings it back.
    Quarantine,
}

impl Fault {
    /// The kills: what a short run is made of.
    pub const KILLS: [Fault; 3] = [Fault::KillDaemon, Fault::KillAgent, Fault::KillPostgres];

    /// Why this machine cannot have it, if it cannot.
    pub fn is_impossible(self, world: &World) -> Option<&'static str> {
        match self {
            Fault::FullPostgres if world.database_disk.is_none() => {
                Some("no disk can be mounted here: that takes root")
            }
            Fault::FullAgent if world.nodes.iter().all(|node| node.disk().is_none()) => {
                Some("no disk can be mounted here: that takes root")
            }
            Fault::CutRoutes if world.nodes.iter().all(|node| node.namespace().is_none()) => {
                Some("no network namespace can be made here: that takes root and iproute2; the proxies cut instead")
            }
            _ => None,
        }
    }

    /// Hits the world, and answers once it is healed as far as that is up to us.
    pub async fn strike(self, world: &mut World, rng: &mut StdRng) -> anyhow::Result<()> {
        if let Some((on_the_wire, weather, longest_ms)) = self.weather(rng) {
            // Before one daemon, or before both.
            let before = rng.random_bool(0.5).then(|| rng.random_range(0..2));
            let set = |world: &World, weather| match on_the_wire {
                true => world.wire.set(weather),
                false => world.daemons.set_weather(before, weather),
            };
            set(world, weather);
            world.pass(Duration::from_millis(rng.random_range(200..longest_ms))).await?;
            set(world, Weather::Clear);
            return Ok(());
        }
        let away = Duration::from_millis(rng.random_range(0..600));
        match self {
            Fault::KillDaemon => {
                let index = rng.random_range(0..2);
                world.daemons.one(index).kill()?;
                sleep(away).await;
                world.daemons.one(index).start_again()
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
                let index = rng.random_range(0..2);
                world.daemons.signal(index, Signal::SIGSTOP)?;
                sleep(Duration::from_millis(rng.random_range(500..9000))).await;
                world.daemons.signal(index, Signal::SIGCONT)
            }
            Fault::PauseAgent => {
                let index = rng.random_range(0..world.nodes.len());
                world.nodes[index].signal(Signal::SIGSTOP)?;
                // Past the fence of serving jobs, and now and then until they are placed again elsewhere.
                let longest_ms = if rng.random_bool(0.25) { 24_000 } else { 12_000 };
                sleep(Duration::from_millis(rng.random_range(500..longest_ms))).await;
                world.nodes[index].signal(Signal::SIGCONT)
            }
            Fault::PointDaemon => {
                let met = points::end_daemon(world, rng).await?;
                world.count_point(met);
                Ok(())
            }
            Fault::PointAgent => {
                let met = points::end_agent(world, rng).await?;
                world.count_point(met);
                Ok(())
            }
            Fault::PromoteSynchronous => promotion::promote(world, rng, true).await,
            Fault::PromoteLagging => promotion::promote(world, rng, false).await,
            Fault::FullPostgres => hardware::fill_postgres(world, rng).await,
            Fault::FullAgent => hardware::fill_agent(world, rng).await,
            Fault::CutRoutes => hardware::cut_routes(world, rng).await,
            Fault::Xid => service::fault_a_chip(world, rng).await,
            Fault::Quarantine => service::quarantine_a_chip(world, rng).await,
            // Weather was dealt with above.
            _ => Ok(()),
        }
    }

    /// Of faults of a proxy: whether of the one before Postgres, the weather, and how long it lasts at most.
    fn weather(self, rng: &mut StdRng) -> Option<(bool, Weather, u64)> {
        Some(match self {
            Fault::SlowNet => (false, Weather::Slow, 4000),
            Fault::CutNet if rng.random_bool(0.5) => (false, Weather::Stump, 3000),
            Fault::CutNet => (false, Weather::Cut, 3000),
            Fault::DeafNet => (false, Weather::Deaf, 14_000),
            Fault::TwiceNet => (false, Weather::Twice, 3000),
            Fault::SlowPostgres => (true, Weather::Slow, 4000),
            Fault::CutPostgres => (true, Weather::Cut, 1500),
            Fault::DeafPostgres => (true, Weather::Deaf, 10_000),
            _ => return None,
        })
    }
}
