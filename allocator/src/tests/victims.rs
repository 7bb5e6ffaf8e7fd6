//! The victims chosen, against every other choice there is.

use super::world::{HIGH, LOW, World, job, world};
use crate::preempt;
use crate::queue::Shape;
use chiptide_model::{ChipDemand, Lease, SLOTS_PER_CHIP};
use proptest::prelude::*;

/// The least work that any set of evictions loses and still frees `chips` on one node; `None` if no set does.
fn least_lost_work(world: &World, chips: usize) -> Option<u64> {
    let leases: Vec<&Lease> = world.draft.leases().collect();
    let sets = 1u32 << leases.len();
    let frees = |set: u32| {
        let evicted = |id| leases.iter().position(|lease| lease.id == id).is_some_and(|at| set & (1 << at) != 0);
        world.draft.fleet.nodes.iter().any(|node| {
            let free = |&&chip: &&usize| world.draft.fleet.chips[chip].holds.iter().all(|hold| evicted(hold.lease));
            node.chips.iter().filter(free).count() >= chips
        })
    };
    let lost = |set: u32| -> u64 {
        let evicted = leases.iter().enumerate().filter(|(at, _)| set & (1 << at) != 0);
        evicted.map(|(_, lease)| world.draft.lost_work(lease, world.now)).sum()
    };
    (0..sets).filter(|set| frees(*set)).map(lost).min()
}

proptest! {
    #[test]
    fn no_other_choice_loses_less_work(
        holders in prop::collection::vec((1..4u16, 1..3u32, 0..2000u64, any::<bool>()), 1..8),
        wanted in 1..5u16,
    ) {
        let mut world = world().node("n1", 4).node("n2", 4).node("n3", 3);
        for (number, (chips, replicas, seconds, shares)) in holders.into_iter().enumerate() {
            let ask = job(&format!("low-{number}")).priority(LOW).replicas(replicas);
            let ask = if shares { ask.share(chips * SLOTS_PER_CHIP / 4) } else { ask.chips(chips) };
            world.submit(ask).expect("accepted");
            world.after(&format!("{seconds}s"));
        }
        let shape = Shape::of(&job("high").priority(HIGH).chips(wanted).spec());
        prop_assert_eq!(shape.demand, ChipDemand::Chips(wanted));
        let chosen = preempt::choose(&world.draft, &shape, world.now).map(|plan| plan.cost.lost);
        // With room already there, nobody is asked to leave and `choose` is not called at all.
        if crate::place::find(&world.draft, &shape).is_none() {
            prop_assert_eq!(chosen, least_lost_work(&world, usize::from(wanted)));
        }
    }
}
