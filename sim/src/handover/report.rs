//! What a run of `handover` measured, and the bounds it is held to.

use crate::latency::LatencySummary;
use crate::machine::Machine;
use serde::Serialize;

/// Bound on p99 from a release to the next grant.
const RELEASE_MS: f64 = 250.0;
/// Bound on p99 from the decision to preempt work that heeds SIGTERM, grace 0, to the next grant.
const PREEMPTION_MS: f64 = 500.0;
/// Bound on the longest of work that ignores everything, grace 2 s, from the decision to the next grant.
const STUBBORN_MS: f64 = 3000.0;

/// What was measured.
#[derive(Clone, PartialEq, Debug, Default, Serialize)]
pub struct HandoverReport {
    /// Where it ran.
    pub machine: Machine,
    /// Chips of the node.
    pub chips: u32,
    /// The agent's `kill_after`, milliseconds.
    pub kill_after_ms: u64,
    /// From a release, sent while its workload runs and heeds SIGTERM, to the grant for whoever waits.
    pub release_to_grant: LatencySummary,
    /// From the moment a workload ends by itself to the grant for whoever waits.
    pub exit_to_grant: LatencySummary,
    /// From the submit of the preemptor, grace 0, workload heeds SIGTERM, to its grant.
    pub preemption_to_grant: LatencySummary,
    /// The same with a grace of 2 s and a workload that ignores everything.
    pub stubborn_grace_2s_to_grant: LatencySummary,
    /// Wall seconds in all.
    pub seconds: f64,
}

impl HandoverReport {
    /// The bounds that were missed; what was not measured misses none.
    pub fn missed(&self) -> Vec<String> {
        let bounds = [
            ("release to grant, p99", self.release_to_grant.p99_ms, RELEASE_MS),
            ("preemption to grant, p99", self.preemption_to_grant.p99_ms, PREEMPTION_MS),
            ("work that ignores everything, longest", self.stubborn_grace_2s_to_grant.max_ms, STUBBORN_MS),
        ];
        let over = |(what, ms, bound): (&str, Option<f64>, f64)| {
            ms.filter(|ms| *ms > bound).map(|ms| format!("{what}: {ms:.0} ms, must be at most {bound:.0} ms"))
        };
        bounds.into_iter().filter_map(over).collect()
    }

    /// The report for people.
    pub fn table(&self) -> comfy_table::Table {
        crate::table::of([
            ("release to grant", self.release_to_grant.to_string()),
            ("exit to grant", self.exit_to_grant.to_string()),
            ("preemption to grant, grace 0", self.preemption_to_grant.to_string()),
            ("ignores everything, grace 2 s", self.stubborn_grace_2s_to_grant.to_string()),
            ("node", format!("{} chips, kill_after {} ms", self.chips, self.kill_after_ms)),
            ("machine", format!("{}; {:.0} s in all", self.machine, self.seconds)),
        ])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_is_missed_only_by_what_was_measured_beyond_it() {
        assert!(HandoverReport::default().missed().is_empty());
        let late = LatencySummary { count: 1, p99_ms: Some(251.0), ..LatencySummary::default() };
        assert_eq!(HandoverReport { release_to_grant: late, ..HandoverReport::default() }.missed().len(), 1);
        assert!(HandoverReport { preemption_to_grant: late, ..HandoverReport::default() }.missed().is_empty());
    }
}
