//! The eviction ladder of one replica: notice, SIGTERM, kill, kill again. Pure: moments come in, the next act comes out.
//! Moments are on the boot-time clock, which a suspended machine does not stop.

use std::time::Duration;

/// How long each rung may take.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bounds {
    /// From SIGTERM to the kill.
    pub kill_after: Duration,
    /// From the kill until it is said, once, that something does not die.
    pub verify_for: Duration,
}

/// A process that forks while it is killed is met again after this.
const KILL_AGAIN: Duration = Duration::from_millis(100);

/// What the orders want of a replica.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wanted {
    /// It runs on.
    Run,
    /// It has until then.
    Until(Duration),
    /// Its lease has ended.
    End,
}

/// What to do now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Act {
    /// Wait.
    Nothing,
    /// Tell the workload until when it has.
    Notice(Duration),
    /// Send SIGTERM.
    Terminate,
    /// Kill what is there.
    Kill,
    /// Kill what is there, and say that it should be gone by now.
    KillLoudly,
}

/// How far the replica has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Ladder {
    /// Nothing has been asked of it.
    #[default]
    Running,
    /// It knows until when it has.
    Noticed(Duration),
    /// It has been sent SIGTERM.
    Terminated {
        /// When.
        at: Duration,
    },
    /// It has been killed, and is killed again while something is left.
    Killed {
        /// When first.
        at: Duration,
        /// When last.
        last: Duration,
        /// Whether it has been said that it should be gone.
        said: bool,
    },
}

impl Ladder {
    /// Whether the end has begun: nothing of the replica is to be left.
    pub fn is_ending(self) -> bool {
        matches!(self, Ladder::Terminated { .. } | Ladder::Killed { .. })
    }

    /// The next act. `over` when the workload's own process has ended: what it left behind gets no grace.
    pub fn climb(&mut self, now: Duration, wanted: Wanted, over: bool, bounds: Bounds) -> Act {
        let (next, act) = match *self {
            Ladder::Running | Ladder::Noticed(_) if over => {
                (Ladder::Killed { at: now, last: now, said: false }, Act::Kill)
            }
            Ladder::Running | Ladder::Noticed(_) if is_due(now, wanted) => {
                (Ladder::Terminated { at: now }, Act::Terminate)
            }
            Ladder::Running | Ladder::Noticed(_) => match wanted {
                Wanted::Until(deadline) if *self != Ladder::Noticed(deadline) => {
                    (Ladder::Noticed(deadline), Act::Notice(deadline))
                }
                _ => (*self, Act::Nothing),
            },
            Ladder::Terminated { at } if over || now >= at + bounds.kill_after => {
                (Ladder::Killed { at: now, last: now, said: false }, Act::Kill)
            }
            Ladder::Killed { at, said: false, .. } if now >= at + bounds.verify_for => {
                (Ladder::Killed { at, last: now, said: true }, Act::KillLoudly)
            }
            Ladder::Killed { at, last, said } if now >= last + KILL_AGAIN => {
                (Ladder::Killed { at, last: now, said }, Act::Kill)
            }
            Ladder::Terminated { .. } | Ladder::Killed { .. } => (*self, Act::Nothing),
        };
        *self = next;
        act
    }
}

fn is_due(now: Duration, wanted: Wanted) -> bool {
    match wanted {
        Wanted::Run => false,
        Wanted::Until(deadline) => now >= deadline,
        Wanted::End => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds { kill_after: Duration::from_secs(2), verify_for: Duration::from_secs(5) };

    fn ms(at: u64) -> Duration {
        Duration::from_millis(at)
    }

    #[test]
    fn every_rung_has_its_time() {
        let mut ladder = Ladder::default();
        let mut at = |now, wanted| ladder.climb(ms(now), wanted, false, BOUNDS);
        let until = Wanted::Until(ms(1000));
        assert_eq!(at(0, Wanted::Run), Act::Nothing);
        assert_eq!((at(10, until), at(20, until)), (Act::Notice(ms(1000)), Act::Nothing));
        assert_eq!((at(999, until), at(1000, until)), (Act::Nothing, Act::Terminate));
        assert_eq!((at(2999, Wanted::End), at(3000, Wanted::End)), (Act::Nothing, Act::Kill));
        assert_eq!((at(3050, Wanted::End), at(3100, Wanted::End)), (Act::Nothing, Act::Kill));
        assert_eq!((at(8000, Wanted::End), at(8050, Wanted::End)), (Act::KillLoudly, Act::Nothing));
        assert_eq!(at(20_000, Wanted::Run), Act::Kill, "there is no way back");
    }

    #[test]
    fn a_lease_that_ends_early_ends_the_grace_and_an_exit_ends_all_of_it() {
        let mut ladder = Ladder::Noticed(ms(60_000));
        assert_eq!(ladder.climb(ms(10), Wanted::End, false, BOUNDS), Act::Terminate);
        assert_eq!(ladder.climb(ms(20), Wanted::End, true, BOUNDS), Act::Kill, "what it left behind");
        let mut ladder = Ladder::Running;
        assert_eq!(ladder.climb(ms(10), Wanted::Run, true, BOUNDS), Act::Kill);
    }
}
