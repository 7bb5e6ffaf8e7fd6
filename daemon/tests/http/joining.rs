//! How an agent comes in: a join token for a credential of one node, and no other.

use crate::common::{Daemon, registration};
use chiptide_api::Client;
use chiptide_api::access::{JoinTokenBody, Role};
use chiptide_model::Millis;
use serde_json::json;

async fn join_token(daemon: &Daemon, node: Option<&str>) -> String {
    let body = JoinTokenBody { node: node.map(str::to_owned), expires_in: None };
    daemon.client.create_join_token(&body).await.expect("made").join_token
}

/// A client with the credential that this join token is given for.
async fn joined(daemon: &Daemon, node: &str, join_token: &str) -> Client {
    let stranger = Client::new(&daemon.base, "").expect("a client");
    let made = stranger.join(node, join_token).await.expect("let in");
    assert_eq!((made.about.role, made.about.node.as_deref()), (Role::Agent, Some(node)));
    Client::new(&daemon.base, &made.token).expect("a client")
}

async fn refused(daemon: &Daemon, node: &str, join_token: &str) -> String {
    let stranger = Client::new(&daemon.base, "").expect("a client");
    stranger.join(node, join_token).await.expect_err("refused").code().unwrap_or_default().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_join_token_lets_one_agent_in_which_acts_for_its_node_and_no_other() {
    let daemon = Daemon::start().await;
    let token = join_token(&daemon, None).await;
    let agent = joined(&daemon, "n1", &token).await;
    agent.register("n1", &registration("n1", 1)).await.expect("its node");
    let foreign = agent.register("n2", &registration("n2", 1)).await.expect_err("another node");
    assert_eq!(foreign.code(), Some("forbidden"));
    assert_eq!(agent.jobs(&[]).await.expect_err("no business of its").code(), Some("forbidden"));
    assert_eq!(refused(&daemon, "n3", &token).await, "join_refused", "once");
    assert_eq!(refused(&daemon, "n3", "chiptidejoin_abc_def").await, "join_refused");
    assert_eq!(daemon.client.whoami().await.expect("known").role, Role::Admin);
    let as_bearer = Client::new(&daemon.base, &join_token(&daemon, None).await).expect("a client");
    assert_eq!(as_bearer.whoami().await.expect_err("no bearer token").code(), Some("unauthorized"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_has_a_credential_is_joined_only_by_a_token_that_names_it() {
    let daemon = Daemon::start().await;
    let first = joined(&daemon, "n1", &join_token(&daemon, None).await).await;
    let any = join_token(&daemon, None).await;
    assert_eq!(refused(&daemon, "n1", &any).await, "node_taken");
    joined(&daemon, "n2", &any).await;
    let named = join_token(&daemon, Some("n1")).await;
    assert_eq!(refused(&daemon, "n2", &named).await, "join_refused");
    let second = joined(&daemon, "n1", &named).await;
    assert_eq!(first.whoami().await.expect_err("its place is taken").code(), Some("unauthorized"));
    assert_eq!(second.whoami().await.expect("known").node.as_deref(), Some("n1"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_credential_is_renewed_and_the_old_one_ends() {
    let daemon = Daemon::start().await;
    let agent = joined(&daemon, "n1", &join_token(&daemon, None).await).await;
    let renewed = agent.renew_credential("n1").await.expect("renewed");
    let old = agent.whoami().await.expect("still good for a while");
    agent.set_token(&renewed.token);
    assert_eq!(agent.whoami().await.expect("known").id, renewed.about.id);
    let listed = daemon.client.tokens(&[]).await.expect("a page").items;
    let ends = listed.iter().find(|token| token.id == old.id).expect("there").expires_at;
    assert!(ends.is_some(), "the old one has an end now");
    assert_eq!(agent.renew_credential("n2").await.expect_err("another node").code(), Some("forbidden"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_join_token_that_is_over_opens_nothing() {
    let daemon = Daemon::start().await;
    let body = JoinTokenBody { node: None, expires_in: Some(Millis(1)) };
    let token = daemon.client.create_join_token(&body).await.expect("made").join_token;
    tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    assert_eq!(refused(&daemon, "n1", &token).await, "join_refused");
    let too_long = json!({"expires_in": "25h"}).to_string();
    let (status, problem) = daemon.send("POST", "/v1/join-tokens", too_long).await;
    assert_eq!((status, problem["field"].as_str()), (422, Some("expires_in")));
}
