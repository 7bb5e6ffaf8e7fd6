//! Queues: limits, guarantees, borrowing, order of service.

use super::world::{HIGH, LOW, chips, job, world};
use chiptide_model::{FairShare, Millis, QueuePolicy, Quota};
use expect_test::expect;

fn below(parent: &str) -> QueuePolicy {
    QueuePolicy { parent: Some(parent.into()), ..QueuePolicy::default() }
}

#[test]
fn a_queue_never_exceeds_its_limit_nor_that_above_it() {
    let mut world = world()
        .node("n1", 8)
        .queue("team", |q| q.limit = chips(4))
        .queue("a", |q| *q = QueuePolicy { limit: chips(3), ..below("team") })
        .queue("b", |q| *q = below("team"));
    for ask in [job("a1").queue("a").chips(2), job("a2").queue("a").chips(2), job("b1").queue("b").chips(2)] {
        world.submit(ask).expect("accepted");
    }
    world.submit(job("b2").queue("b")).expect("accepted");
    world.expect(expect![[r#"
        a1 submitted
        a1 gets n1-0 n1-1
        a2 submitted
        b1 submitted
        b1 gets n1-2 n1-3
        b2 submitted"#]]);
    world.done("a1");
    world.expect(expect![[r#"
        lease of a1 ends (done): Succeeded
        a2 gets n1-4 n1-5"#]]);
}

#[test]
fn a_limit_by_class_leaves_other_classes_open() {
    let mut world = world().node_of("h", "nvidia-h20", 4).node_of("a", "ascend-910b", 4).queue("q", |q| {
        q.limit = Quota { classes: [(super::world::class("nvidia-h20"), 2)].into(), ..Quota::default() };
    });
    world.submit(job("four").queue("q").chips(4)).expect("accepted");
    world.submit(job("two").queue("q").chips(2).classes(&["nvidia-h20"])).expect("accepted");
    world.submit(job("one").queue("q").classes(&["nvidia-h20"])).expect("accepted");
    world.expect(expect![[r#"
        four submitted
        four gets a-0 a-1 a-2 a-3
        two submitted
        two gets h-0 h-1
        one submitted"#]]);
}

#[test]
fn chips_count_at_their_speed_in_a_normalised_quota() {
    let mut world = world()
        .node_of("fast", "nvidia-h200", 4)
        .policy(|policy| {
            let fast = chiptide_model::DeviceClassPolicy { speed_permille: 2000, replicas: None };
            policy.device_classes.insert(super::world::class("nvidia-h200"), fast);
        })
        .queue("q", |q| q.limit = chips(4));
    world.submit(job("two").queue("q").chips(2)).expect("accepted");
    world.submit(job("one").queue("q")).expect("accepted");
    world.expect(expect![[r#"
        two submitted
        two gets fast-0 fast-1
        one submitted"#]]);
}

#[test]
fn what_is_guaranteed_to_others_is_lent_only_to_those_who_can_give_it_back() {
    let mut world = world().node("n1", 4).queue("ads", |q| q.guaranteed = chips(3)).queue("lab", |_| {});
    let firm = |name| job(name).queue("lab").with(|spec| spec.preemptible = false);
    world.submit(firm("firm-1")).expect("accepted");
    world.submit(firm("firm-2")).expect("accepted");
    world.submit(job("soft").queue("lab").chips(2)).expect("accepted");
    world.expect(expect![[r#"
        firm-1 submitted
        firm-1 gets n1-0
        firm-2 submitted
        soft submitted
        soft gets n1-1 n1-2"#]]);
}

#[test]
fn cohorts_do_not_lend_to_each_other() {
    let mut world = world()
        .node("n1", 4)
        .queue("ads", |q| (q.guaranteed, q.cohort) = (chips(3), Some("ads".into())))
        .queue("lab", |q| q.cohort = Some("lab".into()));
    world.submit(job("two").queue("lab").chips(2)).expect("accepted");
    world.submit(job("one").queue("lab")).expect("accepted");
    world.submit(job("serve").queue("ads").chips(3)).expect("accepted");
    world.expect(expect![[r#"
        two submitted
        one submitted
        one gets n1-0
        serve submitted
        serve gets n1-1 n1-2 n1-3"#]]);
}

#[test]
fn within_the_guarantee_comes_before_a_higher_priority_without() {
    let firm = job("holder").with(|spec| spec.preemptible = false);
    let mut world = world().node("n1", 1).lease(firm).queue("ads", |q| q.guaranteed = chips(1)).queue("lab", |_| {});
    world.submit(job("high").queue("lab")).expect("accepted");
    world.submit(job("owed").queue("ads").priority(LOW)).expect("accepted");
    world.story();
    world.done("holder");
    world.nodes_report();
    world.expect(expect![[r#"
        lease of holder ends (done): Succeeded
        owed is promised n1-0
        n1-0 is proven vacant of holder
        owed gets n1-0"#]]);
}

#[test]
fn the_queue_with_the_smaller_share_is_served_next() {
    let mut world = world().node("n1", 4).queue("a", |_| {}).queue("b", |q| q.weight = 3).lease(job("all").chips(4));
    for name in ["a1", "a2", "a3", "a4", "b1", "b2", "b3", "b4"] {
        world.submit(job(name).queue(&name[..1])).expect("accepted");
    }
    world.done("all");
    world.story();
    world.nodes_report();
    let served: Vec<String> = world.story().lines().filter(|line| line.contains("gets")).map(String::from).collect();
    expect![[r#"
        a1 gets n1-0
        b1 gets n1-1
        b2 gets n1-2
        b3 gets n1-3"#]]
    .assert_eq(&served.join("\n"));
}

#[test]
fn past_use_weighs_and_fades() {
    let half_life = FairShare { half_life: Some(Millis::from_secs(3600)) };
    let mut world = world()
        .node("n1", 1)
        .policy(|policy| policy.fair_share = half_life)
        .queue("a", |_| {})
        .queue("b", |_| {})
        .lease(job("a0").queue("a"));
    world.after("2h");
    for name in ["a1", "b1", "b2", "a2"] {
        world.submit(job(name).queue(&name[..1])).expect("accepted");
    }
    let mut served = Vec::new();
    for name in ["a0", "b1", "a1"] {
        world.done(name);
        world.story();
        world.nodes_report();
        served.extend(world.story().lines().filter(|line| line.contains("gets")).map(String::from));
        world.after("1h");
    }
    assert_eq!(served, ["b1 gets n1-0", "a1 gets n1-0", "b2 gets n1-0"]);
}

#[test]
fn priority_decides_between_queues_without_guarantees() {
    let mut world =
        world().node("n1", 1).queue("a", |_| {}).queue("b", |_| {}).lease(job("a0").queue("a").priority(LOW));
    world.submit(job("b1").queue("b").priority(HIGH)).expect("accepted");
    world.expect(expect![[r#"
        b1 submitted
        evict a0 for b1 by +30s
        b1 is promised n1-0"#]]);
}

#[test]
fn below_a_limit_a_higher_priority_takes_from_its_own_queue() {
    let mut world = world()
        .node("n1", 8)
        .queue("lab", |q| q.limit = chips(4))
        .queue("ads", |_| {})
        .lease(job("ads-1").queue("ads").priority(LOW))
        .lease(job("lab-1").queue("lab").chips(3).priority(LOW))
        .lease(job("lab-2").queue("lab").priority(LOW));
    world.submit(job("lab-3").queue("lab").priority(HIGH)).expect("accepted");
    world.submit(job("lab-4").queue("lab").priority(LOW)).expect("accepted");
    world.expect(expect![[r#"
        lab-3 submitted
        evict lab-2 for lab-3 by +30s
        lab-3 is promised n1-4
        lab-4 submitted"#]]);
}

#[test]
fn a_queue_gets_its_guarantee_back_from_whoever_borrowed_it() {
    let mut world = world()
        .node("n1", 4)
        .queue("ads", |q| q.guaranteed = chips(2))
        .queue("lab", |q| q.guaranteed = chips(1))
        .lease(job("lab-1").queue("lab").chips(2).priority(HIGH))
        .lease(job("lab-2").queue("lab").priority(HIGH))
        .lease(job("lab-3").queue("lab").priority(HIGH));
    world.submit(job("ads-1").queue("ads").chips(2).priority(LOW)).expect("accepted");
    world.expect(expect![[r#"
        ads-1 submitted
        reclaim from lab-1 for ads-1 by +30s
        ads-1 is promised n1-0 n1-1"#]]);
    world.submit(job("ads-2").queue("ads").priority(LOW)).expect("accepted");
    world.expect(expect!["ads-2 submitted"]);
}

#[test]
fn priority_takes_nothing_of_what_another_queue_is_guaranteed() {
    let mut world = world()
        .node("n1", 2)
        .queue("ads", |_| {})
        .queue("lab", |q| q.guaranteed = chips(1))
        .lease(job("lab-1").queue("lab").priority(LOW))
        .lease(job("lab-2").queue("lab").priority(LOW));
    world.submit(job("ads-1").queue("ads").priority(HIGH)).expect("accepted");
    world.submit(job("ads-2").queue("ads").priority(HIGH)).expect("accepted");
    world.expect(expect![[r#"
        ads-1 submitted
        evict lab-1 for ads-1 by +30s
        ads-1 is promised n1-0
        ads-2 submitted"#]]);
}

#[test]
fn a_queue_is_preempted_no_more_often_than_its_budget_says() {
    let budget = chiptide_model::PreemptionBudget { per_day: Some(1), cool_down: None };
    let mut world = world()
        .node("n1", 2)
        .queue("ads", |_| {})
        .queue("lab", |q| q.preemption_budget = Some(budget))
        .lease(job("lab-1").queue("lab").priority(LOW))
        .lease(job("lab-2").queue("lab").priority(LOW));
    world.submit(job("ads-1").queue("ads").priority(HIGH)).expect("accepted");
    world.submit(job("ads-2").queue("ads").priority(HIGH)).expect("accepted");
    world.expect(expect![[r#"
        ads-1 submitted
        evict lab-1 for ads-1 by +30s
        ads-1 is promised n1-0
        ads-2 submitted"#]]);
    world.after("30s");
    world.nodes_report();
    world.story();
    assert_eq!(world.draft.next_due(), Some(world.now + Millis::from_secs(24 * 3600 - 30)));
    world.after("23h59m30s");
    world.expect(expect![[r#"
        evict lab-2 for ads-2 by +30s
        ads-2 is promised n1-1"#]]);
}
