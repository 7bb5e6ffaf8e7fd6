//! Reservations: who gets one, who may pass it, how it ends; and the calendar.

use super::world::{HIGH, LOW, World, chips, job, node_id, world};
use crate::{Cluster, Command, check, explain, reservations};
use chiptide_model::{CalendarReservation, ChipId, Health, Holder, Timestamp};
use expect_test::expect;

/// Two nodes of two chips; `a` leaves one of them after a minute, `b` the other after two. Each has 30 s of grace, and
/// a minute for the proof that its chips are vacant.
fn busy() -> World {
    world().node("n1", 2).node("n2", 2).lease(job("a").chips(2).lasts("1m")).lease(job("b").chips(2).lasts("2m"))
}

#[test]
fn a_gang_that_cannot_start_gets_the_earliest_chips_that_known_ends_allow() {
    let mut world = busy();
    world.submit(job("pair").chips(2)).expect("accepted");
    world.submit(job("gang").chips(2).replicas(2)).expect("accepted");
    world.expect(expect![[r#"
        pair submitted
        pair has n1-0 n1-1 reserved from +2m30s
        gang submitted"#]]);
}

#[test]
fn who_has_no_end_frees_nothing() {
    let mut world = world().node("n1", 2).lease(job("endless"));
    world.submit(job("pair").chips(2)).expect("accepted");
    world.expect(expect!["pair submitted"]);
}

#[test]
fn a_job_passes_only_if_it_has_left_before() {
    let mut world = world().node("n1", 4).lease(job("a").chips(2).lasts("10m"));
    world.submit(job("quad").chips(4)).expect("accepted");
    world.submit(job("endless")).expect("accepted");
    world.submit(job("long").lasts("12m")).expect("accepted");
    world.submit(job("short").lasts("9m")).expect("accepted");
    world.expect(expect![[r#"
        quad submitted
        quad has n1-0 n1-1 n1-2 n1-3 reserved from +11m30s
        endless submitted
        long submitted
        short submitted
        short gets n1-2"#]]);
}

#[test]
fn a_job_passes_on_other_chips() {
    let mut world = busy().node("n3", 1);
    world.submit(job("pair").chips(2)).expect("accepted");
    world.submit(job("endless")).expect("accepted");
    world.expect(expect![[r#"
        pair submitted
        pair has n1-0 n1-1 reserved from +2m30s
        endless submitted
        endless gets n3-0"#]]);
}

#[test]
fn a_reserved_job_starts_as_soon_as_its_chips_are_free() {
    let mut world = world().node("n1", 2).lease(job("a").chips(1).lasts("10m"));
    world.submit(job("pair").chips(2)).expect("accepted");
    world.submit(job("single")).expect("accepted");
    world.done("a");
    world.nodes_report();
    world.expect(expect![[r#"
        pair submitted
        pair has n1-0 n1-1 reserved from +11m30s
        single submitted
        lease of a ends (done): Succeeded
        n1-0 is proven vacant of a
        pair gets n1-0 n1-1
        pair has its reservation no more: Started"#]]);
}

#[test]
fn an_earlier_start_is_taken_and_a_later_one_never() {
    let mut world = busy();
    world.submit(job("gang").chips(2).replicas(2)).expect("accepted");
    world.submit(job("rival").chips(2).replicas(2)).expect("accepted");
    world.after("40s");
    world.done("b");
    world.nodes_report();
    world.expect(expect![[r#"
        gang submitted
        gang has n1-0 n1-1 n2-0 n2-1 reserved from +3m30s
        rival submitted
        lease of b ends (done): Succeeded
        n1 confirms a
        a runs
        n2-0 is proven vacant of b
        n2-1 is proven vacant of b
        gang has n1-0 n1-1 n2-0 n2-1 reserved from +1m50s"#]]);
}

#[test]
fn a_higher_priority_takes_reserved_chips_and_evicts_nobody() {
    let mut world = world().node("n1", 2).lease(job("a").lasts("10m"));
    world.submit(job("pair").chips(2)).expect("accepted");
    world.submit(job("equal")).expect("accepted");
    world.submit(job("urgent").priority(HIGH)).expect("accepted");
    world.expect(expect![[r#"
        pair submitted
        pair has n1-0 n1-1 reserved from +11m30s
        equal submitted
        urgent submitted
        pair gives its reservation up to urgent
        urgent gets n1-1"#]]);
}

#[test]
fn those_who_ask_for_the_same_hold_reservations_beside_each_other() {
    let mut world = world().node("n1", 2).node("n2", 2);
    for name in ["first", "second"] {
        world.submit(job(&format!("{name}-holder")).chips(2).lasts("10m")).expect("accepted");
    }
    let pairs = ["a", "b"].map(|name| job(name).chips(2));
    world.story();
    world.submit_all(pairs.to_vec());
    world.expect(expect![[r#"
        a submitted
        b submitted
        a has n1-0 n1-1 reserved from +11m30s
        b has n2-0 n2-1 reserved from +11m30s"#]]);
}

#[test]
fn no_more_than_so_many_hold_reservations_and_a_higher_priority_displaces_the_last() {
    let firm = |spec: &mut chiptide_model::JobSpec| spec.preemptible = false;
    let a = job("a").chips(2).lasts("1m").with(firm);
    let mut world = world().node("n1", 2).policy(|policy| policy.backfill.reservations_max = 1).lease(a);
    world.submit(job("first").chips(2)).expect("accepted");
    world.submit(job("second").chips(2)).expect("accepted");
    world.submit(job("urgent").chips(2).priority(HIGH)).expect("accepted");
    world.expect(expect![[r#"
        first submitted
        first has n1-0 n1-1 reserved from +2m30s
        second submitted
        urgent submitted
        first gives its reservation up to urgent
        urgent has n1-0 n1-1 reserved from +2m30s"#]]);
}

#[test]
fn a_lost_chip_ends_the_reservation_and_another_is_looked_for() {
    let mut world = busy();
    world.submit(job("pair").chips(2)).expect("accepted");
    world.story();
    let mut report = world.full_report(&node_id("n1"));
    report.health = vec![(ChipId::new("n1-0").expect("a name"), Health::Unhealthy { detail: "lost".into() })];
    report.confirmed.clear();
    world.round(vec![Command::Report(report)]);
    world.expect(expect![[r#"
        n1-0 is Unhealthy { detail: "lost" }
        pair has its reservation no more: ChipLost
        pair has n2-0 n2-1 reserved from +3m30s"#]]);
}

#[test]
fn an_end_that_is_not_proven_costs_the_chip_and_the_bound_is_stated_anew() {
    let mut world = busy();
    world.submit(job("pair").chips(2)).expect("accepted");
    world.after("1m");
    world.after("30s");
    world.after("1m");
    world.expect(expect![[r#"
        pair submitted
        pair has n1-0 n1-1 reserved from +2m30s
        revoke a (max_duration) by +30s
        lease of a ends (max_duration): Failed { reason: "max_duration" }
        revoke b (max_duration) by +30s
        n1-0 is quarantined
        n1-1 is quarantined
        pair has its reservation no more: ChipLost
        pair has n2-0 n2-1 reserved from +1m30s"#]]);
}

#[test]
fn a_node_that_is_silent_when_the_time_comes_is_an_overrun() {
    let mut world = world().node("n1", 1).node("n2", 1).lease(job("a").lasts("1m")).lease(job("b").lasts("2m"));
    world.submit(job("pair").replicas(2)).expect("accepted");
    world.done("a");
    world.nodes_report();
    world.round(vec![Command::Silent(node_id("n1"))]);
    world.story();
    world.after("2m");
    world.after("30s");
    let report = world.full_report(&node_id("n2"));
    world.round(vec![Command::Report(report)]);
    world.after("1m");
    world.expect(expect![[r#"
        revoke b (max_duration) by +30s
        lease of b ends (max_duration): Failed { reason: "max_duration" }
        n2-0 is proven vacant of b
        pair has its reservation no more: Overrun"#]]);
}

#[test]
fn a_queue_within_its_guarantee_takes_what_is_reserved_for_a_borrower() {
    let mut world = world()
        .node("n1", 2)
        .queue("owner", |queue| queue.guaranteed = chips(1))
        .queue("guest", |_| {})
        .lease(job("a").queue("guest").lasts("10m"));
    world.submit(job("pair").queue("guest").chips(2)).expect("accepted");
    world.submit(job("owned").queue("owner").priority(LOW)).expect("accepted");
    world.expect(expect![[r#"
        pair submitted
        pair has n1-0 n1-1 reserved from +11m30s
        owned submitted
        pair gives its reservation up to owned
        owned gets n1-1"#]]);
}

#[test]
fn a_queue_at_its_limit_gets_no_reservation() {
    let mut world = world()
        .node("n1", 2)
        .queue("small", |queue| queue.limit = chips(2))
        .lease(job("a").queue("small").chips(1).lasts("10m"))
        .lease(job("b").lasts("20m"));
    world.submit(job("pair").queue("small").chips(2)).expect("accepted");
    world.expect(expect!["pair submitted"]);
}

#[test]
fn cancelling_a_job_frees_what_was_reserved_for_it() {
    let mut world = world().node("n1", 2).lease(job("a").lasts("10m"));
    world.submit(job("pair").chips(2)).expect("accepted");
    world.submit(job("single")).expect("accepted");
    world.story();
    world.round(vec![Command::Cancel(world.job_id("pair"))]).remove(0).expect("live");
    world.expect(expect![[r#"
        pair has its reservation no more: Cancelled
        pair ended: Cancelled
        single gets n1-1"#]]);
}

#[test]
fn cpu_beside_reserved_chips_is_not_kept_before_it_is_needed() {
    let half = |spec: &mut chiptide_model::JobSpec| spec.cpu_milli = 32_000;
    let mut world = world().node("n1", 4).lease(job("a").chips(2).lasts("10m").with(half)).lease(job("endless"));
    world.submit(job("pair").chips(2).with(half)).expect("accepted");
    world.submit(job("beside").with(|spec| spec.cpu_milli = 30_000)).expect("accepted");
    world.expect(expect![[r#"
        pair submitted
        pair has n1-0 n1-1 reserved from +11m30s
        beside submitted
        beside gets n1-3"#]]);
}

fn window(chips: u32, queue: &str) -> CalendarReservation {
    CalendarReservation {
        name: "demo".into(),
        from: Timestamp(600_000),
        to: Timestamp(1_200_000),
        queue: queue.into(),
        device_class: None,
        chips,
        per_node: None,
    }
}

#[test]
fn a_window_of_the_calendar_is_kept_for_its_queue_and_evicts_nobody_when_it_closes() {
    let mut world = world().node("n1", 2).policy(|policy| policy.calendar = vec![window(2, "inference")]);
    let serving = |name: &str| job(name).with(|spec| spec.queue = "inference".into());
    world.submit(job("endless")).expect("accepted");
    world.submit(job("short").lasts("7m")).expect("accepted");
    world.submit(serving("chat")).expect("accepted");
    world.after("7m");
    world.after("30s");
    world.nodes_report();
    world.after("150s");
    world.after("10m");
    world.expect(expect![[r#"
        endless submitted
        short submitted
        short gets n1-0
        chat submitted
        revoke short (max_duration) by +30s
        lease of short ends (max_duration): Failed { reason: "max_duration" }
        n1-0 is proven vacant of short
        the window of demo opens
        chat gets n1-0
        demo has its reservation no more: Over
        endless gets n1-1"#]]);
}

#[test]
fn chips_without_a_known_end_leave_a_calendar_reservation_short() {
    let mut world =
        world().node("n1", 2).lease(job("endless")).policy(|policy| policy.calendar = vec![window(2, "inference")]);
    let entry = world.draft.policy.calendar[0].clone();
    assert_eq!(reservations::calendar_shortfall(&world.draft, &entry), 1);
    world.done("endless");
    world.nodes_report();
    assert_eq!(reservations::calendar_shortfall(&world.draft, &entry), 0);
    world.expect(expect![[r#"
        lease of endless ends (done): Succeeded
        n1-0 is proven vacant of endless
        demo has n1-1 n1-0 reserved from +10m"#]]);
}

#[test]
fn the_chips_of_a_window_come_in_groups_on_one_node() {
    let mut world = world().node("n1", 3).node("n2", 4).lease(job("endless"));
    let grouped = CalendarReservation { per_node: Some(2), ..window(4, "inference") };
    world = world.policy(|policy| policy.calendar = vec![grouped]);
    let reservation = world.draft.reservation(&Holder::Calendar("demo".into())).expect("made");
    let chips = reservation.placements.iter().map(|placement| (placement.node.as_str(), placement.holds.len()));
    assert_eq!(chips.collect::<Vec<_>>(), [("n2", 4)]);
}

#[test]
fn another_policy_withdraws_what_it_no_longer_asks_for() {
    let mut world = busy().policy(|policy| policy.calendar = vec![window(2, "inference")]);
    world.submit(job("pair").chips(2)).expect("accepted");
    world.story();
    let mut policy = world.draft.policy.clone();
    policy.calendar.clear();
    policy.backfill.reservations_max = 0;
    world.round(vec![Command::ApplyPolicy(policy)]);
    world.expect(expect![[r#"
        policy
        pair has its reservation no more: Withdrawn
        demo has its reservation no more: Withdrawn"#]]);
}

#[test]
fn who_waits_is_told_of_reservations() {
    let mut world = world().node("n1", 2).lease(job("a").lasts("10m"));
    world.submit(job("pair").chips(2)).expect("accepted");
    world.submit(job("single").priority(LOW)).expect("accepted");
    let told = |name: &str| format!("{:?}", explain(&world.draft, world.draft.job(world.job_id(name)).expect("live")));
    expect!["[InsufficientChips(Shortage { requested: 2, available: 0 }), Reserved { starts_at: Timestamp(690000) }]"]
        .assert_eq(&told("pair"));
    expect!["[InsufficientChips(Shortage { requested: 1, available: 0 }), KeptForOthers { chips: 1 }]"]
        .assert_eq(&told("single"));
}

/// Breaks a sound cluster and says which invariants the recount finds broken.
fn broken(damage: impl FnOnce(&mut Cluster, Holder)) -> Vec<&'static str> {
    let mut world = busy();
    world.submit(job("pair").chips(2)).expect("accepted");
    let mut cluster = world.draft.clone();
    damage(&mut cluster, Holder::Job(world.job_id("pair")));
    let mut found: Vec<&str> = check(&cluster).into_iter().map(|violation| violation.invariant).collect();
    found.dedup();
    found
}

#[test]
fn the_recount_sees_every_broken_reservation() {
    let copy = |cluster: &mut Cluster, to: usize| {
        let first = cluster.fleet.chips[0].reserved[0].clone();
        cluster.fleet.chips[to].reserved.push(first);
    };
    assert_eq!(broken(|_, _| {}), Vec::<&str>::new());
    let twice = broken(|cluster, _| copy(cluster, 0));
    let unknown = broken(|cluster, _| copy(cluster, 2));
    let lost = broken(|cluster, _| cluster.fleet.chips[0].reserved.clear());
    let orphan = broken(|cluster, holder| drop(cluster.reservations.by_holder.remove(&holder)));
    let idle = broken(|cluster, _| cluster.fleet.nodes[0].cpu_reserved += 1);
    let leaving = broken(|cluster, _| {
        let lease = *cluster.leases.keys().next().expect("a lease");
        cluster.reservations.leaving.set(lease, None);
    });
    assert!(twice.contains(&"I1"), "{twice:?}");
    for broken in [unknown, lost, orphan, idle, leaving] {
        assert!(broken.contains(&"books"), "{broken:?}");
    }
}
