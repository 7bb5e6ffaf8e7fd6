//! Tables `nodes` and `chips`: what has registered, and each chip's lease epoch.

use super::{Result, column, expect_rows, json, moment, signed, unjson, unsigned};
use chiptide_allocator::fleet::{Chip, ChipIx, Node, NodeIx};
use chiptide_allocator::restore::{ChipRow, NodeRow};
use chiptide_model::{ChipId, NodeId, SessionId};
use sqlx::PgConnection;
use std::collections::BTreeMap;
use uuid::Uuid;

/// Writes nodes as they are now; the ordinal is the node's index in memory.
pub async fn upsert(tx: &mut PgConnection, nodes: &[(NodeIx, Node)]) -> Result<()> {
    let ids: Vec<String> = nodes.iter().map(|(_, node)| node.id.to_string()).collect();
    let ordinals: Vec<i64> = nodes.iter().map(|(ix, _)| signed(*ix as u64)).collect();
    let sessions: Vec<Uuid> = nodes.iter().map(|(_, node)| node.session.0).collect();
    let boots: Vec<String> = nodes.iter().map(|(_, node)| node.boot_id.clone()).collect();
    let unknown: Vec<_> = nodes.iter().map(|(_, node)| node.unknown_since.map(column)).collect();
    let facts: Vec<String> = nodes.iter().map(|(_, node)| json(&node.facts)).collect();
    let done = sqlx::query!(
        "insert into nodes (id, ordinal, session, boot_id, unknown_since, facts)
         select id, ordinal, session, boot_id, unknown_since, facts::jsonb
         from unnest($1::text[], $2::bigint[], $3::uuid[], $4::text[], $5::timestamptz[], $6::text[])
             as n (id, ordinal, session, boot_id, unknown_since, facts)
         on conflict (id) do update set session = excluded.session, boot_id = excluded.boot_id,
             unknown_since = excluded.unknown_since, facts = excluded.facts",
        &ids,
        &ordinals,
        &sessions,
        &boots,
        &unknown as _,
        &facts
    )
    .execute(tx)
    .await?;
    expect_rows("write nodes", nodes.len(), &done)
}

/// A chip to write: its index (its number in the tables), its node's name, and its state now.
pub type ChipWrite = (ChipIx, NodeId, Chip);

/// Adds chips met for the first time.
pub async fn insert_chips(tx: &mut PgConnection, chips: &[ChipWrite]) -> Result<()> {
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

/// Writes facts, health and quarantine of chips that changed.
pub async fn update_chips(tx: &mut PgConnection, chips: &[ChipWrite]) -> Result<()> {
    let ids: Vec<String> = chips.iter().map(|(_, _, chip)| chip.facts.id.to_string()).collect();
    let classes: Vec<String> = chips.iter().map(|(_, _, chip)| chip.facts.class.to_string()).collect();
    let health: Vec<String> = chips.iter().map(|(_, _, chip)| json(&chip.health)).collect();
    let quarantine: Vec<Option<String>> = chips.iter().map(|(_, _, chip)| chip.quarantine.as_ref().map(json)).collect();
    let facts: Vec<String> = chips.iter().map(|(_, _, chip)| json(&chip.facts)).collect();
    let done = sqlx::query!(
        "update chips set device_class = c.device_class, health = c.health::jsonb, quarantine = c.quarantine::jsonb,
             facts = c.facts::jsonb
         from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[])
             as c (id, device_class, health, quarantine, facts)
         where chips.id = c.id",
        &ids,
        &classes,
        &health,
        &quarantine as _,
        &facts
    )
    .execute(tx)
    .await?;
    expect_rows("write chips", chips.len(), &done)
}

/// Every node with its chips, in the order of registration.
pub async fn load(tx: &mut PgConnection) -> Result<Vec<NodeRow>> {
    let mut chips: BTreeMap<String, Vec<ChipRow>> = BTreeMap::new();
    let rows = sqlx::query!("select id, node_id, lease_epoch, health, quarantine, facts from chips order by number");
    for row in rows.fetch_all(&mut *tx).await? {
        chips.entry(row.node_id).or_default().push(ChipRow {
            facts: unjson("chips", &row.id, row.facts)?,
            epoch: unsigned("chips", &row.id, row.lease_epoch)?,
            health: unjson("chips", &row.id, row.health)?,
            quarantine: row.quarantine.map(|value| unjson("chips", &row.id, value)).transpose()?,
        });
    }
    let rows = sqlx::query!("select id, session, boot_id, unknown_since, facts from nodes order by ordinal");
    let nodes = rows.fetch_all(tx).await?;
    nodes
        .into_iter()
        .map(|row| {
            Ok(NodeRow {
                facts: unjson("nodes", &row.id, row.facts)?,
                session: SessionId(row.session),
                boot_id: row.boot_id,
                unknown_since: row.unknown_since.map(moment),
                chips: chips.remove(&row.id).unwrap_or_default(),
                id: NodeId::new(&row.id).map_err(|error| super::StoreError::Unreadable {
                    table: "nodes",
                    row: row.id.clone(),
                    detail: error.to_string(),
                })?,
            })
        })
        .collect()
}
