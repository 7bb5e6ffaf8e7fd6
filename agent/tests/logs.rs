//! What workloads say, on its way to whoever waits for it at the daemon.

#[allow(dead_code, reason = "other tests use the rest")]
mod fake;
#[allow(dead_code, reason = "other tests use the rest")]
mod node;
#[allow(dead_code, reason = "other tests use the rest")]
mod scripted;

use chiptide_api::logs::{LogOrder, LogStream};
use chiptide_model::Millis;
use node::{Node, ways};
use scripted::vacate;
use std::fs;
use uuid::Uuid;

fn wish(request: u64, lease: Uuid, offset: u64, wait: Millis) -> LogOrder {
    LogOrder { request, lease, rank: 1, stream: LogStream::Stdout, offset, tail: None, wait }
}

#[tokio::test]
async fn output_is_brought_as_it_comes_byte_for_byte_and_is_there_after_the_end() {
    let mut node = Node::start(ways()[0]).await;
    let id = Uuid::new_v4();
    let script = r"printf 'one\377\n'; until [ -e go ]; do sleep 0.01; done; printf 'two\n'; sleep 600";
    let order = node.work(id, 7, script);
    let long = Millis::from_secs(60);
    node.daemon.ask_for("r1", vec![order.clone()], vec![wish(1, id, 0, long)]);
    let (told, bytes) = node.daemon.brought().await;
    assert_eq!((told.request, told.found, told.offset, told.over), (1, true, 0, false), "it waited for the start");
    assert_eq!(bytes, b"one\xff\n");

    // A wish that was answered stays answered, one that waits is answered when there is more.
    node.daemon.ask_for("r2", vec![order.clone()], vec![wish(1, id, 0, long), wish(2, id, 5, long)]);
    fs::write(node.folder(id).join("scratch/go"), "").expect("written");
    let (told, bytes) = node.daemon.brought().await;
    assert_eq!((told.request, told.offset, bytes.as_slice()), (2, 5, &b"two\n"[..]));

    node.daemon.give("r3", vec![], vec![vacate(id, &node.chips[0], 7)]);
    node.daemon.reported(|report| !report.vacant.is_empty()).await;
    let last_line = LogOrder { tail: Some(1), ..wish(3, id, 0, Millis(0)) };
    node.daemon.ask_for("r4", vec![], vec![last_line]);
    let (told, bytes) = node.daemon.brought().await;
    assert_eq!((told.offset, told.over, bytes.as_slice()), (5, true, &b"two\n"[..]));
}

#[tokio::test]
async fn of_a_replica_that_never_ran_here_there_is_nothing() {
    let mut node = Node::start(ways()[0]).await;
    node.daemon.ask_for("r1", vec![], vec![wish(1, Uuid::new_v4(), 0, Millis(0))]);
    assert!(!node.daemon.brought().await.0.found);
}
