//! Queues and the policy file, black box.

use crate::common::{Daemon, Node, job};
use chiptide_api::queue::QueueView;
use serde_json::json;

const POLICY: &str = "
queues:
  team: {guaranteed: {'*': 3}}
  ads: {parent: team, guaranteed: {'*': 2}, limit: {nvidia-h20: 3}, preemption_budget: {per_day: 5}}
  lab: {parent: team, weight: 2}
  guests: {}
bounds: {claim: 5m}
";

async fn queue(daemon: &Daemon, name: &str) -> QueueView {
    let queues = daemon.client.queues().await.expect("queues").items;
    queues.into_iter().find(|queue| queue.name == name).expect("a queue")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_file_is_in_force_from_the_start_and_queues_tell_their_use() {
    let daemon = Daemon::with_policy(POLICY).await;
    Node::register(&daemon, "n1", 4).await;
    let ask = |name: &str, queue: &str, chips: u32| job(json!({"name": name, "queue": queue, "chips": chips}));
    daemon.client.create_job(&ask("a", "guests", 2), None).await.expect("accepted");
    daemon.client.create_job(&ask("b", "ads", 1), None).await.expect("accepted");
    let held = daemon.client.create_job(&ask("c", "ads", 3), None).await.expect("accepted");
    let blocked: Vec<(&str, Option<&str>)> =
        held.reasons.iter().map(|reason| (reason.code.as_str(), reason.queue.as_deref())).collect();
    assert_eq!(blocked, [("queue_limit", Some("ads")), ("insufficient_chips", None)]);
    let told = daemon.client.explain_job(held.id).await.expect("explained");
    let raise = told.ways.iter().find(|way| way.code == "raise_limit").expect("a way");
    assert_eq!((raise.queue.as_deref(), raise.chips), (Some("ads"), Some(1)));

    let ads = queue(&daemon, "ads").await;
    assert_eq!((ads.parent.as_deref(), ads.takes_jobs, ads.pending), (Some("team"), true, 1));
    assert_eq!((ads.normalised.guaranteed, ads.normalised.used, ads.normalised.lent), (2.0, 1.0, 1.0));
    assert_eq!((ads.classes[0].device_class.as_str(), ads.classes[0].chips.limit), ("nvidia-h20", Some(3.0)));
    let team = queue(&daemon, "team").await;
    assert_eq!((team.takes_jobs, team.normalised.used, team.pending), (false, 1.0, 1));
    let guests = queue(&daemon, "guests").await;
    assert!(guests.normalised.borrowed == 2.0 && guests.share > 0.0);
    let (stored, folded) = daemon.stored_and_folded().await;
    assert_eq!(stored, folded);
    assert!(!stored.past_use.is_empty(), "what was used is kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_file_is_another_version_and_the_same_is_not() {
    let daemon = Daemon::with_policy(POLICY).await;
    let version = async |daemon: &Daemon| daemon.stored_and_folded().await.0.policy.version;
    assert_eq!(version(&daemon).await, 1);
    let daemon = daemon.restart().await;
    assert_eq!(version(&daemon).await, 1);
    daemon.write_policy("queues: {default: {limit: {'*': 1}}}");
    let daemon = daemon.restart().await;
    assert_eq!(version(&daemon).await, 2);
    let refused = daemon.client.create_job(&job(json!({"queue": "ads"})), None).await.expect_err("refused");
    assert_eq!(refused.code(), Some("unknown_queue"));
    let (stored, folded) = daemon.stored_and_folded().await;
    assert_eq!(stored, folded);
}

#[tokio::test(flavor = "multi_thread")]
async fn fair_share_and_budgets_survive_a_restart() {
    let daemon = Daemon::with_policy(POLICY).await;
    let mut node = Node::register(&daemon, "n1", 1).await;
    let low = job(json!({"name": "low", "queue": "ads", "priority_class": "best-effort", "grace": "0s"}));
    daemon.client.create_job(&low, None).await.expect("accepted");
    daemon.client.create_job(&job(json!({"name": "high", "queue": "ads"})), None).await.expect("accepted");
    node.obey().await;
    let (before, folded) = daemon.stored_and_folded().await;
    assert_eq!(before, folded);
    assert_eq!(
        before.preempted.iter().map(|(queue, times)| (queue.as_str(), times.len())).collect::<Vec<_>>(),
        [("ads", 1), ("team", 1)]
    );
    let daemon = daemon.restart().await;
    let (after, folded) = daemon.stored_and_folded().await;
    assert_eq!((&after.preempted, &after.past_use), (&before.preempted, &before.past_use));
    assert_eq!(after, folded);
}
