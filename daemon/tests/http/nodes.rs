//! What agents may and may not say.

use crate::common::{Daemon, Node, SOON, chip_body, job, registration};
use chiptide_api::node::{HealthBody, VacantBody};
use chiptide_model::Millis;
use serde_json::json;
use uuid::Uuid;

#[tokio::test(flavor = "multi_thread")]
async fn reports_of_strangers_and_of_older_sessions_are_refused() {
    let daemon = Daemon::start().await;
    let mut node = Node::register(&daemon, "n1", 1).await;
    let good = node.report_body();
    let refused = async |name: &str, report| daemon.client.report(name, &report).await.expect_err("refused");
    assert_eq!(refused("n2", good.clone()).await.code(), Some("node_not_registered"));
    let mut other = good.clone();
    other.session = Uuid::new_v4();
    assert_eq!(refused("n1", other).await.code(), Some("stale_session"));
    let mut other = good.clone();
    other.boot_id = "boot-0".into();
    assert_eq!(refused("n1", other).await.code(), Some("stale_session"));
    let mut other = good.clone();
    other.chips.push(other.chips[0].clone());
    assert_eq!(refused("n1", other).await.code(), Some("duplicate_chip"));
    let mut other = good.clone();
    other.chips[0].id = "somebody-elses".into();
    assert_eq!(refused("n1", other).await.code(), Some("unknown_chip"));
    assert!(daemon.client.report("n1", &good).await.expect("accepted").accepted);
    Node::register(&daemon, "n1", 1).await;
    assert_eq!(refused("n1", node.report_body()).await.code(), Some("stale_session"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_out_of_order_is_ignored() {
    let daemon = Daemon::start().await;
    let mut node = Node::register(&daemon, "n1", 1).await;
    let mut old = node.report_body();
    old.chips[0].health = HealthBody::Unhealthy { detail: "lost".into() };
    let new = node.report_body();
    assert!(daemon.client.report("n1", &new).await.expect("accepted").accepted);
    assert!(!daemon.client.report("n1", &old).await.expect("ignored").accepted);
    assert!(!daemon.client.report("n1", &new).await.expect("ignored").accepted);
    assert_eq!(daemon.client.chips(&[]).await.expect("a page").items[0].health, "healthy");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chip_cannot_be_on_two_nodes_or_twice_on_one() {
    let daemon = Daemon::start().await;
    Node::register(&daemon, "n1", 1).await;
    let mut body = registration("n2", 1);
    body.chips[0].id = "n1-gpu0".into();
    assert_eq!(daemon.client.register("n2", &body).await.expect_err("refused").code(), Some("chip_elsewhere"));
    body.chips = vec![chip_body("x"), chip_body("x")];
    assert_eq!(daemon.client.register("n2", &body).await.expect_err("refused").code(), Some("duplicate_chip"));
    assert_eq!(daemon.client.nodes(&[]).await.expect("a page").items.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_wake_the_agent_and_a_chip_is_free_only_on_proof() {
    let daemon = Daemon::start().await;
    let mut node = Node::register(&daemon, "n1", 1).await;
    let empty = node.orders().await;
    let (client, session, seen) = (daemon.client.clone(), node.session, empty.revision.clone());
    let poll = tokio::spawn(async move { client.orders("n1", session, Some(&seen), Millis::from_secs(60)).await });
    let leased = daemon.client.create_job(&job(json!({})), None).await.expect("accepted");
    let orders = tokio::time::timeout(SOON, poll).await.expect("woken").expect("no panic").expect("orders");
    assert_eq!((orders.leases.len(), orders.leases[0].job), (1, leased.id));

    daemon.client.cancel_job(leased.id, None).await.expect("cancelled");
    let order = node.orders().await.vacate.remove(0);
    let next = daemon.client.create_job(&job(json!({})), None).await.expect("accepted");
    assert_eq!(next.state, "pending");
    let mut report = node.report_body();
    report.vacant = vec![VacantBody { chip: order.chip.clone(), lease: order.lease, epoch: order.epoch - 1 }];
    daemon.client.report("n1", &report).await.expect("accepted, but proves nothing");
    assert_eq!(daemon.client.job(next.id).await.expect("there").state, "pending");
    node.obey().await;
    assert_eq!(daemon.client.job(next.id).await.expect("there").state, "leased");
    let chip = daemon.client.chips(&[("state", "held".into())]).await.expect("a page").items.remove(0);
    assert_eq!((chip.lease_epoch, chip.holders[0].job), (2, next.id));
}
