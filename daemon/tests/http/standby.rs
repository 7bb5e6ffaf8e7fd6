//! Two daemons on one database: what the standby answers, what it passes on, and what it refuses.

use crate::common::{Daemon, Node, SOON, job, standing};
use chiptide_api::Client;
use chiptide_daemon::store::Store;
use serde_json::json;
use std::time::Duration;

async fn ready(base: &str) -> serde_json::Value {
    let answer = reqwest::get(format!("{base}/readyz")).await.expect("an answer");
    answer.json().await.expect("JSON")
}

/// Waits until a daemon tells this role and status.
async fn until(base: &str, role: &str, status: &str) -> serde_json::Value {
    let waited = tokio::time::timeout(SOON, async {
        loop {
            let view = ready(base).await;
            if view["role"] == role && view["status"] == status {
                return view;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    waited.await.unwrap_or_else(|_| panic!("{base} did not become {role}, {status}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_passes_on_what_only_the_leader_may_answer() {
    let leader = Daemon::start().await;
    let standby = leader.another().await;
    let view = until(&standby.base, "standby", "ready").await;
    assert_eq!(view["leader"]["url"], leader.base.as_str());
    // The node's agent and the scheduler both talk to the standby, with a token that the leader has never seen.
    let mut node = Node::register(&standby, "n1", 2).await;
    let body = job(json!({}));
    let created = standby.client.create_job(&body, Some("k")).await.expect("accepted");
    assert_eq!(standing(&created).0, "leased");
    node.obey().await;
    assert_eq!(leader.client.job(created.id).await.expect("found").state, "running");
    // A key belongs to its token: the leader finds the standby's in the table.
    let same = Client::new(&leader.base, &standby.token).expect("a client");
    assert_eq!(same.create_job(&body, Some("k")).await.expect("the same answer").id, created.id);
    let (status, problem) = standby.send("POST", "/v1/jobs", "{").await;
    assert_eq!((status, problem["code"].as_str()), (400, Some("malformed_json")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_poll_at_a_standby_hears_of_the_change() {
    let leader = Daemon::start().await;
    let standby = leader.another().await;
    let waiting = leader.client.create_job(&job(json!({})), None).await.expect("accepted");
    assert_eq!(waiting.state, "pending");
    let poll = tokio::spawn({
        let client = standby.client.clone();
        async move { client.watch_job(waiting.id, waiting.revision, chiptide_model::Millis::from_secs(20)).await }
    });
    let _node = Node::register(&leader, "n1", 1).await;
    let seen = tokio::time::timeout(SOON, poll).await.expect("in time").expect("no panic").expect("an answer");
    assert_eq!(seen.state, "leased");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_passed_on_once() {
    let leader = Daemon::start().await;
    let standby = leader.another().await;
    let again = reqwest::Client::new()
        .get(format!("{}/v1/jobs", standby.base))
        .bearer_auth(&standby.token)
        .header("chiptide-forwarded-by", "somebody")
        .send();
    let again = again.await.expect("an answer");
    assert_eq!((again.status().as_u16(), again.headers()["retry-after"].to_str().ok()), (503, Some("1")));
    let problem: serde_json::Value = again.json().await.expect("JSON");
    assert_eq!(problem["code"], "no_leader");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_leads_when_the_leader_stops_and_answers_repeated_keys_as_before() {
    let leader = Daemon::start().await;
    let standby = leader.another().await;
    let body = job(json!({"name": "kept"}));
    let created = leader.client.create_job(&body, Some("k")).await.expect("accepted");
    let epoch = ready(&standby.base).await["leader"]["epoch"].as_u64().expect("a number");
    let token = leader.token.clone();
    leader.stop().await;
    until(&standby.base, "leader", "ready").await;
    let same = Client::new(&standby.base, &token).expect("a client");
    assert_eq!(same.create_job(&body, Some("k")).await.expect("the same answer").id, created.id);
    let store = Store::open(&standby.database_url).await.expect("a store");
    let now: i64 = sqlx::query_scalar("select epoch from leader").fetch_one(&store.reader).await.expect("read");
    assert_eq!(now as u64, epoch + 1);
    let (stored, folded) = standby.stored_and_folded().await;
    assert_eq!(stored, folded);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deposed_daemon_becomes_a_standby_in_the_same_process() {
    let first = Daemon::start().await;
    let second = first.another().await;
    // As an admin's mistake, or a network that breaks one connection: the leader's session lock is lost, and taken.
    let store = Store::open(&first.database_url).await.expect("a store");
    let kick = "select pg_terminate_backend(pid) from pg_locks where locktype = 'advisory'
        and database = (select oid from pg_database where datname = current_database())";
    sqlx::raw_sql(kick).execute(&store.reader).await.expect("kicked");
    until(&second.base, "leader", "ready").await;
    let view = until(&first.base, "standby", "ready").await;
    assert_eq!(view["leader"]["url"], second.base.as_str());
    let created = first.client.create_job(&job(json!({})), None).await.expect("passed on");
    assert_eq!(second.client.job(created.id).await.expect("found").id, created.id);
    second.stop().await;
    until(&first.base, "leader", "ready").await;
    assert_eq!(first.client.job(created.id).await.expect("found").id, created.id);
}
