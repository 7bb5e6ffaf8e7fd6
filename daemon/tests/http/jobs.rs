//! `/v1/jobs` and `/v1/leases`, black box.

use crate::common::{Daemon, Node, SOON, job, standing};
use chiptide_api::job::{DoneBody, DoneOutcome, JobView};
use chiptide_api::lease::ReleaseBody;
use chiptide_model::Millis;
use serde_json::json;
use sqlx::Connection;
use std::time::Duration;

fn succeeded() -> DoneBody {
    DoneBody { outcome: DoneOutcome::Succeeded, reason: None }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_leased_runs_and_ends() {
    let daemon = Daemon::start().await;
    let mut node = Node::register(&daemon, "n1", 2).await;
    let submitted = daemon.client.create_job(&job(json!({"chips": 2})), None).await.expect("accepted");
    assert_eq!(standing(&submitted), ("leased".into(), vec!["n1-gpu0".into(), "n1-gpu1".into()]));
    node.obey().await;
    assert_eq!(daemon.client.job(submitted.id).await.expect("there").state, "running");
    let done = DoneBody { outcome: DoneOutcome::Failed, reason: Some("out of data".into()) };
    let ended = daemon.client.job_done(submitted.id, &done, None).await.expect("accepted");
    assert_eq!((ended.state.as_str(), ended.reason.as_deref()), ("failed", Some("out of data")));
    let again = daemon.client.job_done(submitted.id, &done, None).await.expect_err("over");
    assert_eq!(again.code(), Some("job_over"));
    for _ in 0..2 {
        let keyed = daemon.client.job_done(submitted.id, &done, Some("late")).await.expect_err("over");
        assert_eq!(keyed.code(), Some("job_over"), "a refusal is replayed as it was given");
    }
    let lease = submitted.lease.expect("a lease").id;
    node.obey().await;
    assert_eq!(daemon.client.renew_lease(lease, None).await.expect_err("over").code(), Some("lease_over"));
    assert_eq!(daemon.client.lease(lease).await.expect("there").state, "ended");
    let (stored, folded) = daemon.stored_and_folded().await;
    assert_eq!(stored, folded);
}

#[tokio::test(flavor = "multi_thread")]
async fn training_gives_way_to_an_inference_spike_and_returns() {
    let daemon = Daemon::start().await;
    let mut node = Node::register(&daemon, "n1", 2).await;
    let train = job(json!({"name": "train", "chips": 2, "priority_class": "best-effort", "grace": "1h"}));
    let train = daemon.client.create_job(&train, None).await.expect("accepted");
    let serve = job(json!({"kind": "inference", "name": "serve"}));
    let serve = daemon.client.create_job(&serve, None).await.expect("accepted");
    assert_eq!(serve.reasons[0].code, "awaiting_vacancy");
    assert_eq!(serve.promise.as_ref().map(|promise| promise.waiting_for), Some(1));

    let victim = daemon.client.job(train.id).await.expect("there");
    let notice = victim.lease.clone().expect("still leased");
    assert_eq!(
        (victim.state.as_str(), notice.state.as_str(), notice.for_job),
        ("preempting", "revoking", Some(serve.id))
    );
    let renewal = daemon.client.renew_lease(notice.id, None).await.expect_err("refused");
    assert_eq!(renewal.code(), Some("lease_revoked"));

    let released = daemon.client.release_lease(notice.id, &ReleaseBody::default(), None).await.expect("released");
    assert_eq!((released.state.as_str(), released.preemptions), ("pending", 1));
    node.obey().await;
    let serving = daemon.client.job(serve.id).await.expect("there");
    assert_eq!(standing(&serving).0, "leased");
    daemon.client.job_done(serve.id, &succeeded(), None).await.expect("done");
    node.obey().await;
    let back = daemon.client.job(train.id).await.expect("there");
    assert_eq!((back.state.as_str(), back.attempt), ("leased", 2));
    let (stored, folded) = daemon.stored_and_folded().await;
    assert_eq!(stored, folded);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_key_replays_the_first_answer_also_after_a_restart() {
    let daemon = Daemon::start().await;
    let body = job(json!({"name": "once"}));
    let first = daemon.client.create_job(&body, Some("key-1")).await.expect("accepted");
    let second = daemon.client.create_job(&body, Some("key-1")).await.expect("replayed");
    assert_eq!(first, second);
    let other = daemon.client.create_job(&job(json!({"name": "other"})), Some("key-1")).await.expect_err("refused");
    assert_eq!(other.code(), Some("idempotency_key_reused"));
    let daemon = daemon.restart().await;
    assert_eq!(daemon.client.create_job(&body, Some("key-1")).await.expect("replayed"), first);
    assert_eq!(daemon.client.jobs(&[]).await.expect("a page").items.len(), 1);
    let cancelled = daemon.client.cancel_job(first.id, Some("key-2")).await.expect("cancelled");
    assert_eq!(daemon.client.cancel_job(first.id, Some("key-2")).await.expect("replayed"), cancelled);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_hundred_clients_with_one_key_make_one_job() {
    let daemon = Daemon::start().await;
    let body = job(json!({}));
    let calls = (0..100).map(|_| {
        let (client, body) = (daemon.client.clone(), body.clone());
        tokio::spawn(async move { client.create_job(&body, Some("same")).await.expect("an answer").id })
    });
    let mut ids = Vec::new();
    for call in calls.collect::<Vec<_>>() {
        ids.push(call.await.expect("no panic"));
    }
    ids.dedup();
    assert_eq!(ids.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn retries_that_meet_their_first_request_halfway_are_answered_like_it() {
    let daemon = Daemon::start().await;
    // A commit that takes its time opens the window between "decided" and "committed" wide.
    let slow = "create function slow() returns trigger language plpgsql as
             $$ begin perform pg_sleep(0.01); return null; end $$;
         create constraint trigger slow after insert on jobs deferrable initially deferred
             for each row execute function slow()";
    let mut connection = sqlx::PgConnection::connect(&daemon.database_url).await.expect("connected");
    sqlx::raw_sql(slow).execute(&mut connection).await.expect("a slow commit");
    let call = |key: usize| {
        let (client, body) = (daemon.client.clone(), job(json!({})));
        async move { client.create_job(&body, Some(&format!("key-{key}"))).await.expect("an answer").id }
    };
    // Each key is sent anew a little later each time, so that retries come at every stage of the first.
    let pairs = (0..40).map(|key| {
        let (first, again) = (call(key), call(key));
        tokio::spawn(async move {
            let later = async {
                tokio::time::sleep(Duration::from_micros(key as u64 * 500)).await;
                again.await
            };
            tokio::join!(first, later)
        })
    });
    for pair in pairs.collect::<Vec<_>>() {
        let (first, again) = pair.await.expect("no panic");
        assert_eq!(first, again);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn several_jobs_are_accepted_all_or_none() {
    let daemon = Daemon::start().await;
    let bodies: Vec<_> = (0..1000).map(|i| job(json!({"name": format!("job-{i}")}))).collect();
    let created = daemon.client.create_jobs(&bodies, None).await.expect("accepted");
    assert_eq!(created.jobs.len(), 1000);
    let mut bad = bodies[..3].to_vec();
    bad[2].queue = "nowhere".into();
    let refused = daemon.client.create_jobs(&bad, None).await.expect_err("refused");
    let chiptide_api::ClientError::Refused(problem) = refused else { panic!("{refused}") };
    assert_eq!((problem.code.as_str(), problem.field.as_deref()), ("unknown_queue", Some("[2].queue")));
    let mut seen = Vec::new();
    let mut cursor = None;
    loop {
        let mut filters = vec![("limit", "300".to_owned()), ("state", "pending".to_owned())];
        filters.extend(cursor.map(|cursor| ("cursor", cursor)));
        let page = daemon.client.jobs(&filters).await.expect("a page");
        seen.extend(page.items.into_iter().map(|job| job.spec.name));
        cursor = page.next_cursor;
        if cursor.is_none() {
            break;
        }
    }
    let expected: Vec<String> = (0..1000).rev().map(|i| format!("job-{i}")).collect();
    assert_eq!(seen, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_filter_by_state_queue_kind_name_and_label() {
    let daemon = Daemon::start().await;
    for (name, kind, queue, team) in [("a", "training", "training", "ads"), ("b", "inference", "inference", "search")] {
        let body = job(json!({"name": name, "kind": kind, "queue": queue, "labels": {"team": team}}));
        daemon.client.create_job(&body, None).await.expect("accepted");
    }
    let names = async |key: &'static str, value: &str| {
        let page = daemon.client.jobs(&[(key, value.to_owned())]).await.expect("a page");
        page.items.into_iter().map(|job| job.spec.name).collect::<String>()
    };
    assert_eq!(names("kind", "training").await, "a");
    assert_eq!(names("queue", "inference").await, "b");
    assert_eq!(names("label", "team=ads").await, "a");
    assert_eq!(names("name", "b").await, "b");
    assert_eq!(names("state", "leased,running").await, "");
    assert_eq!(names("state", "pending").await, "ba");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_poll_returns_when_the_job_changes() {
    let daemon = Daemon::start().await;
    let waiting = daemon.client.create_job(&job(json!({})), None).await.expect("accepted");
    let client = daemon.client.clone();
    let poll = tokio::spawn(async move { client.watch_job(waiting.id, waiting.revision, Millis::from_secs(60)).await });
    Node::register(&daemon, "n1", 1).await;
    let seen: JobView = tokio::time::timeout(SOON, poll).await.expect("woken").expect("no panic").expect("the job");
    assert_eq!(seen.state, "leased");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_with_a_ttl_is_renewed_and_a_released_one_requeues() {
    let daemon = Daemon::start().await;
    Node::register(&daemon, "n1", 2).await;
    let leased = daemon.client.create_job(&job(json!({"lease_ttl": "1m"})), None).await.expect("accepted");
    let lease = leased.lease.expect("a lease");
    let renewed = daemon.client.renew_lease(lease.id, None).await.expect("renewed");
    assert!(renewed.expires_at >= lease.expires_at && renewed.expires_at.is_some());
    let body = ReleaseBody { requeue: true };
    let back = daemon.client.release_lease(lease.id, &body, None).await.expect("released");
    // The other chip is free, so it has a new lease already.
    assert_eq!((back.state.as_str(), back.attempt), ("leased", 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_is_there_after_a_restart_and_nothing_is_granted_on_nodes_not_heard() {
    let daemon = Daemon::start().await;
    let mut node = Node::register(&daemon, "n1", 2).await;
    let running = daemon.client.create_job(&job(json!({"name": "running"})), None).await.expect("accepted");
    node.obey().await;
    let (before, _) = daemon.stored_and_folded().await;
    let daemon = daemon.restart().await;
    let (after, folded) = daemon.stored_and_folded().await;
    assert_eq!((&after.jobs, &after.leases), (&before.jobs, &before.leases));
    assert_eq!(after, folded);
    assert_eq!(daemon.client.job(running.id).await.expect("there").state, "running");
    let waiting = daemon.client.create_job(&job(json!({"name": "waiting"})), None).await.expect("accepted");
    assert_eq!(waiting.reasons.last().map(|reason| reason.code.as_str()), Some("nodes_unknown"));
    let report = node.report_body();
    daemon.client.report("n1", &report).await.expect("the session is still good");
    assert_eq!(daemon.client.job(waiting.id).await.expect("there").state, "leased");
}
