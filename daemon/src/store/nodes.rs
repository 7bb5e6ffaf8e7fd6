//! Table `nodes`: what has registered.

use super::{Result, chips, column, expect_rows, json, moment, signed, unjson};
use chiptide_allocator::fleet::{Node, NodeIx};
use chiptide_allocator::restore::NodeRow;
use chiptide_model::{NodeId, SessionId};
use sqlx::PgConnection;
use uuid::Uuid;

/// Writes nodes as they are now; the ordinal is the node's index in memory.
pub async fn upsert(tx: &mut PgConnection, nodes: &[(NodeIx, Node)]) -> Result<()> {
    let ids: Vec<String> = nodes.iter().map(|(_, node)| node.id.to_string()).collect();
    let ordinals: Vec<i64> = nodes.iter().map(|(ix, _)| signed(*ix as u64)).collect();
    let sessions: Vec<Uuid> = nodes.iter().map(|(_, node)| node.session.0).collect();
    let boots: Vec<String> = nodes.iter().map(|(_, node)| node.boot_id.clone()).collect();
    let unknown: Vec<_> = nodes.iter().map(|(_, node)| node.unknown_since.map(column)).collect();
    let cordons: Vec<Option<String>> = nodes.iter().map(|(_, node)| node.cordon.as_ref().map(json)).collect();
    let facts: Vec<String> = nodes.iter().map(|(_, node)| json(&node.facts)).collect();
    let done = sqlx::query!(
        "insert into nodes (id, ordinal, session, boot_id, unknown_since, facts, cordon)
         select id, ordinal, session, boot_id, unknown_since, facts::jsonb, cordon::jsonb
         from unnest($1::text[], $2::bigint[], $3::uuid[], $4::text[], $5::timestamptz[], $6::text[],
                 $7::text[])
             as n (id, ordinal, session, boot_id, unknown_since, facts, cordon)
         on conflict (id) do update set session = excluded.session, boot_id = excluded.boot_id,
             unknown_since = excluded.unknown_since, facts = excluded.facts, cordon = excluded.cordon",
        &ids,
        &ordinals,
        &sessions,
        &boots,
        &unknown as _,
        &facts,
        &cordons as _
    )
    .execute(tx)
    .await?;
    expect_rows("write nodes", nodes.len(), &done)
}

/// Every node with its chips, in the order of registration.
pub async fn load(tx: &mut PgConnection) -> Result<Vec<NodeRow>> {
    let mut chips = chips::load(tx).await?;
    let rows = sqlx::query!("select id, session, boot_id, unknown_since, facts, cordon from nodes order by ordinal");
    let nodes = rows.fetch_all(tx).await?;
    nodes
        .into_iter()
        .map(|row| {
            Ok(NodeRow {
                facts: unjson("nodes", &row.id, row.facts)?,
                cordon: row.cordon.map(|cordon| unjson("nodes", &row.id, cordon)).transpose()?,
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
