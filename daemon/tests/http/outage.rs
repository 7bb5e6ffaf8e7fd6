//! The database goes away under a leading daemon, or does not do what it should, and comes back.

use crate::common::{Daemon, Node, SOON, job};
use crate::postgres::Postgres;
use chiptide_api::node::HealthBody;
use serde_json::{Value, json};
use sqlx::Connection;
use std::time::Duration;

/// What an HTTP request was answered.
struct Answer {
    status: u16,
    body: Value,
    stale: bool,
    retry_after: bool,
}

impl Answer {
    fn code(&self) -> &str {
        self.body["code"].as_str().unwrap_or_default()
    }
}

async fn ask(daemon: &Daemon, method: &str, path: &str, body: Option<Value>) -> Answer {
    let method = method.parse().expect("a method");
    let mut request =
        reqwest::Client::new().request(method, format!("{}{path}", daemon.base)).bearer_auth(&daemon.token);
    if let Some(body) = body {
        request = request.json(&body);
    }
    let answer = tokio::time::timeout(SOON, request.send()).await.expect("in time").expect("an answer");
    let has = |name: &str| answer.headers().contains_key(name);
    let (stale, retry_after) = (has("chiptide-stale-ms"), has("retry-after"));
    Answer { status: answer.status().as_u16(), stale, retry_after, body: answer.json().await.unwrap_or_default() }
}

/// Waits until `/readyz` gives this status and reason.
async fn until(daemon: &Daemon, status: &str, reason: &str) -> Value {
    let reached = tokio::time::timeout(SOON, async {
        loop {
            let told = ask(daemon, "GET", "/readyz", None).await.body;
            if told["status"] == status && told["reason"] == reason {
                return told;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    reached.await.unwrap_or_else(|_| panic!("/readyz never told {status} for {reason}"))
}

/// Submits until it is accepted.
async fn submit_until_accepted(daemon: &Daemon) {
    let accepted = tokio::time::timeout(SOON, async {
        while daemon.client.create_job(&job(json!({"name": "after"})), None).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    accepted.await.expect("writes resume");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_postgres_reads_are_stale_writes_refused_and_leases_kept() {
    let postgres = Postgres::start().await;
    let daemon = Daemon::on(postgres.url.clone(), tempfile::tempdir().expect("a directory")).await;
    let mut node = Node::register(&daemon, "n1", 2).await;
    let held = daemon.client.create_job(&job(json!({})), None).await.expect("accepted");
    let over = daemon.client.create_job(&job(json!({})), None).await.expect("accepted").id;
    daemon.client.cancel_job(over, None).await.expect("cancelled");
    let confirmed = node.obey().await;
    assert!(confirmed.accepted);

    postgres.stop();
    let refused = ask(&daemon, "POST", "/v1/jobs", Some(json!({"kind": "training", "name": "x", "chips": 1}))).await;
    assert_eq!((refused.status, refused.code(), refused.retry_after), (503, "store_unavailable", true));
    until(&daemon, "stale", "unreachable").await;
    let live = ask(&daemon, "GET", &format!("/v1/jobs/{}", held.id), None).await;
    assert_eq!((live.status, live.stale, &live.body["state"]), (200, true, &json!("running")));
    let ended = ask(&daemon, "GET", &format!("/v1/jobs/{over}"), None).await;
    assert_eq!((ended.status, ended.code()), (503, "store_unavailable"));
    assert_eq!(node.orders().await.leases.len(), 1, "the agent keeps its lease");
    let no_news = node.report_body();
    assert!(node.send(&no_news).await.accepted);
    let mut news = node.report_body();
    news.chips[1].health = HealthBody::Unhealthy { detail: "lost".into() };
    let refused = daemon.client.report("n1", &news).await.expect_err("news must be written");
    assert_eq!(refused.code(), Some("store_unavailable"));

    postgres.start_again();
    until(&daemon, "ready", "ok").await;
    submit_until_accepted(&daemon).await;
    assert!(node.send(&news).await.accepted, "the report that was refused may be repeated as it was");
    let kept = ask(&daemon, "GET", &format!("/v1/jobs/{}", held.id), None).await;
    assert_eq!((kept.stale, &kept.body["state"]), (false, &json!("running")));
    assert_eq!(daemon.client.chips(&[]).await.expect("a page").items[1].health, "unhealthy");
    let (stored, folded) = daemon.stored_and_folded().await;
    assert_eq!(stored, folded);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_round_that_waits_for_a_lock_is_given_up_and_refused() {
    let daemon = Daemon::start().await;
    let mut other = sqlx::PgConnection::connect(&daemon.database_url).await.expect("connected");
    let mut lock = other.begin().await.expect("a transaction");
    sqlx::raw_sql("lock table jobs").execute(&mut *lock).await.expect("locked");
    let refused = ask(&daemon, "POST", "/v1/jobs", Some(json!({"kind": "training", "name": "x", "chips": 1}))).await;
    assert_eq!((refused.status, refused.code()), (503, "store_unavailable"), "{}", refused.body);
    until(&daemon, "stale", "slow").await;
    lock.rollback().await.expect("unlocked");
    until(&daemon, "ready", "ok").await;
    submit_until_accepted(&daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_demoted_primary_is_told_as_read_only() {
    let postgres = Postgres::start().await;
    let daemon = Daemon::on(postgres.url.clone(), tempfile::tempdir().expect("a directory")).await;
    let mut admin = sqlx::PgConnection::connect(&postgres.url).await.expect("connected");
    let kick = "select pg_terminate_backend(pid) from pg_stat_activity where application_name like 'chiptided %'";
    sqlx::raw_sql("alter role all set default_transaction_read_only = on").execute(&mut admin).await.expect("set");
    sqlx::raw_sql(kick).execute(&mut admin).await.expect("kicked");
    until(&daemon, "stale", "read_only").await;
    let refused = ask(&daemon, "POST", "/v1/jobs", Some(json!({"kind": "training", "name": "x", "chips": 1}))).await;
    assert_eq!((refused.status, refused.code()), (503, "store_unavailable"));
    sqlx::raw_sql("alter role all reset default_transaction_read_only").execute(&mut admin).await.expect("reset");
    sqlx::raw_sql(kick).execute(&mut admin).await.expect("kicked");
    until(&daemon, "ready", "ok").await;
    submit_until_accepted(&daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_without_an_answer_is_told_as_unknown_and_its_key_tells_later() {
    let postgres = Postgres::start().await;
    let daemon = Daemon::on(postgres.url.clone(), tempfile::tempdir().expect("a directory")).await;
    let mut admin = sqlx::PgConnection::connect(&postgres.url).await.expect("connected");
    let reload = "select pg_reload_conf()";
    // A synchronous standby that does not exist: commits are on disk, and nobody says so.
    sqlx::raw_sql("alter system set synchronous_standby_names = 'nobody'").execute(&mut admin).await.expect("set");
    sqlx::raw_sql(reload).execute(&mut admin).await.expect("reloaded");
    let body = job(json!({"name": "open"}));
    let open = daemon.client.create_job(&body, Some("k1")).await.expect_err("nobody knows");
    assert_eq!(open.code(), Some("outcome_unknown"));
    sqlx::raw_sql("alter system reset synchronous_standby_names").execute(&mut admin).await.expect("reset");
    sqlx::raw_sql(reload).execute(&mut admin).await.expect("reloaded");
    until(&daemon, "ready", "ok").await;
    let told = daemon.client.create_job(&body, Some("k1")).await.expect("the key tells");
    let same = daemon.client.jobs(&[("name", "open".into())]).await.expect("a page").items;
    assert_eq!(same.iter().map(|job| job.id).collect::<Vec<_>>(), [told.id]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_told_and_room_is_enough_to_resume() {
    let Some(postgres) = Postgres::start_on_small_disk(160).await else { return };
    let daemon = Daemon::on(postgres.url.clone(), tempfile::tempdir().expect("a directory")).await;
    let filler = postgres.dir().join("filler");
    let mut admin = sqlx::PgConnection::connect(&postgres.url).await.expect("connected");
    let filled = std::process::Command::new("dd")
        .arg("if=/dev/zero")
        .arg(format!("of={}", filler.display()))
        .arg("bs=64k")
        .output();
    assert!(!filled.expect("dd runs").status.success(), "dd ends when the disk is full");
    let bulky = "x".repeat(200);
    let jobs: Vec<Value> = (0..500)
        .map(|n| json!({"kind": "training", "name": format!("{n}"), "chips": 1, "labels": {"a": bulky, "b": bulky}}))
        .collect();
    let mut accepted = 0u64;
    while ask(&daemon, "POST", "/v1/jobs", Some(json!(jobs))).await.status == 202 {
        accepted += 500;
    }
    until(&daemon, "stale", "disk_full").await;
    let refused = ask(&daemon, "POST", "/v1/jobs", Some(json!(jobs))).await;
    assert_eq!((refused.status, refused.code()), (503, "store_unavailable"), "{}", refused.body);
    std::fs::remove_file(&filler).expect("room again");
    until(&daemon, "ready", "ok").await;
    submit_until_accepted(&daemon).await;
    let jobs: i64 = sqlx::query_scalar("select count(*) from jobs where name <> 'after'")
        .fetch_one(&mut admin)
        .await
        .expect("counted");
    assert_eq!(jobs as u64, accepted, "what was acknowledged is there, what was refused is not");
}
