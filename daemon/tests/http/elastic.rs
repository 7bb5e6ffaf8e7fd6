//! Elastic jobs, checkpoints and protection, black box.

use crate::common::{Daemon, Node, job};
use chiptide_api::ClientError;
use chiptide_api::lease::ReleaseBody;
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn an_elastic_job_grows_and_its_extra_replicas_go_first() {
    let daemon = Daemon::start().await;
    let mut node = Node::register(&daemon, "n1", 4).await;
    let body = job(json!({"name": "train", "replicas_min": 2, "replicas_max": 4, "priority_class": "best-effort",
        "grace": "0s"}));
    let train = daemon.client.create_job(&body, None).await.expect("accepted");
    node.obey().await;
    let grown = daemon.client.job(train.id).await.expect("there");
    assert_eq!((grown.replicas_held, grown.extras.len(), grown.extras[0].extra), (4, 2, true));
    assert_eq!((grown.spec.replicas, grown.spec.replicas_min, grown.spec.replicas_max), (None, Some(2), Some(4)));
    let standing = daemon.client.explain_job(train.id).await.expect("explained").standing.expect("it holds chips");
    assert_eq!((standing.replicas, standing.extras, standing.chips), (4, 2, 4.0));

    let serve = job(json!({"kind": "inference", "name": "serve"}));
    daemon.client.create_job(&serve, None).await.expect("accepted");
    node.obey().await;
    let shrunk = daemon.client.explain_job(train.id).await.expect("explained");
    let eviction = shrunk.evictions.first().expect("told");
    assert!(eviction.extra && eviction.message.contains("the job ran on"), "{}", eviction.message);
    let running = daemon.client.job(train.id).await.expect("there");
    assert_eq!((running.replicas_held, running.attempt, running.preemptions), (3, 1, 0));
    let extra = running.extras[0].id;
    daemon.client.release_lease(extra, &ReleaseBody::default(), None).await.expect("given back");
    assert_eq!(daemon.client.job(train.id).await.expect("there").replicas_held, 2);
    let (stored, folded) = daemon.stored_and_folded().await;
    assert_eq!(stored, folded);
    let daemon = daemon.restart().await;
    let (stored, folded) = daemon.stored_and_folded().await;
    assert_eq!(stored, folded);
}

#[tokio::test(flavor = "multi_thread")]
async fn contradictory_sizes_are_refused_by_field() {
    let daemon = Daemon::start().await;
    for (body, field) in [
        (json!({"replicas": 2, "replicas_min": 1, "replicas_max": 2}), "replicas"),
        (json!({"replicas_min": 1}), "replicas_max"),
        (json!({"replicas_max": 3}), "replicas_min"),
        (json!({"replicas_min": 3, "replicas_max": 2}), "replicas_max"),
        (json!({"replicas_min": 0, "replicas_max": 2}), "replicas_min"),
        (json!({"min_runtime": "1ms"}), "min_runtime"),
        (json!({"preemption_budget": {"per_day": 1000000}}), "preemption_budget.per_day"),
        (json!({"preemption_budget": {"per_week": 1}}), "preemption_budget.per_week"),
    ] {
        let mut whole = json!({"kind": "training", "name": "job", "chips": 1});
        whole.as_object_mut().expect("an object").extend(body.as_object().expect("an object").clone());
        let (status, problem) = daemon.send("POST", "/v1/jobs", whole.to_string()).await;
        assert_eq!((status, problem["field"].as_str()), (422, Some(field)), "{body}: {problem}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_is_reported_once_or_often_and_kept() {
    let daemon = Daemon::start().await;
    Node::register(&daemon, "n1", 1).await;
    let held = daemon.client.create_job(&job(json!({"restart_cost": "40s"})), None).await.expect("accepted");
    let lease = held.lease.expect("leased").id;
    for key in [None, Some("once"), Some("once")] {
        assert_eq!(daemon.client.checkpoint_lease(lease, key).await.expect("noted").id, lease);
    }
    let noted = daemon.client.job(held.id).await.expect("there").checkpointed_at;
    assert!(noted.is_some());
    let (stored, folded) = daemon.stored_and_folded().await;
    assert_eq!(stored, folded);
    let daemon = daemon.restart().await;
    assert_eq!(daemon.client.job(held.id).await.expect("there").checkpointed_at, noted);
    let nobody = daemon.client.checkpoint_lease(held.id, None).await.expect_err("refused");
    assert_eq!(nobody.code(), Some("no_such_lease"));
    daemon.client.cancel_job(held.id, None).await.expect("cancelled");
    let over = daemon.client.checkpoint_lease(lease, None).await.expect_err("refused");
    assert!(matches!(&over, ClientError::Refused(problem) if problem.code == "lease_over"), "{over}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_protected_lease_says_until_when() {
    let daemon = Daemon::start().await;
    Node::register(&daemon, "n1", 1).await;
    let train = job(json!({"name": "train", "priority_class": "best-effort", "min_runtime": "1h",
        "preemption_budget": {"per_day": 3, "cool_down": "10m"}}));
    let train = daemon.client.create_job(&train, None).await.expect("accepted");
    let until = train.lease.as_ref().expect("leased").granted_at + chrono::TimeDelta::hours(1);
    let serve = job(json!({"kind": "inference", "name": "serve"}));
    let serve = daemon.client.create_job(&serve, None).await.expect("accepted");
    let told = daemon.client.explain_job(serve.id).await.expect("explained");
    let way = told.ways.iter().find(|way| way.code == "end_leases").expect("a way");
    let lease = &way.leases[0];
    assert_eq!((lease.job, lease.spared.as_deref(), lease.protected_until), (train.id, Some("protected"), Some(until)));
    let standing = daemon.client.explain_job(train.id).await.expect("explained").standing.expect("it holds chips");
    assert_eq!((standing.exposure.as_str(), standing.not_before), ("preemptible", Some(until)));
}
