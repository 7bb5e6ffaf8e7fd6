//! The policy over HTTP: read, change, history, back again.

use crate::common::{Daemon, Node, job};
use chiptide_api::policy::{PolicyAppliedView, PolicyVersionView, PolicyView};
use serde_json::{Value, json};

/// Sends a policy as YAML with these headers.
async fn put(daemon: &Daemon, path: &str, text: &str, if_match: Option<&str>) -> (u16, Value) {
    let request = reqwest::Client::new().put(format!("{}{path}", daemon.base)).bearer_auth(&daemon.token);
    let mut request = request.header("content-type", "application/yaml").body(text.to_owned());
    if let Some(seen) = if_match {
        request = request.header("if-match", seen);
    }
    let answer = request.send().await.expect("an answer");
    let status = answer.status().as_u16();
    let tag = answer.headers().get("etag").map(|tag| tag.to_str().expect("text").to_owned());
    let body: Value = answer.json().await.expect("JSON");
    if let Some(tag) = tag {
        assert_eq!(tag, format!("\"{}\"", body["version"]), "the ETag is the version");
    }
    (status, body)
}

async fn in_force(daemon: &Daemon) -> PolicyView {
    let (status, body) = daemon.send("GET", "/v1/policy", "").await;
    assert_eq!(status, 200, "{body}");
    serde_json::from_value(body).expect("a policy")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_is_changed_from_the_version_that_was_read_and_every_version_is_kept() {
    let daemon = Daemon::start().await;
    let first = in_force(&daemon).await;
    assert_eq!((first.version, first.author.as_str()), (1, "first start"));

    let text = "queues:\n  ads: {guaranteed: {'*': 4}}\n  lab: {}\n";
    let (status, refused) = put(&daemon, "/v1/policy", text, None).await;
    assert_eq!((status, refused["code"].as_str()), (428, Some("if_match_required")));
    let (status, applied) = put(&daemon, "/v1/policy?reason=ads%20first", text, Some("\"1\"")).await;
    assert_eq!(status, 200, "{applied}");
    let applied: PolicyAppliedView = serde_json::from_value(applied).expect("an answer");
    let changed: Vec<&str> = applied.changes.iter().map(|effect| effect.change.path.as_str()).collect();
    assert_eq!(changed, ["queues.ads", "queues.default", "queues.inference", "queues.lab", "queues.training"]);
    assert!(applied.changes.iter().all(|effect| effect.takes_effect == "now"));
    assert_eq!(applied.warnings[0].field, "queues.ads.guaranteed", "{:?}", applied.warnings);
    assert_eq!(applied.warnings[0].line, Some(2), "the line of what is sent");

    let (status, stale) = put(&daemon, "/v1/policy", text, Some("\"1\"")).await;
    assert_eq!((status, stale["code"].as_str()), (412, Some("stale_policy")));
    let (_, same) = put(&daemon, "/v1/policy", text, Some("*")).await;
    assert_eq!((&same["version"], &same["changes"]), (&json!(2), &json!([])), "nothing new is no new version");

    let (status, back) = daemon.send("POST", "/v1/policy/versions/1/rollback", r#"{"reason": "too early"}"#).await;
    assert_eq!((status, &back["version"]), (200, &json!(3)), "{back}");
    let now = in_force(&daemon).await;
    assert_eq!((now.policy, now.reason.as_str()), (first.policy, "too early (back to version 1)"));
    let (_, page) = daemon.send("GET", "/v1/policy/versions?limit=2", "").await;
    let newest: Vec<PolicyVersionView> = serde_json::from_value(page["items"].clone()).expect("versions");
    assert_eq!(newest.iter().map(|version| version.version).collect::<Vec<_>>(), [3, 2]);
    assert_eq!(
        (newest[1].reason.as_str(), newest[1].changes.len(), &page["next_cursor"]),
        ("ads first", 5, &json!("2"))
    );
    let (status, unknown) = daemon.send("GET", "/v1/policy/versions/9", "").await;
    assert_eq!((status, unknown["code"].as_str()), (404, Some("no_such_policy_version")));
    let (stored, folded) = daemon.stored_and_folded().await;
    assert_eq!(stored, folded);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_that_contradicts_itself_is_refused_by_field_and_line() {
    let daemon = Daemon::start().await;
    let circle = "queues:\n  a: {parent: b}\n  b:\n    parent: a\n";
    let (status, refused) = put(&daemon, "/v1/policy", circle, Some("*")).await;
    assert_eq!(
        (status, refused["code"].as_str(), refused["field"].as_str()),
        (422, Some("invalid_policy"), Some("queues.a.parent"))
    );
    assert!(
        refused["detail"].as_str().is_some_and(|detail| detail.contains("line 4, field queues.b.parent")),
        "{refused}"
    );
    let (status, _) = put(&daemon, "/v1/policy", "queues: [", Some("*")).await;
    assert_eq!(status, 422);
    let (status, refused) = put(&daemon, "/v1/policy", circle, Some("the last one")).await;
    assert_eq!((status, refused["field"].as_str()), (400, Some("if-match")));
    assert_eq!(in_force(&daemon).await.version, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lowered_limit_says_what_happens_and_leases_tell_their_policy() {
    let daemon = Daemon::start().await;
    Node::register(&daemon, "n1", 4).await;
    daemon.client.create_job(&job(json!({"name": "a", "chips": 3})), None).await.expect("accepted");
    let text = "queues:\n  default:\n    limit: {'*': 1}\n";
    let (_, applied) = put(&daemon, "/v1/policy", text, Some("\"1\"")).await;
    let warning = &applied["warnings"][0];
    assert_eq!((&warning["field"], &warning["line"]), (&json!("queues.default.limit.*"), &json!(3)));
    assert!(
        warning["detail"]
            .as_str()
            .is_some_and(|told| told.contains("holds 3 chips") && told.contains("nobody is evicted"))
    );
    put(&daemon, "/v1/policy", "queues: [default]", Some("*")).await;
    let later = daemon.client.create_job(&job(json!({"name": "b"})), None).await.expect("accepted");
    assert_eq!(later.lease.as_ref().and_then(|lease| lease.policy_version), Some(3));
    let daemon = daemon.restart().await;
    let (_, leases) = daemon.send("GET", "/v1/leases?state=active", "").await;
    let versions: Vec<&Value> =
        leases["items"].as_array().expect("a list").iter().map(|l| &l["policy_version"]).collect();
    assert_eq!(versions, [&json!(3), &json!(1)]);
    assert_eq!(in_force(&daemon).await.version, 3, "a restart changes nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_changed_since_stays_when_the_file_has_not_changed() {
    let daemon = Daemon::with_policy("queues: [ads]").await;
    assert_eq!(in_force(&daemon).await.author, "policy file");
    put(&daemon, "/v1/policy", "queues: [lab]", Some("*")).await;
    let daemon = daemon.restart().await;
    assert_eq!(in_force(&daemon).await.version, 2);
    daemon.write_policy("queues: [ads, lab]");
    let daemon = daemon.restart().await;
    let now = in_force(&daemon).await;
    assert_eq!((now.version, now.author.as_str()), (3, "policy file"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_schema_is_served_as_it_is_committed() {
    let daemon = Daemon::start().await;
    let (status, served) = daemon.send("GET", "/v1/policy/schema", "").await;
    let committed: Value = serde_json::from_str(include_str!("../../../policy.schema.json")).expect("JSON");
    assert_eq!((status, served), (200, committed));
}
