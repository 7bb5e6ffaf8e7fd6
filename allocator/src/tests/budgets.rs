//! What protects a lease from being taken: a least running time, and a budget of preemptions.

use super::world::{Ask, HIGH, LOW, World, job, world};
use chiptide_model::{Millis, PreemptionBudget};
use expect_test::expect;

fn quick(ask: Ask) -> Ask {
    ask.priority(LOW).with(|spec| spec.grace = Millis(0))
}

fn budget(per_day: Option<u32>, cool_down: Option<&str>) -> impl FnOnce(&mut chiptide_model::JobSpec) {
    let cool_down = cool_down.map(|span| span.parse().expect("a duration"));
    move |spec| spec.preemption_budget = Some(PreemptionBudget { per_day, cool_down })
}

/// A job of high priority comes, runs a minute, and goes: did it have to wait?
fn interrupt(world: &mut World, name: &str) -> bool {
    world.submit(job(name).priority(HIGH)).expect("accepted");
    let evicted = world.story().contains("evict");
    world.nodes_report();
    world.after("1m");
    world.done(name);
    world.nodes_report();
    world.story();
    evicted
}

#[test]
fn a_lease_is_not_taken_before_its_least_running_time() {
    let hour = |spec: &mut chiptide_model::JobSpec| spec.min_runtime = Some(Millis::from_secs(3600));
    let mut world = world().node("n1", 1).lease(quick(job("train")).with(hour));
    world.submit(job("chat").priority(HIGH)).expect("accepted");
    world.expect(expect!["chat submitted"]);
    assert_eq!(world.draft.next_due(), Some(chiptide_model::Timestamp(3_600_000)));
    world.after("59m");
    world.expect(expect![""]);
    world.after("1m");
    world.expect(expect![[r#"
        evict train for chat by +0s
        lease of train ends (preempt): back to pending
        chat is promised n1-0"#]]);
}

#[test]
fn a_job_is_preempted_so_often_a_day_and_no_more() {
    let mut world = world().node("n1", 1).lease(quick(job("train")).with(budget(Some(2), None)));
    assert!(interrupt(&mut world, "chat-1"));
    assert!(interrupt(&mut world, "chat-2"));
    assert!(!interrupt(&mut world, "chat-3"));
    // A day after the first of them, there is room for one more.
    world.after("23h57m");
    world.submit(job("chat-4").priority(HIGH)).expect("accepted");
    assert!(world.story().contains("evict train for chat-4"));
}

#[test]
fn after_a_preemption_comes_a_time_of_peace() {
    let mut world = world().node("n1", 1).lease(quick(job("train")).with(budget(None, Some("30m"))));
    assert!(interrupt(&mut world, "chat-1"));
    assert!(!interrupt(&mut world, "chat-2"));
    world.after("28m");
    assert!(interrupt(&mut world, "chat-3"));
}

#[test]
fn shrinking_is_not_bound_by_any_of_it() {
    let mut world = world().node("n1", 2).lease(quick(job("train")).replicas(2).with(|spec| {
        spec.replicas_min = Some(1);
        spec.min_runtime = Some(Millis::from_secs(3600));
        spec.preemption_budget = Some(PreemptionBudget { per_day: Some(0), cool_down: None });
    }));
    world.submit(job("chat").priority(HIGH)).expect("accepted");
    world.submit(job("chat-2").priority(HIGH)).expect("accepted");
    world.expect(expect![[r#"
        chat submitted
        shrink train for chat by +0s
        extra lease of train ends (preempt): the job goes on
        chat is promised n1-1
        chat-2 submitted"#]]);
}

#[test]
fn a_reported_checkpoint_and_a_cheap_restart_make_the_cheaper_victim() {
    let mut world = world().node("n1", 1).node("n2", 1).lease(quick(job("reports"))).lease(quick(job("silent")));
    world.after("1h");
    let lease = world.lease_of("reports").expect("leased");
    world.round(vec![crate::Command::Checkpoint { lease, step: None, leave: false }]);
    world.after("1m");
    world.submit(job("chat").priority(HIGH)).expect("accepted");
    world.expect(expect![[r#"
        reports checkpoints
        chat submitted
        evict reports for chat by +0s
        lease of reports ends (preempt): back to pending
        chat is promised n1-0"#]]);
}

#[test]
fn a_dear_restart_weighs_as_much_as_lost_work() {
    let dear = |spec: &mut chiptide_model::JobSpec| spec.restart_cost = Some(Millis::from_secs(600));
    let mut world = world().node("n1", 1).lease(quick(job("dear")).with(dear));
    world.after("1m");
    let mut world = world.node("n2", 1).lease(quick(job("cheap")));
    world.after("5m");
    world.submit(job("chat").priority(HIGH)).expect("accepted");
    assert!(world.story().contains("evict cheap for chat"));
}
