//! The bound of a reservation, in simulation: a big gang among small jobs that come and go for ever.
//!
//! Small jobs arrive at random, fill every chip that comes free, and end at random before their `max_duration`. Nodes
//! prove chips vacant at random within the bound. The world steps from one thing that is due to the next, so nothing is
//! late.

use super::world::{World, job, world};
use chiptide_model::{Event, Holder, Millis, Timestamp};
use proptest::prelude::*;

#[derive(Clone, Debug)]
struct Small {
    after_s: u64,
    chips: u16,
    lasts_s: u64,
    grace_s: u64,
    /// It ends by itself at this part of its time.
    ends_at_pct: u64,
}

fn smalls() -> impl Strategy<Value = Vec<Small>> {
    let small = (0..20u64, 1..3u16, 30..600u64, 0..30u64, 20..300u64);
    let small = small.prop_map(|(after_s, chips, lasts_s, grace_s, ends_at_pct)| Small {
        after_s,
        chips,
        lasts_s,
        grace_s,
        ends_at_pct,
    });
    prop::collection::vec(small, 150..200)
}

/// When the gang starts, and when its first reservation says it does at the latest.
struct Course {
    started: Option<Timestamp>,
    first_bound: Option<Timestamp>,
}

fn run(smalls: &[Small], gang: (u16, u32), proof_s: &[u64], reservations_max: u32) -> Course {
    let mut world = world().policy(|policy| {
        (policy.backfill.reservations_max, policy.backfill.chips_min) = (reservations_max, 3);
    });
    for node in ["n1", "n2", "n3"] {
        world = world.node(node, 4);
    }
    let mut to_do = Diary::default();
    let mut at = Timestamp(0);
    for (number, small) in smalls.iter().enumerate() {
        at = at + Millis::from_secs(small.after_s);
        to_do.insert((at, number), Entry::Arrives(small.clone()));
    }
    to_do.insert((Timestamp(120_000), usize::MAX), Entry::GangArrives);
    while let Some(now) = to_do.keys().next().map(|(at, _)| *at).into_iter().chain(world.draft.next_due()).min() {
        if now > at {
            break;
        }
        world.now = now.max(world.now);
        world.round(Vec::new());
        while let Some(first) = to_do.first_entry().filter(|first| first.key().0 <= now) {
            let (key, entry) = first.remove_entry();
            act(&mut world, &mut to_do, key.1, entry, gang);
        }
        note_proofs(&world, &mut to_do, proof_s);
    }
    course(&world)
}

type Diary = std::collections::BTreeMap<(Timestamp, usize), Entry>;

#[derive(Clone, Debug)]
enum Entry {
    Arrives(Small),
    GangArrives,
    Done(String),
    Report(usize),
}

fn act(world: &mut World, to_do: &mut Diary, number: usize, entry: Entry, gang: (u16, u32)) {
    match entry {
        Entry::Arrives(small) => {
            let name = format!("small-{number}");
            let ask = job(&name).chips(small.chips).lasts(&format!("{}s", small.lasts_s));
            world.submit(ask.with(|spec| spec.grace = Millis::from_secs(small.grace_s))).expect("accepted");
            let done = world.now + Millis(small.lasts_s * small.ends_at_pct * 10);
            to_do.insert((done, number), Entry::Done(name));
        }
        Entry::GangArrives => {
            world.submit(job("gang").chips(gang.0).replicas(gang.1)).expect("accepted");
        }
        Entry::Done(name) => {
            if world.lease_of(&name).is_some() {
                world.done(&name);
            }
        }
        Entry::Report(node) => {
            let id = world.draft.fleet.nodes[node].id.clone();
            let report = world.full_report(&id);
            world.round(vec![crate::Command::Report(report)]);
        }
    }
}

/// A node that has something to prove does so within its time.
fn note_proofs(world: &World, to_do: &mut Diary, proof_s: &[u64]) {
    for (ix, node) in world.draft.fleet.nodes.iter().enumerate() {
        let owes = node
            .chips
            .iter()
            .any(|&chip| world.draft.fleet.chips[chip].holds.iter().any(|hold| hold.vacate_by.is_some()));
        let noted = to_do.values().any(|entry| matches!(entry, Entry::Report(known) if *known == ix));
        if owes && !noted {
            to_do.insert((world.now + Millis::from_secs(proof_s[ix]), 1_000_000 + ix), Entry::Report(ix));
        }
    }
}

fn course(world: &World) -> Course {
    let gang = world.job_id("gang");
    let started = world.log.iter().find_map(|(at, event)| match event {
        Event::LeaseGranted { job, .. } if *job == gang => Some(*at),
        _ => None,
    });
    let first_bound = world.log.iter().find_map(|(_, event)| match event {
        Event::ReservationMade { holder, starts_at, .. } if *holder == Holder::Job(gang) => Some(*starts_at),
        _ => None,
    });
    Course { started, first_bound }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]

    #[test]
    fn a_gang_starts_by_its_first_reservation(
        smalls in smalls(),
        gang in prop::sample::select(vec![(4, 2), (4, 3), (3, 2), (2, 5)]),
        proof_s in prop::collection::vec(0..60u64, 3),
    ) {
        let course = run(&smalls, gang, &proof_s, 4);
        let end = smalls.iter().fold(Timestamp(0), |at, small| at + Millis::from_secs(small.after_s));
        let Some(bound) = course.first_bound else {
            prop_assert!(course.started.is_some(), "neither started nor reserved");
            return Ok(());
        };
        prop_assert!(bound > end || course.started.is_some_and(|at| at <= bound), "{:?} after {bound:?}", course.started);
    }
}

/// The same stream of small jobs, with and without.
#[test]
fn without_a_reservation_the_same_gang_starves() {
    let small = |n: u64| Small { after_s: 5, chips: 1, lasts_s: 60 + n * 37 % 240, grace_s: 10, ends_at_pct: 90 };
    let smalls: Vec<Small> = (0..1_000).map(small).collect();
    let with = run(&smalls, (4, 3), &[5, 5, 5], 4);
    assert!(with.started.is_some() && with.started <= with.first_bound);
    let without = run(&smalls, (4, 3), &[5, 5, 5], 0);
    assert_eq!((without.started, without.first_bound), (None, None));
}
