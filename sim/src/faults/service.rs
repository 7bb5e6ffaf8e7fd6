//! What happens to chips besides losing their holders: faults that the driver tells of, and admins who take them out of service.

use super::world::World;
use rand::RngExt;
use rand::rngs::StdRng;
use std::time::Duration;

/// XIDs of every class that passes by itself or by an admin's word: ignored, the job's own, contained memory error, row
/// remapping, and one that nobody knows.
const XIDS: [u32; 5] = [45, 31, 94, 63, 999];

/// The driver tells of an XID on one chip; after a while an admin brings back what is out of service for it.
pub(super) async fn fault_a_chip(world: &mut World, rng: &mut StdRng) -> anyhow::Result<()> {
    let (node, xid) = (rng.random_range(0..world.nodes.len()), XIDS[rng.random_range(0..XIDS.len())]);
    let chip = rng.random_range(0..world.nodes[node].chips());
    world.nodes[node].tell_xid(chip, xid)?;
    world.pass(Duration::from_millis(rng.random_range(500..6000))).await?;
    bring_back(world).await
}

/// An admin takes a chip out of service, whoever has it, and brings it back.
pub(super) async fn quarantine_a_chip(world: &mut World, rng: &mut StdRng) -> anyhow::Result<()> {
    let client = world.client()?;
    // Refused or unheard while another fault is being got over: then nothing happens this time.
    if let Ok(page) = client.chips(&[]).await
        && !page.items.is_empty()
    {
        let chip = &page.items[rng.random_range(0..page.items.len())].id;
        drop(client.quarantine_chip(chip, "a look at the cooling").await);
    }
    world.pass(Duration::from_millis(rng.random_range(200..4000))).await?;
    bring_back(world).await
}

/// An admin brings back every chip that is out of service for a fault or by an admin's word. What is not proven vacant stays.
pub(super) async fn bring_back(world: &World) -> anyhow::Result<()> {
    let client = world.client()?;
    let Ok(page) = client.chips(&[("state", "quarantined".into())]).await else { return Ok(()) };
    for chip in page.items {
        let reason = chip.reason.unwrap_or_default();
        if reason.starts_with("fault of class") || reason.starts_with("taken out of service") {
            // Whoever could not be told is told in the end.
            drop(client.release_chip(&chip.id, "looked after").await);
        }
    }
    Ok(())
}
