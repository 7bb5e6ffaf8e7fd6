//! Consolidation: who is moved for a gang, and who never is.

use super::world::{HIGH, LOW, MID, World, job, world};
use crate::consolidate::propose;
use chiptide_model::{Cause, Consolidation, Event, JobId, LeaseId, Millis, Policy, Timestamp};
use expect_test::expect;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

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
        let mut world =
            world().node("n1", 3).policy(on).lease(ask).lease(job("x").priority(LOW).with(firm)).node("n2", 1);
        world.submit(job("pair").chips(2)).expect("accepted");
        assert_eq!(world.story(), "pair submitted");
        assert_eq!(propose(&world.draft, world.job_id("pair"), world.now), None);
    }
}

#[test]
fn the_move_that_loses_least_is_made_and_no_other_before_it_has_cooled_down() {
    let mut world = world().node("n1", 2).node("n2", 2).node("n3", 2).node("n4", 2).policy(on);
    for name in ["a", "w", "b", "x", "c", "y", "d", "z"] {
        world.submit(job(name)).expect("accepted");
        world.after("10s");
    }
    for name in ["w", "x", "y", "z"] {
        world.done(name);
    }
    world.nodes_report();
    world.story();
    world.submit(job("pair").chips(2)).expect("accepted");
    world.submit(job("other").chips(2)).expect("accepted");
    world.after("30s");
    world.nodes_report();
    world.after("10m");
    world.expect(expect![[r#"
        pair submitted
        revoke d (consolidate) by +30s
        pair is promised n4-0 n4-1
        d has n1-1 reserved from +30s
        other submitted
        lease of d ends (consolidate): back to pending
        d gets n1-1
        d has its reservation no more: Started
        n1 confirms d
        d runs
        n4-0 is proven vacant of d
        pair gets n4-0 n4-1
        revoke c (consolidate) by +30s
        other is promised n3-0 n3-1
        c has n2-1 reserved from +30s"#]]);
}

#[test]
fn a_place_lost_on_the_way_costs_the_moved_job_its_turn_and_nothing_else() {
    let mut world = scattered().policy(on);
    world.submit(job("pair").chips(2)).expect("accepted");
    world.submit(job("urgent").priority(HIGH)).expect("accepted");
    world.after("30s");
    world.nodes_report();
    world.expect(expect![[r#"
        pair submitted
        revoke a (consolidate) by +30s
        pair is promised n1-0 n1-1
        a has n2-1 reserved from +30s
        urgent submitted
        a gives its reservation up to urgent
        urgent gets n2-1
        lease of a ends (consolidate): back to pending
        n1-0 is proven vacant of a
        n2 confirms urgent
        urgent runs
        pair gets n1-0 n1-1"#]]);
}

#[derive(Clone, Debug)]
enum Step {
    Submit { chips: u16, replicas: u32, priority: i32, grace_s: u64, firm: bool },
    Done { pick: usize },
    Wait { seconds: u64 },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let priority = prop::sample::select(vec![LOW, MID, MID, MID, HIGH]);
    let chips = prop::sample::select(vec![1, 1, 1, 2, 3, 4]);
    let submit = (chips, 1..3u32, priority, 0..40u64, prop::bool::weighted(0.1));
    let step = prop_oneof![
        4 => submit.prop_map(|(chips, replicas, priority, grace_s, firm)| {
            Step::Submit { chips, replicas, priority, grace_s, firm }
        }),
        3 => any::<usize>().prop_map(|pick| Step::Done { pick }),
        3 => (1..40u64).prop_map(|seconds| Step::Wait { seconds }),
    ];
    prop::collection::vec(step, 10..60)
}

/// When each job was moved, and for whom.
fn moves(world: &World) -> Vec<(Timestamp, JobId, JobId)> {
    let mut owner: BTreeMap<LeaseId, JobId> = BTreeMap::new();
    let mut moves = Vec::new();
    for (at, event) in &world.log {
        match event {
            Event::LeaseGranted { lease, job, .. } => drop(owner.insert(*lease, *job)),
            Event::LeaseRevoked { lease, cause: Cause::Consolidate { for_job }, .. } => {
                moves.push((*at, owner[lease], *for_job));
            }
            _ => {}
        }
    }
    moves
}

proptest! {
    #[test]
    fn moves_never_go_round_and_round(steps in steps()) {
        let cool_down = Millis::from_secs(20);
        let generous = Consolidation { lost_chip_ms_max: u64::MAX, cool_down };
        let mut world = world().node("n1", 4).node("n2", 4).node("n3", 3);
        world = world.policy(|policy| policy.consolidation = Some(generous));
        for (number, step) in steps.into_iter().enumerate() {
            match step {
                Step::Submit { chips, replicas, priority, grace_s, firm } => {
                    let ask = job(&format!("job-{number}")).chips(chips).replicas(replicas).priority(priority);
                    let ask = ask.with(|spec| (spec.grace, spec.preemptible) = (Millis::from_secs(grace_s), !firm));
                    world.submit(ask).expect("accepted");
                }
                Step::Done { pick } => {
                    let names: Vec<String> = world.names.keys().cloned().collect();
                    let live = |name: &&String| world.draft.job(world.names[*name]).is_some();
                    let live: Vec<String> = names.iter().filter(live).cloned().collect();
                    if let Some(name) = live.get(pick % live.len().max(1)) {
                        world.done(name);
                    }
                    world.nodes_report();
                }
                Step::Wait { seconds } => {
                    world.after(&format!("{seconds}s"));
                    world.nodes_report();
                }
            }
        }
        let moves = moves(&world);
        let pairs: BTreeSet<(JobId, JobId)> = moves.iter().map(|(_, moved, gang)| (*moved, *gang)).collect();
        prop_assert_eq!(pairs.len(), moves.len(), "a job was moved twice for the same gang");
        for pair in moves.windows(2) {
            let (one, next) = (pair[0], pair[1]);
            prop_assert!(one.2 == next.2 && one.0 == next.0 || next.0 >= one.0 + cool_down, "two at a time");
        }
    }
}
