//! The protocol with all its rules, explored whole in one world after another: every property holds in every state, and
//! from every state the end can be reached without another fault.

use chiptide_protocol::explore::{End, explore};
use chiptide_protocol::properties::is_over;
use chiptide_protocol::world::{Bounds, Protocol};
use stateright::{Checker, Model};

const CALM: Bounds = Bounds::CALM;

/// Explores a world; answers its states and how far the end is at most.
fn holds(bounds: Bounds) -> (usize, usize) {
    let end = End::<Protocol> { is_end: &is_over, counts: &|action| !action.is_fault() };
    let explored = explore(&Protocol::whole(bounds), 3_000_000, Some(&end)).expect("within the bound on states");
    assert_eq!(explored.violation, None);
    assert_eq!(explored.stuck, None);
    println!("{} states, {} steps, the end at most {} away", explored.states, explored.steps, explored.furthest);
    (explored.states, explored.furthest)
}

#[test]
fn takeovers_at_any_step_with_the_deposed_leader_alive() {
    assert_eq!(holds(Bounds { leaders: true, ..CALM }), (785_024, 23));
}

#[test]
fn every_fault_of_nodes_at_any_step() {
    let faults = Bounds { crashes: true, wipes: true, reboots: true, late_registrations: true, ends: true, ..CALM };
    assert_eq!(holds(faults), (557_026, 24));
}

#[test]
fn two_gangs_that_want_the_same_chips() {
    assert_eq!(holds(Bounds { two_gangs: true, crashes: true, ends: true, ..CALM }), (21_508, 28));
}

#[test]
fn answers_that_arrive_late() {
    assert_eq!(holds(Bounds { delays: true, crashes: true, ..CALM }), (45_117, 32));
}

#[test]
fn a_failover_that_loses_the_last_commit() {
    assert_eq!(holds(Bounds { failover: true, ..CALM }), (48_040, 26));
}

#[test]
fn stateright_s_own_checker_counts_the_same_states() {
    let model = Protocol::whole(Bounds { crashes: true, ..CALM });
    let checker = model.checker().spawn_bfs().join();
    checker.assert_properties();
    assert_eq!(checker.unique_state_count(), holds(model.bounds).0);
}
