//! Training jobs as their owner sees them: how much work is left, when a run will end, what an eviction costs.

use super::trace::TrainingJob;
use chiptide_model::{Millis, Timestamp};
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// How often a job saves its work.
pub(super) const CHECKPOINT_EVERY: Millis = Millis::from_secs(3600);

/// The training jobs of a replay, each by its number.
#[derive(Debug)]
pub(super) struct Training {
    jobs: Vec<Progress>,
    /// Ends of runs: when, which job, which of its runs.
    ends: BinaryHeap<Reverse<(Timestamp, usize, u32)>>,
}

#[derive(Clone, Copy, Debug)]
struct Progress {
    job: TrainingJob,
    left: Millis,
    waited: Millis,
    /// Since when it waits or runs.
    since: Timestamp,
    runs: u32,
}

/// What an eviction cost, in time of the whole gang.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Loss {
    pub work: Millis,
    pub restart: Millis,
}

impl Training {
    pub(super) fn of(jobs: &[TrainingJob]) -> Training {
        let waiting =
            |&job: &TrainingJob| Progress { job, left: job.work, waited: Millis(0), since: job.submitted_at, runs: 0 };
        Training { jobs: jobs.iter().map(waiting).collect(), ends: BinaryHeap::new() }
    }

    /// A job got its chips.
    pub(super) fn start(&mut self, number: usize, now: Timestamp) {
        let job = &mut self.jobs[number];
        job.waited = Millis(job.waited.0 + now.since(job.since).0);
        job.since = now;
        job.runs += 1;
        self.ends.push(Reverse((now + job.left, number, job.runs)));
    }

    /// A job lost its chips: it keeps what it saved and has its restart before it.
    pub(super) fn evict(&mut self, number: usize, now: Timestamp) -> Loss {
        let job = &mut self.jobs[number];
        let ran = now.since(job.since).0;
        let saved = ran - ran % CHECKPOINT_EVERY.0;
        let loss = Loss { work: Millis(ran - saved), restart: restart_of(job.job.chips) };
        job.left = Millis(job.left.0 - saved.min(job.left.0) + loss.restart.0);
        job.since = now;
        // The end of the run that was cut short must not be met.
        job.runs += 1;
        loss
    }

    /// Time a job waited in all, and time since its submit.
    pub(super) fn spans(&self, number: usize, now: Timestamp) -> (Millis, Millis) {
        let job = &self.jobs[number];
        (job.waited, now.since(job.job.submitted_at))
    }

    /// When the next run ends.
    pub(super) fn next_end(&mut self) -> Option<Timestamp> {
        while let Some(Reverse((at, number, run))) = self.ends.peek().copied() {
            if self.jobs[number].runs == run {
                return Some(at);
            }
            self.ends.pop();
        }
        None
    }

    /// The jobs whose run ends now.
    pub(super) fn take_ended(&mut self, now: Timestamp) -> Vec<usize> {
        let mut ended = Vec::new();
        while self.next_end().is_some_and(|at| at <= now) {
            ended.extend(self.ends.pop().map(|Reverse((_, number, _))| number));
        }
        ended
    }
}

/// Time a job of this size takes to restart.
pub(super) fn restart_of(chips: u32) -> Millis {
    Millis::from_secs(if chips <= 8 { 40 } else { 60 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_eviction_costs_the_work_since_the_checkpoint_and_a_restart() {
        let at = |secs: i64| Timestamp(secs * 1000);
        let job = TrainingJob { submitted_at: at(0), work: Millis::from_secs(8000), chips: 2 };
        let mut training = Training::of(&[job]);
        training.start(0, at(100));
        assert_eq!(training.next_end(), Some(at(8100)));
        let loss = training.evict(0, at(100 + 3600 + 5));
        assert_eq!((loss.work, loss.restart), (Millis::from_secs(5), Millis::from_secs(40)));
        assert_eq!(training.next_end(), None);
        training.start(0, at(4000));
        assert_eq!(training.next_end(), Some(at(4000 + 8000 - 3600 + 40)));
        assert_eq!(training.spans(0, at(8440)), (Millis::from_secs(100 + 295), Millis::from_secs(8440)));
    }
}
