//! Cordon, drain, uncordon over HTTP.

use crate::common::{Daemon, Node, job};
use chiptide_api::node::DrainBody;
use serde_json::{Value, json};

#[tokio::test(flavor = "multi_thread")]
async fn a_node_is_cordoned_drained_and_given_back_over_a_restart() {
    let daemon = Daemon::start().await;
    let mut node = Node::register(&daemon, "n1", 2).await;
    let held = daemon.client.create_job(&job(json!({"name": "held", "grace": "10s"})), None).await.expect("accepted");
    let cordoned = daemon.client.cordon("n1", "new fans").await.expect("cordoned").cordon.expect("it says so");
    assert_eq!((cordoned.reason.as_str(), cordoned.leases, cordoned.empty_by), ("new fans", 1, None));
    let waits = daemon.client.create_job(&job(json!({"name": "waits"})), None).await.expect("accepted");
    assert_eq!(waits.state, "pending");

    let within = Some(chiptide_model::Millis::from_secs(7200));
    let body = DrainBody { reason: "new fans".into(), within };
    let drained = daemon.client.drain("n1", &body).await.expect("drained").cordon.expect("it says so");
    assert_eq!(drained.empty_by, drained.drain_by, "the lease may stay until then");
    let lease = held.lease.expect("a lease").id;
    let view = daemon.client.lease(lease).await.expect("a lease");
    assert_eq!((view.state.as_str(), view.cause.as_deref()), ("revoking", Some("drain")));
    daemon.client.release_lease(lease, &Default::default(), None).await.expect("left early");
    node.obey().await;
    let (_, told): (u16, Value) = daemon.send("GET", &format!("/v1/jobs/{}", held.id), "").await;
    assert_eq!(told["state"], "pending", "its job waits again");

    let daemon = daemon.restart().await;
    let (stored, folded) = daemon.stored_and_folded().await;
    assert_eq!(stored, folded);
    assert!(daemon.client.node("n1").await.expect("a node").cordon.is_some(), "a restart forgets nothing");
    assert!(daemon.client.uncordon("n1", "done").await.expect("back").cordon.is_none());
    let refused = daemon.client.uncordon("n1", "done").await.expect_err("refused");
    assert_eq!(refused.code(), Some("not_cordoned"));
}
