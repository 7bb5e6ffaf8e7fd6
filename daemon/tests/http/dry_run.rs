//! Dry runs over HTTP: what is told, that nothing is done, and that a plan is done exactly or not at all.

use crate::common::{Daemon, Node, job};
use chiptide_api::dry_run::DryRunView;
use serde_json::{Value, json};

const LEND: &str = "queues: {ads: {}, lab: {}}";
const OWED: &str = "queues: {ads: {guaranteed: {'*': 2}}, lab: {}}";

async fn send(daemon: &Daemon, method: &str, path: &str, body: &str, plan: Option<&str>) -> (u16, Value) {
    let request = reqwest::Client::new().request(method.parse().expect("a method"), format!("{}{path}", daemon.base));
    let kind = if body.starts_with('{') { "application/json" } else { "application/yaml" };
    let mut request = request.bearer_auth(&daemon.token).header("content-type", kind).header("if-match", "*");
    if let Some(plan) = plan {
        request = request.header("chiptide-plan", plan);
    }
    let answer = request.body(body.to_owned()).send().await.expect("an answer");
    (answer.status().as_u16(), answer.json().await.expect("JSON"))
}

async fn dry_run(daemon: &Daemon, path: &str, body: &str) -> DryRunView {
    let (status, told) = send(daemon, "POST", path, body, None).await;
    assert_eq!(status, 200, "{told}");
    serde_json::from_value(told).expect("a dry run")
}

/// A fleet of four chips that `lab` has all of, and a job of `ads` that waits for two.
async fn lent_out() -> (Daemon, Node) {
    let daemon = Daemon::with_policy(LEND).await;
    let mut node = Node::register(&daemon, "n1", 4).await;
    for name in ["old", "young"] {
        let ask = job(json!({"name": name, "queue": "lab", "chips": 2}));
        daemon.client.create_job(&ask, None).await.expect("accepted");
        node.obey().await;
    }
    daemon.client.create_job(&job(json!({"name": "chat", "queue": "ads", "chips": 2})), None).await.expect("accepted");
    (daemon, node)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_says_beforehand_whom_it_evicts_and_does_exactly_that() {
    let (daemon, _node) = lent_out().await;
    let told = dry_run(&daemon, "/v1/policy:dry-run", OWED).await;
    assert_eq!((told.evictions_total, told.starts_total, told.policy_version), (1, 1, 1));
    assert_eq!((told.evictions[0].queue.as_str(), told.evictions[0].cause.as_str()), ("lab", "reclaim"));
    assert_eq!((told.starts[0].name.as_str(), told.starts[0].promised_by.is_some()), ("chat", true));
    let ads = told.queues.iter().find(|queue| queue.name == "ads").expect("ads changes");
    assert_eq!((ads.before.waiting, ads.after.waiting, ads.after.used), (1, 0, 2.0));
    assert_eq!(told.changes[0].change.path, "queues.ads.guaranteed");
    let (before, _) = daemon.stored_and_folded().await;
    assert_eq!((before.policy.version, before.claims.len()), (1, 0), "nothing was done");

    let (status, applied) = send(&daemon, "PUT", "/v1/policy", OWED, Some(&told.plan)).await;
    assert_eq!((status, &applied["version"]), (200, &json!(2)), "{applied}");
    let (_, leases) = daemon.send("GET", "/v1/leases?state=revoking", "").await;
    assert_eq!(leases["items"][0]["id"], json!(told.evictions[0].lease));
    let (stored, folded) = daemon.stored_and_folded().await;
    assert_eq!(stored, folded);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_that_would_be_another_by_now_is_refused() {
    let (daemon, mut node) = lent_out().await;
    let told = dry_run(&daemon, "/v1/policy:dry-run", OWED).await;
    let lease = told.evictions[0].lease;
    daemon.client.release_lease(lease, &Default::default(), None).await.expect("given back");
    node.obey().await;
    let (status, refused) = send(&daemon, "PUT", "/v1/policy", OWED, Some(&told.plan)).await;
    assert_eq!((status, refused["code"].as_str()), (409, Some("plan_stale")), "{refused}");
    assert_eq!(daemon.stored_and_folded().await.0.policy.version, 1);
    let (status, refused) = send(&daemon, "PUT", "/v1/policy", OWED, Some("the one from before")).await;
    assert_eq!((status, refused["field"].as_str()), (400, Some("chiptide-plan")));
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_learn_what_they_would_meet() {
    let (daemon, _node) = lent_out().await;
    let urgent = r#"{"kind": "inference", "name": "urgent", "queue": "ads", "priority_class": "urgent", "chips": 2}"#;
    let told = dry_run(&daemon, "/v1/jobs:dry-run", urgent).await;
    assert_eq!((told.evictions_total, told.jobs.len(), told.jobs[0].state.as_str()), (1, 1, "pending"));
    assert!(told.jobs[0].promise.is_some() && told.evictions[0].for_job.is_none());
    let (status, created) = send(&daemon, "POST", "/v1/jobs", urgent, Some(&told.plan)).await;
    assert_eq!(status, 202, "{created}");
    assert!(created["promise"].is_object(), "{created}");
    let large = r#"{"kind": "training", "name": "large", "queue": "ads", "chips": 8, "unfit": "refuse"}"#;
    let (status, refused) = send(&daemon, "POST", "/v1/jobs:dry-run", large, None).await;
    assert_eq!((status, refused["code"].as_str()), (422, Some("never_fits")));
}
