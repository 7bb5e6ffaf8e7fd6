//! A database that is away or not fit when the daemon starts: it waits in a state that it tells, and serves once the cause
//! is gone.

use crate::common::SOON;
use crate::postgres::Postgres;
use chiptide_daemon::config::{Config, Flags};
use chiptide_daemon::serve::{self, Outside};
use chiptide_daemon::store::Store;
use clap::Parser;
use serde_json::Value;
use sqlx::Connection;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

/// A daemon that cannot serve yet.
struct Waiting {
    base: String,
    _dir: tempfile::TempDir,
    _task: AbortOnDropHandle<anyhow::Result<()>>,
}

impl Waiting {
    fn on(database_url: &str) -> Waiting {
        // The port is free now, and nobody else is likely to want this one in the next moment.
        let free = std::net::TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a port");
        let dir = tempfile::tempdir().expect("a directory");
        let config = Config::load(&Flags::parse_from(["chiptided", "--listen", &free.to_string()])).expect("valid");
        let run = serve::run(
            config,
            dir.path().to_owned(),
            database_url.into(),
            Outside::default(),
            CancellationToken::new(),
        );
        let task = AbortOnDropHandle::new(tokio::spawn(run));
        Waiting { base: format!("http://{free}"), _dir: dir, _task: task }
    }

    /// Waits until `/readyz` gives this reason.
    async fn until(&self, reason: &str) {
        let mut last = Value::Null;
        let reached = tokio::time::timeout(SOON, async {
            while last["reason"] != reason {
                tokio::time::sleep(Duration::from_millis(20)).await;
                if let Ok(answer) = reqwest::get(format!("{}/readyz", self.base)).await {
                    last = answer.json().await.expect("a body");
                }
            }
        });
        assert!(reached.await.is_ok(), "/readyz never told {reason}; last {last}");
        let write =
            reqwest::Client::new().post(format!("{}/v1/jobs", self.base)).body("{}").send().await.expect("answered");
        assert_eq!(write.status().as_u16(), if reason == "ok" { 401 } else { 503 });
    }
}

async fn run(url: &str, sql: &'static str) {
    let mut connection = sqlx::PgConnection::connect(url).await.expect("connected");
    sqlx::raw_sql(sql).execute(&mut connection).await.expect("done");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_not_there_yet_is_waited_for() {
    let postgres = Postgres::start().await;
    postgres.stop();
    let daemon = Waiting::on(&postgres.url);
    daemon.until("unreachable").await;
    postgres.start_again();
    daemon.until("ok").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_at_its_connection_limit_is_told() {
    let postgres = Postgres::start().await;
    run(
        &postgres.url,
        "create role limited login connection limit 0; alter database test owner to limited;
        alter schema public owner to limited",
    )
    .await;
    let (before, after) = postgres.url.split_once("user=").expect("a user in the URL");
    let rest = after.split_once('&').map_or("", |(_, rest)| rest);
    let daemon = Waiting::on(&format!("{before}user=limited&{rest}"));
    daemon.until("too_many_connections").await;
    run(&postgres.url, "alter role limited connection limit -1").await;
    daemon.until("ok").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schema_of_a_newer_version_is_left_alone() {
    let postgres = Postgres::start().await;
    Store::open(&postgres.url).await.expect("a schema").close().await;
    run(
        &postgres.url,
        "insert into _sqlx_migrations (version, description, success, checksum, execution_time)
        values (99999999, 'of the future', true, '', 0)",
    )
    .await;
    let daemon = Waiting::on(&postgres.url);
    daemon.until("schema_newer").await;
    run(&postgres.url, "delete from _sqlx_migrations where version = 99999999").await;
    daemon.until("ok").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_migration_that_fails_is_told_and_tried_again() {
    let postgres = Postgres::start().await;
    run(&postgres.url, "create table leases ()").await;
    let daemon = Waiting::on(&postgres.url);
    daemon.until("migration_failed").await;
    run(&postgres.url, "drop table leases").await;
    daemon.until("ok").await;
}
