//! How often a source samples: in its own rhythm, and faster while something is to be proven vacant.

use chiptide_api::node::OrdersView;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// How long a hurry is at its fastest. Most chips are proven vacant within it; one that is not will take a while.
const FASTEST_FOR: Duration = Duration::from_secs(3);
/// How much slower a hurry is after that.
const SLOWER: u32 = 5;

/// The rhythm of a source that samples on a thread of its own. Cheap to clone; all clones are one pace.
#[derive(Clone, Debug)]
pub struct Pace {
    calm: Duration,
    hurried: Duration,
    /// Since when it hurries, if it does.
    hurry: Arc<(Mutex<Option<Instant>>, Condvar)>,
}

impl Pace {
    /// Every `calm`, and every `hurried` while in a hurry; a hurry that lasts gets slower.
    pub fn new(calm: Duration, hurried: Duration) -> Pace {
        Pace { calm, hurried: hurried.min(calm), hurry: Arc::default() }
    }

    /// Whether to sample fast from now on. Getting into a hurry ends a wait that is under way; said again, the hurry is as
    /// at its beginning.
    pub fn set_hurry(&self, hurry: bool) {
        *self.hurry.0.lock().unwrap_or_else(PoisonError::into_inner) = hurry.then(Instant::now);
        self.hurry.1.notify_all();
    }

    fn every(&self, hurry: Option<Instant>) -> Duration {
        match hurry {
            None => self.calm,
            Some(since) if since.elapsed() < FASTEST_FOR => self.hurried,
            Some(_) => (self.hurried * SLOWER).min(self.calm),
        }
    }

    /// Blocks until the next sample is due, counted from when the last one began.
    pub fn wait(&self, last: Instant) {
        let mut hurry = self.hurry.0.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let due = last + self.every(*hurry);
            let Some(left) = due.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) else { return };
            hurry = self.hurry.1.wait_timeout(hurry, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Hurries while `orders` want a chip vacated, or work started on one that must be seen clear first. Ends with their sender.
    pub async fn follow(self, mut orders: watch::Receiver<OrdersView>) {
        loop {
            self.set_hurry(is_pressing(&orders.borrow_and_update()));
            if orders.changed().await.is_err() {
                return;
            }
        }
    }
}

fn is_pressing(orders: &OrdersView) -> bool {
    !orders.vacate.is_empty() || orders.leases.iter().any(|order| order.work.is_some() && !order.confirmed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hurry_ends_a_long_wait() {
        let pace = Pace::new(Duration::from_secs(3600), Duration::from_millis(1));
        let waiting = std::thread::spawn({
            let pace = pace.clone();
            move || pace.wait(Instant::now())
        });
        pace.set_hurry(true);
        waiting.join().expect("the wait ends");
    }
}
