//! `/v1/jobs/{id}/explain`, black box.

use crate::common::{Daemon, Node, job};
use chiptide_api::job::{DoneBody, DoneOutcome};
use chiptide_api::lease::ReleaseBody;
use serde_json::json;
use uuid::Uuid;

#[tokio::test(flavor = "multi_thread")]
async fn a_waiting_job_learns_who_is_in_its_way_and_what_would_help() {
    let daemon = Daemon::start().await;
    Node::register(&daemon, "n1", 2).await;
    let holder = job(json!({"name": "holder", "chips": 2, "max_duration": "1h", "grace": "30s"}));
    let holder = daemon.client.create_job(&holder, None).await.expect("accepted");
    let waiting = daemon.client.create_job(&job(json!({"name": "late", "chips": 2})), None).await.expect("accepted");
    let told = daemon.client.explain_job(waiting.id).await.expect("explained");
    assert_eq!(
        (told.state.as_str(), told.message.as_str()),
        ("pending", "it waits: 2 chips are needed, 0 are free (and 1 more)")
    );
    let blocker = &told.blockers[0];
    assert_eq!((blocker.reason.code.as_str(), blocker.reason.shortfall), ("insufficient_chips", Some(2)));
    let holders = blocker.holders.as_ref().expect("held");
    assert_eq!((holders.count, holders.chips, holders.largest[0].job), (1, 2.0, holder.id));
    let way = blocker.unblock.as_ref().expect("a way");
    // Its longest duration, its grace, and the time for the proof of vacancy.
    let gone = holder.lease.expect("a lease").ends_at.expect("an end") + chrono::TimeDelta::seconds(30 + 60);
    assert_eq!((way.code.as_str(), way.until), ("wait", Some(gone)));
    let start = told.start.expect("an estimate");
    assert_eq!((start.basis.as_str(), start.earliest, start.latest), ("reservation", Some(gone), Some(gone)));
    let reserved = told.blockers.iter().find(|blocker| blocker.reason.code == "reserved").expect("chips set aside");
    assert_eq!(reserved.reason.over_by, Some(gone));

    let told = daemon.client.explain_job(holder.id).await.expect("explained");
    let standing = told.standing.expect("it holds chips");
    assert_eq!((standing.exposure.as_str(), standing.chips, standing.above_priority), ("preemptible", 2.0, Some(500)));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_eviction_is_told_with_its_weighing_also_after_a_restart_and_when_all_is_over() {
    let daemon = Daemon::start().await;
    let mut node = Node::register(&daemon, "n1", 1).await;
    let train = daemon
        .client
        .create_job(&job(json!({"name": "train", "priority_class": "best-effort"})), None)
        .await
        .expect("accepted");
    let lease = train.lease.expect("leased").id;
    let serve = job(json!({"kind": "inference", "name": "chat", "queue": "inference"}));
    let serve = daemon.client.create_job(&serve, None).await.expect("accepted");
    let promised = daemon.client.explain_job(serve.id).await.expect("explained");
    let promise = promised.promise.expect("promised");
    assert_eq!((promise.victims, promise.progress.waiting_for), (vec![lease], 1));
    assert_eq!(promised.blockers[0].holders.as_ref().map(|holders| holders.largest[0].job), Some(train.id));

    daemon.client.release_lease(lease, &ReleaseBody::default(), None).await.expect("released");
    node.obey().await;
    let daemon = daemon.restart().await;
    let told = daemon.client.explain_job(train.id).await.expect("explained");
    assert_eq!((told.state.as_str(), told.evictions.len()), ("pending", 1));
    let eviction = &told.evictions[0];
    assert_eq!((eviction.lease, eviction.attempt, eviction.cause.as_str()), (lease, 1, "preempt"));
    assert_eq!((eviction.for_job, eviction.for_name.as_deref(), eviction.chips), (Some(serve.id), Some("chat"), 1.0));
    assert_eq!(eviction.choice.as_ref().map(|choice| choice.cost.gangs), Some(1));
    assert_eq!(eviction.cost, eviction.choice.as_ref().map(|choice| choice.cost));
    assert!(
        eviction.message.starts_with("1 chip went to chat (queue inference, priority 800); "),
        "{}",
        eviction.message
    );

    let done = DoneBody { outcome: DoneOutcome::Failed, reason: Some("given up".into()) };
    daemon.client.job_done(train.id, &done, None).await.expect("done");
    let over = daemon.client.explain_job(train.id).await.expect("explained");
    assert_eq!((over.state.as_str(), over.message.as_str()), ("failed", "it failed: given up"));
    assert_eq!(over.evictions, told.evictions);
    assert!(over.blockers.is_empty() && over.start.is_none());
    let (stored, folded) = daemon.stored_and_folded().await;
    assert_eq!(stored, folded);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_lease_is_an_eviction_too() {
    let daemon = Daemon::start().await;
    Node::register(&daemon, "n1", 1).await;
    let held = daemon.client.create_job(&job(json!({"name": "held"})), None).await.expect("accepted");
    let mut rebooted = crate::common::registration("n1", 1);
    rebooted.boot_id = "boot-2".into();
    daemon.client.register("n1", &rebooted).await.expect("registered");
    let told = daemon.client.explain_job(held.id).await.expect("explained");
    let eviction = told.evictions.first().expect("told");
    assert_eq!((eviction.cause.as_str(), eviction.detail.as_deref()), ("fault", Some("n1: the node rebooted")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_never_was_is_not_explained() {
    let daemon = Daemon::start().await;
    assert_eq!(daemon.client.explain_job(Uuid::new_v4()).await.expect_err("refused").code(), Some("no_such_job"));
    assert_eq!(daemon.send("GET", "/v1/jobs/x/explain", "").await.0, 400);
}
