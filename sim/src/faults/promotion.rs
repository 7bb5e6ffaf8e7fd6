//! A replica is promoted in the place of a Postgres that was killed. A synchronous one has all that was acknowledged; one that
//! lagged has forgotten the tail. The old primary then comes back beside the new one, and must find nobody who writes to it.

use super::proxy::Upstream;
use super::world::World;
use crate::audit::Entry;
use crate::event_log;
use anyhow::ensure;
use nix::sys::signal::Signal;
use rand::RngExt;
use rand::rngs::StdRng;
use std::time::Duration;

/// How long the old primary runs beside the new one.
const SIDE_BY_SIDE: Duration = Duration::from_millis(1500);

/// A replica that was promoted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Promotion {
    /// Whether commits had waited for the replica.
    pub synchronous: bool,
    /// The last event that it had.
    pub last_seq: i64,
    /// The events that it lacked, and the old primary had when it came back. Those that a synchronous replica lacks were never
    /// acknowledged: their commit was still waiting for it.
    pub forgotten: Vec<Entry>,
}

impl Promotion {
    /// The events that were committed, and perhaps acknowledged and acted on, and that the replica lacked.
    pub fn lost(&self) -> &[Entry] {
        if self.synchronous { &[] } else { &self.forgotten }
    }
}

/// Makes a replica, lets it follow the load for a while, kills the primary, and promotes the replica.
pub(super) async fn promote(world: &mut World, rng: &mut StdRng, synchronous: bool) -> anyhow::Result<()> {
    world.database.follow(synchronous).await?;
    world.pass(Duration::from_millis(rng.random_range(200..1500))).await?;
    if !synchronous {
        world.database.deafen_replica().await?;
        world.pass(Duration::from_millis(rng.random_range(200..3000))).await?;
    }
    world.database.end(Signal::SIGKILL).await?;
    world.database.promote().await?;
    let last_seq = event_log::read(world.database.url()).await?.last().map_or(0, |entry| entry.seq);
    world.wire.turn_to(Upstream::Unix(world.database.socket()));
    let past = world.database.wake_past().await?;
    let before = event_log::read(&past).await?;
    world.pass(SIDE_BY_SIDE).await?;
    let after = event_log::read(&past).await?;
    ensure!(before == after, "the old primary was written to after another had taken its place");
    world.database.bury_past().await?;
    let forgotten = after.into_iter().filter(|entry| entry.seq > last_seq).collect();
    world.promotions.push(Promotion { synchronous, last_seq, forgotten });
    Ok(())
}
