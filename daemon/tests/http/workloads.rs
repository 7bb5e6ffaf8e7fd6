//! Jobs that the agents run: what the orders carry, and what follows from how the replicas end.

use crate::common::{Daemon, Node, job};
use chiptide_api::job::JobView;
use chiptide_api::work::{WorkBody, WorkReport};
use serde_json::json;
use uuid::Uuid;

const DONE: WorkBody = WorkBody::Exited { code: 0 };

impl Node {
    async fn says(&mut self, lease: Uuid, work: &[(u32, WorkBody)]) {
        let orders = self.orders().await;
        let mut report = self.report_body();
        report.confirmed = orders.leases.iter().map(|lease| lease.lease).collect();
        report.work = work.iter().map(|(rank, work)| WorkReport { lease, rank: *rank, work: work.clone() }).collect();
        self.send(&report).await;
    }
}

async fn submit(daemon: &Daemon, extra: serde_json::Value) -> (Uuid, Uuid) {
    let mut body = job(extra);
    body.workload = serde_json::from_value(json!({"command": ["train"], "env": {"A": "b"}, "directory": "/srv"})).ok();
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
