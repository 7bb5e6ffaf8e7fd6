//! Faults of chips, from a report to the holder's reason, and back into service by evidence or by an admin.

use crate::common::{Daemon, Node, job, standing};
use chiptide_api::chip::ChipView;
use chiptide_api::fault::FaultBody;
use chrono::DateTime;
use serde_json::json;

fn xid(chip: &str, code: u32, class: &str) -> FaultBody {
    FaultBody {
        chip: chip.into(),
        dimension: "xid".into(),
        code,
        class: class.into(),
        detail: "seen".into(),
        since: DateTime::from_timestamp(1_700_000_000, 0).expect("a time"),
        ended: None,
    }
}

async fn tell(node: &mut Node, fault: &FaultBody) {
    let mut report = node.report_body();
    report.faults = vec![fault.clone()];
    node.send(&report).await;
}

async fn chip(daemon: &Daemon, id: &str) -> ChipView {
    daemon.client.chip(id).await.expect("a chip")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fault_ends_the_lease_with_a_reason_and_the_chip_comes_back_by_evidence() {
    let daemon = Daemon::start().await;
    let mut node = Node::register(&daemon, "n1", 1).await;
    let submitted = daemon.client.create_job(&job(json!({})), None).await.expect("accepted");
    let lease = submitted.lease.expect("a lease").id;
    let mut fault = xid("n1-gpu0", 48, "reset");
    tell(&mut node, &fault).await;
    let ended = daemon.client.lease(lease).await.expect("a lease");
    assert_eq!(ended.reason.as_deref(), Some("n1: chip fault on n1-gpu0: XID 48: seen"));
    node.obey().await;
    let out = chip(&daemon, "n1-gpu0").await;
    assert_eq!((out.state.as_str(), out.faults[0].open), ("quarantined", true));
    assert_eq!(out.reason.as_deref(), Some("fault of class reset: XID 48: seen"));
    let daemon = daemon.restart().await;
    assert!(chip(&daemon, "n1-gpu0").await.faults[0].open, "kept over a restart");
    let mut node = Node::register(&daemon, "n1", 1).await;
    fault.ended = Some("after a reset, clean".into());
    tell(&mut node, &fault).await;
    let back = chip(&daemon, "n1-gpu0").await;
    assert_eq!(back.faults[0].ended.as_deref(), Some("after a reset, clean"));
    let (state, chips) = standing(&daemon.client.job(submitted.id).await.expect("the job"));
    assert_eq!((state.as_str(), chips), ("leased", vec!["n1-gpu0".to_owned()]), "served again");
    let (stored, folded) = daemon.stored_and_folded().await;
    assert_eq!(stored, folded);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_admin_takes_a_chip_out_of_service_and_brings_it_back() {
    let daemon = Daemon::start().await;
    let mut node = Node::register(&daemon, "n1", 1).await;
    let out = daemon.client.quarantine_chip("n1-gpu0", "noisy fan").await.expect("quarantined");
    assert!(out.reason.expect("a reason").ends_with(": noisy fan"));
    daemon.client.release_chip("n1-gpu0", "fan replaced").await.expect("released");
    tell(&mut node, &xid("n1-gpu0", 54, "human")).await;
    let mut over = xid("n1-gpu0", 54, "human");
    over.ended = Some("clean".into());
    tell(&mut node, &over).await;
    assert_eq!(chip(&daemon, "n1-gpu0").await.state, "quarantined", "evidence is not enough for this class");
    let back = daemon.client.release_chip("n1-gpu0", "cable reseated").await.expect("released");
    assert_eq!(back.state, "free");
    assert!(back.faults[0].ended.as_deref().is_some_and(|ended| ended.ends_with(": cable reseated")));
    let (stored, folded) = daemon.stored_and_folded().await;
    assert_eq!(stored, folded);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_done_or_read_is_refused_by_name() {
    let daemon = Daemon::start().await;
    let mut node = Node::register(&daemon, "n1", 1).await;
    let refused = async |id: &str, reason: &str| daemon.client.release_chip(id, reason).await.expect_err("refused");
    assert_eq!(refused("n1-gpu0", "why not").await.code(), Some("chip_in_service"));
    assert_eq!(refused("n1-gpu9", "why not").await.code(), Some("no_such_chip"));
    assert_eq!(refused("n1-gpu0", " ").await.code(), Some("invalid_field"));
    let mut report = node.report_body();
    report.faults = vec![xid("n1-gpu0", 1, "grave")];
    let error = daemon.client.report("n1", &report).await.expect_err("refused");
    assert!(error.to_string().contains("faults[0].class"), "{error}");
}
