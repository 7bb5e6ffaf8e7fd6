//! Times as people say them. `now` always comes in as an argument.

use chrono::{DateTime, TimeDelta, Utc};

/// How long ago, by the two largest units: `3m12s`, `5h`, `2d3h`.
pub(crate) fn ago(at: DateTime<Utc>, now: DateTime<Utc>) -> String {
    short(now - at)
}

/// How long still, as `in 25s`; `due` when it is over.
pub(crate) fn until(at: DateTime<Utc>, now: DateTime<Utc>) -> String {
    if at <= now { "due".into() } else { format!("in {}", short(at - now)) }
}

/// A moment with its distance: `2026-11-24 03:12:00Z (3m ago)`.
pub(crate) fn moment(at: DateTime<Utc>, now: DateTime<Utc>) -> String {
    let distance = if at > now { until(at, now) } else { format!("{} ago", ago(at, now)) };
    format!("{} ({distance})", at.format("%Y-%m-%d %H:%M:%SZ"))
}

fn short(span: TimeDelta) -> String {
    let total_s = span.num_seconds().max(0);
    let units = [("d", 86_400), ("h", 3600), ("m", 60), ("s", 1)];
    let Some(first) = units.iter().position(|(_, size)| total_s >= *size) else { return "0s".into() };
    let mut left = total_s;
    let mut text = String::new();
    for (unit, size) in units.iter().skip(first).take(2) {
        if left / size > 0 {
            text.push_str(&format!("{}{unit}", left / size));
        }
        left %= size;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_units_are_enough() {
        let text = |seconds| short(TimeDelta::seconds(seconds));
        assert_eq!([text(0), text(59), text(192), text(3600)], ["0s", "59s", "3m12s", "1h"]);
        assert_eq!([text(86_400 + 7), text(90_061), text(-5)], ["1d", "1d1h", "0s"]);
    }

    #[test]
    fn ahead_and_behind_read_differently() {
        let now = DateTime::from_timestamp(1_764_000_000, 0).expect("a moment");
        assert_eq!(until(now + TimeDelta::seconds(25), now), "in 25s");
        assert_eq!(until(now, now), "due");
        assert_eq!(moment(now - TimeDelta::seconds(90), now), "2025-11-24 15:58:30Z (1m30s ago)");
    }
}
