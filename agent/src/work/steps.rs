//! When each step of the ladder was taken, of one replica and of all replicas of a lease. On the boot-time clock.

use chiptide_api::work::{LadderReport, LadderStepBody, StepBody};
use chiptide_model::Millis;
use std::time::Duration;
use uuid::Uuid;

/// The steps taken so far.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Steps {
    /// The workload was told.
    pub(crate) told: Option<Duration>,
    /// SIGTERM was sent.
    pub(crate) terminated: Option<Duration>,
    /// What was left was killed.
    pub(crate) killed: Option<Duration>,
    /// Something was still there long after the kill.
    pub(crate) stuck: Option<Duration>,
    /// Nothing was left.
    pub(crate) empty: Option<Duration>,
}

impl Steps {
    /// The steps with two replicas as those with both: empty is what is empty of either.
    pub(crate) fn and(self, other: Steps) -> Steps {
        let first = |a: Option<Duration>, b: Option<Duration>| a.into_iter().chain(b).min();
        Steps {
            told: first(self.told, other.told),
            terminated: first(self.terminated, other.terminated),
            killed: first(self.killed, other.killed),
            stuck: first(self.stuck, other.stuck),
            empty: self.empty.zip(other.empty).map(|(a, b)| a.max(b)),
        }
    }

    /// Whether they are worth telling: the replica was told to go, and is gone or does not go.
    pub(crate) fn are_news(self) -> bool {
        (self.told.is_some() || self.terminated.is_some()) && (self.stuck.is_some() || self.empty.is_some())
    }

    /// What to report of them, with how long ago each was.
    pub(crate) fn report(self, lease: Uuid, now: Duration) -> LadderReport {
        let steps = [
            (StepBody::Told, self.told),
            (StepBody::Terminated, self.terminated),
            (StepBody::Killed, self.killed),
            (StepBody::Stuck, self.stuck),
            (StepBody::Empty, self.empty),
        ];
        let ago = |at: Duration| Millis(now.saturating_sub(at).as_millis() as u64);
        let taken = steps.into_iter().filter_map(|(step, at)| Some(LadderStepBody { step, ago: ago(at?) }));
        LadderReport { lease, steps: taken.collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_empty_when_the_last_of_its_replicas_is() {
        let at = |ms| Some(Duration::from_millis(ms));
        let quick = Steps { told: at(1), empty: at(5), ..Steps::default() };
        let slow = Steps { told: at(2), terminated: at(8), ..Steps::default() };
        let both = quick.and(slow);
        assert_eq!(both, Steps { told: at(1), terminated: at(8), ..Steps::default() });
        assert!(quick.are_news() && !both.are_news());
        let gone = quick.and(Steps { empty: at(9), ..slow });
        let report = gone.report(Uuid::nil(), Duration::from_millis(10));
        let told: Vec<(StepBody, u64)> = report.steps.iter().map(|step| (step.step, step.ago.0)).collect();
        assert_eq!(told, [(StepBody::Told, 9), (StepBody::Terminated, 2), (StepBody::Empty, 1)]);
    }
}
