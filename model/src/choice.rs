//! Why these leases were taken and no others: what each eviction costs, and the plan that would have been next.
//! Written with the promise it led to, so that "why was I evicted" has an answer with numbers for as long as the log lasts.

use crate::id::LeaseId;
use serde::{Deserialize, Serialize};

/// What evictions cost, in the order in which it counts: less lost work is better, then fewer gangs, then newer ones.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Cost {
    /// Work lost and restarts paid: slots times milliseconds.
    pub lost_slot_ms: u64,
    /// Gangs broken; a job that only shrinks is not.
    pub gangs: u32,
    /// Sum of ages, in milliseconds.
    pub age_ms: u64,
}

impl Cost {
    /// The cost of both.
    pub fn plus(self, other: Cost) -> Cost {
        Cost {
            lost_slot_ms: self.lost_slot_ms.saturating_add(other.lost_slot_ms),
            gangs: self.gangs.saturating_add(other.gangs),
            age_ms: self.age_ms.saturating_add(other.age_ms),
        }
    }
}

/// Another way to make room that was weighed and found dearer.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct RunnerUp {
    /// The leases it would have taken.
    pub victims: Vec<LeaseId>,
    /// What that would have cost.
    pub cost: Cost,
}

/// The weighing behind a set of victims.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Choice {
    /// What the victims cost together.
    pub cost: Cost,
    /// What each of them costs alone.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub per_victim: Vec<(LeaseId, Cost)>,
    /// The next best plan, where there was another.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runner_up: Option<RunnerUp>,
}

impl Choice {
    /// What taking this lease costs.
    pub fn cost_of(&self, lease: LeaseId) -> Option<Cost> {
        self.per_victim.iter().find(|(victim, _)| *victim == lease).map(|(_, cost)| *cost)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choices_written_before_a_field_was_known_still_read() {
        assert_eq!(serde_json::from_str::<Choice>("{}").expect("a choice"), Choice::default());
        let cost = serde_json::from_str::<Cost>(r#"{"lost_slot_ms": 7}"#).expect("a cost");
        assert_eq!(cost, Cost { lost_slot_ms: 7, ..Cost::default() });
    }

    #[test]
    fn lost_work_counts_before_gangs_and_gangs_before_age() {
        let cost = |lost_slot_ms, gangs, age_ms| Cost { lost_slot_ms, gangs, age_ms };
        assert!(cost(1, 9, 9) < cost(2, 1, 1) && cost(1, 1, 9) < cost(1, 2, 1) && cost(1, 1, 1) < cost(1, 1, 2));
    }
}
