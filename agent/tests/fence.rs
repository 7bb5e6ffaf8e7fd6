//! Fenced work on a node that is cut off, with real processes: it ends in time by the hand of the agent, or, when the agent
//! is stopped or dead, by that of its guardian, and it does not start again.

#[allow(dead_code, reason = "other tests use the rest")]
mod fake;
#[allow(dead_code, reason = "other tests use the rest")]
mod node;
#[allow(dead_code, reason = "other tests use the rest")]
mod scripted;

use chiptide_api::node::{FenceOrder, LeaseOrder};
use chiptide_model::Millis;
use node::{Kept, Node, runs, ways};
use scripted::{Daemon, vacate};
use serde_json::json;
use std::time::{Duration, Instant};
use uuid::Uuid;

/// A bound on failure, never a pause.
const BOUND: Duration = Duration::from_secs(40);

/// Ignores SIGTERM, and so does what it starts outside its session.
const STUBBORN: &str = r#"trap '' TERM
(setsid sh -c 'trap "" TERM; echo $$ >> pids; exec sleep 600' &)
echo $$ >> pids
while :; do sleep 600; done"#;

/// A node that reports often to a daemon that renews, with a stubborn workload under a lease that lives for two seconds.
async fn running(kept: Kept, id: Uuid) -> (Node, LeaseOrder, Vec<u32>) {
    let mut node = Node::prepare(kept, json!({"count": 2})).await;
    node.daemon = Daemon::start("200ms").await;
    node.daemon.renew(true);
    node.start_agent().await;
    let fence = Some(FenceOrder { ttl: Millis(2000), kill: Millis(500) });
    let order = LeaseOrder { fence, ..node.work(id, 7, STUBBORN) };
    node.daemon.give("r1", vec![order.clone()], vec![]);
    let pids = node.pids(id, "scratch/pids", 2).await;
    node.daemon.reported(|report| report.confirmed == [id]).await;
    (node, order, pids)
}

async fn until_gone(pids: &[u32]) {
    let deadline = Instant::now() + BOUND;
    while pids.iter().any(|pid| runs(*pid)) {
        assert!(Instant::now() < deadline, "{pids:?} still run");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn work_that_is_no_longer_renewed_is_ended_told_and_not_started_again() {
    for kept in ways() {
        let id = Uuid::new_v4();
        let (mut node, _, pids) = running(kept, id).await;
        node.daemon.renew(false);
        let report = node.daemon.reported(|report| report.fenced == [id]).await;
        assert!(report.confirmed.is_empty() && report.work.is_empty(), "{kept:?}: it has not failed: {report:?}");
        until_gone(&pids).await;
        node.daemon.renew(true);
        node.daemon.reported(|report| report.fenced == [id]).await;
        node.daemon.give("r2", vec![], vec![vacate(id, &node.chips[0], 7)]);
        let report = node.daemon.reported(|report| !report.vacant.is_empty()).await;
        assert!(report.fenced.is_empty() && node.said(id, "scratch/pids").await.lines().count() == 2, "{kept:?}");
    }
}

#[tokio::test]
async fn work_is_ended_in_time_while_its_agent_is_stopped_or_dead() {
    for (kept, dead) in ways().into_iter().zip([false, true]).chain([(Kept::Groups, true)]) {
        let id = Uuid::new_v4();
        let (mut node, _, pids) = running(kept, id).await;
        match dead {
            true => node.kill_agent(),
            false => node.signal_agent("STOP"),
        }
        until_gone(&pids).await;
        // The daemon would renew all the while: it is over here all the same.
        match dead {
            true => node.start_agent().await,
            false => node.signal_agent("CONT"),
        }
        let report = node.daemon.reported(|report| report.fenced == [id]).await;
        assert!(report.confirmed.is_empty() && report.work.is_empty(), "{kept:?}: {report:?}");
    }
}

#[tokio::test]
async fn nothing_fenced_starts_before_it_is_renewed() {
    let id = Uuid::new_v4();
    let mut node = Node::prepare(ways()[0], json!({"count": 2})).await;
    node.daemon = Daemon::start("200ms").await;
    node.start_agent().await;
    let fence = Some(FenceOrder { ttl: Millis(60_000), kill: Millis(500) });
    let order = LeaseOrder { fence, ..node.work(id, 7, "echo here; exec sleep 600") };
    node.daemon.give("r1", vec![order], vec![]);
    for _ in 0..3 {
        let report = node.daemon.reported(|report| report.orders_seen.as_deref() == Some("r1")).await;
        assert!(report.confirmed.is_empty() && report.work.is_empty() && report.fenced.is_empty());
    }
    assert!(!node.folder(id).exists());
    node.daemon.renew(true);
    node.daemon.reported(|report| report.confirmed == [id]).await;
}
