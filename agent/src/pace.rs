//! How often a source samples: in its own rhythm, and faster while something is to be proven vacant.

use chiptide_api::node::OrdersView;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// The rhythm of a source that samples on a thread of its own. Cheap to clone; all clones are one pace.
#[derive(Clone, Debug)]
pub struct Pace {
    calm: Duration,
    hurried: Duration,
    hurry: Arc<(Mutex<bool>, Condvar)>,
}

impl Pace {
    /// Every `calm`, and every `hurried` while in a hurry.
    pub fn new(calm: Duration, hurried: Duration) -> Pace {
        Pace { calm, hurried: hurried.min(calm), hurry: Arc::default() }
    }

    /// Whether to sample fast from now on. Getting into a hurry ends a wait that is under way.
    pub fn set_hurry(&self, hurry: bool) {
        *self.hurry.0.lock().unwrap_or_else(PoisonError::into_inner) = hurry;
        self.hurry.1.notify_all();
    }

    /// Blocks until the next sample is due, counted from when the last one began.
    pub fn wait(&self, last: Instant) {
        let mut hurry = self.hurry.0.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let due = last + if *hurry { self.hurried } else { self.calm };
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
