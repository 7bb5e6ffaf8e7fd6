//! Whatever a peer sends: a clear answer with a stable code and the field at fault, and nothing changes.

use crate::common::{Daemon, Node, registration};
use serde_json::json;

fn body(extra: serde_json::Value) -> String {
    let mut body = json!({"kind": "training", "name": "job", "chips": 1});
    extra.as_object().expect("an object").iter().for_each(|(key, value)| body[key] = value.clone());
    body.to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_jobs_name_the_field_and_change_nothing() {
    let daemon = Daemon::start().await;
    let cases: Vec<(String, u16, &str, &str)> = vec![
        ("{".into(), 400, "malformed_json", "."),
        ("[]".into(), 422, "out_of_range", "."),
        ("3".into(), 422, "invalid_field", "."),
        (body(json!({"replcas": 2})), 422, "invalid_field", "replcas"),
        (body(json!({"share": {"part": 1}})), 422, "invalid_field", "share.part"),
        (body(json!({"replicas": -1})), 422, "invalid_field", "replicas"),
        (body(json!({"replicas": 0})), 422, "out_of_range", "replicas"),
        (body(json!({"replicas": 1_000_000_000_000u64})), 422, "out_of_range", "replicas"),
        (body(json!({"replicas": 1e300})), 422, "invalid_field", "replicas"),
        (body(json!({"chips": 1000})), 422, "out_of_range", "chips"),
        (body(json!({"share": {"fraction": 0.5}})), 422, "invalid_field", "share"),
        (body(json!({"queue": "nowhere"})), 422, "unknown_queue", "queue"),
        (body(json!({"priority_class": "royal"})), 422, "unknown_priority_class", "priority_class"),
        (body(json!({"priority_class": 99_999_999})), 422, "out_of_range", "priority_class"),
        (body(json!({"grace": "soon"})), 422, "invalid_field", "grace"),
        (body(json!({"max_duration": "1ms"})), 422, "out_of_range", "max_duration"),
        (body(json!({"name": "a b"})), 422, "invalid_field", "name"),
        (body(json!({"name": "nul\u{0}"})), 422, "invalid_field", "name"),
        (body(json!({"labels": {"team": "x\u{0}"}})), 422, "invalid_field", "labels.team"),
        (body(json!({"device_classes": ["no class"]})), 422, "invalid_field", "device_classes[0]"),
        (body(json!({"workload": {"command": []}})), 422, "invalid_field", "workload.command"),
        (body(json!({"unfit": "refuse"})), 422, "never_fits", "replicas"),
        (
            format!("[{}, {}]", body(json!({})), body(json!({"cpu_milli": u64::MAX}))),
            422,
            "out_of_range",
            "[1].cpu_milli",
        ),
    ];
    for (sent, status, code, field) in cases {
        let (got, problem) = daemon.send("POST", "/v1/jobs", sent.clone()).await;
        let told = (got, problem["code"].as_str(), problem["field"].as_str());
        assert_eq!(told, (status, Some(code), Some(field)), "{sent}: {problem}");
    }
    assert_eq!(daemon.client.jobs(&[]).await.expect("a page").items.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_no_text_and_bodies_that_are_too_large_are_refused() {
    let daemon = Daemon::start().await;
    let (status, problem) = daemon.send("POST", "/v1/jobs", vec![b'{', b'"', 0xff, 0xfe, b'"', b':', b'1', b'}']).await;
    assert_eq!((status, problem["code"].as_str()), (400, Some("malformed_json")));
    let (status, problem) = daemon.send("POST", "/v1/jobs", vec![b' '; 10_000_000]).await;
    assert_eq!((status, problem["code"].as_str()), (413, Some("body_too_large")));
    let deep = "[".repeat(100_000);
    assert_eq!(daemon.send("POST", "/v1/jobs", deep).await.0, 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_ways_in_are_refused() {
    let daemon = Daemon::start().await;
    let http = reqwest::Client::new();
    let url = format!("{}/v1/jobs", daemon.base);
    for token in ["", "nonsense", "chiptide_000000000000_0000", &daemon.token[..daemon.token.len() - 1]] {
        let answer = http.get(&url).bearer_auth(token).send().await.expect("an answer");
        assert_eq!(answer.status().as_u16(), 401, "{token:?}");
    }
    let text = http.post(&url).bearer_auth(&daemon.token).header("content-type", "text/plain").body("x");
    assert_eq!(text.send().await.expect("an answer").status().as_u16(), 415);
    let cases = [
        ("GET", "/v1/nothing", 404, "no_such_route"),
        ("DELETE", "/v1/jobs", 405, "method_not_allowed"),
        ("GET", "/v1/jobs/not-an-id", 400, "invalid_parameter"),
        ("GET", "/v1/jobs/00000000-0000-0000-0000-000000000000", 404, "no_such_job"),
        ("POST", "/v1/jobs/00000000-0000-0000-0000-000000000000/cancel", 404, "no_such_job"),
        ("POST", "/v1/leases/00000000-0000-0000-0000-000000000000/renew", 404, "no_such_lease"),
        ("GET", "/v1/jobs?limit=0", 400, "invalid_parameter"),
        ("GET", "/v1/jobs?state=asleep", 400, "invalid_parameter"),
        ("GET", "/v1/jobs?cursor=x", 400, "invalid_parameter"),
        ("GET", "/v1/jobs?colour=red", 400, "invalid_parameter"),
        ("GET", "/v1/jobs?name=%00", 400, "invalid_parameter"),
        ("GET", "/v1/nodes/ghost", 404, "node_not_registered"),
        ("GET", "/v1/nodes/ghost/orders?session=00000000-0000-0000-0000-000000000000", 404, "node_not_registered"),
    ];
    for (method, path, status, code) in cases {
        let (got, problem) = daemon.send(method, path, "").await;
        assert_eq!((got, problem["code"].as_str()), (status, Some(code)), "{method} {path}");
    }
    let (status, problem) = daemon.send_keyed("POST", "/v1/jobs", body(json!({})), Some(&"k".repeat(300))).await;
    assert_eq!((status, problem["field"].as_str()), (400, Some("idempotency-key")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gang_that_never_fits_waits_with_its_shortfall() {
    let daemon = Daemon::start().await;
    Node::register(&daemon, "n1", 4).await;
    let (status, view) = daemon.send("POST", "/v1/jobs", body(json!({"chips": 4, "replicas": 3}))).await;
    let reason = &view["reasons"][0];
    assert_eq!((status, reason["code"].as_str(), reason["shortfall"].as_u64()), (202, Some("never_fits"), Some(2)));
}

#[tokio::test(flavor = "multi_thread")]
async fn free_text_of_a_registration_that_postgres_could_not_keep_is_refused() {
    let daemon = Daemon::start().await;
    for field in ["boot_id", "agent_version", "rack", "link_domain", "driver_version"] {
        for text in ["nul\u{0}".to_owned(), "x".repeat(300)] {
            let mut body = serde_json::to_value(registration("n1", 1)).expect("JSON");
            body[field] = json!(text);
            let (status, problem) = daemon.send("POST", "/v1/nodes/n1/register", body.to_string()).await;
            assert_eq!((status, problem["field"].as_str()), (422, Some(field)), "{problem}");
        }
    }
}
