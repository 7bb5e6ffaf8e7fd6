//! What workloads say: the wish goes out with the node's orders, the answer comes back byte for byte.

use crate::common::{Daemon, Node, SOON, job};
use chiptide_api::logs::{LogAnswer, LogQuery, LogStream};
use chiptide_model::Millis;
use serde_json::json;
use tokio::time::timeout;
use uuid::Uuid;

/// Submits a job that the agents run. Answers it with its lease, if it got one.
async fn submit(daemon: &Daemon) -> (Uuid, Option<Uuid>) {
    let mut body = job(json!({}));
    body.workload = serde_json::from_value(json!({"command": ["train"]})).ok();
    let job = daemon.client.create_job(&body, None).await.expect("accepted");
    (job.id, job.lease.map(|lease| lease.id))
}

impl Node {
    /// Waits for a wish for output and brings these bytes.
    async fn bring(&self, daemon: &Daemon, offset: u64, over: bool, bytes: &[u8]) -> chiptide_api::logs::LogOrder {
        let mut after = None;
        loop {
            let wait = Millis::from_secs(20);
            let orders = daemon.client.orders(&self.name, self.session, after.as_deref(), wait).await.expect("orders");
            if let Some(order) = orders.wanted_logs.into_iter().next() {
                let (session, request) = (self.session, order.request);
                let told = LogAnswer { session, request, found: true, offset, over };
                daemon.client.answer_logs(&self.name, &told, bytes.to_vec()).await.expect("taken");
                return order;
            }
            after = Some(orders.revision);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_gets_what_the_agent_brings_and_no_more_than_one_chunk_is_held() {
    let daemon = Daemon::start().await;
    let node = Node::register(&daemon, "n1", 1).await;
    let (job, lease) = submit(&daemon).await;
    let query = LogQuery { stream: LogStream::Stderr, offset: 7, wait: Millis::from_secs(20), ..LogQuery::default() };
    let (read, order) = tokio::join!(daemon.client.job_logs(job, &query), node.bring(&daemon, 9, true, b"\xff\0bytes"));
    let chunk = read.expect("read");
    assert_eq!((chunk.offset, chunk.next(), chunk.over, chunk.attempt), (9, 16, true, 1));
    assert_eq!(chunk.bytes, b"\xff\0bytes");
    assert_eq!(
        (order.lease, order.rank, order.stream, order.offset),
        (lease.expect("leased"), 0, LogStream::Stderr, 7)
    );
    assert!(node.orders().await.wanted_logs.is_empty(), "nobody waits any more");

    let session = node.session;
    let late = LogAnswer { session, request: order.request, found: true, offset: 0, over: false };
    daemon.client.answer_logs("n1", &late, vec![]).await.expect("a late answer is no error");
    let foreign = LogAnswer { session: Uuid::new_v4(), ..late };
    let refused = daemon.client.answer_logs("n1", &foreign, vec![]).await.expect_err("another session");
    assert_eq!(refused.code(), Some("stale_session"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_read_is_refused_with_the_reason() {
    let daemon = Daemon::start().await;
    let _node = Node::register(&daemon, "n1", 1).await;
    let (running, _) = submit(&daemon).await;
    let (waiting, _) = submit(&daemon).await;
    let bare = daemon.client.create_job(&job(json!({})), None).await.expect("accepted").id;
    let ask = async |job, query: LogQuery| {
        let answer = timeout(SOON, daemon.client.job_logs(job, &query)).await.expect("in time");
        answer.expect_err("refused").code().map(str::to_owned)
    };
    assert_eq!(ask(bare, LogQuery::default()).await.as_deref(), Some("no_workload"));
    assert_eq!(ask(Uuid::new_v4(), LogQuery::default()).await.as_deref(), Some("no_such_job"));
    assert_eq!(ask(waiting, LogQuery::default()).await.as_deref(), Some("not_started"));
    assert_eq!(ask(running, LogQuery { rank: 4, ..LogQuery::default() }).await.as_deref(), Some("no_such_replica"));
    // The node's agent says nothing for as long as it may take.
    assert_eq!(ask(running, LogQuery::default()).await.as_deref(), Some("node_silent"));
    let path = format!("/v1/jobs/{running}/logs?tail=5&offset=1");
    let (status, problem) = daemon.send("GET", &path, "").await;
    assert_eq!((status, problem["field"].as_str()), (400, Some("tail")));
}
