//! Why a job waits, who is in its way, what would help, and when it may start.

use super::world::{HIGH, LOW, MID, World, chips, job, node_id, world};
use crate::explain::{self, EvictedFor, Eviction, Explanation};
use crate::{Command, Reason};
use chiptide_model::{Choice, Cost, Kind, LeaseId, Millis, RunnerUp, Same, SameLevel, Timestamp};
use expect_test::{Expect, expect};

fn explanation(world: &World, name: &str) -> Explanation {
    explain::job(&world.draft, world.draft.job(world.job_id(name)).expect("live"), world.now)
}

/// The explanation of a job as people read it.
fn told(world: &World, name: &str) -> String {
    let Explanation { blockers, ways, start, standing } = explanation(world, name);
    let at = |at: Timestamp| format!("+{}", at.since(world.now));
    let mut lines = Vec::new();
    for blocker in blockers {
        lines.push(format!("{}: {}", blocker.reason.code(), blocker.reason));
        if let Some(holders) = blocker.holders {
            let named: Vec<String> =
                holders.named.iter().map(|h| format!("{} {}", h.name, explain::chips_text(h.slots))).collect();
            lines.push(format!("  held by {} of {}: {}", named.len(), holders.count, named.join(", ")));
        }
        lines.extend(blocker.unblock.map(|way| format!("  cheapest: {}", way.code())));
    }
    lines.extend(ways.iter().map(|way| match way {
        explain::Unblocker::Wait { until, .. } => format!("way: {way} ({})", at(*until)),
        _ => format!("way: {way}"),
    }));
    lines.extend(start.map(|start| {
        let or = |moment: Option<Timestamp>| moment.map_or("?".into(), at);
        let (earliest, likely, latest) = (or(start.earliest), or(start.likely), or(start.latest));
        let (basis, ahead) = (start.basis.as_str(), start.ahead);
        format!("starts {earliest}, likely {likely}, by {latest} ({basis}, {ahead} ahead)")
    }));
    lines.extend(standing.map(|standing| standing.to_string()));
    lines.join("\n")
}

fn expect_told(world: &World, name: &str, expected: Expect) {
    expected.assert_eq(&told(world, name));
}

fn ends_after(secs: u64) -> impl FnOnce(&mut chiptide_model::JobSpec) {
    move |spec| (spec.max_duration, spec.grace) = (Some(Millis::from_secs(secs)), Millis(0))
}

#[test]
fn a_job_waits_for_the_leases_whose_ends_are_known() {
    let mut world = world()
        .node("n1", 4)
        .node("n2", 4)
        .lease(job("long").chips(4).with(ends_after(7200)))
        .lease(job("short").chips(2).with(ends_after(600)))
        .lease(job("half").chips(2).with(ends_after(1200)));
    world.submit(job("late").chips(4)).expect("accepted");
    expect_told(
        &world,
        "late",
        expect![[r#"
            insufficient_chips: 4 chips are needed, 0 are free
              held by 3 of 3: long 4 chips, short 2 chips, half 2 chips
              cheapest: wait
            reserved: chips are set aside for it; it starts when they are free
            way: wait: short and half will have left by then (+21m)
            way: the end of long would make room, losing 0 chip-seconds; long has no lower priority
            starts +21m, likely +21m, by +21m (reservation, 0 ahead)"#]],
    );
}

#[test]
fn those_ahead_are_served_first() {
    let mut world = world()
        .node("n1", 1)
        .node("n2", 1)
        .lease(job("soon").with(ends_after(60)))
        .lease(job("later").with(ends_after(3600)));
    world.submit(job("first")).expect("accepted");
    world.submit(job("second")).expect("accepted");
    expect_told(
        &world,
        "second",
        expect![[r#"
            insufficient_chips: 1 chip is needed, 0 are free
              held by 2 of 2: later 1 chip, soon 1 chip
              cheapest: wait
            way: wait: soon will have left by then, but 1 job is served first (+2m)
            way: the end of soon would make room, losing 0 chip-seconds; soon has no lower priority
            starts +2m, likely +1h1m, by ? (known_ends, 1 ahead)"#]],
    );
}

#[test]
fn what_cannot_be_preempted_is_named_with_why() {
    let fixed = |spec: &mut chiptide_model::JobSpec| spec.preemptible = false;
    let mut world = world()
        .node("n1", 2)
        .node("n2", 1)
        .lease(job("fixed").priority(LOW).with(fixed))
        .lease(job("equal").priority(HIGH))
        .lease(job("small").priority(LOW));
    world.after("1h");
    world.submit(job("chat").chips(2).priority(HIGH)).expect("accepted");
    expect_told(
        &world,
        "chat",
        expect![[r#"
        insufficient_chips: 2 chips are needed, 0 are free
          held by 3 of 3: equal 1 chip, fixed 1 chip, small 1 chip
          cheapest: end_leases
        way: the end of equal and small would make room, losing 2.0 chip-hours; equal has no lower priority
        starts ?, likely ?, by ? (none, 0 ahead)"#]],
    );
}

#[test]
fn a_smaller_gang_another_class_or_a_node_that_comes_back_would_help() {
    let mut world = world().node("n1", 2).node_of("n2", "ascend-910b", 4).node("n3", 1);
    world.round(vec![Command::Silent(node_id("n3"))]);
    world.submit(job("gang").replicas(3).classes(&["nvidia-h20"])).expect("accepted");
    expect_told(
        &world,
        "gang",
        expect![[r#"
            insufficient_chips: 3 chips are needed, 2 are free
              cheapest: other_class
            nodes_unknown: 1 chip is on nodes that do not report
              cheapest: hear_nodes
            way: accept device class ascend-910b: there is room on it now
            way: ask for at most 2 replicas
            way: bring back n3
            starts ?, likely ?, by ? (none, 0 ahead)"#]],
    );
}

#[test]
fn a_fleet_too_small_wants_chips_or_a_smaller_wish() {
    let mut world = world().node("n1", 4);
    world.submit(job("huge").chips(4).replicas(3)).expect("accepted");
    expect_told(
        &world,
        "huge",
        expect![[r#"
        never_fits: the whole fleet would hold 1 of 3 replicas if it were empty
          cheapest: fewer_replicas
        way: ask for at most 1 replica
        way: add at least 8 chips
        starts ?, likely ?, by ? (none, 0 ahead)"#]],
    );
}

#[test]
fn nearness_is_told_from_a_lack_of_chips() {
    let near = |spec: &mut chiptide_model::JobSpec| spec.same = Some(Same { level: SameLevel::Node, required: true });
    let mut world = world().node("n1", 2).node("n2", 2).lease(job("a")).lease(job("b").with(ends_after(60)));
    let mut world = {
        world.submit(job("c").with(ends_after(600))).expect("accepted");
        world.done("a");
        world.nodes_report();
        world
    };
    world.submit(job("pair").replicas(2).with(near)).expect("accepted");
    expect_told(
        &world,
        "pair",
        expect![[r#"
            insufficient_chips: 2 chips are needed, 1 is free
              held by 2 of 2: b 1 chip, c 1 chip
              cheapest: wait
            reserved: chips are set aside for it; it starts when they are free
            way: wait: b will have left by then (+2m)
            way: ask for at most 1 replica
            way: the end of c would make room, losing 0 chip-seconds; c has no lower priority
            starts +2m, likely +2m, by +2m (reservation, 0 ahead)"#]],
    );
}

#[test]
fn a_promise_tells_who_has_yet_to_leave() {
    let mut world = world().node("n1", 2).lease(job("train").chips(2).priority(LOW));
    world.submit(job("chat").priority(HIGH)).expect("accepted");
    expect_told(
        &world,
        "chat",
        expect![[r#"
        awaiting_vacancy: 1 chip is promised; 1 of them still being vacated
          held by 1 of 1: train 2 chips
        starts +0s, likely +30s, by +2m (claim, 0 ahead)"#]],
    );
    expect_told(&world, "train", expect!["it holds 2 chips on 1 node; they are being taken (preempt)"]);
}

#[test]
fn a_job_that_runs_learns_how_safe_it_is() {
    let fixed = |spec: &mut chiptide_model::JobSpec| spec.preemptible = false;
    let mut world = world().node("n1", 4).lease(job("train").chips(3)).lease(job("serve").with(fixed));
    world.after("2h");
    expect_told(
        &world,
        "train",
        expect![
            "it holds 3 chips on 1 node; a job of a priority above 500 may take them, which would lose 6.0 chip-hours now"
        ],
    );
    expect_told(&world, "serve", expect!["it holds 1 chip on 1 node; no job may take them by priority"]);
}

#[test]
fn shares_are_counted_in_parts_of_a_chip() {
    let mut world = world().node("n1", 1).lease(job("a").share(700));
    world.submit(job("b").share(500).priority(MID)).expect("accepted");
    expect_told(
        &world,
        "b",
        expect![[r#"
        insufficient_chips: 0.5 chips are needed, 0.3 chips are free
          held by 1 of 1: a 0.7 chips
          cheapest: end_leases
        way: the end of a would make room, losing 0 chip-seconds; a has no lower priority
        starts ?, likely ?, by ? (none, 0 ahead)"#]],
    );
}

#[test]
fn a_limit_is_told_with_what_would_lift_it_and_room_is_not_promised() {
    let mut world = world()
        .node("n1", 8)
        .queue("team", |q| q.limit = chips(4))
        .lease(job("a").queue("team").chips(3).with(ends_after(60)));
    world.submit(job("b").queue("team").chips(2)).expect("accepted");
    expect_told(
        &world,
        "b",
        expect![[r#"
            queue_limit: it asks for 2 chips, the limit of queue team leaves 1 chip
              held by 1 of 1: a 3 chips
              cheapest: wait
            way: wait: a will have left by then (+2m)
            way: raise the limit of queue team by 1 chip
            starts +2m, likely +2m, by ? (known_ends, 0 ahead)"#]],
    );
    world.submit(job("rest").chips(5)).expect("accepted");
    expect_told(
        &world,
        "b",
        expect![[r#"
            queue_limit: it asks for 2 chips, the limit of queue team leaves 1 chip
              held by 1 of 1: a 3 chips
              cheapest: wait
            insufficient_chips: 2 chips are needed, 0 are free
              held by 2 of 2: rest 5 chips, a 3 chips
              cheapest: wait
            way: wait: a will have left by then (+2m)
            way: raise the limit of queue team by 1 chip
            way: the end of a would make room, losing 0 chip-seconds; a has no lower priority
            starts +2m, likely +2m, by ? (known_ends, 0 ahead)"#]],
    );
}

#[test]
fn what_is_guaranteed_to_others_is_not_lent_to_a_job_that_would_keep_it() {
    let fixed = |spec: &mut chiptide_model::JobSpec| spec.preemptible = false;
    let mut world = world().node("n1", 4).queue("ads", |q| q.guaranteed = chips(3)).queue("lab", |_| {});
    world.submit(job("firm").queue("lab").chips(2).with(fixed)).expect("accepted");
    expect_told(
        &world,
        "firm",
        expect![[r#"
        borrow_limit: it asks for 2 chips, what other queues are guaranteed leaves 1 chip
          cheapest: be_preemptible
        way: let it be preempted: then it may borrow what others are guaranteed
        starts ?, likely ?, by ? (none, 0 ahead)"#]],
    );
}

#[test]
fn a_borrower_learns_that_it_may_be_asked_back() {
    let mut world = world()
        .node("n1", 4)
        .queue("ads", |q| q.guaranteed = chips(4))
        .queue("lab", |_| {})
        .lease(job("guest").queue("lab").chips(2))
        .lease(job("own").queue("ads").chips(2));
    expect_told(
        &world,
        "guest",
        expect![
            "it holds 2 chips on 1 node; a job of a priority above 500 may take them, which would lose 0 chip-seconds now; its queue borrows, so whoever is guaranteed the rest may take it back"
        ],
    );
    world.submit(job("more").queue("lab").priority(HIGH)).expect("accepted");
    expect_told(
        &world,
        "more",
        expect![[r#"
        awaiting_vacancy: 1 chip is promised; 1 of them still being vacated
          held by 1 of 1: guest 2 chips
        starts +0s, likely +30s, by +2m (claim, 0 ahead)"#]],
    );
}

#[test]
fn a_protected_lease_is_spared_and_knows_until_when() {
    let protected = |spec: &mut chiptide_model::JobSpec| spec.min_runtime = Some(Millis::from_secs(3600));
    let mut world = world().node("n1", 1).lease(job("train").priority(LOW).with(protected));
    world.submit(job("chat").priority(HIGH)).expect("accepted");
    expect_told(
        &world,
        "chat",
        expect![[r#"
        insufficient_chips: 1 chip is needed, 0 are free
          held by 1 of 1: train 1 chip
          cheapest: end_leases
        way: the end of train would make room, losing 0 chip-seconds; train is protected by its least running time or its own budget
        starts ?, likely ?, by ? (none, 0 ahead)"#]],
    );
    expect_told(
        &world,
        "train",
        expect![
            "it holds 1 chip on 1 node; a job of a priority above 100 may take them, which would lose 0 chip-seconds now; for a while its least running time or a budget protects it"
        ],
    );
}

#[test]
fn an_elastic_job_knows_that_its_extra_replicas_go_first() {
    let elastic = |spec: &mut chiptide_model::JobSpec| (spec.replicas_min, spec.replicas) = (Some(1), 3);
    let mut world = world().node("n1", 3).lease(job("train").with(elastic));
    world.after("1m");
    expect_told(
        &world,
        "train",
        expect![
            "it holds 3 chips on 1 node; 2 extra replicas of 3 go first and come back last; a job of a priority above 500 may take them, which would lose 3 chip-minutes now"
        ],
    );
}

#[test]
fn an_eviction_is_told_with_its_price_and_the_next_best_plan() {
    let lease = LeaseId(uuid::Uuid::nil());
    let cost = |hours: u64, gangs| Cost { lost_slot_ms: hours * 3_600_000 * 1000, gangs, age_ms: 0 };
    let runner_up = Some(RunnerUp { victims: vec![lease], cost: cost(5, 2) });
    let choice = Choice { cost: cost(3, 1), per_victim: vec![(lease, cost(3, 1))], runner_up };
    let chat = EvictedFor { name: "chat".into(), queue: "serving".into(), priority: 800 };
    let eviction = Eviction {
        lease,
        cause: "preempt",
        for_job: Some(&chat),
        extra: false,
        slots: 8000,
        lost_slot_ms: cost(3, 1).lost_slot_ms,
        notice: Millis::from_secs(30),
        choice: Some(&choice),
    };
    expect!["8 chips went to chat (queue serving, priority 800); 3.0 chip-hours were lost and 30s of notice given. The plan it was part of was the cheapest: 3.0 chip-hours of 1 gang; the next would have cost 5.0 chip-hours of 2 gangs"].assert_eq(&eviction.to_string());
}

#[test]
fn explanations_of_everything_in_a_busy_world_never_contradict_themselves() {
    let mut world = world().node("n1", 4).node("n2", 2).lease(job("x").chips(3)).lease(job("y").chips(2));
    for (i, kind) in [Kind::Training, Kind::Inference].into_iter().enumerate() {
        let ask = job(&format!("wait-{i}")).chips(4).with(|spec| spec.kind = kind);
        world.submit(ask).expect("accepted");
    }
    for live in world.draft.jobs() {
        let Explanation { blockers, ways, start, standing } = explain::job(&world.draft, live, world.now);
        let reasons: Vec<Reason> = blockers.iter().map(|blocker| blocker.reason.clone()).collect();
        assert_eq!(reasons, crate::explain(&world.draft, live), "the list and the explanation tell the same");
        assert_eq!(blockers.is_empty(), standing.is_some());
        assert_eq!(start.is_some(), standing.is_none());
        assert!(ways.iter().all(|way| blockers.iter().any(|b| b.unblock.is_some()) || way.code() == "end_leases"));
    }
}

#[test]
fn in_a_large_fleet_a_bounded_search_finds_what_stands_in_the_way() {
    let mut world = world();
    for n in 0..130 {
        world = world.node(&format!("n{n}"), 8);
    }
    let many = (0..1040u32).map(|n| {
        let id = chiptide_model::JobId(uuid::Uuid::from_u128(1_000_000 + u128::from(n)));
        world.names.insert(format!("one-{n}"), id);
        crate::NewJob { id, spec: std::sync::Arc::new(job(&format!("one-{n}")).spec()) }
    });
    let many = many.collect();
    world.round(vec![Command::Submit(many)]);
    world.after("1h");
    // Two newcomers on one node are the cheapest there is.
    for name in ["one-8", "one-9"] {
        world.done(name);
        world.nodes_report();
        world.submit(job(&format!("new-{name}"))).expect("accepted");
    }
    world.submit(job("pair").chips(2)).expect("accepted");
    let way = explanation(&world, "pair").ways.into_iter().find(|way| way.code() == "end_leases").expect("a way");
    expect![[
        r#"the end of new-one-8 and new-one-9 would make room, losing 0 chip-seconds; new-one-8 has no lower priority"#
    ]]
    .assert_eq(&way.to_string());
}
