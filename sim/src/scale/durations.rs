//! Durations of decisions, exact to the nanosecond.

use serde::Serialize;
use std::time::Duration;

/// Every duration of one kind.
#[derive(Clone, Debug, Default)]
pub(super) struct Durations(Vec<Duration>);

/// Percentiles in microseconds.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize)]
pub struct DurationSummary {
    /// How many.
    pub count: u64,
    /// Mean.
    pub mean_us: f64,
    /// Median.
    pub p50_us: f64,
    /// 99th percentile.
    pub p99_us: f64,
    /// Longest.
    pub max_us: f64,
}

impl Durations {
    pub(super) fn record(&mut self, took: Duration) {
        self.0.push(took);
    }

    pub(super) fn total(&self) -> Duration {
        self.0.iter().sum()
    }

    pub(super) fn summary(&self) -> DurationSummary {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let at = |part: f64| {
            let rank = (part * sorted.len() as f64).ceil() as usize;
            sorted.get(rank.saturating_sub(1)).map_or(0.0, |took| us(*took))
        };
        let mean_us = us(self.total()) / sorted.len().max(1) as f64;
        DurationSummary { count: sorted.len() as u64, mean_us, p50_us: at(0.5), p99_us: at(0.99), max_us: at(1.0) }
    }
}

/// Microseconds.
pub(super) fn us(took: Duration) -> f64 {
    took.as_nanos() as f64 / 1000.0
}

impl std::fmt::Display for DurationSummary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let DurationSummary { count, p50_us, p99_us, max_us, .. } = self;
        write!(f, "p50 {p50_us:.1} µs, p99 {p99_us:.1} µs, at most {max_us:.0} µs ({count} measured)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_ranks() {
        let mut durations = Durations::default();
        (1..=200).for_each(|n| durations.record(Duration::from_micros(n)));
        let summary = durations.summary();
        assert_eq!((summary.p50_us, summary.p99_us, summary.max_us, summary.mean_us), (100.0, 198.0, 200.0, 100.5));
    }
}
