//! The one clock of rounds. It runs as evenly as the machine's boot-time clock, which neither a step of the wall clock nor a
//! suspended machine disturbs: how long a fenced lease is waited for must not depend on somebody setting the time. It starts
//! at the wall clock's time and follows it slowly.

use chiptide_model::Timestamp;
use parking_lot::Mutex;
use rustix::time::{ClockId, clock_gettime};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How fast it follows the wall clock, in millionths: well below the drift that a wait for a fence allows for.
const SLEW_PPM: i128 = 100;
/// Further off than this is worth a word.
const FAR_OFF_NS: i128 = 60_000_000_000;

/// What it last told, and when by the boot-time clock, nanoseconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Told {
    at_ns: i128,
    boot_ns: i128,
}

/// The clock.
#[derive(Debug, Default)]
pub struct Clock {
    told: Mutex<Option<Told>>,
    warned: Mutex<bool>,
}

impl Clock {
    /// The time, never before one it has told.
    pub fn now(&self) -> Timestamp {
        let mut told = self.told.lock();
        let (boot_ns, wall_ns) = (boot_time().as_nanos().cast_signed(), wall_time().as_nanos().cast_signed());
        let now = told.map_or(Told { at_ns: wall_ns, boot_ns }, |told| follow(told, boot_ns, wall_ns));
        *told = Some(now);
        self.warn(wall_ns - now.at_ns);
        Timestamp(i64::try_from(now.at_ns / 1_000_000).unwrap_or(i64::MAX))
    }

    fn warn(&self, off_ns: i128) {
        let mut warned = self.warned.lock();
        let far_off = off_ns.abs() > FAR_OFF_NS;
        if far_off && !*warned {
            let off_s = i64::try_from(off_ns / 1_000_000_000).unwrap_or(i64::MAX);
            tracing::warn!(off_s, "the wall clock was set; times of events follow it slowly, or at the next start");
        }
        *warned = far_off;
    }
}

/// The next time to tell: as much later as the boot-time clock says, and nearer to the wall clock by a little.
fn follow(told: Told, boot_ns: i128, wall_ns: i128) -> Told {
    let passed = (boot_ns - told.boot_ns).max(0);
    let even = told.at_ns + passed;
    let slew = passed * SLEW_PPM / 1_000_000;
    Told { at_ns: even + (wall_ns - even).clamp(-slew, slew), boot_ns: told.boot_ns.max(boot_ns) }
}

fn boot_time() -> Duration {
    let now = clock_gettime(ClockId::Boottime);
    // The kernel counts up from 0, in whole nanoseconds below a second.
    Duration::new(now.tv_sec.cast_unsigned(), u32::try_from(now.tv_nsec).unwrap_or(0))
}

fn wall_time() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i128 = 1_000_000_000;

    #[test]
    fn a_step_of_the_wall_clock_shortens_no_wait() {
        let start = Told { at_ns: 1000 * SECOND, boot_ns: 0 };
        for wall in [0, 1010 * SECOND, 1_000_000 * SECOND] {
            let later = follow(start, 10 * SECOND, wall).at_ns - start.at_ns;
            assert!((later - 10 * SECOND).abs() <= 10 * SECOND / 10_000, "{later} ns");
        }
    }

    #[test]
    fn it_comes_to_agree_with_the_wall_clock_and_never_goes_back() {
        let mut told = Told { at_ns: 1000 * SECOND, boot_ns: 0 };
        for second in 1..=20_000 {
            let next = follow(told, second * SECOND, (999 + second) * SECOND);
            assert!(next.at_ns > told.at_ns);
            told = next;
        }
        assert_eq!(told.at_ns, (999 + 20_000) * SECOND);
        assert_eq!(follow(told, told.boot_ns, 0), told, "the same moment twice");
    }
}
