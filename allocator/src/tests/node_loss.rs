//! Nodes that are not heard: who waits, who is placed again and when, and what an admin can say.

use super::world::{World, job, node_id, world};
use crate::{Command, Refusal, Snapshot};
use chiptide_model::{Cause, ChipId, ChipState, Event, Millis, OnNodeLoss, Timestamp};
use expect_test::expect;

fn fleet() -> World {
    let mut world = world().node("n1", 1).node("n2", 1);
    world.nodes_report();
    world
}

/// The job starts where `world` has room first, and runs.
fn running(world: World, ask: super::world::Ask) -> World {
    let mut world = world.lease(ask);
    world.nodes_report();
    world.story();
    world
}

/// The node that carries the job's lease.
fn carrier(world: &World, name: &str) -> String {
    let lease = world.lease_of(name).and_then(|lease| world.draft.lease(lease)).expect("leased");
    lease.placements[0].node.to_string()
}

#[test]
fn a_job_that_waits_is_never_placed_again_before_its_node_is_back() {
    let mut world = running(fleet(), job("train"));
    let node = carrier(&world, "train");
    world.silent(&[&node]);
    world.after("100d");
    world.expect(expect!["n1 is silent"]);
    world.nodes_report();
    world.expect(expect!["n1 is heard"]);
}

#[test]
fn a_fenced_job_is_placed_again_once_its_node_must_have_ended_it() {
    let mut world = running(fleet(), job("serve").fenced("20s"));
    let node = carrier(&world, "serve");
    world.silent(&[&node]);
    // (20 s + 10 s + 5 s) · 1.0005/0.9995 and a tick: 36.036 s.
    world.after("36s35ms");
    world.expect(expect!["n1 is silent"]);
    world.after("1ms");
    world.expect(expect![[r#"
        lease of serve ends (node_lost): back to pending
        serve gets n2-0"#]]);
    let chip = world.draft.chip(&ChipId::new("n1-0").expect("a chip name")).expect("known");
    let node = world.draft.node(&node_id("n1")).expect("known");
    assert_eq!(chip.state(node), ChipState::Unknown(Timestamp(0)), "nobody has proven it");
    world.nodes_report();
    world.expect(expect![[r#"
        n1 is heard
        n1-0 is proven vacant of serve
        n2 confirms serve
        serve runs"#]]);
}

#[test]
fn a_node_that_is_back_in_time_keeps_its_lease() {
    let mut world = running(fleet(), job("serve").fenced("20s"));
    world.silent(&["n1"]);
    world.after("36s");
    world.nodes_report();
    world.after("1h");
    world.expect(expect![[r#"
        n1 is silent
        n1 is heard"#]]);
}

#[test]
fn a_new_leader_waits_anew() {
    let mut world = running(fleet(), job("serve").fenced("20s"));
    world.silent(&["n1"]);
    world.after("30s");
    world.round(vec![Command::TakeOver { epoch: 2 }]);
    // n2 would be free to take it, were the lease over by the old leader's count.
    let heard = world.full_report(&node_id("n2"));
    world.round(vec![Command::Report(heard)]);
    let restored = Snapshot::of(&world.draft).restore().expect("the rows fit");
    assert_eq!(restored.next_due(), world.draft.next_due(), "also a daemon that reads it from the tables");
    world.after("36s35ms");
    world.expect(expect![[r#"
        n1 is silent
        leader 2
        n2 is heard"#]]);
    world.after("1ms");
    world.expect(expect![[r#"
        lease of serve ends (node_lost): back to pending
        serve gets n2-0"#]]);
}

#[test]
fn a_gang_is_lost_whole_and_each_of_its_chips_needs_its_proof() {
    let mut world = running(fleet(), job("serve").replicas(2).fenced("20s"));
    world.silent(&["n2"]);
    world.after("37s");
    world.expect(expect![[r#"
        n2 is silent
        lease of serve ends (node_lost): back to pending"#]]);
    world.nodes_report();
    world.expect(expect![[r#"
        n1-0 is proven vacant of serve
        n2 is heard
        n2-0 is proven vacant of serve
        serve gets n1-0 n2-0"#]]);
}

#[test]
fn a_duplicate_starts_soon_but_not_because_a_leader_is_new() {
    let mut world = running(fleet(), job("serve").with(|spec| spec.on_node_loss = OnNodeLoss::Duplicate));
    world.round(vec![Command::TakeOver { epoch: 2 }]);
    let heard = world.full_report(&node_id("n2"));
    world.round(vec![Command::Report(heard)]);
    world.after("30s");
    world.expect(expect![[r#"
        leader 2
        n2 is heard"#]]);
    world.nodes_report();
    world.silent(&["n1"]);
    world.after("5s");
    world.expect(expect![[r#"
        n1 is heard
        n1 is silent
        lease of serve ends (node_lost): back to pending
        serve gets n2-0"#]]);
}

#[test]
fn a_machine_declared_off_frees_its_jobs_and_not_its_chips() {
    let mut world = running(fleet(), job("train"));
    let off = || Command::DeclareOff { node: node_id("n1"), by: "ops".into(), reason: "power pulled".into() };
    assert_eq!(world.round(vec![off()]), [Err(Refusal::NodeReports(node_id("n1")))]);
    world.silent(&["n1"]);
    world.round(vec![off()]).remove(0).expect("it is not heard");
    world.expect(expect![[r#"
        n1 is silent
        ops declares n1 off: power pulled
        lease of train ends (fault): back to pending
        train gets n2-0"#]]);
    world.submit(job("next")).expect("accepted");
    world.register("n1", "nvidia-h20", 1, "boot-2");
    world.expect(expect![[r#"
        next submitted
        n1 registers"#]]);
    world.nodes_report();
    world.expect(expect![[r#"
        n1-0 is proven vacant of train
        n2 confirms train
        train runs
        next gets n1-0"#]]);
}

#[test]
fn a_node_that_has_fenced_itself_says_so_and_the_job_waits_again() {
    let mut world = running(fleet(), job("serve").fenced("20s"));
    let (lease, mut report) = (world.lease_of("serve").expect("leased"), world.full_report(&node_id("n1")));
    (report.confirmed, report.fenced) = (Vec::new(), vec![lease]);
    world.round(vec![Command::Report(report.clone()), Command::Report(report)]);
    world.expect(expect![[r#"
        lease of serve ends (fenced): back to pending
        serve gets n2-0"#]]);
    let mut world = running(fleet(), job("train"));
    let (lease, mut report) = (world.lease_of("train").expect("leased"), world.full_report(&node_id("n1")));
    report.fenced = vec![lease];
    world.round(vec![Command::Report(report)]);
    world.expect(expect![""]);
}

#[test]
fn a_gang_of_which_a_member_does_not_start_is_torn_down() {
    let mut world = fleet().policy(|policy| policy.bounds.start = Some(Millis::from_secs(60)));
    world.submit(job("gang").replicas(2)).expect("accepted");
    let confirms = world.full_report(&node_id("n1"));
    world.round(vec![Command::Report(confirms)]);
    world.silent(&["n2"]);
    world.after("5m");
    world.expect(expect![[r#"
        gang submitted
        gang gets n1-0 n2-0
        n1 confirms gang
        n2 is silent"#]]);
    let mut heard = world.full_report(&node_id("n2"));
    heard.confirmed.clear();
    world.round(vec![Command::Report(heard)]);
    world.after("59s");
    world.expect(expect!["n2 is heard"]);
    world.after("1s");
    world.expect(expect![[r#"
        lease of gang ends (fault): back to pending
        gang has n1-0 n2-0 reserved from +1m"#]]);
    let why = |event: &Event| match event {
        Event::LeaseEnded { cause: Cause::Fault { node, detail }, .. } => Some(format!("{node}: {detail}")),
        _ => None,
    };
    assert_eq!(world.log.iter().find_map(|(_, event)| why(event)).as_deref(), Some("n2: not started within 1m"));
}

#[test]
fn notice_to_a_node_that_is_not_heard_does_not_run_out() {
    let mut world = running(fleet(), job("train").with(|spec| spec.max_duration = Some(Millis::from_secs(60))));
    world.after("60s");
    world.silent(&["n1"]);
    world.after("1h");
    world.expect(expect![[r#"
        revoke train (max_duration) by +30s
        n1 is silent"#]]);
    world.nodes_report();
    world.expect(expect![[r#"
        n1 is heard
        lease of train ends (max_duration): Failed { reason: "max_duration" }"#]]);
}

#[test]
fn a_fenced_lease_under_notice_ends_in_time_on_a_node_that_is_not_heard() {
    let fenced = job("serve").fenced("20s").with(|spec| spec.max_duration = Some(Millis::from_secs(60)));
    let mut world = running(fleet(), fenced);
    world.after("60s");
    world.silent(&["n1"]);
    world.after("30s");
    world.expect(expect![[r#"
        revoke serve (max_duration) by +30s
        n1 is silent
        lease of serve ends (max_duration): Failed { reason: "max_duration" }"#]]);
}

#[test]
fn the_bound_of_a_proof_runs_only_while_the_node_can_answer() {
    let mut world = running(fleet(), job("train"));
    world.done("train");
    world.after("50s");
    world.silent(&["n1"]);
    world.after("1h");
    let mut heard = world.full_report(&node_id("n1"));
    heard.vacant.clear();
    world.round(vec![Command::Report(heard)]);
    world.after("59s");
    world.expect(expect![[r#"
        lease of train ends (done): Succeeded
        n1 is silent
        n1 is heard"#]]);
    world.after("1s");
    world.expect(expect!["n1-0 is quarantined"]);
}

#[test]
fn after_an_outage_nobody_is_late_who_could_not_speak() {
    let renewed = job("train").with(|spec| spec.lease_ttl = Some(Millis::from_secs(60)));
    let mut world = running(fleet(), job("over")).lease(renewed);
    world.done("over");
    world.story();
    world.now = world.now + Millis::from_secs(3600);
    world.draft.resume(world.now);
    world.committed.resume(world.now);
    world.after("59s");
    world.expect(expect![""]);
    world.after("1s");
    world.expect(expect![[r#"
        lease of train ends (expired): Failed { reason: "lease_expired" }
        n1-0 is quarantined"#]]);
}
