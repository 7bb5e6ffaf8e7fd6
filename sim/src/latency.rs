//! Latencies: recorded in microseconds, reported in milliseconds. A report of nothing measured has no percentiles.

use hdrhistogram::Histogram;
use serde::Serialize;
use std::time::Duration;

/// Longest latency kept apart from longer ones: ten minutes.
const LONGEST_US: u64 = 600_000_000;

/// Latencies of one kind.
#[derive(Clone, Debug)]
pub struct Latencies {
    histogram: Histogram<u64>,
}

impl Default for Latencies {
    fn default() -> Self {
        let histogram =
            Histogram::new_with_bounds(1, LONGEST_US, 3).expect("1 µs to 10 min in 3 digits is a valid range");
        Latencies { histogram }
    }
}

impl Latencies {
    /// Records one. Anything past ten minutes counts as ten minutes.
    pub fn record(&mut self, took: Duration) {
        self.histogram.saturating_record(u64::try_from(took.as_micros()).unwrap_or(LONGEST_US).max(1));
    }

    /// Adds all of `other`.
    pub fn add(&mut self, other: &Latencies) {
        // Both have the same bounds, so nothing of `other` can lie outside.
        self.histogram.add(&other.histogram).expect("histograms of the same bounds add up");
    }

    /// How many were recorded.
    pub fn count(&self) -> u64 {
        self.histogram.len()
    }

    /// The figures of a report.
    pub fn summary(&self) -> LatencySummary {
        let ms = |value: u64| value as f64 / 1000.0;
        let at = |quantile: f64| (!self.histogram.is_empty()).then(|| ms(self.histogram.value_at_quantile(quantile)));
        LatencySummary {
            count: self.histogram.len(),
            p50_ms: at(0.50),
            p90_ms: at(0.90),
            p99_ms: at(0.99),
            max_ms: (!self.histogram.is_empty()).then(|| ms(self.histogram.max())),
        }
    }
}

impl FromIterator<Duration> for Latencies {
    fn from_iter<I: IntoIterator<Item = Duration>>(all: I) -> Self {
        let mut latencies = Latencies::default();
        all.into_iter().for_each(|took| latencies.record(took));
        latencies
    }
}

/// Percentiles of one kind of latency, in milliseconds; absent when nothing was measured.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize)]
pub struct LatencySummary {
    /// How many were measured.
    pub count: u64,
    /// Median.
    pub p50_ms: Option<f64>,
    /// 90th percentile.
    pub p90_ms: Option<f64>,
    /// 99th percentile.
    pub p99_ms: Option<f64>,
    /// Longest.
    pub max_ms: Option<f64>,
}

impl std::fmt::Display for LatencySummary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.p50_ms, self.p99_ms) {
            (Some(p50), Some(p99)) => write!(f, "p50 {p50:.1} ms, p99 {p99:.1} ms ({} measured)", self.count),
            _ => f.write_str("nothing measured"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_milliseconds() {
        let summary: LatencySummary = (1..=100).map(Duration::from_millis).collect::<Latencies>().summary();
        assert_eq!(summary.count, 100);
        assert!((summary.p50_ms.expect("measured") - 50.0).abs() < 0.1, "{summary:?}");
        assert!((summary.p99_ms.expect("measured") - 99.0).abs() < 0.1, "{summary:?}");
    }

    #[test]
    fn nothing_measured_is_not_zero() {
        assert_eq!(Latencies::default().summary().p50_ms, None);
        assert_eq!(Latencies::default().summary().to_string(), "nothing measured");
    }
}
