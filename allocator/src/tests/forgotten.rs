//! A database that has forgotten its last commits, and nodes that have not.

use super::world::{World, job, node_id, world};
use crate::{Command, Refusal, RefusedGrant, Seen};
use chiptide_model::{ChipId, Health, LeaseId, NodeFacts, SessionId};
use expect_test::expect;
use uuid::Uuid;

const FORGOTTEN: LeaseId = LeaseId(Uuid::from_u128(0xF0));

fn chip(name: &str) -> ChipId {
    ChipId::new(name).expect("a chip name")
}

/// The agent of `n1` registers anew and says what it has seen.
fn registers(world: &mut World, seen: &[(&str, u64)]) {
    let node = world.draft.node(&node_id("n1")).expect("known");
    let chips = node.chips.iter().map(|&ix| (world.draft.fleet.chips[ix].facts.clone(), Health::Healthy)).collect();
    let facts: NodeFacts = node.facts.clone();
    let seen = seen.iter().map(|(name, epoch)| Seen { chip: chip(name), lease: FORGOTTEN, epoch: *epoch }).collect();
    let (session, boot_id) = (SessionId(Uuid::from_u128(0x5E)), node.boot_id.clone());
    let register = Command::Register { node: node_id("n1"), session, boot_id, facts, chips, seen };
    world.round(vec![register]).remove(0).expect("registered");
}

#[test]
fn a_chip_goes_above_what_its_node_has_seen_and_waits_for_the_proof() {
    let mut world = world().node("n1", 2);
    world.round(vec![Command::DatabaseReplaced { detail: "timeline 1, then 2".into() }]);
    let stale = world.full_report(&node_id("n1"));
    let refused = world.round(vec![Command::Report(stale)]).remove(0);
    assert_eq!(refused, Err(Refusal::StaleSession(node_id("n1"))), "a session from before counts no more");
    world.submit(job("gang").chips(2)).expect("accepted");
    registers(&mut world, &[("n1-0", 6), ("n1-1", 0)]);
    world.expect(expect![[r#"
        the database is another one: timeline 1, then 2
        gang submitted
        n1 registers
        n1-0 goes to epoch 6
        n1-0 is quarantined"#]]);
    world.nodes_report();
    world.expect(expect![[r#"
        n1-0 is restored
        gang gets n1-0 n1-1"#]]);
    assert_eq!(world.draft.chip(&chip("n1-0")).map(|chip| chip.epoch), Some(7));
}

#[test]
fn a_refused_grant_is_answered_and_the_next_one_is_accepted() {
    let mut world = world().node("n1", 1).node("n2", 1).lease(job("gang").replicas(2));
    let lease = world.lease_of("gang").expect("leased");
    let refused = |epoch, seen| RefusedGrant { lease, chip: chip("n1-0"), epoch, seen, seen_lease: Some(FORGOTTEN) };
    let mut report = world.full_report(&node_id("n1"));
    (report.confirmed, report.refused) = (Vec::new(), vec![refused(9, 12), refused(1, 0), refused(1, u64::MAX)]);
    world.round(vec![Command::Report(report.clone())]);
    world.expect(expect![""]);
    report.refused = vec![refused(1, 4)];
    world.round(vec![Command::Report(report.clone()), Command::Report(report)]);
    world.expect(expect![[r#"
        n1-0 goes to epoch 4
        n1-0 is quarantined
        lease of gang ends (fault): back to pending"#]]);
    world.nodes_report();
    world.expect(expect![[r#"
        n1-0 is proven vacant of gang
        n1-0 is restored
        n2-0 is proven vacant of gang
        gang gets n1-0 n2-0"#]]);
    assert_eq!(world.draft.chip(&chip("n1-0")).map(|chip| chip.epoch), Some(5));
}

#[test]
fn an_equal_epoch_under_another_lease_is_a_refusal_too() {
    let mut world = world().node("n1", 1).lease(job("a"));
    let lease = world.lease_of("a").expect("leased");
    let mut report = world.full_report(&node_id("n1"));
    report.confirmed.clear();
    report.refused = vec![RefusedGrant { lease, chip: chip("n1-0"), epoch: 1, seen: 1, seen_lease: Some(FORGOTTEN) }];
    world.round(vec![Command::Report(report)]);
    world.nodes_report();
    world.nodes_report();
    world.expect(expect![[r#"
        n1-0 is quarantined
        lease of a ends (fault): back to pending
        n1-0 is proven vacant of a
        n1-0 is restored
        a gets n1-0
        n1 confirms a
        a runs"#]]);
}
