//! The reserve in words: who may start on it, and what counts towards it.

use super::world::{HIGH, LOW, World, class, job, world};
use crate::{Command, explain};
use chiptide_model::{Policy, Reserve};
use expect_test::expect;

/// A world of nodes with 8 chips, that keeps chips free in blocks for whoever has a high priority.
fn keeping(chips: u32, block: u16, nodes: &[&str]) -> World {
    let mut world = nodes.iter().fold(world(), |world, name| world.node(name, 8));
    let kept = [(class("nvidia-h20"), chips)].into();
    let reserve = Some(Reserve { min_priority: HIGH, chips: kept, block });
    world.round(vec![Command::ApplyPolicy(Policy { reserve, ..Policy::default() })]);
    world.story();
    world
}

#[test]
fn training_leaves_the_reserve_free_and_inference_starts_on_it() {
    let mut world = keeping(4, 1, &["n1"]);
    world.submit(job("train").chips(4).priority(LOW)).expect("accepted");
    world.submit(job("waits").chips(1).priority(LOW)).expect("accepted");
    world.submit(job("chat").chips(3).priority(HIGH)).expect("accepted");
    world.expect(expect![[r#"
        train submitted
        train gets n1-0 n1-1 n1-2 n1-3
        waits submitted
        chat submitted
        chat gets n1-4 n1-5 n1-6"#]]);
}

#[test]
fn what_lies_beside_whole_blocks_goes_first_and_only_while_enough_is_free() {
    let mut world = keeping(13, 4, &["n1", "n2"]).lease(job("chat").chips(2).priority(HIGH));
    // 14 chips are free, 12 of them in blocks: one more may go, from beside the blocks.
    world.submit(job("one").chips(1).priority(LOW)).expect("accepted");
    world.submit(job("more").chips(1).priority(LOW)).expect("accepted");
    world.expect(expect![[r#"
        one submitted
        one gets n1-2
        more submitted"#]]);
}

#[test]
fn a_job_goes_where_it_breaks_no_block() {
    let mut world = keeping(8, 4, &["n1", "n2"])
        .lease(job("chat-a").chips(4).priority(HIGH))
        .lease(job("leaves").chips(4).priority(HIGH))
        .lease(job("chat-b").chips(3).priority(HIGH));
    world.done("leaves");
    world.nodes_report();
    world.story();
    // The tightest fit, n1, would break a block the reserve needs; n2 has a chip beside its own.
    world.submit(job("train").chips(1).priority(LOW)).expect("accepted");
    world.expect(expect![[r#"
        train submitted
        train gets n2-3"#]]);
}

#[test]
fn a_job_starts_as_soon_as_the_reserve_is_full_without_it() {
    let mut world = keeping(4, 4, &["n1"]).lease(job("chat").chips(4).priority(HIGH));
    world.submit(job("train").chips(4).priority(LOW)).expect("accepted");
    world.done("chat");
    world.nodes_report();
    let story = world.story();
    assert!(story.ends_with("train gets n1-0 n1-1 n1-2 n1-3"), "{story}");
}

#[test]
fn a_job_is_told_that_the_reserve_is_in_its_way() {
    let mut world = keeping(6, 1, &["n1"]);
    world.submit(job("train").chips(4).priority(LOW)).expect("accepted");
    let job = world.draft.job(world.job_id("train")).expect("live");
    let told: Vec<String> =
        explain::job(&world.draft, job, world.now).blockers.iter().map(|b| b.reason.to_string()).collect();
    expect!["6 chips of nvidia-h20 are kept free for higher priorities, it would leave 4"].assert_eq(&told.join("\n"));
}
