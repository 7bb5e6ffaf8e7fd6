//! What Postgres itself refuses, whatever the code does.

use crate::common::{Daemon, Node, job};
use chiptide_daemon::store::leader::{self, Leadership};
use chiptide_daemon::store::{Store, StoreError, identity};
use serde_json::json;
use sqlx::Connection;
use std::time::Duration;
use uuid::Uuid;

async fn refused(daemon: &Daemon, sql: &'static str) -> String {
    let mut connection = sqlx::PgConnection::connect(&daemon.database_url).await.expect("connected");
    let error = sqlx::raw_sql(sql).execute(&mut connection).await.expect_err("refused");
    error.as_database_error().and_then(|error| error.constraint()).unwrap_or_default().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_slot_has_two_holders_and_no_lease_outlives_its_job() {
    let daemon = Daemon::start().await;
    Node::register(&daemon, "n1", 1).await;
    daemon.client.create_job(&job(json!({"share": {"fraction": 0.5}, "chips": null})), None).await.expect("accepted");
    let twice = "insert into holds (lease_id, chip, slots, epoch) select lease_id, chip, '[400,600)', 2 from holds";
    assert_eq!(refused(&daemon, twice).await, "holds_one_holder_a_slot");
    let beyond = "insert into holds (lease_id, chip, slots, epoch) select lease_id, chip, '[900,1001)', 2 from holds";
    assert_eq!(refused(&daemon, beyond).await, "holds_slots_check");
    let backwards = "update chips set lease_epoch = lease_epoch - 1";
    assert_eq!(refused(&daemon, backwards).await, "lease_epoch_only_grows");
    let orphan = "update jobs set state = 'succeeded', lease_id = null";
    assert_eq!(refused(&daemon, orphan).await, "live_lease_needs_live_job");
    let second = "insert into leases (id, job_id, attempt, state, granted_at, confirmed, placements)
         select gen_random_uuid(), job_id, 2, 'active', now(), '{}', '[]' from leases";
    assert_eq!(refused(&daemon, second).await, "leases_one_live_a_job");
    assert_eq!(refused(&daemon, "update jobs set state = 'asleep', lease_id = null").await, "jobs_state_check");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deposed_leader_cannot_commit() {
    let daemon = Daemon::start().await;
    let store = Store::open(&daemon.database_url).await.expect("a store");
    let mut seat = store.reader.acquire().await.expect("a connection");
    let me = Uuid::new_v4();
    assert_eq!(leader::take_over(&mut seat, me, "", false, 60.0).await.expect("answered"), None, "the daemon leads");
    let mine = leader::take_over(&mut seat, me, "", true, 60.0).await.expect("answered").expect("the lead");
    // The daemon does not know yet; its next round must not land.
    let late = daemon.client.create_job(&job(json!({})), None).await.expect_err("fenced");
    assert_ne!(late.code(), Some("idempotency_key_reused"));
    let jobs =
        sqlx::query_scalar::<_, i64>("select count(*) from jobs").fetch_one(&store.reader).await.expect("counted");
    assert_eq!(jobs, 0);
    let wrong = Leadership { epoch: mine.epoch, instance: Uuid::new_v4() };
    assert!(matches!(leader::renew(&mut seat, wrong, 1.0).await, Err(StoreError::Deposed)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_takeover_waits_for_a_commit_under_way() {
    let daemon = Daemon::start().await;
    let store = Store::open(&daemon.database_url).await.expect("a store");
    let mut seat = store.reader.acquire().await.expect("a connection");
    let mine = leader::take_over(&mut seat, Uuid::new_v4(), "", true, 60.0).await.expect("answered").expect("the lead");
    let mut round = store.writer.begin().await.expect("a transaction");
    leader::guard(&mut round, mine).await.expect("mine");
    let mut takeover = tokio::spawn(async move { leader::take_over(&mut seat, Uuid::new_v4(), "", true, 60.0).await });
    let early = tokio::time::timeout(Duration::from_millis(300), &mut takeover).await;
    assert!(early.is_err(), "the takeover did not wait for the round");
    round.commit().await.expect("committed");
    let theirs = takeover.await.expect("no panic").expect("answered").expect("the lead");
    assert_eq!(theirs.epoch, mine.epoch + 1);
    let mut late = store.writer.begin().await.expect("a transaction");
    assert!(matches!(leader::guard(&mut late, mine).await, Err(StoreError::Deposed)));
}

/// Quotas, a calendar whose window is open, and moves.
const EVERYTHING: &str = "
queues:
  default: {}
  ads: {guaranteed: {'*': 2}, preemption_budget: {per_day: 9}}
calendar:
- {name: nightly, from: 0, to: 4102444800000, queue: ads, chips: 1, device_class: nvidia-h20}
consolidation: {lost_chip_ms_max: 3600000, cool_down: 1m}
";

#[tokio::test(flavor = "multi_thread")]
async fn a_world_with_everything_in_it_is_the_same_after_a_restart() {
    let daemon = Daemon::with_policy(EVERYTHING).await;
    let (mut first, _) = (Node::register(&daemon, "n1", 2).await, Node::register(&daemon, "n2", 4).await);
    let submit = async |extra: serde_json::Value| daemon.client.create_job(&job(extra), None).await.expect("accepted");
    submit(json!({"name": "share", "share": {"fraction": 0.5}, "chips": null, "lease_ttl": "1h"})).await;
    submit(json!({"name": "low", "chips": 2, "priority_class": "best-effort", "grace": "1h", "queue": "ads"})).await;
    submit(json!({"name": "grows", "replicas_min": 1, "replicas_max": 2, "share": {"fraction": 0.25}, "chips": null,
        "preemption_budget": {"per_day": 2}}))
    .await;
    let grows = daemon.client.jobs(&[("name", "grows".into())]).await.expect("a page").items.remove(0);
    daemon.client.checkpoint_lease(grows.lease.expect("leased").id, None).await.expect("noted");
    submit(json!({"name": "ends", "chips": 2, "max_duration": "1h"})).await;
    submit(json!({"name": "over", "share": {"memory_mib": 1000}, "chips": null})).await;
    let over = daemon.client.jobs(&[("name", "over".into())]).await.expect("a page").items[0].id;
    daemon.client.cancel_job(over, None).await.expect("cancelled");
    submit(json!({"name": "spike", "kind": "inference", "chips": 2})).await;
    submit(json!({"name": "gang", "chips": 4})).await;
    first.obey().await;
    let (before, folded) = daemon.stored_and_folded().await;
    assert_eq!(before, folded);
    for (what, there) in [
        ("jobs", !before.jobs.is_empty()),
        ("leases", before.leases.len() > 2),
        ("a claim with its choice", before.claims.iter().any(|(_, claim)| !claim.choice.per_victim.is_empty())),
        ("a reservation", !before.reservations.is_empty()),
        ("a calendar reservation", before.reservations.iter().any(|(_, known)| known.open)),
        ("an extra replica", before.leases.iter().any(|lease| lease.extra)),
        ("a checkpoint", before.jobs.iter().any(|job| job.checkpointed_at.is_some())),
        ("a demand", before.demand.counted.replicas > 0),
        ("past use", !before.past_use.is_empty()),
        ("a preemption", !before.preempted.is_empty()),
    ] {
        assert!(there, "there is {what} in {before:#?}");
    }
    let daemon = daemon.restart().await;
    let (after, folded) = daemon.stored_and_folded().await;
    assert_eq!(after, folded);
    assert_eq!((after.leases, after.preempted, after.vacating), (before.leases, before.preempted, before.vacating));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_older_versions_wrote_still_loads() {
    let daemon = Daemon::start().await;
    let mut connection = sqlx::PgConnection::connect(&daemon.database_url).await.expect("connected");
    let older = r#"insert into policies (version, applied_at, body) values (2, now(), '{"version": 2,
        "queues": ["default", "old"], "priority_classes": {"standard": {"value": 500, "preemptible": true}},
        "bounds": {"claim": "90s", "vacate": "60s", "grace_max": "1h"}}')"#;
    sqlx::raw_sql(older).execute(&mut connection).await.expect("stored");
    let daemon = daemon.restart().await;
    let accepted = daemon.client.create_job(&job(json!({"queue": "old", "priority_class": "standard"})), None).await;
    assert_eq!(accepted.expect("accepted").state, "pending");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_is_known_by_its_system_and_timeline() {
    let daemon = Daemon::start().await;
    let mut connection = sqlx::PgConnection::connect(&daemon.database_url).await.expect("connected");
    let now = identity::read(&mut connection).await.expect("readable");
    assert!(now.timeline >= 1 && now.system_identifier != 0, "{now:?}");
    let promoted = identity::Identity { timeline: now.timeline + 1, ..now };
    identity::note(&mut connection, promoted).await.expect("noted");
    identity::note(&mut connection, now).await.expect("noted again");
    assert_eq!(identity::noted(&mut connection).await.expect("readable"), Some(now));
}
