//! Tests of what a node has been told, and of what it proves.

use super::*;
use crate::ChipNow;
use crate::idle::Baselines;
use crate::scripted::{chip, lease, reading_at, vacate};
use crate::vacancy::NotProven;
use chiptide_api::node::VacantBody;
use std::time::Duration;

fn id(lease: u128) -> Uuid {
    Uuid::from_u128(lease)
}

fn told(leases: Vec<LeaseOrder>, vacate: Vec<VacateOrder>) -> OrdersView {
    OrdersView { leases, vacate, ..OrdersView::default() }
}

/// A standing that has received each of `rounds` while chip `c0` was healthy, and what it confirms then.
fn confirms(rounds: impl IntoIterator<Item = OrdersView>) -> (Standing, Vec<Uuid>) {
    let mut standing = Standing::default();
    for orders in rounds {
        standing.receive(orders, Instant::now());
        standing.carry(&reading_at(Instant::now(), [chip("c0")]));
    }
    let confirmed = standing.confirmed();
    (standing, confirmed)
}

#[test]
fn a_lease_that_was_to_be_vacated_is_never_carried_again() {
    let live = told(vec![lease(1, "c0", 6)], vec![]);
    let (standing, confirmed) = confirms([live.clone(), told(vec![], vec![vacate(1, "c0", 6)]), live]);
    assert!(confirmed.is_empty() && standing.refused().len() == 1, "said by a daemon that was deposed meanwhile");
}

#[test]
fn an_epoch_older_than_one_seen_is_refused_and_said_once() {
    let (mut standing, confirmed) = confirms([told(vec![lease(1, "c0", 6)], vec![]), told(vec![], vec![])]);
    assert!(confirmed.is_empty());
    let late = told(vec![lease(2, "c0", 5)], vec![]);
    assert_eq!(standing.receive(late.clone(), Instant::now()).len(), 1);
    assert!(standing.receive(late, Instant::now()).is_empty());
    standing.carry(&reading_at(Instant::now(), [chip("c0")]));
    assert!(standing.confirmed().is_empty());
}

#[test]
fn a_proof_waits_for_the_workload_and_then_for_a_reading_from_after_it() {
    let (start, mut standing) = (Instant::now(), Standing::default());
    let at = |ms| start + Duration::from_millis(ms);
    standing.receive(told(vec![], vec![vacate(1, "c0", 6)]), at(0));
    standing.hold_back(|order| order.lease == id(1), at(0));
    assert!(standing.vacant(&reading_at(at(10), [chip("c0")])).is_empty(), "its process may be on no list yet");
    standing.hold_back(|_| false, at(20));
    assert!(standing.vacant(&reading_at(at(10), [chip("c0")])).is_empty(), "from before it was gone");
    assert_eq!(standing.vacant(&reading_at(at(30), [chip("c0")])).len(), 1);
}

#[test]
fn work_starts_only_on_chips_that_a_later_reading_shows_clear() {
    let (start, mut standing) = (Instant::now(), Standing::default());
    let at = |ms| start + Duration::from_millis(ms);
    let order = lease(1, "c0", 6);
    standing.receive(told(vec![order.clone()], vec![]), at(10));
    standing.carry(&reading_at(at(5), [chip("c0")]));
    assert!(
        !standing.may_start(&order, &["c0".to_owned()], &reading_at(at(5), [chip("c0")])),
        "read before the order came"
    );
    assert!(
        !standing.may_start(&order, &["c0".to_owned()], &reading_at(at(20), [chip("c0").running(9, None)])),
        "somebody is on it"
    );
    assert!(!standing.may_start(&order, &["c0".to_owned()], &reading_at(at(20), [chip("c0").unreadable()])));
    assert!(standing.may_start(&order, &["c0".to_owned()], &reading_at(at(20), [chip("c0")])));
}

/// A standing that must prove chip `c0` vacant with three readings, and one that is taken at this millisecond.
fn weighing() -> (Standing, impl Fn(u64, ChipNow) -> NodeReading) {
    let (start, mut standing) = (Instant::now(), Standing::default());
    standing.weigh_by(Rules { readings: 3, baselines: Baselines::default() });
    standing.receive(told(vec![], vec![vacate(1, "c0", 6)]), start);
    let reading = move |ms, mut chip: ChipNow| {
        chip.reading.memory_used_mib.get_or_insert(1);
        reading_at(start + Duration::from_millis(ms), [chip])
    };
    (standing, reading)
}

#[test]
fn several_readings_in_a_row_make_a_proof_and_a_contrary_one_starts_anew() {
    let (mut standing, at) = weighing();
    let mut proves = |reading: NodeReading| {
        standing.weigh(&reading, |_, _| Ok(()));
        standing.weigh(&reading, |_, _| Ok(()));
        standing.vacant(&reading).len() == 1
    };
    let mut full = chip("c0");
    full.reading.memory_used_mib = Some(9000);
    assert!(!proves(at(1, chip("c0"))) && !proves(at(2, chip("c0"))), "the same reading counts once");
    assert!(!proves(at(3, full)), "its memory is not as when idle");
    assert!(!proves(at(4, chip("c0"))) && !proves(at(5, chip("c0"))));
    assert!(proves(at(6, chip("c0"))));
    assert!(!proves(at(7, chip("c0").running(9, None))));
}

#[test]
fn whoever_has_the_device_node_open_keeps_the_chip_from_being_proven() {
    let (mut standing, at) = weighing();
    for ms in 1..5 {
        standing.weigh(&at(ms, chip("c0")), |_, _| Err(NotProven::Held(9)));
    }
    let reading = at(4, chip("c0"));
    assert!(standing.vacant(&reading).is_empty());
    assert_eq!(standing.not_vacant(&reading).map(|(_, why)| why).collect::<Vec<_>>(), [NotProven::Held(9)]);
    let reading = at(1000, chip("c0"));
    standing.weigh(&reading, |_, _| Ok(()));
    assert_eq!(standing.vacant(&reading).len(), 1, "the readings had agreed all along");
}

#[test]
fn what_was_refused_is_answered_while_it_is_ordered() {
    let (mut standing, _) = confirms([told(vec![lease(1, "c0", 6)], vec![]), told(vec![lease(2, "c0", 5)], vec![])]);
    assert_eq!(
        standing.refused(),
        [RefusedBody { lease: id(2), chip: "c0".into(), epoch: 5, seen: 6, seen_lease: Some(id(1)) }]
    );
    standing.receive(told(vec![], vec![]), Instant::now());
    assert!(standing.refused().is_empty());
}

#[test]
fn an_epoch_given_twice_is_refused_to_the_second_lease() {
    let (standing, confirmed) =
        confirms([told(vec![lease(1, "c0", 6)], vec![]), told(vec![lease(2, "c0", 6)], vec![])]);
    assert!(confirmed.is_empty() && standing.refused().len() == 1);
}

#[test]
fn an_agent_that_starts_again_knows_old_from_live() {
    let shared = told(vec![lease(1, "c0", 5), lease(2, "c0", 6)], vec![]);
    let (before, _) = confirms([shared.clone()]);
    let mut again = Standing::after(before.epochs().clone());
    again.receive(shared, Instant::now());
    again.carry(&reading_at(Instant::now(), [chip("c0")]));
    assert_eq!(again.confirmed(), [id(1), id(2)], "the older of two sharers is as live as the newer");
    let mut later = Standing::after(before.epochs().clone());
    assert_eq!(later.receive(told(vec![lease(3, "c0", 5)], vec![]), Instant::now()).len(), 1);
}

#[test]
fn an_order_to_vacate_also_shows_an_epoch() {
    let (_, confirmed) =
        confirms([told(vec![], vec![vacate(1, "c0", 9)]), told(vec![lease(2, "c0", 8)], vec![vacate(1, "c0", 9)])]);
    assert!(confirmed.is_empty());
}

#[test]
fn leases_that_share_a_chip_are_all_live_whatever_their_epochs() {
    let (_, confirmed) = confirms([told(vec![lease(1, "c0", 5), lease(2, "c0", 6)], vec![])]);
    assert_eq!(confirmed, [id(1), id(2)]);
    let (_, confirmed) =
        confirms([told(vec![lease(1, "c0", 5)], vec![]), told(vec![lease(1, "c0", 5), lease(2, "c0", 6)], vec![])]);
    assert_eq!(confirmed, [id(1), id(2)]);
}

#[test]
fn a_lease_waits_until_all_its_chips_are_healthy_and_is_then_carried_on() {
    let mut standing = Standing::default();
    let mut gang = lease(1, "c0", 5);
    gang.chips.push(ChipOrder { chip: "c1".into(), slots: 1000, epoch: 8 });
    standing.receive(told(vec![gang], vec![]), Instant::now());
    for sick in [chip("c1").unreadable(), chip("c1").lost(), chip("c9")] {
        assert!(standing.carry(&reading_at(Instant::now(), [chip("c0"), sick])).is_empty());
    }
    assert_eq!(standing.carry(&reading_at(Instant::now(), [chip("c0"), chip("c1")])), [id(1)]);
    assert!(standing.carry(&reading_at(Instant::now(), [chip("c0").unreadable()])).is_empty());
    assert_eq!(standing.confirmed(), [id(1)]);
}

#[test]
fn a_proof_counts_from_the_first_time_the_order_came_and_names_the_highest_epoch() {
    let (start, mut standing) = (Instant::now(), Standing::default());
    let at = |ms| start + Duration::from_millis(ms);
    standing.receive(told(vec![], vec![vacate(1, "c0", 6)]), at(10));
    assert!(standing.vacant(&reading_at(at(10), [chip("c0")])).is_empty());
    standing.receive(told(vec![lease(2, "c0", 7)], vec![vacate(1, "c0", 6)]), at(30));
    let proofs = standing.vacant(&reading_at(at(20), [chip("c0")]));
    assert_eq!(proofs, [VacantBody { chip: "c0".into(), lease: id(1), epoch: 7 }]);
    standing.receive(told(vec![], vec![]), at(40));
    assert!(standing.vacant(&reading_at(at(50), [chip("c0")])).is_empty(), "repeated only while it is ordered");
}
