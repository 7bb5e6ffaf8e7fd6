//! How fast one caller may come: a token bucket in one number, which is when the bucket will be full again.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// How many requests a second, and how many at once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rate {
    /// From one request to the next, on average, nanoseconds; 0 for no limit.
    every_ns: u64,
    /// How far ahead of the average somebody may be, nanoseconds.
    ahead_ns: u64,
}

impl Rate {
    /// `per_second` on average and `burst` at once; no limit where `per_second` is 0.
    pub fn new(per_second: u32, burst: u32) -> Rate {
        let every_ns = 1_000_000_000u64.checked_div(per_second.into()).unwrap_or(0);
        Rate { every_ns, ahead_ns: every_ns.saturating_mul(burst.max(1).into()) }
    }
}

/// One caller's bucket.
#[derive(Debug, Default)]
pub struct Pace {
    /// When it is full, nanoseconds of a clock that only goes forward.
    full_at: AtomicU64,
}

impl Pace {
    /// Takes one out at `now` (since any fixed moment); otherwise, how long until there is one.
    pub fn take(&self, rate: Rate, now: Duration) -> Result<(), Duration> {
        if rate.every_ns == 0 {
            return Ok(());
        }
        let now = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
        let taken = |full_at: u64| {
            let next = full_at.max(now).saturating_add(rate.every_ns);
            (next - now <= rate.ahead_ns).then_some(next)
        };
        match self.full_at.fetch_update(Ordering::Relaxed, Ordering::Relaxed, taken) {
            Ok(_) => Ok(()),
            Err(full_at) => {
                let late = full_at.saturating_add(rate.every_ns).saturating_sub(now);
                Err(Duration::from_nanos(late.saturating_sub(rate.ahead_ns)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_burst_is_followed_by_the_average() {
        let (pace, rate) = (Pace::default(), Rate::new(10, 3));
        for _ in 0..3 {
            pace.take(rate, MS).expect("of the burst");
        }
        assert_eq!(pace.take(rate, MS), Err(100 * MS));
        assert_eq!(pace.take(rate, 51 * MS), Err(50 * MS));
        pace.take(rate, 101 * MS).expect("one more after a tenth of a second");
        assert_eq!(pace.take(rate, 101 * MS), Err(100 * MS));
        for _ in 0..3 {
            pace.take(rate, 10_000 * MS).expect("full again");
        }
        assert!(pace.take(rate, 10_000 * MS).is_err(), "and no fuller than that");
    }

    #[test]
    fn without_a_rate_there_is_no_limit() {
        let (pace, rate) = (Pace::default(), Rate::new(0, 1));
        assert!((0..1000).all(|_| pace.take(rate, MS).is_ok()));
    }
}
