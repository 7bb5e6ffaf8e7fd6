//! Elastic jobs: the extra replicas are the last to come and the first to go, and the job goes on without them.

use super::world::{Ask, HIGH, LOW, MID, World, job, world};
use crate::{Command, Refusal};
use chiptide_model::{JobState, Kind, LeaseId, Millis, Same, SameLevel};
use expect_test::expect;

/// A job of one to `most` single chips.
fn elastic(name: &str, most: u32) -> Ask {
    job(name).replicas(most).with(|spec| spec.replicas_min = Some(1))
}

fn extras(world: &World, name: &str) -> Vec<LeaseId> {
    world.draft.job(world.job_id(name)).expect("live").extras.iter().copied().collect()
}

#[test]
fn an_elastic_job_starts_with_its_least_and_grows_to_its_most() {
    let mut world = world().node("n1", 4);
    world.submit(elastic("train", 3)).expect("accepted");
    world.nodes_report();
    world.expect(expect![[r#"
        train submitted
        train gets n1-0
        train grows by n1-1
        train grows by n1-2
        n1 confirms train
        n1 confirms train
        train runs
        n1 confirms train"#]]);
}

#[test]
fn whoever_waits_is_served_before_anyone_grows() {
    let mut world = world().node("n1", 4).lease(job("holder").chips(4));
    world.submit(elastic("train", 4)).expect("accepted");
    world.submit(job("late").chips(2).priority(LOW)).expect("accepted");
    world.done("holder");
    world.story();
    world.nodes_report();
    world.expect(expect![[r#"
        n1-0 is proven vacant of holder
        n1-1 is proven vacant of holder
        n1-2 is proven vacant of holder
        n1-3 is proven vacant of holder
        train gets n1-0
        late gets n1-1 n1-2
        train grows by n1-3"#]]);
}

#[test]
fn jobs_grow_evenly() {
    let mut world = world().node("n1", 6).lease(job("holder").chips(6));
    world.submit(elastic("small", 4)).expect("accepted");
    world.submit(elastic("large", 8)).expect("accepted");
    world.done("holder");
    world.nodes_report();
    let held = |name| world.draft.job(world.job_id(name)).map(|job| job.replicas_held());
    assert_eq!((held("small"), held("large")), (Some(2), Some(4)));
}

#[test]
fn growth_never_takes_from_anyone() {
    let mut world = world().node("n1", 2).lease(job("low").priority(LOW));
    world.submit(elastic("train", 8).priority(HIGH)).expect("accepted");
    world.expect(expect![[r#"
        train submitted
        train gets n1-1"#]]);
}

#[test]
fn an_equal_takes_the_extra_replicas_and_the_job_goes_on() {
    let fixed = |spec: &mut chiptide_model::JobSpec| (spec.preemptible, spec.grace) = (false, Millis(0));
    let mut world = world().node("n1", 3).lease(elastic("train", 3).with(fixed));
    let before = world.draft.job(world.job_id("train")).cloned().expect("live");
    world.submit(job("equal").chips(2)).expect("accepted");
    world.nodes_report();
    world.submit(job("another")).expect("accepted");
    world.expect(expect![[r#"
        equal submitted
        shrink train for equal by +0s
        extra lease of train ends (preempt): the job goes on
        shrink train for equal by +0s
        extra lease of train ends (preempt): the job goes on
        equal is promised n1-1 n1-2
        n1-1 is proven vacant of train
        n1-2 is proven vacant of train
        n1 confirms train
        train runs
        equal gets n1-1 n1-2
        another submitted"#]]);
    let after = world.draft.job(world.job_id("train")).cloned().expect("live");
    assert_eq!((after.state.lease(), after.preemptions, after.attempt), (before.state.lease(), 0, 1));
}

#[test]
fn a_lower_priority_takes_no_extra_replica() {
    let mut world = world().node("n1", 2).lease(elastic("train", 2));
    world.submit(job("low").priority(LOW)).expect("accepted");
    world.expect(expect!["low submitted"]);
}

#[test]
fn extra_replicas_go_before_any_work_is_lost() {
    let mut world = world().node("n1", 1).node("n2", 2).lease(job("fresh").priority(LOW));
    world.after("1h");
    let mut world = world.lease(elastic("train", 2).priority(LOW));
    world.story();
    world.submit(job("chat").priority(HIGH)).expect("accepted");
    world.expect(expect![[r#"
        chat submitted
        shrink train for chat by +30s
        chat is promised n2-1"#]]);
}

#[test]
fn with_the_base_lease_go_the_extra_replicas() {
    let mut world = world().node("n1", 3).lease(elastic("train", 3).priority(LOW));
    world.submit(job("chat").chips(3).priority(HIGH)).expect("accepted");
    world.after("30s");
    world.nodes_report();
    world.expect(expect![[r#"
        chat submitted
        shrink train for chat by +30s
        shrink train for chat by +30s
        evict train for chat by +30s
        chat is promised n1-0 n1-1 n1-2
        extra lease of train ends (preempt): the job goes on
        extra lease of train ends (preempt): the job goes on
        lease of train ends (preempt): back to pending
        n1-0 is proven vacant of train
        n1-1 is proven vacant of train
        n1-2 is proven vacant of train
        chat gets n1-0 n1-1 n1-2"#]]);
    let train = world.draft.job(world.job_id("train")).expect("live");
    assert_eq!((train.preemptions, train.extras.len()), (1, 0));
}

#[test]
fn what_remains_of_a_revoked_job_is_for_the_next_in_need() {
    let mut world = world().node("n1", 3).node("n2", 1).lease(job("gang").chips(3).priority(LOW));
    world.after("1m");
    let mut world = world.lease(job("other").priority(LOW).with(|spec| spec.preemptible = false));
    world.story();
    for name in ["chat-1", "chat-2", "chat-3"] {
        world.submit(job(name).priority(HIGH)).expect("accepted");
    }
    world.expect(expect![[r#"
        chat-1 submitted
        evict gang for chat-1 by +30s
        chat-1 is promised n1-0
        chat-2 submitted
        chat-2 is promised n1-1
        chat-3 submitted
        chat-3 is promised n1-2"#]]);
}

#[test]
fn an_extra_replica_given_back_is_not_forced_on_the_job_again() {
    let mut world = world().node("n1", 3).lease(elastic("train", 3));
    let extra = extras(&world, "train")[0];
    world.round(vec![Command::Release { lease: extra, requeue: false }]);
    world.nodes_report();
    let train = world.draft.job(world.job_id("train")).expect("live");
    assert_eq!((train.replicas_held(), train.given_back), (2, 1));
    assert!(matches!(train.state, JobState::Running { .. }));
    let gone = world.round(vec![Command::Renew(extra)]);
    assert_eq!(gone, vec![Err(Refusal::NoSuchLease(extra))]);
}

#[test]
fn the_end_of_the_job_ends_all_its_leases() {
    let mut world = world().node("n1", 3).lease(elastic("train", 3).with(|spec| {
        spec.lease_ttl = Some(Millis::from_secs(60));
    }));
    let extra = extras(&world, "train")[0];
    assert!(world.round(vec![Command::Renew(extra)])[0].is_ok());
    world.after("60s");
    world.expect(expect![[r#"
        extra lease of train ends (expired): the job goes on
        extra lease of train ends (expired): the job goes on
        lease of train ends (expired): Failed { reason: "lease_expired" }"#]]);
}

#[test]
fn training_grows_on_its_own_class_and_where_it_must_be_near_on_its_node() {
    let near = Some(Same { level: SameLevel::Node, required: true });
    let mut world = world().node_of("a", "ascend-910b", 1).node("n1", 3).node("n2", 1);
    world
        .submit(elastic("train", 4).classes(&["nvidia-h20", "ascend-910b"]).with(|spec| {
            (spec.same, spec.replicas_min) = (near, Some(2));
        }))
        .expect("accepted");
    world.submit(elastic("serve", 4).with(|spec| spec.kind = Kind::Inference).priority(MID)).expect("accepted");
    world.expect(expect![[r#"
        train submitted
        train gets n1-0 n1-1
        train grows by n1-2
        serve submitted
        serve gets a-0
        serve grows by n2-0"#]]);
}
