//! The yardstick: what the same Postgres does without a daemon in front of it. A table of its own, dropped afterwards.

use anyhow::Context;
use futures_util::future::try_join_all;
use serde::Serialize;
use sqlx::{Connection, PgConnection};
use std::time::Duration;
use tokio::time::Instant;

/// How long each measurement runs.
const FOR: Duration = Duration::from_secs(3);
/// Rows of one bulk insert.
const BULK_ROWS: i64 = 1000;
/// Connections left to the daemon and to administrators.
const LEAVE: i64 = 10;

/// What Postgres does alone.
#[derive(Clone, PartialEq, Debug, Default, Serialize)]
pub struct PostgresReport {
    /// Its version.
    pub version: String,
    /// `fsync`: with `off` no figure here or elsewhere in the report is durable.
    pub fsync: String,
    /// `synchronous_commit` of an ordinary connection.
    pub synchronous_commit: String,
    /// Connections that committed single rows at once: as many as there are clients, unless Postgres has fewer.
    pub connections: u64,
    /// Commits of one row a second, over all connections.
    pub commits_per_s: f64,
    /// Rows a second, inserted by one connection, 1,000 to a commit.
    pub bulk_rows_per_s: f64,
    /// Bulk commits a second.
    pub bulk_commits_per_s: f64,
}

/// Measures for a few seconds. The daemon should be idle meanwhile.
pub(super) async fn measure(url: &str, clients: usize) -> anyhow::Result<PostgresReport> {
    let mut admin = connect(url).await?;
    let connections = usize::try_from(free_connections(&mut admin).await?).unwrap_or(0).clamp(1, clients.max(1));
    run(
        &mut admin,
        "create table if not exists sim_commits (id bigint generated always as identity, body text not null)",
    )
    .await?;
    let mut writers = Vec::new();
    for _ in 0..connections {
        writers.push(connect(url).await?);
    }
    let start = Instant::now();
    let commits: u64 =
        try_join_all(writers.into_iter().map(|writer| single_rows(writer, start + FOR))).await?.iter().sum();
    let commits_per_s = commits as f64 / start.elapsed().as_secs_f64();
    let start = Instant::now();
    let bulk_commits = bulk_rows(&mut admin, start + FOR).await?;
    let bulk_commits_per_s = bulk_commits as f64 / start.elapsed().as_secs_f64();
    run(&mut admin, "drop table sim_commits").await?;
    let report = PostgresReport {
        version: show(&mut admin, "show server_version").await?,
        fsync: show(&mut admin, "show fsync").await?,
        synchronous_commit: show(&mut admin, "show synchronous_commit").await?,
        connections: connections as u64,
        commits_per_s,
        bulk_rows_per_s: bulk_commits_per_s * BULK_ROWS as f64,
        bulk_commits_per_s,
    };
    admin.close().await.context("close the connection")?;
    Ok(report)
}

async fn connect(url: &str) -> anyhow::Result<PgConnection> {
    PgConnection::connect(url).await.context("connect to Postgres")
}

async fn run(postgres: &mut PgConnection, sql: &'static str) -> anyhow::Result<()> {
    sqlx::query(sql).execute(postgres).await.context(sql)?;
    Ok(())
}

async fn show(postgres: &mut PgConnection, sql: &'static str) -> anyhow::Result<String> {
    sqlx::query_scalar::<_, String>(sql).fetch_one(postgres).await.context(sql)
}

/// Connections Postgres would still accept, less a few for others.
async fn free_connections(postgres: &mut PgConnection) -> anyhow::Result<i64> {
    let sql = "select current_setting('max_connections')::bigint - (select count(*) from pg_stat_activity)";
    let free = sqlx::query_scalar::<_, i64>(sql).fetch_one(postgres).await.context("count connections")?;
    Ok(free - LEAVE)
}

async fn single_rows(mut writer: PgConnection, until: Instant) -> anyhow::Result<u64> {
    let mut commits = 0;
    while Instant::now() < until {
        let insert = sqlx::query("insert into sim_commits (body) values ($1)").bind("one row, one commit");
        insert.execute(&mut writer).await.context("insert a row")?;
        commits += 1;
    }
    writer.close().await.context("close a connection")?;
    Ok(commits)
}

async fn bulk_rows(writer: &mut PgConnection, until: Instant) -> anyhow::Result<u64> {
    let rows: Vec<String> = (0..BULK_ROWS).map(|row| format!("row {row} of many")).collect();
    let mut commits = 0;
    while Instant::now() < until {
        let insert = sqlx::query("insert into sim_commits (body) select * from unnest($1::text[])").bind(&rows);
        insert.execute(&mut *writer).await.context("insert rows in bulk")?;
        commits += 1;
    }
    Ok(commits)
}
