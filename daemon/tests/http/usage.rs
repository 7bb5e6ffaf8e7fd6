//! Accounts over HTTP: the sums are the fleet's time, over a restart too.

use crate::common::{Daemon, Node, job};
use chiptide_api::usage::UsageRowView;
use serde_json::json;

/// The rows, once the accounts know a lease of the job that has ended.
async fn rows(daemon: &Daemon, by: &str) -> Vec<UsageRowView> {
    daemon.client.usage(&[("by", by.to_owned())]).await.expect("accounts").items
}

#[tokio::test]
async fn who_had_what_is_told_apart_and_adds_up_over_a_restart() {
    let daemon = Daemon::start().await;
    let mut node = Node::register(&daemon, "n1", 2).await;
    let body = job(json!({"queue": "training", "labels": {"team": "a,b"}}));
    let created = daemon.client.create_job(&body, None).await.expect("created");
    node.obey().await;
    daemon.client.cancel_job(created.id, None).await.expect("cancelled");
    node.obey().await;
    let before = rows(&daemon, "").await;
    let daemon = daemon.restart().await;
    let all = rows(&daemon, "").await;
    let of_queue = rows(&daemon, "queue,class").await;

    assert!(all[0].total >= before[0].total && before[0].total > 0.0);
    assert!((all[0].total - all[0].granted - all[0].vacating - all[0].idle - all[0].out_of_service).abs() < 1e-9);
    let training = of_queue.iter().find(|row| row.queue.as_deref() == Some("training")).expect("a row");
    assert_eq!((training.granted, training.borrowed), (all[0].granted, all[0].granted));
    assert_eq!(training.device_class.as_deref(), Some("nvidia-h20"));
    assert!(rows(&daemon, "label:team").await.iter().any(|row| row.label.as_deref() == Some("a,b")));
    assert!(rows(&daemon, "day,job").await.iter().any(|row| row.job == Some(created.id) && row.time.is_some()));

    let csv = reqwest::Client::new().get(format!("{}/v1/usage?by=label:team", daemon.base)).bearer_auth(&daemon.token);
    let csv = csv.header("accept", "text/csv").send().await.expect("an answer").text().await.expect("text");
    assert!(csv.starts_with("time,queue,") && csv.contains("\"a,b\""), "{csv}");
    for (query, field) in
        [("by=colour", "by"), ("by=label:", "by"), ("from=2026-01-02T00:00:00Z&to=2026-01-01T00:00:00Z", "from")]
    {
        let (status, problem) = daemon.send("GET", &format!("/v1/usage?{query}"), "").await;
        assert_eq!((status, problem["field"].as_str()), (400, Some(field)), "{query}: {problem}");
    }
    daemon.stop().await;
}
