//! Consolidation: who is moved for a gang, and who never is.

use super::world::{HIGH, LOW, World, job, world};
use crate::consolidate::propose;
use chiptide_model::{Consolidation, Millis, Policy};
use expect_test::expect;

fn on(policy: &mut Policy) {
    policy.consolidation = Some(Consolidation { lost_chip_ms_max: 3_600_000, cool_down: Millis::from_secs(600) });
}

/// Two nodes of two chips, each half taken: two chips are free, and no pair of them on one node.
fn scattered() -> World {
    let mut world = world().node("n1", 2).node("n2", 2).lease(job("a").chips(1)).lease(job("x").chips(1));
    world.submit(job("b")).expect("accepted");
    world.done("x");
    world.nodes_report();
    world.story();
    world
}

#[test]
fn a_job_is_moved_to_free_chips_that_are_kept_for_it_and_the_gang_gets_its_old_ones() {
    let mut world = scattered().policy(on);
    world.after("1m");
    world.submit(job("pair").chips(2)).expect("accepted");
    world.submit(job("thief")).expect("accepted");
    world.after("30s");
    world.nodes_report();
    world.expect(expect![[r#"
        pair submitted
        revoke a (consolidate) by +30s
        pair is promised n1-0 n1-1
        a has n2-1 reserved from +30s
        thief submitted
        lease of a ends (consolidate): back to pending
        a gets n2-1
        a has its reservation no more: Started
        n1-0 is proven vacant of a
        n2 confirms a
        a runs
        pair gets n1-0 n1-1"#]]);
}

#[test]
fn nothing_is_moved_unless_the_policy_says_so() {
    let mut world = scattered();
    world.submit(job("pair").chips(2)).expect("accepted");
    world.expect(expect!["pair submitted"]);
    let proposal = propose(&world.draft, world.job_id("pair"), world.now).expect("a way there is");
    assert_eq!((proposal.moves.len(), proposal.lost_chip_ms), (1, 0));
}

#[test]
fn a_move_that_loses_too_much_work_is_not_made() {
    let mut world = scattered().policy(on);
    world.after("2h");
    world.submit(job("pair").chips(2)).expect("accepted");
    world.expect(expect!["pair submitted"]);
}

#[test]
fn nobody_of_higher_priority_is_moved_nor_who_may_not_be_preempted() {
    let firm = |spec: &mut chiptide_model::JobSpec| spec.preemptible = false;
    for ask in [job("fixed").priority(HIGH), job("fixed").with(firm)] {
        let mut world = world().node("n1", 3).policy(on).lease(ask).lease(job("x").priority(LOW).with(firm));
        world = world.node("n2", 1);
        world.submit(job("pair").chips(2)).expect("accepted");
        assert_eq!(world.story(), "pair submitted");
        assert_eq!(propose(&world.draft, world.job_id("pair"), world.now), None);
    }
}

#[test]
fn the_move_that_loses_least_is_made_and_no_other_before_it_has_cooled_down() {
    let mut world = scattered().policy(on);
    world.submit(job("pair").chips(2)).expect("accepted");
    world.expect(expect![[r#"
        pair submitted
        revoke a (consolidate) by +30s
        pair is promised n1-0 n1-1
        a has n2-1 reserved from +30s"#]]);
}
