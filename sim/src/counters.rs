//! Counters of the daemon's `/metrics` page, so that a phase can say by how much they grew.

use chiptide_api::{Client, ClientError};
use serde::Serialize;

/// The counters of the round loop at one moment.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct RoundCounters {
    rounds: f64,
    commands: f64,
}

/// Rounds over a stretch of time. Absent figures: the page has no such counters.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize)]
pub struct RoundReport {
    /// Rounds decided.
    pub rounds: f64,
    /// Rounds a second.
    pub rounds_per_s: f64,
    /// Commands (submits, reports that changed something, …) that one round took in, on average.
    pub commands_per_round: Option<f64>,
}

impl RoundCounters {
    /// Reads them now.
    pub async fn read(client: &Client) -> Result<RoundCounters, ClientError> {
        Ok(RoundCounters::of(&client.text("/metrics").await?))
    }

    fn of(page: &str) -> RoundCounters {
        RoundCounters {
            rounds: sum(page, "chiptide_rounds_total"),
            commands: sum(page, "chiptide_round_commands_total"),
        }
    }

    /// By how much they have grown since `earlier`, `seconds` ago.
    pub fn since(self, earlier: RoundCounters, seconds: f64) -> RoundReport {
        let (rounds, commands) = (self.rounds - earlier.rounds, self.commands - earlier.commands);
        RoundReport {
            rounds,
            rounds_per_s: rounds / seconds.max(f64::EPSILON),
            commands_per_round: (rounds > 0.0).then(|| commands / rounds),
        }
    }
}

/// The sum of a counter over all its labels.
pub fn sum(page: &str, name: &str) -> f64 {
    let of_name = |line: &&str| {
        line.strip_prefix(name).is_some_and(|rest| rest.starts_with('{') || rest.starts_with(char::is_whitespace))
    };
    let value = |line: &str| line.rsplit(char::is_whitespace).next().and_then(|value| value.parse::<f64>().ok());
    page.lines().filter(of_name).filter_map(value).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_summed_over_labels_and_told_from_longer_names() {
        let page = "# TYPE chiptide_rounds_total counter\n\
            chiptide_rounds_total{result=\"committed\"} 7\nchiptide_rounds_total{result=\"refused\"} 1\n\
            chiptide_rounds_total_created 9\nchiptide_round_commands_total 24\n";
        let counters = RoundCounters::of(page);
        assert_eq!(counters, RoundCounters { rounds: 8.0, commands: 24.0 });
        let report = counters.since(RoundCounters::default(), 2.0);
        assert_eq!((report.rounds_per_s, report.commands_per_round), (4.0, Some(3.0)));
    }
}
