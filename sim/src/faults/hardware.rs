//! Disks without room and cables that lead nowhere: what this machine can have where its kernel lets us.

use super::namespace::Cut;
use super::world::World;
use anyhow::Context;
use rand::RngExt;
use rand::rngs::StdRng;
use std::time::{Duration, Instant};

/// How long a full disk stays full at most, milliseconds.
const FULL_MAX_MS: u64 = 6000;
/// How long a node is cut off at most.
const CUT_MAX_MS: u64 = 14_000;

/// Leaves the database no room. The leader has to say so as soon as it wants to write, and to go on by itself afterwards.
pub(super) async fn fill_postgres(world: &mut World, rng: &mut StdRng) -> anyhow::Result<()> {
    world.database_disk.as_ref().context("a disk")?.fill()?;
    let until = Instant::now() + Duration::from_millis(rng.random_range(1000..FULL_MAX_MS));
    let mut is_told = false;
    while Instant::now() < until {
        world.pass(Duration::from_millis(100)).await?;
        for index in 0..2 {
            is_told |= world.daemons.complaint(index).await.as_deref() == Some("disk_full");
        }
    }
    world.full_told += u64::from(is_told);
    world.database_disk.as_ref().context("a disk")?.free()?;
    // One that could not write its log has ended: whoever minds it starts it again.
    world.database.start_again().await
}

/// Leaves an agent no room for its state: what it cannot put on disk it must not act on.
pub(super) async fn fill_agent(world: &mut World, rng: &mut StdRng) -> anyhow::Result<()> {
    let with_disk: Vec<usize> = (0..world.nodes.len()).filter(|index| world.nodes[*index].disk().is_some()).collect();
    let index = with_disk[rng.random_range(0..with_disk.len())];
    world.nodes[index].disk().context("a disk")?.fill()?;
    world.pass(Duration::from_millis(rng.random_range(500..FULL_MAX_MS))).await?;
    world.nodes[index].disk().context("a disk")?.free()
}

/// Cuts a node off, one way or both.
pub(super) async fn cut_routes(world: &mut World, rng: &mut StdRng) -> anyhow::Result<()> {
    let inside: Vec<usize> = (0..world.nodes.len()).filter(|index| world.nodes[*index].namespace().is_some()).collect();
    let index = inside[rng.random_range(0..inside.len())];
    let cut = [Cut::Outward, Cut::Inward, Cut::Both][rng.random_range(0..3)];
    world.nodes[index].namespace().context("a namespace")?.cut(cut)?;
    world.pass(Duration::from_millis(rng.random_range(200..CUT_MAX_MS))).await?;
    world.nodes[index].namespace().context("a namespace")?.heal(cut)
}
