//! What is counted, and under what: slot-milliseconds (a thousandth of a chip for a thousandth of a second), which are whole
//! numbers, so that sums are exact.

use chiptide_model::{DeviceClass, JobId, Timestamp};

/// Milliseconds of an hour.
const HOUR: i64 = 3_600_000;

/// What amounts are counted under.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Cell {
    /// Start of the hour.
    pub hour: Timestamp,
    /// The queue; empty where the time is no queue's.
    pub queue: String,
    /// The job; absent where the time is no job's.
    pub job: Option<JobId>,
    /// The device class.
    pub class: DeviceClass,
}

impl Cell {
    /// The cell of a moment.
    pub fn of(at: Timestamp, queue: &str, job: Option<JobId>, class: &DeviceClass) -> Cell {
        let hour = Timestamp(at.0.div_euclid(HOUR) * HOUR);
        Cell { hour, queue: queue.to_owned(), job, class: class.clone() }
    }
}

/// Amounts of time, slot-milliseconds each. The first four are all the time there is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Amounts {
    /// A live lease had it.
    pub granted: i64,
    /// A lease that had ended was not proven gone.
    pub vacating: i64,
    /// Nobody had it and it could have been granted.
    pub idle: i64,
    /// Nobody had it and it could not be granted: a fault, a quarantine, a node that is not heard.
    pub out_of_service: i64,
    /// Of what was granted: beyond the queue's guarantee.
    pub borrowed: i64,
    /// Of the queue's guarantee: not used.
    pub lent: i64,
    /// Of what was granted: work thrown away because the lease was taken.
    pub lost_to_preemption: i64,
    /// Of what was granted: work thrown away because of a fault.
    pub lost_to_faults: i64,
    /// Of what was granted: the chip was at work, by its own readings.
    pub busy: i64,
}

impl Amounts {
    /// Adds other amounts.
    pub fn add(&mut self, other: &Amounts) {
        self.granted += other.granted;
        self.vacating += other.vacating;
        self.idle += other.idle;
        self.out_of_service += other.out_of_service;
        self.borrowed += other.borrowed;
        self.lent += other.lent;
        self.lost_to_preemption += other.lost_to_preemption;
        self.lost_to_faults += other.lost_to_faults;
        self.busy += other.busy;
    }

    /// All the time there is.
    pub fn total(&self) -> i64 {
        self.granted + self.vacating + self.idle + self.out_of_service
    }
}

/// The hours that a span lies in, each with its part of it, milliseconds.
pub(super) fn hours(from: Timestamp, to: Timestamp) -> impl Iterator<Item = (Timestamp, i64)> {
    let mut at = from.0;
    std::iter::from_fn(move || {
        let hour = at.div_euclid(HOUR) * HOUR;
        let span = to.0.min(hour + HOUR) - at;
        at += span;
        (span > 0).then_some((Timestamp(hour), span))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_cut_at_the_hours_and_nothing_is_lost() {
        let cut = |from, to| {
            hours(Timestamp(from), Timestamp(to)).map(|(hour, span)| (hour.0 / HOUR, span)).collect::<Vec<_>>()
        };
        assert_eq!(cut(HOUR - 1, 2 * HOUR + 5), [(0, 1), (1, HOUR), (2, 5)]);
        assert_eq!(cut(HOUR, HOUR), []);
        assert_eq!(cut(5, 3), []);
    }
}
