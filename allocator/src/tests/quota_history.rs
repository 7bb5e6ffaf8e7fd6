//! Properties of quota over random queues and histories.

use super::world::{Ask, World, chips, job, world};
use crate::queue::Shape;
use chiptide_model::{JobState, Outcome};
use proptest::prelude::*;

const QUEUES: [&str; 3] = ["a", "b", "c"];
const FLEET: u32 = 8;

#[derive(Clone, Debug)]
enum Step {
    Submit { queue: usize, priority: i32, firm: bool },
    Done { number: usize },
    Rest,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let submit = (0..QUEUES.len(), 1..4i32, any::<bool>());
    let step = prop_oneof![
        4 => submit.prop_map(|(queue, priority, firm)| Step::Submit { queue, priority, firm }),
        2 => (0..40usize).prop_map(|number| Step::Done { number }),
        1 => Just(Step::Rest),
    ];
    proptest::collection::vec(step, 1..40)
}

/// Guarantees that the fleet can honour, and limits above some of them.
fn quotas() -> impl Strategy<Value = Vec<(u32, Option<u32>)>> {
    proptest::collection::vec((0..=FLEET / 2, proptest::option::of(0..=FLEET)), QUEUES.len()).prop_map(|drawn| {
        let mut left = FLEET;
        let fit = |(guaranteed, more): (u32, Option<u32>)| {
            let guaranteed = guaranteed.min(left);
            left -= guaranteed;
            (guaranteed, more.map(|more| guaranteed + more))
        };
        drawn.into_iter().map(fit).collect()
    })
}

fn ask(number: usize, queue: usize, priority: i32, firm: bool) -> Ask {
    job(&format!("j{number}")).queue(QUEUES[queue]).priority(priority).with(|spec| spec.preemptible = !firm)
}

/// Lets every notice run out and every node prove what it must, until nothing happens any more.
fn come_to_rest(world: &mut World) {
    for _ in 0..20 {
        world.story();
        world.after("31s");
        world.nodes_report();
        if world.story().is_empty() {
            return;
        }
    }
    panic!("still evicting after ten minutes without any outside event: {}", world.story());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn limits_hold_and_no_queue_waits_for_what_it_is_guaranteed(steps in steps(), quotas in quotas()) {
        let mut world = world().node("n1", 4).node("n2", 4);
        for (name, (guaranteed, limit)) in QUEUES.iter().zip(&quotas) {
            world = world.queue(name, |queue| {
                queue.guaranteed = chips(*guaranteed);
                queue.limit = limit.map(chips).unwrap_or_default();
            });
        }
        let mut submitted = 0;
        for step in steps {
            match step {
                Step::Submit { queue, priority, firm } => {
                    world.submit(ask(submitted, queue, priority, firm)).expect("accepted");
                    submitted += 1;
                }
                Step::Done { number } => {
                    let known = world.names.get(&format!("j{number}")).copied();
                    if let Some(id) = known.filter(|id| world.draft.job(*id).is_some()) {
                        world.round(vec![crate::Command::Done(id, Outcome::Succeeded)]);
                    }
                }
                Step::Rest => come_to_rest(&mut world),
            }
        }
        come_to_rest(&mut world);
        for job in world.draft.jobs().filter(|job| job.state == JobState::Pending) {
            let rank = world.draft.rank(&Shape::of(&job.spec), world.now);
            prop_assert!(!rank.entitled, "{} waits within the guarantee of {}", job.spec.name, job.spec.queue);
        }
    }
}
