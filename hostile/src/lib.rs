//! Hostile input for tests: valid documents with a few things spoiled, as data that proptest can shrink. It knows no parser
//! and no crate of ours; the properties stand beside the parsers they are about (`docs/hostile-input.md`).

mod bytes;
mod json;

pub use bytes::{bytes_near, text_near};
pub use json::{json_near, values_near};

use proptest::prelude::Strategy;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseResult, TestRng, TestRunner};
use std::time::{Duration, Instant};

/// Names how long each property is tried with new chance, in seconds; without it a fixed number of fixed cases is.
pub const SECONDS: &str = "FUZZ_SECONDS";

/// Tries a property on `cases` inputs, the same in every run; with [`SECONDS`] in the environment, on ever new ones for so
/// long. Panics with the smallest input found that breaks it.
pub fn check<S: Strategy>(cases: u32, strategy: S, property: impl Fn(S::Value) -> TestCaseResult) {
    let config = Config { cases, failure_persistence: None, max_shrink_iters: 2_000, ..Config::default() };
    let fixed = TestRunner::new_with_rng(config.clone(), TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let told = |error| panic!("{error}");
    let seconds = std::env::var(SECONDS).ok().and_then(|text| text.parse().ok());
    let Some(seconds) = seconds else {
        let mut runner = fixed;
        return runner.run(&strategy, property).unwrap_or_else(told);
    };
    let (begun, mut rounds) = (Instant::now(), 0_u32);
    while begun.elapsed() < Duration::from_secs(seconds) {
        TestRunner::new(config.clone()).run(&strategy, &property).unwrap_or_else(told);
        rounds += 1;
    }
    println!("{} cases", u64::from(rounds) * u64::from(cases));
}
