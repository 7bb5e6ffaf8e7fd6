//! The simulation itself: the same seed tells the same story, good stories end well, and every rule switched off is noticed.

use super::{MUTANTS, Rules, story, tell};

const STEPS: usize = 400;
/// So many stories must be enough to notice that a rule is off.
const SEEDS_MAX: u64 = 200;

#[test]
fn the_same_seed_tells_the_same_story() {
    let told = |seed| tell(seed, &story(seed, STEPS), Rules::default());
    for seed in [3, 7] {
        assert_eq!(told(seed), told(seed));
    }
}

/// Rules whose absence these stories do not show (docs/chaos.md).
const COVERED: [&str; 2] = ["no adoption", "a start that outlives its fence"];

#[test]
fn every_rule_that_is_switched_off_is_noticed_unless_it_is_known_not_to_be() {
    let is_noticed = |rules| (0..SEEDS_MAX).any(|seed| tell(seed, &story(seed, STEPS), rules).found.is_some());
    for (name, rules) in MUTANTS {
        assert!(COVERED.contains(&name) || is_noticed(rules), "{name}: {SEEDS_MAX} stories went well without it");
    }
}

#[test]
fn stories_end_well() {
    for seed in 0..40 {
        let told = tell(seed, &story(seed, STEPS), Rules::default());
        assert_eq!(told.found, None, "seed {seed}");
        assert!(told.grants > 0, "seed {seed} grants nothing");
    }
}
