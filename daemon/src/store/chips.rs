//! Table `chips`: every chip that has registered, and its lease epoch, which only grows.

use super::{Result, expect_rows, json, signed, unjson, unsigned};
use chiptide_allocator::fleet::{Chip, ChipIx};
use chiptide_allocator::restore::ChipRow;
use chiptide_model::{ChipId, NodeId};
use sqlx::PgConnection;
use std::collections::BTreeMap;

/// A chip to write: its index (its number in the tables), its node's name, and its state now.
pub type ChipWrite = (ChipIx, NodeId, Chip);

/// Adds chips met for the first time.
pub async fn insert(tx: &mut PgConnection, chips: &[ChipWrite]) -> Result<()> {
    let ids: Vec<String> = chips.iter().map(|(_, _, chip)| chip.facts.id.to_string()).collect();
    let nodes: Vec<String> = chips.iter().map(|(_, node, _)| node.to_string()).collect();
    let numbers: Vec<i64> = chips.iter().map(|(ix, _, _)| signed(*ix as u64)).collect();
    let classes: Vec<String> = chips.iter().map(|(_, _, chip)| chip.facts.class.to_string()).collect();
    let epochs: Vec<i64> = chips.iter().map(|(_, _, chip)| signed(chip.epoch)).collect();
    let health: Vec<String> = chips.iter().map(|(_, _, chip)| json(&chip.health)).collect();
    let facts: Vec<String> = chips.iter().map(|(_, _, chip)| json(&chip.facts)).collect();
    let done = sqlx::query!(
        "insert into chips (id, node_id, number, device_class, lease_epoch, health, facts)
         select id, node_id, number, device_class, lease_epoch, health::jsonb, facts::jsonb
         from unnest($1::text[], $2::text[], $3::bigint[], $4::text[], $5::bigint[], $6::text[], $7::text[])
             as c (id, node_id, number, device_class, lease_epoch, health, facts)",
        &ids,
        &nodes,
        &numbers,
        &classes,
        &epochs,
        &health,
        &facts
    )
    .execute(tx)
    .await?;
    expect_rows("add chips", chips.len(), &done)
}

/// Raises the lease epochs of chips, each only from the epoch it was decided from.
pub async fn raise_epochs(tx: &mut PgConnection, chips: &[(ChipId, u64, u64)]) -> Result<()> {
    let ids: Vec<String> = chips.iter().map(|(id, _, _)| id.to_string()).collect();
    let from: Vec<i64> = chips.iter().map(|(_, from, _)| signed(*from)).collect();
    let to: Vec<i64> = chips.iter().map(|(_, _, to)| signed(*to)).collect();
    let done = sqlx::query!(
        "update chips set lease_epoch = c.later
         from unnest($1::text[], $2::bigint[], $3::bigint[]) as c (id, earlier, later)
         where chips.id = c.id and chips.lease_epoch = c.earlier",
        &ids,
        &from,
        &to
    )
    .execute(tx)
    .await?;
    expect_rows("raise lease epochs", chips.len(), &done)
}

/// Writes facts, health, quarantine and faults of chips that changed.
pub async fn update(tx: &mut PgConnection, chips: &[ChipWrite]) -> Result<()> {
    let ids: Vec<String> = chips.iter().map(|(_, _, chip)| chip.facts.id.to_string()).collect();
    let classes: Vec<String> = chips.iter().map(|(_, _, chip)| chip.facts.class.to_string()).collect();
    let health: Vec<String> = chips.iter().map(|(_, _, chip)| json(&chip.health)).collect();
    let quarantine: Vec<Option<String>> = chips.iter().map(|(_, _, chip)| chip.quarantine.as_ref().map(json)).collect();
    let facts: Vec<String> = chips.iter().map(|(_, _, chip)| json(&chip.facts)).collect();
    let faults: Vec<String> = chips.iter().map(|(_, _, chip)| json(&chip.faults)).collect();
    let done = sqlx::query!(
        "update chips set device_class = c.device_class, health = c.health::jsonb, quarantine = c.quarantine::jsonb,
             facts = c.facts::jsonb, faults = c.faults::jsonb
         from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[])
             as c (id, device_class, health, quarantine, facts, faults)
         where chips.id = c.id",
        &ids,
        &classes,
        &health,
        &quarantine as _,
        &facts,
        &faults
    )
    .execute(tx)
    .await?;
    expect_rows("write chips", chips.len(), &done)
}

/// Every chip by the name of its node, in the order of registration.
pub async fn load(tx: &mut PgConnection) -> Result<BTreeMap<String, Vec<ChipRow>>> {
    let mut chips: BTreeMap<String, Vec<ChipRow>> = BTreeMap::new();
    let rows =
        sqlx::query!("select id, node_id, lease_epoch, health, quarantine, facts, faults from chips order by number");
    for row in rows.fetch_all(&mut *tx).await? {
        chips.entry(row.node_id).or_default().push(ChipRow {
            facts: unjson("chips", &row.id, row.facts)?,
            epoch: unsigned("chips", &row.id, row.lease_epoch)?,
            health: unjson("chips", &row.id, row.health)?,
            quarantine: row.quarantine.map(|value| unjson("chips", &row.id, value)).transpose()?,
            faults: unjson("chips", &row.id, row.faults)?,
        });
    }
    Ok(chips)
}
