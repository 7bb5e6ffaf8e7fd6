//! The last events that were committed, as they come: pushed by whoever follows the log (the round loop of a leader, the
//! following of a standby). Bounded: what falls out at the front is read from the table.

use chiptide_model::{Event, Timestamp};
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;
use tokio::sync::watch;

/// Most events kept.
const EVENTS_MAX: usize = 16_384;

/// Events that were committed together, in order.
#[derive(Clone, PartialEq, Debug)]
pub struct Batch {
    /// Position of the first.
    pub first: u64,
    /// When, and what.
    pub events: Vec<(Timestamp, Event)>,
}

impl Batch {
    /// The events after a position, with their own.
    pub fn after(&self, position: u64) -> impl Iterator<Item = (u64, Timestamp, &Event)> {
        let numbered = (self.first..).zip(&self.events);
        numbered.filter(move |(seq, _)| *seq > position).map(|(seq, (at, event))| (seq, *at, event))
    }

    fn end(&self) -> u64 {
        self.first + self.events.len() as u64
    }
}

#[derive(Debug, Default)]
struct Kept {
    batches: VecDeque<Arc<Batch>>,
    count: usize,
}

/// The tail.
#[derive(Debug)]
pub struct Tail {
    kept: Mutex<Kept>,
    /// The last position known to be committed; `None` until the log has been looked at.
    head: watch::Sender<Option<u64>>,
}

impl Default for Tail {
    fn default() -> Tail {
        Tail { kept: Mutex::default(), head: watch::Sender::new(None) }
    }
}

impl Tail {
    /// The log was looked at anew, and ends here.
    pub fn restart(&self, seq: u64) {
        *self.kept.lock() = Kept::default();
        self.head.send_replace(Some(seq));
    }

    /// These were committed next. After a gap (another daemon has written meanwhile) only what comes from now on is kept.
    pub fn push(&self, first: u64, events: Vec<(Timestamp, Event)>) {
        let batch = Batch { first, events };
        if batch.events.is_empty() {
            return;
        }
        let end = batch.end();
        let mut kept = self.kept.lock();
        if kept.batches.back().is_some_and(|last| last.end() != first) {
            *kept = Kept::default();
        }
        kept.count += batch.events.len();
        kept.batches.push_back(Arc::new(batch));
        while kept.count > EVENTS_MAX && kept.batches.len() > 1 {
            let dropped = kept.batches.pop_front();
            kept.count -= dropped.map_or(0, |batch| batch.events.len());
        }
        drop(kept);
        self.head.send_replace(Some(end - 1));
    }

    /// What follows a position, if memory has it.
    pub fn after(&self, position: u64) -> Option<Arc<Batch>> {
        let kept = self.kept.lock();
        let at = kept.batches.partition_point(|batch| batch.end() <= position + 1);
        kept.batches.get(at).filter(|batch| batch.first <= position + 1).cloned()
    }

    /// The last position known to be committed.
    pub fn head(&self) -> Option<u64> {
        *self.head.borrow()
    }

    /// A receiver that sees it move.
    pub fn changes(&self) -> watch::Receiver<Option<u64>> {
        self.head.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn took_over(count: usize) -> Vec<(Timestamp, Event)> {
        vec![(Timestamp(1), Event::LeaderTookOver { epoch: 1 }); count]
    }

    fn positions(tail: &Tail, after: u64) -> Option<Vec<u64>> {
        Some(tail.after(after)?.after(after).map(|(seq, ..)| seq).collect())
    }

    #[test]
    fn it_answers_what_follows_a_position_and_says_when_it_does_not_know() {
        let tail = Tail::default();
        assert_eq!(tail.head(), None);
        tail.restart(10);
        tail.push(11, took_over(2));
        tail.push(13, took_over(1));
        assert_eq!(tail.head(), Some(13));
        assert_eq!(positions(&tail, 10), Some(vec![11, 12]));
        assert_eq!(positions(&tail, 11), Some(vec![12]));
        assert_eq!(positions(&tail, 12), Some(vec![13]));
        assert_eq!(positions(&tail, 13), None, "nothing follows yet");
        assert_eq!(positions(&tail, 9), None, "the table has it");
        tail.push(20, took_over(1));
        assert_eq!(positions(&tail, 12), None, "after a gap the table has what came before");
        assert_eq!(positions(&tail, 19), Some(vec![20]));
    }

    #[test]
    fn it_is_bounded() {
        let tail = Tail::default();
        tail.restart(0);
        for batch in 0..40 {
            tail.push(batch * 1000 + 1, took_over(1000));
        }
        assert_eq!(positions(&tail, 0), None);
        assert_eq!(tail.head(), Some(40_000));
        assert!(tail.after(40_000 - EVENTS_MAX as u64 + 1000).is_some());
    }
}
