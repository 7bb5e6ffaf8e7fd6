//! What came of all stories.

use super::rules::Rules;
use super::shrink::shrink;
use super::step::story;
use super::tell;
use serde::Serialize;
use std::time::Duration;

/// Stories that went wrong and are told; the others are counted.
const TOLD_MAX: usize = 5;

/// A story that went wrong, as short as it could be made.
#[derive(Clone, Debug, Serialize)]
pub struct Wrong {
    /// Its seed: `--seeds SEED --steps N` tells it again.
    pub seed: u64,
    /// After which step.
    pub step: usize,
    /// What must not be.
    pub what: String,
    /// The shortest story in which it happens.
    pub story: Vec<String>,
}

/// The report of a run.
#[derive(Clone, Debug, Default, Serialize)]
pub struct ChaosReport {
    /// The first seed.
    pub from: u64,
    /// One past the last.
    pub to: u64,
    /// Steps of each story, before its quiet end.
    pub steps: usize,
    /// Stories told.
    pub stories: u64,
    /// Stories that went wrong.
    pub violations: u64,
    /// The first of them.
    pub wrong: Vec<Wrong>,
    /// Faults that struck.
    pub faults: u64,
    /// Jobs submitted.
    pub jobs: u64,
    /// Leases granted.
    pub grants: u64,
    /// Events committed.
    pub events: u64,
    /// Virtual time, in hours.
    pub virtual_hours: f64,
    /// Real time, in seconds.
    pub seconds: f64,
    /// Threads.
    pub threads: usize,
    virtual_ms: u64,
}

impl ChaosReport {
    pub(super) fn of(from: u64, to: u64, steps: usize) -> ChaosReport {
        ChaosReport { from, to, steps, ..ChaosReport::default() }
    }

    /// Tells one story more.
    pub(super) fn take(&mut self, seed: u64, steps: usize, rules: Rules) {
        let told = tell(seed, &story(seed, steps), rules);
        self.stories += 1;
        self.faults += told.faults;
        self.jobs += told.jobs;
        self.grants += told.grants;
        self.events += told.events;
        self.virtual_ms += told.lasted_ms;
        let Some((step, what)) = &told.found else { return };
        self.violations += 1;
        if self.wrong.len() < TOLD_MAX {
            let short = shrink(seed, &story(seed, steps), rules, what);
            let what = tell(seed, &short, rules).found.map_or_else(|| what.clone(), |(_, what)| what);
            let story = short.iter().map(|step| step.to_string()).collect();
            self.wrong.push(Wrong { seed, step: *step, what, story });
        }
    }

    pub(super) fn add(&mut self, other: ChaosReport) {
        self.stories += other.stories;
        self.violations += other.violations;
        self.faults += other.faults;
        self.jobs += other.jobs;
        self.grants += other.grants;
        self.events += other.events;
        self.virtual_ms += other.virtual_ms;
        self.wrong.extend(other.wrong);
        self.wrong.sort_by_key(|wrong| wrong.seed);
        self.wrong.truncate(TOLD_MAX);
    }

    pub(super) fn finish(&mut self, took: Duration, threads: usize) {
        self.virtual_hours = self.virtual_ms as f64 / 3_600_000.0;
        (self.seconds, self.threads) = (took.as_secs_f64(), threads);
    }

    pub(super) fn print(&self) {
        println!(
            "{} stories of {} steps ({} to {}): {} violations; {} faults, {} jobs, {} grants, {} events, {:.0} virtual hours \
             in {:.1} s on {} threads",
            self.stories,
            self.steps,
            self.from,
            self.to,
            self.violations,
            self.faults,
            self.jobs,
            self.grants,
            self.events,
            self.virtual_hours,
            self.seconds,
            self.threads
        );
        for wrong in &self.wrong {
            println!("\nseed {}, after step {}: {}", wrong.seed, wrong.step, wrong.what);
            for (at, step) in wrong.story.iter().enumerate() {
                println!("  {:3}. {step}", at + 1);
            }
        }
    }
}
