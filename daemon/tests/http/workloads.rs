//! Jobs that the agents run: what the orders carry, and what follows from how the replicas end.

use crate::common::{Daemon, Node, job};
use chiptide_api::job::JobView;
use chiptide_api::lease::ExtensionBody;
use chiptide_api::work::{LadderReport, LadderStepBody, StepBody, WorkBody, WorkReport};
use serde_json::json;
use uuid::Uuid;

const DONE: WorkBody = WorkBody::Exited { code: 0 };

impl Node {
    async fn says(&mut self, lease: Uuid, work: &[(u32, WorkBody)]) {
        self.says_of_run(0, lease, work).await
    }

    async fn says_of_run(&mut self, run: u32, lease: Uuid, work: &[(u32, WorkBody)]) {
        let orders = self.orders().await;
        let mut report = self.report_body();
        report.confirmed = orders.leases.iter().map(|lease| lease.lease).collect();
        report.work = work
            .iter()
            .map(|(rank, work)| WorkReport { lease, rank: *rank, run, work: work.clone(), ended_ago: None })
            .collect();
        self.send(&report).await;
    }
}

async fn submit(daemon: &Daemon, extra: serde_json::Value) -> (Uuid, Uuid) {
    submit_with(daemon, extra, json!({})).await
}

async fn submit_with(daemon: &Daemon, extra: serde_json::Value, work: serde_json::Value) -> (Uuid, Uuid) {
    let mut body = job(extra);
    let mut workload = json!({"command": ["train"], "env": {"A": "b"}, "directory": "/srv"});
    for (key, value) in work.as_object().expect("an object") {
        workload[key] = value.clone();
    }
    body.workload = Some(serde_json::from_value(workload).expect("a workload"));
    let job = daemon.client.create_job(&body, None).await.expect("accepted");
    (job.id, job.lease.expect("leased").id)
}

async fn seen(daemon: &Daemon, job: Uuid) -> JobView {
    daemon.client.job(job).await.expect("there")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gang_succeeds_when_all_its_replicas_have_wherever_they_ran() {
    let daemon = Daemon::start().await;
    let (mut a, mut b) = (Node::register(&daemon, "n1", 1).await, Node::register(&daemon, "n2", 1).await);
    let (job, lease) = submit(&daemon, json!({"replicas": 2})).await;
    let orders = a.orders().await;
    let work = orders.leases[0].work.clone().expect("a workload");
    assert_eq!((work.command, work.env["A"].as_str()), (vec!["train".to_owned()], "b"));
    assert_eq!((work.directory.as_deref(), work.nodes.len(), work.replicas.len()), (Some("/srv"), 2, 1));
    let (of_a, of_b) = (work.replicas[0].rank, 1 - work.replicas[0].rank);
    assert_eq!(work.nodes[of_a as usize], "n1");

    a.says(lease, &[(of_a, DONE)]).await;
    b.says(lease, &[(of_b, WorkBody::Running)]).await;
    assert_eq!(seen(&daemon, job).await.state, "running");
    b.says(lease, &[(of_b, DONE)]).await;
    assert_eq!(seen(&daemon, job).await.state, "succeeded");
    assert!(a.orders().await.leases.is_empty() && a.orders().await.vacate.len() == 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_failed_replica_fails_the_job_with_a_reason() {
    let daemon = Daemon::start().await;
    let mut node = Node::register(&daemon, "n1", 2).await;
    let (job, lease) = submit(&daemon, json!({"replicas": 2})).await;
    node.says(Uuid::new_v4(), &[(0, WorkBody::Exited { code: 1 })]).await;
    node.says(lease, &[(0, WorkBody::Running), (1, WorkBody::Exited { code: 3 })]).await;
    let failed = seen(&daemon, job).await;
    assert_eq!((failed.state.as_str(), failed.reason.as_deref()), ("failed", Some("replica 1 on n1: exit code 3")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workload_that_ends_on_notice_gives_its_chips_back_early_and_its_job_waits_again() {
    let daemon = Daemon::start().await;
    let mut node = Node::register(&daemon, "n1", 1).await;
    let (victim, lease) = submit(&daemon, json!({"priority_class": "best-effort", "grace": "1h"})).await;
    node.says(lease, &[(0, WorkBody::Running)]).await;
    daemon.client.create_job(&job(json!({"kind": "inference"})), None).await.expect("accepted");
    let order = node.orders().await.leases.remove(0);
    let left = order.ends_in.expect("notice").0;
    assert!(order.deadline.is_some() && left > 3_500_000 && left <= 3_600_000, "{left}");
    node.says(lease, &[(0, WorkBody::Exited { code: 143 })]).await;
    let back = seen(&daemon, victim).await;
    assert_eq!((back.state.as_str(), back.preemptions), ("pending", 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gang_starts_anew_as_a_whole_until_its_restarts_are_used_up_and_tells_how_each_run_ended() {
    let daemon = Daemon::start().await;
    let mut node = Node::register(&daemon, "n1", 2).await;
    let restart = json!({"restart": {"on_failure": {"times": 1}}, "notice_signal": "SIGUSR1"});
    let (job, lease) = submit_with(&daemon, json!({"replicas": 2}), restart).await;
    node.says(lease, &[(0, WorkBody::Running), (1, WorkBody::Running)]).await;
    assert_eq!(seen(&daemon, job).await.state, "running");
    let killed = WorkBody::Killed { signal: 9, out_of_memory: true };
    node.says(lease, &[(0, WorkBody::Running), (1, killed.clone())]).await;
    node.says(lease, &[(0, WorkBody::Running), (1, killed)]).await;

    let restarted = seen(&daemon, job).await;
    assert_eq!((restarted.state.as_str(), restarted.restarts), ("running", 1), "said twice, it counts once");
    assert_eq!(restarted.lease.as_ref().map(|lease| lease.id), Some(lease), "on the chips it had");
    let work = node.orders().await.leases.remove(0).work.expect("a workload");
    assert_eq!((work.run, work.notice_signal.as_deref()), (1, Some("SIGUSR1")));
    assert_eq!(restarted.runs[0].replicas[0].state, "starting");
    let first = &restarted.runs[1];
    assert_eq!(first.failure.as_deref(), Some("replica 1 on n1: killed by SIGKILL, out of memory"));
    assert_eq!((first.replicas.len(), first.replicas[0].replica, first.replicas[0].out_of_memory), (1, 1, true));

    let daemon = daemon.restart().await;
    let mut node = Node::register(&daemon, "n1", 2).await;
    assert_eq!(seen(&daemon, job).await.restarts, 1);
    node.says_of_run(1, lease, &[(0, WorkBody::Exited { code: 3 }), (1, DONE)]).await;
    let failed = seen(&daemon, job).await;
    assert_eq!((failed.state.as_str(), failed.reason.as_deref()), ("failed", Some("replica 0 on n1: exit code 3")));
    let codes: Vec<Option<i32>> = failed.runs[0].replicas.iter().map(|replica| replica.exit_code).collect();
    assert_eq!((failed.runs.len(), failed.runs[0].run, codes), (2, 1, vec![Some(3), Some(0)]));
    let (stored, folded) = daemon.stored_and_folded().await;
    assert_eq!(stored, folded);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_several_failures_the_first_is_the_reason() {
    let daemon = Daemon::start().await;
    let mut node = Node::register(&daemon, "n1", 2).await;
    let (job, lease) = submit(&daemon, json!({"replicas": 2})).await;
    let mut report = node.report_body();
    let ended = |rank, ago: &str| WorkReport {
        lease,
        rank,
        run: 0,
        work: WorkBody::Exited { code: 1 },
        ended_ago: ago.parse().ok(),
    };
    report.work = vec![ended(0, "1s"), ended(1, "2s")];
    node.send(&report).await;
    assert_eq!(seen(&daemon, job).await.reason.as_deref(), Some("replica 1 on n1: exit code 1"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_workload_may_ask_for_is_checked_by_field() {
    let daemon = Daemon::start().await;
    for (work, field) in [
        (json!({"restart": {"on_failure": {"times": 0}}}), "workload.restart.on_failure.times"),
        (json!({"notice_signal": "SIGKILL"}), "workload.notice_signal"),
        (json!({"user": "../root"}), "workload.user"),
    ] {
        let mut body = serde_json::to_value(job(json!({}))).expect("JSON");
        body["workload"] = work;
        body["workload"]["command"] = json!(["train"]);
        let (status, problem) = daemon.send("POST", "/v1/jobs", body.to_string()).await;
        assert_eq!((status, problem["field"].as_str()), (422, Some(field)), "{problem}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_eviction_is_told_step_by_step_and_put_off_once() {
    let daemon = Daemon::start().await;
    let mut node = Node::register(&daemon, "n1", 1).await;
    let (victim, lease) = submit(&daemon, json!({"priority_class": "best-effort", "grace": "1h"})).await;
    node.says(lease, &[(0, WorkBody::Running)]).await;
    let ask = ExtensionBody { by: "10s".parse().expect("a span"), reason: Some("saving".into()) };
    let early = daemon.client.extend_lease(lease, &ask, None).await.expect_err("no notice yet");
    assert_eq!(early.code(), Some("lease_not_revoked"));

    daemon.client.create_job(&job(json!({"kind": "inference"})), None).await.expect("accepted");
    let before = seen(&daemon, victim).await.deadline.expect("notice");
    let extended = daemon.client.extend_lease(lease, &ask, None).await.expect("put off");
    assert_eq!(extended.deadline.map(|after| (after - before).num_seconds()), Some(10));
    let again = daemon.client.extend_lease(lease, &ask, None).await.expect_err("once");
    assert_eq!(again.code(), Some("extension_used"));
    let order = node.orders().await.leases.remove(0);
    assert_eq!(order.deadline, extended.deadline, "the agent is told");
    let path = format!("/v1/leases/{lease}/checkpoint");
    let (status, left) = daemon.send("POST", &path, json!({"step": 1200, "leave": true}).to_string()).await;
    assert_eq!((status, left["state"].as_str()), (200, Some("pending")));

    let mut report = node.report_body();
    let step = |step, ago: &str| LadderStepBody { step, ago: ago.parse().expect("a span") };
    let steps = vec![step(StepBody::Told, "0s"), step(StepBody::Terminated, "0s"), step(StepBody::Empty, "0s")];
    report.ladders = vec![LadderReport { lease, steps }];
    node.send(&report).await;
    report.seq += 1;
    node.send(&report).await;
    node.seq = report.seq;
    node.obey().await;

    let eviction = seen(&daemon, victim).await.eviction.expect("told");
    let mut words: Vec<&str> = eviction.steps.iter().map(|step| step.step.as_str()).collect();
    words.sort_unstable();
    let expected = ["checkpoint", "empty", "ended", "extension", "notice", "terminated", "told", "vacant"];
    assert_eq!((words.as_slice(), eviction.cause.as_str()), (&expected[..], "preempt"));
    let saved = eviction.steps.iter().find(|step| step.step == "checkpoint").expect("told");
    assert_eq!(saved.detail.as_deref(), Some("step 1200"));
    let of_lease = daemon.client.lease(lease).await.expect("there");
    assert_eq!((of_lease.extended, of_lease.steps.len()), (true, 8));
    let (stored, folded) = daemon.stored_and_folded().await;
    assert_eq!(stored, folded);
}
