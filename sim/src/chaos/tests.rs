//! The simulation itself: the same seed tells the same story, good stories end well, and every rule switched off is noticed.

use super::{MUTANTS, Rules, story, tell};

const STEPS: usize = 400;
/// So many stories must be enough to notice that a rule is off.
const SEEDS_MAX: u64 = 1_000;

#[test]
fn the_same_seed_tells_the_same_story() {
    let told = |seed| tell(seed, &story(seed, STEPS), Rules::default());
    for seed in [3, 7] {
        assert_eq!(told(seed), told(seed));
    }
}

#[test]
fn every_rule_that_is_switched_off_is_noticed() {
    let is_noticed = |rules| (0..SEEDS_MAX).any(|seed| tell(seed, &story(seed, STEPS), rules).found.is_some());
    for (name, rules) in MUTANTS {
        assert!(is_noticed(rules), "{name}: {SEEDS_MAX} stories went well without it");
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
