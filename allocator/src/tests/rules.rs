//! Placement, order, victims: each rule in a world that fits on a screen.

use super::world::{HIGH, LOW, class, job, node_id, world};
use crate::{Reason, Refusal, explain};
use chiptide_model::{Kind, Millis, Same, SameLevel, Unfit};
use expect_test::expect;

#[test]
fn a_gang_goes_to_the_node_it_fits_most_tightly() {
    let mut world = world().node("big", 8).node("small", 4).lease(job("first").chips(1));
    world.submit(job("pair").chips(2)).expect("accepted");
    world.expect(expect![[r#"
        pair submitted
        pair gets small-1 small-2"#]]);
    world.submit(job("octet").chips(8)).expect("accepted");
    world.expect(expect![[r#"
        octet submitted
        octet gets big-0 big-1 big-2 big-3 big-4 big-5 big-6 big-7"#]]);
}

#[test]
fn a_gang_starts_whole_or_not_at_all() {
    let mut world = world().node("n1", 4);
    world.submit(job("gang").chips(3).replicas(2)).expect("accepted");
    world.expect(expect!["gang submitted"]);
    world.register("n2", "nvidia-h20", 4, "boot-1");
    world.expect(expect![[r#"
        n2 registers
        gang gets n1-0 n1-1 n1-2 n2-0 n2-1 n2-2"#]]);
}

#[test]
fn shares_fill_one_chip_before_they_open_another() {
    let mut world = world().node("n1", 2).lease(job("a").share(400));
    world.submit(job("b").share(500)).expect("accepted");
    world.submit(job("c").share(200)).expect("accepted");
    world.submit(job("whole")).expect("accepted");
    world.expect(expect![[r#"
        b submitted
        b gets n1-0/500
        c submitted
        c gets n1-1/200
        whole submitted"#]]);
}

#[test]
fn a_share_is_pieced_together_from_the_gaps_of_a_chip() {
    let mut world =
        world().node("n1", 1).lease(job("a").share(300)).lease(job("b").share(400)).lease(job("c").share(300));
    world.done("a");
    world.done("c");
    world.nodes_report();
    world.story();
    world.submit(job("d").share(600)).expect("accepted");
    world.expect(expect![[r#"
        d submitted
        d gets n1-0/600"#]]);
}

#[test]
fn classes_are_tried_in_order_and_training_never_mixes_them() {
    let mut world = world().node_of("h", "nvidia-h20", 2).node_of("a", "ascend-910b", 2);
    world.submit(job("picky").classes(&["ascend-910b", "nvidia-h20"])).expect("accepted");
    world.submit(job("gang").replicas(3).classes(&["nvidia-h20", "ascend-910b"])).expect("accepted");
    world
        .submit(
            job("serve").replicas(3).classes(&["nvidia-h20", "ascend-910b"]).with(|spec| spec.kind = Kind::Inference),
        )
        .expect("accepted");
    world.expect(expect![[r#"
        picky submitted
        picky gets a-0
        gang submitted
        serve submitted
        serve gets h-0 h-1 a-1"#]]);
}

#[test]
fn same_node_waits_rather_than_spreads_and_preferred_does_not() {
    let mut world = world().node("n1", 2).node("n2", 2).lease(job("x")).lease(job("y").chips(1));
    world.done("x");
    world.nodes_report();
    world.story();
    let near = |required| Some(Same { level: SameLevel::Node, required });
    world.submit(job("strict").replicas(3).with(|spec| spec.same = near(true))).expect("accepted");
    world.submit(job("easy").replicas(3).with(|spec| spec.same = near(false))).expect("accepted");
    world.expect(expect![[r#"
        strict submitted
        easy submitted
        easy gets n1-0 n2-0 n2-1"#]]);
}

#[test]
fn higher_priority_goes_first_and_equals_in_order_of_arrival() {
    let mut world = world().node("n1", 1).lease(job("holder").with(|spec| spec.preemptible = false));
    for ask in [job("low").priority(LOW), job("mid-1"), job("mid-2"), job("high").priority(HIGH)] {
        world.submit(ask).expect("accepted");
    }
    let mut served = Vec::new();
    for name in ["holder", "high", "mid-1", "mid-2"] {
        world.done(name);
        world.story();
        world.nodes_report();
        served.extend(world.story().lines().filter(|line| line.contains("gets")).map(String::from));
    }
    assert_eq!(served, ["high gets n1-0", "mid-1 gets n1-0", "mid-2 gets n1-0", "low gets n1-0"]);
}

#[test]
fn inference_takes_the_cheapest_victim() {
    let mut world = world().node("n1", 4).lease(job("old").chips(2).priority(LOW));
    world.after("1h");
    let mut world = world.lease(job("new").chips(2).priority(LOW));
    world.after("1m");
    world.story();
    world.submit(job("chat").chips(2).priority(HIGH)).expect("accepted");
    world.expect(expect![[r#"
        chat submitted
        evict new for chat by +30s
        chat is promised n1-2 n1-3"#]]);
}

#[test]
fn a_recent_checkpoint_makes_an_old_job_the_cheaper_victim() {
    let checkpoints = |spec: &mut chiptide_model::JobSpec| spec.checkpoint_every = Some(Millis::from_secs(600));
    let mut world = world().node("n1", 4).lease(job("old").chips(2).priority(LOW).with(checkpoints));
    world.after("55m");
    let mut world = world.lease(job("new").chips(2).priority(LOW));
    world.after("6m");
    world.story();
    world.submit(job("chat").chips(2).priority(HIGH)).expect("accepted");
    world.expect(expect![[r#"
        chat submitted
        evict old for chat by +30s
        chat is promised n1-0 n1-1"#]]);
}

#[test]
fn only_strictly_lower_and_preemptible_leases_are_evicted() {
    let fixed = job("fixed").priority(LOW).with(|spec| spec.preemptible = false);
    let mut world = world().node("n1", 2).lease(fixed).lease(job("equal").priority(HIGH));
    world.submit(job("chat").priority(HIGH)).expect("accepted");
    world.expect(expect!["chat submitted"]);
}

#[test]
fn nobody_is_evicted_unless_the_whole_gang_gets_its_chips() {
    let mut world = world().node("n1", 2).lease(job("victim").priority(LOW)).lease(job("wall").priority(HIGH));
    world.submit(job("gang").replicas(2).priority(HIGH)).expect("accepted");
    world.expect(expect!["gang submitted"]);
}

#[test]
fn victims_that_turn_out_not_to_be_needed_are_spared() {
    let mut world = world().node("n1", 4).lease(job("one").priority(LOW));
    world.after("1s");
    let mut world = world.lease(job("three").chips(3).priority(LOW));
    world.after("1h");
    world.story();
    world.submit(job("chat").chips(3).priority(HIGH)).expect("accepted");
    world.expect(expect![[r#"
        chat submitted
        evict three for chat by +30s
        chat is promised n1-1 n1-2 n1-3"#]]);
}

#[test]
fn a_gang_that_never_fits_waits_or_is_refused_as_it_says() {
    let mut world = world().node("n1", 4);
    world.submit(job("patient").chips(4).replicas(3)).expect("accepted");
    let answer = world.submit(job("curt").chips(4).replicas(3).with(|spec| spec.unfit = Unfit::Refuse));
    let detail = "3 replicas asked for, the whole fleet would hold 1: 2 too many".to_owned();
    assert_eq!(answer, Err(Refusal::NeverFits { index: 0, detail }));
    let patient = world.draft.job(world.job_id("patient")).expect("live");
    let shortage = crate::explain::Shortage { requested: 3, available: 1 };
    assert_eq!(explain(&world.draft, patient), vec![Reason::NeverFits(shortage)]);
}

#[test]
fn chips_here_and_cpu_there_are_no_room() {
    let greedy = |spec: &mut chiptide_model::JobSpec| spec.cpu_milli = 60_000;
    let mut world = world().node("n1", 2).node("n2", 1);
    let mut world = {
        world.submit(job("cpu").with(greedy)).expect("accepted");
        world.submit(job("cpu-too").with(greedy)).expect("accepted");
        world
    };
    // One chip of n1 is left, without CPU beside it; n2's or n1's CPU is gone with its chip.
    world.submit(job("late").with(greedy)).expect("accepted");
    let late = world.draft.job(world.job_id("late")).expect("live");
    let shortage = crate::explain::Shortage { requested: 1, available: 0 };
    assert_eq!(explain(&world.draft, late), vec![Reason::InsufficientCpu(shortage)]);
}

#[test]
fn no_node_has_all_of_it() {
    let mut world = world().node("n1", 2).node("n2", 2);
    let hungry =
        |cpu, memory| move |spec: &mut chiptide_model::JobSpec| (spec.cpu_milli, spec.memory_mib) = (cpu, memory);
    world.submit(job("cpu").with(hungry(60_000, 0))).expect("accepted");
    world.submit(job("memory").with(hungry(10_000, 250_000))).expect("accepted");
    world.submit(job("late").with(hungry(30_000, 100_000))).expect("accepted");
    let late = world.draft.job(world.job_id("late")).expect("live");
    let shortage = crate::explain::Shortage { requested: 1, available: 0 };
    assert_eq!(explain(&world.draft, late), vec![Reason::Scattered(shortage)]);
}

#[test]
fn every_blocker_is_told_at_once() {
    let mut world =
        world().node("n1", 4).node("n2", 2).lease(job("half").chips(3).with(|spec| spec.cpu_milli = 63_000));
    world
        .submit(
            job("wide")
                .chips(2)
                .replicas(2)
                .classes(&["nvidia-h20", "nvidia-h100"])
                .with(|spec| spec.cpu_milli = 2_000),
        )
        .expect("accepted");
    world.round(vec![crate::Command::Silent(node_id("n2"))]);
    let wide = world.draft.job(world.job_id("wide")).expect("live");
    let shortage = |requested, available| crate::explain::Shortage { requested, available };
    assert_eq!(
        explain(&world.draft, wide),
        vec![
            Reason::NoSuchClass(class("nvidia-h100")),
            Reason::InsufficientChips(shortage(4, 1)),
            Reason::NodesUnknown { chips: 2 },
        ]
    );
}
