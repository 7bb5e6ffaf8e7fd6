//! Where jobs go: each rule of placement in a world that fits on a screen.

use super::world::{Ask, World, class, job, world};
use crate::place::{Scope, best_by_index, best_by_scan};
use crate::queue::Shape;
use crate::room::{Need, Room};
use chiptide_model::{ChipDemand, ChipFacts, ClassChoice, DeviceClassPolicy, NodeFacts, ReplicaRule, Same, SameLevel};
use expect_test::expect;
use proptest::prelude::*;
use std::num::NonZeroU16;

/// Jobs come and go, so that placement knows what is asked for.
fn taught(mut world: World, asks: &[Ask]) -> World {
    for (i, ask) in asks.iter().enumerate() {
        let name = format!("past-{i}");
        world = world.lease(ask.clone().with(|spec| spec.name = name.clone()));
        world.done(&name);
        world.nodes_report();
    }
    world.story();
    world
}

fn cores(n: u64) -> impl FnOnce(&mut NodeFacts, &mut [ChipFacts]) {
    move |facts, _| facts.cpu_milli = n * 1000
}

fn with_cores(ask: Ask, n: u64) -> Ask {
    ask.with(|spec| spec.cpu_milli = n * 1000)
}

#[test]
fn work_that_eats_cpu_goes_where_cpu_is_plenty() {
    let usual = vec![with_cores(job("").chips(1), 8); 8];
    let mut world = taught(world().node_with("lean", 2, cores(20)).node_with("rich", 4, cores(64)), &usual);
    // The tighter node would be left with a chip that no usual job could use.
    world.submit(with_cores(job("hungry"), 16)).expect("accepted");
    world.expect(expect![[r#"
        hungry submitted
        hungry gets rich-0"#]]);
}

#[test]
fn whole_sets_are_kept_for_those_who_take_several_chips() {
    let world = world().node("worn", 6).node("fresh", 4).lease(job("x").chips(5));
    let mut world = taught(world, &[job("").chips(4), job("").chips(4), job("")]);
    world.done("x");
    world.nodes_report();
    world.submit(job("y")).expect("accepted");
    world.story();
    // Five chips are free on one node, four on the other, which is tighter; but there a set of four would be broken.
    world.submit(job("single")).expect("accepted");
    world.expect(expect![[r#"
        single submitted
        single gets worn-1"#]]);
}

#[test]
fn a_share_leaves_the_gaps_that_others_will_fill() {
    let usual = vec![job("").share(500); 16];
    let mut world = taught(world().node_of("a", "ascend-910b", 1).node_of("h", "nvidia-h20", 1), &usual)
        .lease(job("half").share(500).classes(&["ascend-910b"]))
        .lease(job("less").share(400).classes(&["nvidia-h20"]));
    // The tighter chip has 500 left: room for the usual half. The other has 600, of which 100 would be wasted anyhow.
    world.submit(job("crumb").share(100)).expect("accepted");
    world.expect(expect![[r#"
        crumb submitted
        crumb gets h-0/100"#]]);
}

#[test]
fn chips_that_picky_jobs_need_are_not_spent_on_jobs_that_take_any() {
    let mut usual = vec![job("").classes(&["ascend-910b"]); 4];
    usual.extend(vec![job(""); 2]);
    let mut world = taught(world().node_of("a", "ascend-910b", 2).node_of("h", "nvidia-h20", 4), &usual);
    world.submit(job("any")).expect("accepted");
    world.submit(job("picky").chips(2).classes(&["ascend-910b"])).expect("accepted");
    world.expect(expect![[r#"
        any submitted
        any gets h-0
        picky submitted
        picky gets a-0 a-1"#]]);
}

#[test]
fn of_several_classes_the_fastest_is_tried_first() {
    let mut world = world().node_of("a", "ascend-910b", 1).node_of("h", "nvidia-h20", 1);
    let rated = |name, speed_permille| ClassChoice { class: class(name), speed_permille };
    let ask =
        |name| job(name).with(|spec| spec.device_classes = vec![rated("ascend-910b", 800), rated("nvidia-h20", 1000)]);
    world.submit(ask("first")).expect("accepted");
    world.submit(ask("second")).expect("accepted");
    world.expect(expect![[r#"
        first submitted
        first gets h-0
        second submitted
        second gets a-0"#]]);
}

#[test]
fn work_without_chips_goes_where_it_hurts_chips_least_and_leaves_at_once() {
    let usual = vec![with_cores(job("").chips(1), 8); 8];
    let world =
        world().node_with("tight", 4, cores(32)).node_with("cpu", 0, cores(16)).node_with("roomy", 1, cores(64));
    let mut world = taught(world, &usual);
    let cpu_only = |name, n| with_cores(job(name).chips(0), n);
    for (name, n) in [("small", 16), ("next", 16), ("huge", 48)] {
        world.submit(cpu_only(name, n)).expect("accepted");
        let placed = world.draft.lease(world.lease_of(name).expect("a lease")).expect("a lease");
        assert!(placed.placements[0].holds.is_empty());
    }
    let nodes =
        |world: &World| -> Vec<u64> { world.draft.fleet.nodes.iter().map(|node| node.cpu_free / 1000).collect() };
    // On the node without chips, then where CPU is idle anyway; the last has to go there too.
    assert_eq!(nodes(&world), [32, 0, 0]);
    world.done("huge");
    assert_eq!(nodes(&world), [32, 0, 48], "there is no chip to prove vacant");
    assert_eq!(world.draft.leases().count(), 2);
}

#[test]
fn replicas_that_need_links_stay_in_one_fabric() {
    let fabric =
        |name: &'static str| move |facts: &mut NodeFacts, _: &mut [ChipFacts]| facts.link_domain = Some(name.into());
    let world = world().node_with("a1", 2, fabric("A")).node_with("b1", 2, fabric("B")).node_with("b2", 2, fabric("B"));
    let mut world = world.node("lone", 2).node_with("a2", 1, fabric("A"));
    let linked = |n| {
        move |spec: &mut chiptide_model::JobSpec| {
            spec.replicas = n;
            spec.same = Some(Same { level: SameLevel::Link, required: true });
        }
    };
    world.submit(job("four").with(linked(4))).expect("accepted");
    world.submit(job("more").with(linked(4))).expect("accepted");
    world.submit(job("three").with(linked(3))).expect("accepted");
    world.expect(expect![[r#"
        four submitted
        four gets b1-0 b1-1 b2-0 b2-1
        more submitted
        three submitted
        three gets a2-0 a1-0 a1-1"#]]);
}

#[test]
fn a_replica_gets_the_smallest_linked_set_that_holds_it() {
    // Chips 0 to 3 are linked with each other, so are 4 and 5; 6 and 7 stand alone.
    let links = |_: &mut NodeFacts, chips: &mut [ChipFacts]| {
        let ids: Vec<_> = chips.iter().map(|chip| chip.id.clone()).collect();
        for (set, ids) in [(0..4, &ids[0..4]), (4..6, &ids[4..6])] {
            set.for_each(|at| chips[at].link_peers = ids.iter().filter(|id| **id != chips[at].id).cloned().collect());
        }
    };
    let mut world = world().node_with("n1", 8, links);
    for (name, n) in [("lone", 1), ("pair", 2), ("trio", 3)] {
        world.submit(job(name).chips(n)).expect("accepted");
    }
    world.expect(expect![[r#"
        lone submitted
        lone gets n1-6
        pair submitted
        pair gets n1-4 n1-5
        trio submitted
        trio gets n1-0 n1-1 n1-2"#]]);
}

#[test]
fn a_vendors_rule_is_kept() {
    let rule = ReplicaRule { chips: [1, 2, 4, 8].into(), set: NonZeroU16::new(4) };
    let mut world = world()
        .policy(|policy| {
            let known = DeviceClassPolicy { speed_permille: 1000, replicas: Some(rule) };
            policy.device_classes.insert(class("nvidia-h20"), known);
        })
        .node("n1", 8)
        .lease(job("x").chips(2));
    // Six chips are free: two in the first set of four, four in the second.
    for (name, n) in [("three", 3), ("four", 4), ("pair", 2), ("single", 1)] {
        world.submit(job(name).chips(n)).expect("accepted");
    }
    world.expect(expect![[r#"
        three submitted
        four submitted
        four gets n1-4 n1-5 n1-6 n1-7
        pair submitted
        pair gets n1-2 n1-3
        single submitted"#]]);
}

#[derive(Clone, Debug)]
enum Step {
    Submit { demand: u16, cpu: u64, class: u8 },
    Done { pick: usize },
    Report,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (0..1200u16, 0..24u64, 0..4u8).prop_map(|(demand, cpu, class)| Step::Submit { demand, cpu, class }),
        2 => any::<usize>().prop_map(|pick| Step::Done { pick }),
        1 => Just(Step::Report),
    ];
    prop::collection::vec(step, 1..40)
}

/// Below 1000 a share, above it a number of whole chips.
fn demand(n: u16) -> ChipDemand {
    if n < 1000 { ChipDemand::ShareSlots(n.max(1)) } else { ChipDemand::Chips((n - 1000) / 50) }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn the_index_finds_what_looking_at_every_pool_would_find(
        nodes in prop::collection::vec((0..9u16, 1..97u64, any::<bool>()), 1..8),
        steps in steps(),
    ) {
        let mut world = world();
        for (i, (chips, cpu, ascend)) in nodes.into_iter().enumerate() {
            world = world.node_with(&format!("n{i}"), chips, |facts, chips| {
                facts.cpu_milli = cpu * 1000;
                let kind = if ascend { "ascend-910b" } else { "nvidia-h20" };
                chips.iter_mut().for_each(|chip| chip.class = class(kind));
            });
        }
        for (i, step) in steps.into_iter().enumerate() {
            match step {
                Step::Submit { demand: n, cpu, class: picked } => {
                    let ask = job(&format!("j{i}")).with(|spec| {
                        (spec.demand, spec.cpu_milli) = (demand(n), cpu * 1000);
                        spec.device_classes = [["ascend-910b"], ["nvidia-h20"]].get(usize::from(picked)).into_iter()
                            .flatten().map(|name| class(name).into()).collect();
                    });
                    drop(world.submit(ask));
                }
                Step::Done { pick } if !world.names.is_empty() => {
                    let name = world.names.keys().nth(pick % world.names.len()).cloned().expect("a name");
                    if world.draft.job(world.names[&name]).is_some() {
                        world.done(&name);
                    }
                }
                Step::Done { .. } => {}
                Step::Report => world.nodes_report(),
            }
            agree(&world);
        }
    }
}

/// Index and scan agree, on the fleet as it is and as plans in the making leave it.
fn agree(world: &World) {
    let cluster = &world.draft;
    let classes = (0..cluster.fleet.classes.len()).map(|class| Scope { classes: Some(vec![class]), nodes: None });
    let scopes: Vec<Scope> = classes.chain([Scope::default()]).collect();
    for (n, cpu) in [(1, 4), (333, 0), (500, 12), (1000, 8), (1050, 8), (1100, 0), (1200, 30)] {
        let shape =
            Shape::of(&job("probe").with(|spec| (spec.demand, spec.cpu_milli) = (demand(n), cpu * 1000)).spec());
        let need = Need::of(&shape);
        for scope in &scopes {
            let mut room = Room::of(cluster);
            for replica in 0..3 {
                let found = best_by_index(&room, &need, scope);
                assert_eq!(found, best_by_scan(&room, &need, scope), "{need:?} {scope:?}");
                let Some(pool) = found else { break };
                room.take(pool, &need, replica).expect("it fits");
            }
        }
    }
}
