//! The victims chosen, against every other choice there is; and that preempting comes to rest.

use super::world::{HIGH, LOW, MID, World, job, world};
use crate::preempt::{self, Plan};
use crate::queue::Shape;
use chiptide_model::{Cause, ChipDemand, Cost, Event, JobId, Lease, LeaseId, Millis, PreemptionBudget, SLOTS_PER_CHIP};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use std::collections::{BTreeMap, BTreeSet};

fn choose(world: &World, shape: &Shape) -> Option<Plan> {
    preempt::choose(&world.draft, &mut preempt::Searches::default(), shape, world.now, &[])
}

/// How many replicas fit when these leases are gone, counted chip by chip.
fn fit(world: &World, shape: &Shape, gone: &BTreeSet<LeaseId>) -> u64 {
    let on_node = |node: &crate::fleet::Node| -> u64 {
        let held = |chip: &crate::fleet::Chip| -> u16 {
            let stays = chip.holds.iter().filter(|hold| !gone.contains(&hold.lease));
            stays.flat_map(|hold| &hold.slots).map(|slots| slots.count()).sum()
        };
        let chips = node.chips.iter().map(|&chip| SLOTS_PER_CHIP - held(&world.draft.fleet.chips[chip]));
        match shape.demand {
            ChipDemand::Chips(n) => chips.filter(|free| *free == SLOTS_PER_CHIP).count() as u64 / u64::from(n),
            ChipDemand::ShareSlots(slots) => chips.map(|free| u64::from(free / slots)).sum(),
            ChipDemand::ShareMemory(_) => unreachable!("not asked for here"),
        }
    };
    world.draft.fleet.nodes.iter().map(on_node).sum()
}

/// The cost of the cheapest set of evictions that makes room, of all sets there are; `None` if no set does.
fn cheapest_of_all(world: &World, shape: &Shape) -> Option<Cost> {
    let leases: Vec<&Lease> = world.draft.leases().collect();
    let set = |bits: u32| -> BTreeSet<LeaseId> {
        let inside = leases.iter().enumerate().filter(|(at, _)| bits & (1 << at) != 0);
        inside.flat_map(|(_, lease)| world.draft.with_extras(lease.id)).collect()
    };
    let cost = |gone: &BTreeSet<LeaseId>| {
        let base_goes = |lease: &&&Lease| {
            let base = world.draft.job(lease.job).and_then(|job| job.state.lease());
            lease.extra && base.is_some_and(|base| gone.contains(&base))
        };
        let counted = leases.iter().filter(|lease| gone.contains(&lease.id) && !base_goes(lease));
        let costs = counted.map(|lease| world.draft.eviction_cost(lease, world.now));
        costs.fold(Cost::default(), Cost::plus)
    };
    let sets = (0..1u32 << leases.len()).map(set);
    let enough = sets.filter(|gone| fit(world, shape, gone) >= u64::from(shape.replicas));
    enough.map(|gone| cost(&gone)).min()
}

#[derive(Clone, Debug)]
struct Holding {
    chips: u16,
    replicas: u32,
    seconds: u64,
    share: bool,
    elastic: bool,
}

fn holdings(most: usize) -> impl Strategy<Value = Vec<Holding>> {
    let one = (1..4u16, 1..4u32, 0..2000u64, any::<bool>(), any::<bool>());
    let one = one.prop_map(|(chips, replicas, seconds, share, elastic)| Holding {
        chips,
        replicas,
        seconds,
        share: share && chips < 3,
        elastic,
    });
    prop::collection::vec(one, 1..most)
}

/// A small fleet held by these, all of them of low priority, each lower than the one before, so that none takes another's
/// extra replicas.
fn held_by(holdings: Vec<Holding>, leases_max: usize) -> World {
    let mut world = world().node("n1", 4).node("n2", 4).node("n3", 3);
    for (number, held) in holdings.into_iter().enumerate() {
        if world.draft.leases().count() + held.replicas as usize > leases_max {
            break;
        }
        let ask = job(&format!("low-{number}")).priority(LOW - number as i32).replicas(held.replicas);
        let ask = if held.share { ask.share(held.chips * SLOTS_PER_CHIP / 4) } else { ask.chips(held.chips) };
        world.submit(ask.with(|spec| spec.replicas_min = held.elastic.then_some(1))).expect("accepted");
        world.after(&format!("{}s", held.seconds));
    }
    world
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn no_other_choice_costs_less(
        holdings in holdings(9),
        chips in 1..5u16,
        replicas in 1..5u32,
        share in prop::option::of(100..900u16),
    ) {
        let world = held_by(holdings, 10);
        let ask = job("high").priority(HIGH).replicas(replicas);
        let shape = Shape::of(&share.map_or(ask.clone().chips(chips), |slots| ask.share(slots)).spec());
        // With room already there, nobody is asked to leave and `choose` is not called at all.
        if crate::place::find(&world.draft, &shape).is_none() {
            let plan = choose(&world, &shape);
            prop_assert_eq!(plan.as_ref().map(|plan| plan.cost), cheapest_of_all(&world, &shape));
            if let Some(plan) = plan {
                let alone = |victim: &LeaseId| {
                    let mut rest = plan.victims.clone();
                    world.draft.with_extras(*victim).iter().for_each(|lease| _ = rest.remove(lease));
                    fit(&world, &shape, &rest)
                };
                let base_of = |victim: &LeaseId| world.draft.lease(*victim).is_some_and(|lease| !lease.extra);
                for victim in plan.victims.iter().filter(|victim| base_of(victim)) {
                    prop_assert!(alone(victim) < u64::from(shape.replicas), "{} is not needed", victim);
                }
                if let Some((leases, cost)) = plan.runner_up {
                    prop_assert!(leases != plan.victims && cost >= plan.cost);
                    prop_assert!(fit(&world, &shape, &leases) >= u64::from(shape.replicas));
                }
            }
        }
    }

    /// Left to itself, a cluster comes to rest, and no job ever takes from another that has taken from it.
    #[test]
    fn preempting_comes_to_rest_and_never_goes_in_circles(
        asks in prop::collection::vec((1..4u16, 1..4u32, 0..3usize, any::<bool>(), any::<bool>(), 0..40u64), 1..14),
    ) {
        let mut world = world().node("n1", 4).node("n2", 3);
        for (number, (chips, replicas, rank, elastic, protected, seconds)) in asks.into_iter().enumerate() {
            let ask = job(&format!("job-{number}")).chips(chips).replicas(replicas).priority([LOW, MID, HIGH][rank]);
            let ask = ask.with(|spec| {
                spec.grace = Millis::from_secs(seconds);
                spec.replicas_min = elastic.then_some(1);
                spec.min_runtime = protected.then_some(Millis::from_secs(100));
                spec.preemption_budget = protected.then_some(PreemptionBudget { per_day: Some(2), cool_down: None });
            });
            world.submit(ask).expect("accepted");
        }
        let began = world.log.len();
        let mut quiet = 0;
        for _ in 0..200 {
            let before = world.log.len();
            world.nodes_report();
            world.after("15s");
            quiet = if world.log.len() == before { quiet + 1 } else { 0 };
            if quiet > 20 {
                break;
            }
        }
        prop_assert!(quiet > 20, "still busy after 50 minutes: {}", world.story());
        prop_assert!(circle(&world.log[began..]).is_none());
    }
}

/// A job that took a whole lease from one that, directly or through others, had taken one from it.
fn circle(log: &[(chiptide_model::Timestamp, Event)]) -> Option<JobId> {
    let mut holders: BTreeMap<LeaseId, (JobId, bool)> = BTreeMap::new();
    let mut took_from: BTreeMap<JobId, BTreeSet<JobId>> = BTreeMap::new();
    for (_, event) in log {
        match event {
            Event::LeaseGranted { lease, job, extra, .. } => drop(holders.insert(*lease, (*job, *extra))),
            Event::LeaseRevoked { lease, cause: Cause::Preempt { for_job }, .. } => {
                if let Some((victim, _)) = holders.get(lease) {
                    took_from.entry(*for_job).or_default().insert(*victim);
                }
            }
            _ => {}
        }
    }
    let reached = |from: JobId| {
        let (mut seen, mut next) = (BTreeSet::new(), vec![from]);
        while let Some(job) = next.pop() {
            for victim in took_from.get(&job).into_iter().flatten() {
                if seen.insert(*victim) {
                    next.push(*victim);
                }
            }
        }
        seen
    };
    took_from.keys().copied().find(|job| reached(*job).contains(job))
}

/// What is lost by not looking at every set of leases, as on a large fleet: seldom anything, and not much.
#[test]
fn a_greedy_plan_is_seldom_dearer_than_the_best() {
    let mut runner = TestRunner::deterministic();
    let (mut plans, mut dearer, mut best, mut greedy) = (0u32, 0u32, 0u64, 0u64);
    let strategy = (holdings(12), 1..5u16, 1..5u32);
    for _ in 0..300 {
        let (holdings, chips, replicas) = strategy.new_tree(&mut runner).expect("a value").current();
        let world = held_by(holdings, 14);
        let shape = Shape::of(&job("high").priority(HIGH).chips(chips).replicas(replicas).spec());
        let by = |search_well| {
            let mut searches = preempt::Searches::default();
            preempt::choose_by(&world.draft, &mut searches, &shape, world.now, &[], search_well).map(|plan| plan.cost)
        };
        let (Some(well), Some(fast)) = (by(true), by(false)) else {
            assert_eq!(by(true), by(false), "one finds a plan and the other does not");
            continue;
        };
        assert!(fast >= well);
        (plans, dearer) = (plans + 1, dearer + u32::from(fast.lost_slot_ms > well.lost_slot_ms));
        (best, greedy) = (best + well.lost_slot_ms, greedy + fast.lost_slot_ms);
    }
    println!("{dearer} of {plans} greedy plans lose more, {greedy} in all, the best {best}");
    assert!(plans > 100 && dearer * 20 <= plans, "{dearer} of {plans} greedy plans lose more");
    assert!(greedy * 100 <= best * 105, "greedy plans lose {greedy}, the best {best}");
}

#[test]
fn a_gang_on_many_nodes_is_taken_once_and_frees_them_all() {
    let mut world = world().node("n1", 4).node("n2", 4).node("n3", 4).node("n4", 4);
    for name in ["a", "b"] {
        world.submit(job(name).chips(4).priority(LOW)).expect("accepted");
    }
    world.submit(job("gang").chips(4).replicas(2).priority(LOW)).expect("accepted");
    world.after("1h");
    // Alone, `a` is half the price of the gang; two replicas cost the same either way, and the gang is one gang.
    let plan = choose(&world, &Shape::of(&job("high").chips(4).replicas(2).priority(HIGH).spec())).expect("a plan");
    let gang = world.lease_of("gang").expect("leased");
    assert_eq!((plan.victims, plan.cost.gangs), ([gang].into(), 1));
    let both = ["a", "b"].map(|name| world.lease_of(name).expect("leased"));
    assert_eq!(plan.runner_up.map(|(leases, cost)| (leases, cost.gangs)), Some((both.into(), 2)));
}

#[test]
fn among_equals_the_newest_goes() {
    let busy = |spec: &mut chiptide_model::JobSpec| {
        spec.checkpoint_every = Some(Millis::from_secs(60));
        spec.grace = Millis(0);
    };
    let mut world = world().node("n1", 2).lease(job("old").priority(LOW).with(busy));
    world.after("1m");
    let mut world = world.lease(job("new").priority(LOW).with(busy));
    world.after("1m");
    let plan = choose(&world, &Shape::of(&job("high").priority(HIGH).spec())).expect("a plan");
    let new = world.lease_of("new").expect("leased");
    assert_eq!((plan.victims, plan.cost.lost_slot_ms), ([new].into(), 0));
}

#[test]
fn who_saves_its_work_before_its_notice_runs_out_loses_what_it_does_after() {
    let hourly = |spec: &mut chiptide_model::JobSpec| spec.checkpoint_every = Some(Millis::from_secs(3600));
    let mut world = world().node("n1", 2).lease(job("saves-soon").priority(LOW).with(hourly));
    world.after("50m");
    let mut world = world.lease(job("young").priority(LOW).with(hourly));
    world.after("9m40s");
    // With 30 s of notice the one loses the 10 s after its checkpoint, the other all of its ten minutes.
    let plan = choose(&world, &Shape::of(&job("high").priority(HIGH).spec())).expect("a plan");
    let soon = world.lease_of("saves-soon").expect("leased");
    assert_eq!((plan.victims, plan.cost.lost_slot_ms), ([soon].into(), 10_000 * 1000));
}
