//! Nodes out of service at an operator's word.

use super::world::*;
use crate::{Ack, Command, Refusal};
use chiptide_model::{JobState, Millis, Timestamp};

fn by() -> (String, String) {
    ("ops".into(), "new fans".into())
}

fn cordon(node: &str) -> Command {
    let (who, reason) = by();
    Command::Cordon { node: node_id(node), who, reason }
}

fn drain(node: &str, by_ms: Option<i64>) -> Command {
    let (who, reason) = by();
    Command::Drain { node: node_id(node), who, reason, by: by_ms.map(Timestamp) }
}

fn uncordon(node: &str) -> Command {
    let (who, reason) = by();
    Command::Uncordon { node: node_id(node), who, reason }
}

fn state(world: &World, name: &str) -> JobState {
    world.draft.job(world.names[name]).expect("a live job").state.clone()
}

#[test]
fn nothing_more_is_granted_on_a_cordoned_node_and_who_is_there_stays() {
    let mut world = world().node("n1", 2);
    world.submit(job("first")).expect("accepted");
    assert_eq!(world.round(vec![cordon("n1")]), [Ok(Ack::Node(node_id("n1")))]);
    world.submit(job("second")).expect("accepted");
    assert!(matches!(state(&world, "first"), JobState::Leased { .. } | JobState::Running { .. }));
    assert_eq!(state(&world, "second"), JobState::Pending);
    world.round(vec![uncordon("n1")]);
    assert_ne!(state(&world, "second"), JobState::Pending);
    assert_eq!(world.round(vec![uncordon("n1")]), [Err(Refusal::NotCordoned(node_id("n1")))]);
}

#[test]
fn nobody_is_evicted_for_chips_of_a_cordoned_node() {
    let mut world = world().node("n1", 1);
    world.submit(job("low").priority(LOW)).expect("accepted");
    world.round(vec![cordon("n1")]);
    world.submit(job("high").priority(HIGH)).expect("accepted");
    assert!(matches!(state(&world, "low"), JobState::Leased { .. } | JobState::Running { .. }));
    assert!(world.draft.claims().next().is_none());
}

#[test]
fn a_drain_gives_notice_by_the_later_of_grace_and_deadline_and_jobs_wait_again() {
    let mut world = world().node("n1", 2);
    world.submit(job("short")).expect("accepted");
    world.round(vec![drain("n1", None)]);
    let deadline = |world: &World, name: &str| match state(world, name) {
        JobState::Preempting { deadline, .. } => deadline,
        other => panic!("{other:?}"),
    };
    assert_eq!(deadline(&world, "short"), world.now + Millis::from_secs(30));
    let mut other = world_with_one();
    let far = other.now.0 + 3_600_000;
    other.round(vec![drain("n1", Some(far))]);
    assert_eq!(deadline(&other, "long"), Timestamp(far));
    let node = other.draft.node(&node_id("n1")).expect("a node");
    assert_eq!(node.cordon.as_ref().and_then(|cordon| cordon.drain_by), Some(Timestamp(far)));
}

fn world_with_one() -> World {
    let mut world = world().node("n1", 2);
    world.submit(job("long")).expect("accepted");
    world
}

#[test]
fn a_promise_on_a_node_that_is_cordoned_is_given_up() {
    let mut world = world().node("n1", 1);
    world.submit(job("low").priority(LOW)).expect("accepted");
    world.submit(job("high").priority(HIGH)).expect("accepted");
    assert_eq!(world.draft.claims().count(), 1);
    world.round(vec![cordon("n1")]);
    assert_eq!(world.draft.claims().count(), 0);
}
