//! The audit: who did what, or was refused.

use crate::common::{Daemon, Node, SOON, job};
use chiptide_api::Client;
use chiptide_api::access::{AuditView, Role, TokenBody};
use chiptide_daemon::store::Store;
use serde_json::json;
use std::time::Duration;

fn body(role: Role) -> TokenBody {
    TokenBody { name: format!("the {role}"), role, queues: Vec::new(), node: None, expires_in: None }
}

/// Waits until the audit has so many entries for these filters, and answers them, oldest first.
async fn told(daemon: &Daemon, filters: &[(&str, &str)], count: usize) -> Vec<AuditView> {
    let filters: Vec<(&str, String)> = filters.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
    let waited = tokio::time::timeout(SOON, async {
        loop {
            let mut items = daemon.client.audit(&filters).await.expect("a page").items;
            if items.len() >= count {
                items.reverse();
                return items;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    waited.await.expect("told in the end")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_done_and_what_is_refused_is_told_with_who_and_from_where() {
    let daemon = Daemon::start().await;
    let mut node = Node::register(&daemon, "n1", 1).await;
    node.obey().await;
    let made = daemon.client.create_token(&body(Role::Viewer)).await.expect("made");
    let viewer = Client::new(&daemon.base, &made.token).expect("a client");
    let created = daemon.client.create_job(&job(json!({})), None).await.expect("accepted");
    viewer.cancel_job(created.id, None).await.expect_err("refused");
    Client::new(&daemon.base, "chiptide_no_one")
        .expect("a client")
        .cancel_job(created.id, None)
        .await
        .expect_err("refused");
    daemon.client.cancel_job(created.id, None).await.expect("cancelled");
    let id = created.id.to_string();
    let cancels = told(&daemon, &[("action", "POST /v1/jobs/{id}/cancel"), ("target", &id)], 3).await;
    let [by_viewer, by_nobody, by_admin] = &cancels[..] else { panic!("{cancels:?}") };
    let verdict = |entry: &AuditView| (entry.outcome.clone(), entry.status, entry.code.clone());
    assert_eq!(verdict(by_viewer), ("refused".into(), 403, Some("forbidden".into())));
    assert_eq!((&by_viewer.who, by_viewer.name.as_str()), (&made.about.id, "the viewer"));
    assert_eq!(verdict(by_nobody), ("refused".into(), 401, Some("unauthorized".into())));
    assert_eq!(by_nobody.who, "");
    assert_eq!(verdict(by_admin), ("allowed".into(), 200, None));
    assert_eq!(by_admin.before.as_ref().expect("told")["state"], "leased");
    assert_eq!(by_admin.after.as_ref().expect("told")["state"], "cancelled");
    assert!(cancels.iter().all(|entry| entry.address == "127.0.0.1" && !entry.request_id.is_empty()));
    let all = told(&daemon, &[], 6).await;
    assert!(!serde_json::to_string(&all).expect("JSON").contains(&made.token[25..]), "no secret is told");
    assert!(!all.iter().any(|entry| entry.action.contains("report")), "reports that are taken in are not");
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_filtered_and_paged_and_cannot_be_changed() {
    let daemon = Daemon::start().await;
    for _ in 0..5 {
        daemon.client.create_token(&body(Role::Viewer)).await.expect("made");
    }
    let (_, refused) = daemon.send("POST", "/v1/tokens", "{}").await;
    assert_eq!(refused["status"], 422);
    told(&daemon, &[], 6).await;
    assert_eq!(told(&daemon, &[("outcome", "refused")], 1).await.len(), 1);
    let (mut seen, mut cursor) = (Vec::new(), None);
    loop {
        let mut filters = vec![("limit", "2".to_owned()), ("outcome", "allowed".to_owned())];
        filters.extend(cursor.map(|cursor| ("cursor", cursor)));
        let page = daemon.client.audit(&filters).await.expect("a page");
        seen.extend(page.items.into_iter().map(|entry| entry.seq));
        match page.next_cursor {
            Some(next) => cursor = Some(next),
            None => break,
        }
    }
    assert!(seen.len() == 5 && seen.is_sorted_by(|a, b| a > b), "{seen:?}");
    let future = ("from", "2999-01-01T00:00:00Z".to_owned());
    assert_eq!(daemon.client.audit(&[future]).await.expect("a page").items, []);
    let store = Store::open(&daemon.database_url).await.expect("a store");
    for change in ["update audit set who = ''", "delete from audit", "truncate audit"] {
        let refused = sqlx::raw_sql(change).execute(&store.reader).await.expect_err("refused").to_string();
        assert!(refused.contains("only appended to"), "{refused}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_orderly_stop_loses_nothing() {
    let daemon = Daemon::start().await;
    for _ in 0..30 {
        daemon.client.create_job(&job(json!({})), None).await.expect("accepted");
    }
    let daemon = daemon.restart().await;
    assert_eq!(told(&daemon, &[("action", "POST /v1/jobs")], 30).await.len(), 30);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_was_passed_on_is_told_once() {
    let leader = Daemon::start().await;
    let standby = leader.another().await;
    let created = standby.client.create_job(&job(json!({})), None).await.expect("passed on");
    let entries = told(&leader, &[("action", "POST /v1/jobs")], 1).await;
    assert_eq!(entries[0].after.as_ref().expect("told")["id"], created.id.to_string());
    let leader = leader.restart().await;
    assert_eq!(told(&leader, &[("action", "POST /v1/jobs")], 1).await.len(), 1);
}
