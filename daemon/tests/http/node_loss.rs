//! Nodes that are cut off, machines that are off, grants that are refused, and a database that has forgotten.

use crate::common::{Daemon, Node, job, registration};
use chiptide_api::job::JobBody;
use chiptide_api::node::{DeclareOffBody, RefusedBody, SeenBody};
use serde_json::json;
use sqlx::{Connection, PgConnection};
use uuid::Uuid;

fn fenced() -> JobBody {
    let rule = json!({"action": "fence", "ttl": "20s"});
    job(json!({"kind": "inference", "on_node_loss": rule, "workload": {"command": ["/bin/serve"]}}))
}

async fn execute(daemon: &Daemon, statement: &'static str) {
    let mut connection = PgConnection::connect(&daemon.database_url).await.expect("a connection");
    sqlx::query(statement).execute(&mut connection).await.expect("executed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fenced_lease_is_renewed_by_the_leader_and_by_nobody_else() {
    let daemon = Daemon::start().await;
    let mut node = Node::register(&daemon, "n1", 2).await;
    daemon.client.create_job(&job(json!({})), None).await.expect("accepted");
    assert!(!node.obey().await.renewed, "nothing here is fenced");

    let serve = daemon.client.create_job(&fenced(), None).await.expect("accepted");
    assert_eq!(
        serde_json::to_value(&serve.spec).expect("JSON")["on_node_loss"],
        json!({"action": "fence", "ttl": "20s"})
    );
    let orders = node.orders().await;
    let order = orders.leases.iter().find(|order| order.job == serve.id).expect("ordered");
    let fence = order.fence.expect("a fence");
    assert_eq!((fence.ttl.to_string(), fence.kill.to_string()), ("20s".into(), "10s".into()));
    assert!(node.obey().await.renewed, "with news, which are committed");
    let plain = node.report_body();
    assert!(node.send(&plain).await.renewed, "and without");
    assert!(!node.send(&plain).await.renewed, "an old report renews nothing");

    execute(&daemon, "update leader set epoch = epoch + 1, instance = gen_random_uuid()").await;
    let cut = node.report_body();
    assert!(!node.send(&cut).await.renewed, "another one leads");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_is_declared_off_with_a_reason_and_only_when_it_is_not_heard() {
    let daemon = Daemon::start().await;
    let mut node = Node::register(&daemon, "n1", 1).await;
    let train = daemon.client.create_job(&job(json!({})), None).await.expect("accepted");
    node.obey().await;
    let off = DeclareOffBody { reason: "the power is cut".into() };
    let refused = async |daemon: &Daemon, node: &str, body: &DeclareOffBody| {
        daemon.client.declare_off(node, body, None).await.expect_err("refused").code().map(str::to_owned)
    };
    assert_eq!(refused(&daemon, "n1", &off).await.as_deref(), Some("node_reports"));
    assert_eq!(refused(&daemon, "n2", &off).await.as_deref(), Some("node_not_registered"));
    let empty = DeclareOffBody { reason: " ".into() };
    assert_eq!(refused(&daemon, "n1", &empty).await.as_deref(), Some("invalid_field"));

    let daemon = daemon.restart().await;
    daemon.client.declare_off("n1", &off, None).await.expect("nobody has heard it since");
    let waits = daemon.client.job(train.id).await.expect("there");
    assert_eq!((waits.state.as_str(), waits.lease), ("pending", None));
    let mut node = Node::register(&daemon, "n1", 1).await;
    assert_eq!(daemon.client.job(train.id).await.expect("there").state, "pending", "its chip is not proven vacant");
    node.obey().await;
    assert_eq!(daemon.client.job(train.id).await.expect("there").state, "leased");
    let (stored, folded) = daemon.stored_and_folded().await;
    assert_eq!(stored, folded);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_grant_is_taken_back_and_given_under_an_epoch_that_is_new_to_the_node() {
    let daemon = Daemon::start().await;
    let mut node = Node::register(&daemon, "n1", 1).await;
    let train = daemon.client.create_job(&job(json!({})), None).await.expect("accepted");
    let (lease, chip) = (node.orders().await.leases[0].lease, node.chips[0].clone());
    let mut report = node.report_body();
    report.refused = vec![RefusedBody { lease, chip, epoch: 1, seen: 41, seen_lease: Some(Uuid::from_u128(7)) }];
    node.send(&report).await;
    let waits = daemon.client.job(train.id).await.expect("there");
    assert_eq!(waits.state, "pending");
    let vacate = node.orders().await.vacate;
    let mut owed: Vec<(Uuid, u64)> = vacate.iter().map(|order| (order.lease, order.epoch)).collect();
    owed.sort_by_key(|(_, epoch)| *epoch);
    assert_eq!(owed, [(lease, 1), (Uuid::from_u128(7), 41)], "of the refused lease and of the forgotten one");
    node.obey().await;
    assert_eq!(daemon.client.job(train.id).await.expect("there").state, "leased");
    assert_eq!(node.orders().await.leases[0].chips[0].epoch, 42);
    let (stored, folded) = daemon.stored_and_folded().await;
    assert_eq!(stored, folded);
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_failover_every_node_says_first_what_it_has_seen() {
    let daemon = Daemon::start().await;
    let mut node = Node::register(&daemon, "n1", 1).await;
    node.obey().await;
    // As a promoted replica would find it: the note is of the timeline before.
    execute(&daemon, "update database_identity set timeline = timeline + 1").await;
    let daemon = daemon.restart().await;
    let stale = daemon.client.report("n1", &node.report_body()).await.expect_err("refused");
    assert_eq!(stale.code(), Some("stale_session"));
    let mut withdrawn = node.report_body();
    withdrawn.session = Uuid::nil();
    assert_eq!(daemon.client.report("n1", &withdrawn).await.expect_err("refused").code(), Some("stale_session"));

    let mut body = registration("n1", 1);
    let seen = |epoch| SeenBody { chip: node.chips[0].clone(), lease: Uuid::from_u128(7), epoch };
    body.seen = vec![seen(u64::MAX)];
    let refused = daemon.client.register("n1", &body).await.expect_err("refused");
    assert_eq!(refused.code(), Some("out_of_range"));
    body.seen = vec![seen(6)];
    let told = daemon.client.register("n1", &body).await.expect("registered");
    node.join(&daemon, told.session);
    let train = daemon.client.create_job(&job(json!({})), None).await.expect("accepted");
    assert_eq!(train.state, "pending", "the forgotten lease may still run there");
    node.obey().await;
    assert_eq!(daemon.client.job(train.id).await.expect("there").state, "leased");
    assert_eq!(node.orders().await.leases[0].chips[0].epoch, 7);
    let (stored, folded) = daemon.stored_and_folded().await;
    assert_eq!(stored, folded);

    let daemon = daemon.restart().await;
    let heard = daemon.client.report("n1", &node.report_body()).await;
    assert!(heard.expect("the same database as before").accepted);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_work_that_an_agent_runs_can_be_fenced() {
    let daemon = Daemon::start().await;
    for (rule, field) in [
        (json!({"action": "fence"}), "on_node_loss.action"),
        (json!({"action": "wait", "ttl": "20s"}), "on_node_loss.ttl"),
    ] {
        let body = serde_json::to_vec(&job(json!({"on_node_loss": rule}))).expect("JSON");
        let (status, problem) = daemon.send("POST", "/v1/jobs", body).await;
        assert_eq!((status, problem["field"].as_str()), (422, Some(field)));
    }
    let (rule, work) = (json!({"action": "fence", "ttl": "4s"}), json!({"command": ["/bin/serve"]}));
    let body = serde_json::to_vec(&job(json!({"on_node_loss": rule, "workload": work}))).expect("JSON");
    let (status, problem) = daemon.send("POST", "/v1/jobs", body).await;
    assert_eq!((status, problem["code"].as_str()), (422, Some("out_of_range")));
}
