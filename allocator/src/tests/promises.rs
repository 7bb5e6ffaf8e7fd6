//! Leases over time: promises, notices, proofs, reboots.

use super::world::{HIGH, LOW, job, node_id, world};
use crate::{Command, Refusal};
use chiptide_model::{ChipId, Health, Millis, SessionId};
use expect_test::expect;
use uuid::Uuid;

#[test]
fn a_promise_becomes_a_lease_only_on_proof() {
    let mut world = world().node("n1", 1).lease(job("train").priority(LOW));
    world.submit(job("chat").priority(HIGH)).expect("accepted");
    world.after("30s");
    world.expect(expect![[r#"
        chat submitted
        evict train for chat by +30s
        chat is promised n1-0
        lease of train ends (preempt): back to pending"#]]);
    world.after("5s");
    world.expect(expect![""]);
    world.nodes_report();
    world.expect(expect![[r#"
        n1-0 is proven vacant of train
        chat gets n1-0"#]]);
    world.nodes_report();
    world.done("chat");
    world.nodes_report();
    world.expect(expect![[r#"
        n1 confirms chat
        chat runs
        lease of chat ends (done): Succeeded
        n1-0 is proven vacant of chat
        train gets n1-0"#]]);
    assert_eq!(world.draft.job(world.job_id("train")).map(|job| (job.attempt, job.preemptions)), Some((2, 1)));
}

#[test]
fn a_victim_that_releases_early_is_not_kept_waiting() {
    let mut world = world().node("n1", 1).lease(job("train").priority(LOW));
    world.submit(job("chat").priority(HIGH)).expect("accepted");
    world.story();
    let lease = world.lease_of("train").expect("still leased");
    world.round(vec![Command::Release { lease, requeue: false }]);
    world.nodes_report();
    world.expect(expect![[r#"
        lease of train ends (preempt): back to pending
        n1-0 is proven vacant of train
        chat gets n1-0"#]]);
}

#[test]
fn freed_chips_belong_to_the_promise() {
    let mut world =
        world().node("n1", 2).lease(job("train").chips(2).priority(LOW).with(|spec| spec.grace = Millis(0)));
    world.submit(job("gang").replicas(2).priority(HIGH)).expect("accepted");
    let report = world.full_report(&node_id("n1"));
    let first = crate::Report { vacant: report.vacant[..1].to_vec(), ..report };
    world.round(vec![Command::Report(first)]);
    world.submit(job("thief").priority(HIGH + 1).with(|spec| spec.preemptible = false)).expect("accepted");
    world.nodes_report();
    world.expect(expect![[r#"
        gang submitted
        evict train for gang by +0s
        lease of train ends (preempt): back to pending
        gang is promised n1-0 n1-1
        n1-0 is proven vacant of train
        thief submitted
        n1-1 is proven vacant of train
        gang gets n1-0 n1-1
        evict gang for thief by +30s
        thief is promised n1-0"#]]);
}

#[test]
fn a_proof_that_has_not_seen_the_epoch_or_names_a_live_lease_proves_nothing() {
    let mut world = world().node("n1", 1).lease(job("a"));
    let lease = world.lease_of("a").expect("leased");
    let chip = ChipId::new("n1-0").expect("a chip name");
    let mut report = world.full_report(&node_id("n1"));
    report.confirmed.clear();
    report.vacant = vec![(chip.clone(), lease, 1)];
    world.round(vec![Command::Report(report.clone())]);
    world.expect(expect![""]);
    world.done("a");
    report.vacant = vec![(chip, lease, 0)];
    world.round(vec![Command::Report(report.clone())]);
    report.session = SessionId(Uuid::nil());
    assert_eq!(world.round(vec![Command::Report(report)]), vec![Err(Refusal::StaleSession(node_id("n1")))]);
    world.expect(expect!["lease of a ends (done): Succeeded"]);
}

#[test]
fn a_chip_without_proof_is_quarantined_and_the_late_proof_restores_it() {
    let mut world = world().node("n1", 1).lease(job("a"));
    world.done("a");
    world.after("60s");
    world.submit(job("b")).expect("accepted");
    world.nodes_report();
    world.expect(expect![[r#"
        lease of a ends (done): Succeeded
        n1-0 is quarantined
        b submitted
        n1-0 is proven vacant of a
        n1-0 is restored
        b gets n1-0"#]]);
}

#[test]
fn a_chip_that_stays_dirty_is_planned_around() {
    let quick = |spec: &mut chiptide_model::JobSpec| spec.grace = Millis(0);
    let mut world = world().node("n1", 1).node("n2", 1).lease(job("a").priority(LOW).with(quick));
    world.submit(job("b").priority(LOW).with(quick)).expect("accepted");
    world.after("1m");
    world.story();
    world.submit(job("chat").priority(HIGH)).expect("accepted");
    world.after("60s");
    world.expect(expect![[r#"
        chat submitted
        evict a for chat by +0s
        lease of a ends (preempt): back to pending
        chat is promised n1-0
        n1-0 is quarantined
        chat loses its promise: ChipLost
        evict b for chat by +0s
        lease of b ends (preempt): back to pending
        chat is promised n2-0"#]]);
}

#[test]
fn a_silent_node_keeps_its_leases_and_gets_no_new_ones() {
    let mut world = world().node("n1", 2).lease(job("a"));
    world.round(vec![Command::Silent(node_id("n1"))]);
    world.submit(job("b")).expect("accepted");
    world.nodes_report();
    world.expect(expect![[r#"
        n1 is silent
        b submitted
        n1 is heard
        n1 confirms a
        a runs
        b gets n1-1"#]]);
}

#[test]
fn a_new_leader_grants_nothing_on_a_node_it_has_not_heard() {
    let mut world = world().node("n1", 1);
    world.round(vec![Command::TakeOver { epoch: 2 }]);
    world.submit(job("a")).expect("accepted");
    world.expect(expect![[r#"
        leader 2
        a submitted"#]]);
    world.nodes_report();
    world.expect(expect![[r#"
        n1 is heard
        a gets n1-0"#]]);
}

#[test]
fn a_promise_outlives_its_leader() {
    let mut world = world().node("n1", 1).lease(job("train").priority(LOW));
    world.submit(job("chat").priority(HIGH)).expect("accepted");
    world.story();
    world.round(vec![Command::TakeOver { epoch: 2 }]);
    world.after("30s");
    world.nodes_report();
    world.nodes_report();
    world.expect(expect![[r#"
        leader 2
        n1 is heard
        n1 confirms train
        lease of train ends (preempt): back to pending
        n1-0 is proven vacant of train
        chat gets n1-0"#]]);
}

#[test]
fn a_reboot_ends_the_leases_and_still_wants_proof() {
    let mut world = world().node("n1", 1).lease(job("a"));
    world.register("n1", "nvidia-h20", 1, "boot-2");
    world.expect(expect![[r#"
        n1 registers
        lease of a ends (fault): back to pending"#]]);
    world.nodes_report();
    world.expect(expect![[r#"
        n1-0 is proven vacant of a
        a gets n1-0"#]]);
}

#[test]
fn a_restarted_agent_keeps_its_leases() {
    let mut world = world().node("n1", 1).lease(job("a"));
    world.register("n1", "nvidia-h20", 1, "boot-1");
    world.expect(expect!["n1 registers"]);
    assert!(world.lease_of("a").is_some());
}

#[test]
fn a_lease_not_renewed_lapses_and_one_at_its_end_gets_notice() {
    let mut world = world()
        .node("n1", 2)
        .lease(job("ttl").with(|spec| spec.lease_ttl = Some(Millis::from_secs(60))))
        .lease(job("short").with(|spec| spec.max_duration = Some(Millis::from_secs(100))));
    world.after("50s");
    let lease = world.lease_of("ttl").expect("leased");
    world.round(vec![Command::Renew(lease)]);
    world.after("50s");
    world.after("30s");
    world.expect(expect![[r#"
        ttl renews by 1m
        revoke short (max_duration) by +30s
        lease of ttl ends (expired): Failed { reason: "lease_expired" }
        lease of short ends (max_duration): Failed { reason: "max_duration" }"#]]);
}

#[test]
fn an_unhealthy_chip_is_not_granted_until_it_is_well() {
    let mut world = world().node("n1", 1);
    let mut report = world.full_report(&node_id("n1"));
    let chip = ChipId::new("n1-0").expect("a chip name");
    report.health = vec![(chip.clone(), Health::Unreadable { detail: "timed out".into() })];
    world.round(vec![Command::Report(report.clone())]);
    world.submit(job("a")).expect("accepted");
    report.health = vec![(chip, Health::Healthy)];
    world.round(vec![Command::Report(report)]);
    world.expect(expect![[r#"
        n1-0 is Unreadable { detail: "timed out" }
        a submitted
        n1-0 is Healthy
        a gets n1-0"#]]);
}

#[test]
fn cancelling_a_promised_job_frees_its_promise() {
    let mut world = world().node("n1", 1).lease(job("train").priority(LOW));
    world.submit(job("chat").priority(HIGH)).expect("accepted");
    world.story();
    world.round(vec![Command::Cancel(world.job_id("chat"))]);
    assert_eq!(
        world.round(vec![Command::Cancel(world.job_id("chat"))]),
        vec![Err(Refusal::NoSuchJob(world.job_id("chat")))]
    );
    world.expect(expect![[r#"
        chat loses its promise: Cancelled
        chat ended: Cancelled"#]]);
}

#[test]
fn a_holder_gets_one_extension_and_the_promise_waits_as_much_longer() {
    let mut world = world().node("n1", 1).lease(job("train").priority(LOW));
    let lease = world.lease_of("train").expect("leased");
    let extend = |by: &str| Command::Extend { lease, by: by.parse().expect("a span"), reason: "saving".into() };
    assert_eq!(world.round(vec![extend("10s")]), vec![Err(Refusal::NotRevoked(lease))]);
    world.submit(job("chat").priority(HIGH)).expect("accepted");
    let claim = |world: &super::world::World| world.draft.claim(world.job_id("chat")).map(|claim| claim.deadline);
    let before = claim(&world).expect("promised");
    world.story();
    world.round(vec![extend("1h")]);
    assert_eq!(claim(&world).map(|after| after.since(before)), Some(Millis::from_secs(30)));
    assert_eq!(world.round(vec![extend("1s")]), vec![Err(Refusal::ExtensionUsed(lease))]);
    world.after("31s");
    world.after("30s");
    world.expect(expect![[r#"
        train may stay until +1m
        lease of train ends (preempt): back to pending"#]]);
}

#[test]
fn a_holder_that_has_saved_its_work_may_leave_at_once() {
    let mut world = world().node("n1", 1).lease(job("train").priority(LOW));
    let lease = world.lease_of("train").expect("leased");
    let saved = || Command::Checkpoint { lease, step: Some(7), leave: true };
    world.round(vec![saved()]);
    world.submit(job("chat").priority(HIGH)).expect("accepted");
    world.round(vec![saved()]);
    world.expect(expect![[r#"
        train checkpoints
        chat submitted
        evict train for chat by +30s
        chat is promised n1-0
        train checkpoints
        lease of train ends (preempt): back to pending"#]]);
}
