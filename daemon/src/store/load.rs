//! Memory from the tables: one consistent read of everything live.

use super::{
    Result, Store, StoreError, claims, consolidations, demand, events, holds, jobs, leases, moment, nodes, policies,
    queue_usage, reservations, unsigned,
};
use chiptide_allocator::{Cluster, Snapshot};
use sqlx::{Connection, PgConnection};

/// Reads the live cluster.
pub async fn load(store: &Store) -> Result<Cluster> {
    load_over(&mut *store.reader.acquire().await?).await
}

/// Reads the live cluster over a connection, in one repeatable-read transaction.
pub async fn load_over(connection: &mut PgConnection) -> Result<Cluster> {
    let mut tx = connection.begin().await?;
    sqlx::query!("set transaction isolation level repeatable read").execute(&mut *tx).await?;
    let took_over = sqlx::query!(
        "select (body->>'epoch')::bigint as \"epoch!\", at from events
         where kind = 'leader_took_over' order by seq desc limit 1"
    );
    let took_over = took_over.fetch_optional(&mut *tx).await?;
    let leader_epoch = took_over.as_ref().map_or(0, |row| row.epoch);
    let snapshot = Snapshot {
        policy: policies::current(&mut tx).await?.unwrap_or_default(),
        leader_epoch: unsigned("events", &"leader_took_over", leader_epoch)?,
        seq: events::last_seq(&mut tx).await?,
        last_place: jobs::last_place(&mut tx).await?,
        nodes: nodes::load(&mut tx).await?,
        jobs: jobs::load_live(&mut tx).await?,
        leases: leases::load_in_memory(&mut tx).await?,
        vacating: holds::load_vacating(&mut tx).await?,
        claims: claims::load(&mut tx).await?,
        past_use: queue_usage::load_uses(&mut tx).await?,
        preempted: queue_usage::load_preempted(&mut tx).await?,
        at: events::last_at(&mut tx).await?.unwrap_or_default(),
        took_over_at: took_over.map(|row| moment(row.at)),
        reservations: reservations::load(&mut tx).await?,
        moved: consolidations::load_moved(&mut tx).await?,
        demand: demand::load(&mut tx).await?,
        moved_at: consolidations::load_last(&mut tx).await?,
    };
    tx.commit().await?;
    snapshot.restore().map_err(|detail| StoreError::Unreadable { table: "current state", row: "-".into(), detail })
}
