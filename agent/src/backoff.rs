//! Waiting between tries: doubling, bounded, and jittered so that a fleet does not come back in step.

use rand::RngExt;
use std::time::Duration;

const FIRST: Duration = Duration::from_millis(200);
const LONGEST: Duration = Duration::from_secs(5);
/// What the daemon may ask for at most.
const TOLD_MAX: Duration = Duration::from_secs(30);

/// How long to wait before the next try.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    tries: u32,
}

impl Backoff {
    /// The wait after one more failure: between half and all of 0.2 s, 0.4 s, … up to 5 s.
    pub(crate) fn next(&mut self) -> Duration {
        let full = FIRST.saturating_mul(1 << self.tries.min(5)).min(LONGEST);
        self.tries = self.tries.saturating_add(1);
        jittered(full)
    }

    /// The wait after one more failure, when the daemon has said how long it needs: never less, and up to twice that, so that
    /// those it told the same do not come back together.
    pub(crate) fn next_told(&mut self, told: Option<Duration>) -> Duration {
        let (own, told) = (self.next(), told.unwrap_or_default().min(TOLD_MAX));
        own.max(told + told.mul_f64(rand::rng().random_range(0.0..=1.0)))
    }

    /// The wait after a refusal that trying sooner will not change.
    pub(crate) fn slow(&self) -> Duration {
        jittered(LONGEST)
    }

    /// Something worked: the next failure waits the shortest time again.
    pub(crate) fn reset(&mut self) {
        self.tries = 0;
    }
}

fn jittered(full: Duration) -> Duration {
    full.mul_f64(rand::rng().random_range(0.5..=1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_a_bound_and_start_over() {
        let mut backoff = Backoff::default();
        assert!(backoff.next() <= FIRST);
        for _ in 0..100 {
            assert!(backoff.next() <= LONGEST);
        }
        assert!(backoff.next() >= LONGEST / 2);
        backoff.reset();
        assert!(backoff.next() <= FIRST);
    }

    #[test]
    fn what_the_daemon_asks_for_is_kept_and_spread() {
        let mut backoff = Backoff::default();
        let told = backoff.next_told(Some(Duration::from_secs(10)));
        assert!(told >= Duration::from_secs(10) && told <= Duration::from_secs(20), "{told:?}");
        assert!(backoff.next_told(Some(Duration::from_secs(86_400))) <= 2 * TOLD_MAX);
        assert!(backoff.next_told(None) <= LONGEST);
    }
}
