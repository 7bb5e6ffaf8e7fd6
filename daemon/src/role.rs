//! Who leads, as this daemon knows it: itself, for as long as its leadership was renewed in time, or another.
//!
//! Postgres fences every commit, whatever is said here. This is about answers: a daemon that was stopped for a while must
//! not speak as the leader when it wakes, even before it has asked.

use crate::metrics;
use parking_lot::RwLock;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use uuid::Uuid;

/// How long a leadership lives unless renewed, by the database's clock.
pub const TTL: Duration = Duration::from_secs(6);
/// How long its holder relies on it after a renewal was sent, by the monotonic clock. Two thirds: the rest is room for
/// clocks that run apart.
pub const HELD: Duration = Duration::from_secs(4);

/// Another daemon that leads.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Leader {
    /// Its process.
    pub instance: Uuid,
    /// Its epoch.
    pub epoch: u64,
    /// Where it can be reached.
    pub url: String,
}

/// What a daemon is now.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Part {
    /// It leads.
    Leader,
    /// It has led, and does not know whether it still does: its leadership was not renewed in time.
    Lapsed,
    /// Another leads, or none does.
    Standby(Option<Leader>),
}

#[derive(Debug)]
struct Inner {
    /// The epoch of our own leadership, and when its last renewal was sent.
    own: Option<(u64, Instant)>,
    leader: Option<Leader>,
    /// Whether the leader answered when last asked.
    answers: bool,
    /// When our copy of the cluster was last known to be current.
    followed: Option<Instant>,
}

/// Who leads. Shared by everyone who asks.
#[derive(Debug)]
pub struct Role {
    inner: RwLock<Inner>,
    changes: watch::Sender<()>,
}

impl Default for Role {
    fn default() -> Role {
        let inner = Inner { own: None, leader: None, answers: false, followed: None };
        Role { inner: RwLock::new(inner), changes: watch::Sender::new(()) }
    }
}

impl Role {
    /// This daemon leads from `since` on, when it asked for it.
    pub fn lead(&self, epoch: u64, since: Instant) {
        let mut inner = self.inner.write();
        (inner.own, inner.leader, inner.answers) = (Some((epoch, since)), None, false);
        metrics::leading(true);
        self.changes.send_replace(());
    }

    /// The leadership was renewed; the renewal was sent at `sent`.
    pub fn renewed(&self, sent: Instant) {
        if let Some((_, renewed)) = &mut self.inner.write().own {
            *renewed = sent;
        }
        metrics::leading(true);
    }

    /// This daemon does not lead any more.
    pub fn step_down(&self) {
        let mut inner = self.inner.write();
        inner.own = None;
        // What it has in memory may be behind by now, and by how much nobody has looked.
        inner.followed = None;
        metrics::leading(false);
        self.changes.send_replace(());
    }

    /// The leader that the database names; `None` when its leadership has expired.
    pub fn saw(&self, leader: Option<Leader>) {
        let mut inner = self.inner.write();
        if inner.leader != leader {
            (inner.leader, inner.answers) = (leader, false);
            self.changes.send_replace(());
        }
    }

    /// Whether the leader answered just now. Of one that is not the leader any more, nothing is noted.
    pub fn heard(&self, leader: &Leader, answers: bool) {
        let mut inner = self.inner.write();
        if inner.leader.as_ref() == Some(leader) && inner.answers != answers {
            inner.answers = answers;
            self.changes.send_replace(());
        }
    }

    /// Our copy of the cluster is what was committed at this moment or later.
    pub fn followed(&self, at: Instant) {
        let was_absent = self.inner.write().followed.replace(at).is_none();
        if was_absent {
            self.changes.send_replace(());
        }
    }

    /// What this daemon is now.
    pub fn part(&self) -> Part {
        let inner = self.inner.read();
        match inner.own {
            Some((_, renewed)) if renewed.elapsed() < HELD => Part::Leader,
            Some(_) => Part::Lapsed,
            None => Part::Standby(inner.leader.clone()),
        }
    }

    /// The epoch of our own leadership, lapsed or not.
    pub fn epoch(&self) -> Option<u64> {
        self.inner.read().own.map(|(epoch, _)| epoch)
    }

    /// The other daemon that leads, if one is known.
    pub fn leader(&self) -> Option<Leader> {
        self.inner.read().leader.clone()
    }

    /// Whether this daemon leads, so far as it may rely on it.
    pub fn leads(&self) -> bool {
        self.inner.read().own.is_some_and(|(_, renewed)| renewed.elapsed() < HELD)
    }

    /// Whether this daemon is a standby that can answer: its copy is there, and the leader answers.
    pub fn stands_by(&self) -> bool {
        let inner = self.inner.read();
        inner.own.is_none() && inner.answers && inner.followed.is_some()
    }

    /// How old an answer from memory may be, milliseconds; `None` while this daemon leads or has no copy.
    pub fn stale_ms(&self) -> Option<u64> {
        let inner = self.inner.read();
        let since = match inner.own {
            Some((_, renewed)) => Some(renewed).filter(|renewed| renewed.elapsed() >= HELD),
            None => inner.followed,
        };
        since.map(|since| since.elapsed().as_millis() as u64)
    }

    /// Waits until this leader is not the leader any more, as far as is known.
    pub async fn gone(&self, leader: &Leader) {
        self.until(|inner| inner.leader.as_ref() != Some(leader)).await;
    }

    /// Waits until this daemon is a standby that can answer.
    pub async fn standing_by(&self) {
        self.until(|inner| inner.own.is_none() && inner.answers && inner.followed.is_some()).await;
    }

    /// A receiver that sees every change.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }

    async fn until(&self, reached: impl Fn(&Inner) -> bool) {
        let mut changes = self.changes.subscribe();
        while !reached(&self.inner.read()) {
            // The sender is our own: it lives as long as we are borrowed.
            let _ = changes.changed().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leader(epoch: u64) -> Leader {
        Leader { instance: Uuid::from_u128(7), epoch, url: "http://leader".into() }
    }

    #[test]
    fn a_leadership_that_is_not_renewed_lapses_and_a_renewal_brings_it_back() {
        let role = Role::default();
        let long_ago = Instant::now().checked_sub(HELD).expect("the machine has been up for longer");
        role.lead(3, long_ago);
        assert_eq!((role.part(), role.leads()), (Part::Lapsed, false));
        assert!(role.stale_ms().is_some());
        role.renewed(Instant::now());
        assert_eq!((role.part(), role.stale_ms()), (Part::Leader, None));
        role.step_down();
        assert_eq!(role.part(), Part::Standby(None));
        role.renewed(Instant::now());
        assert!(!role.leads(), "a renewal that comes after the end changes nothing");
    }

    #[test]
    fn a_standby_can_answer_once_it_has_a_copy_and_its_leader_answers() {
        let role = Role::default();
        role.saw(Some(leader(1)));
        role.heard(&leader(1), true);
        assert!(!role.stands_by());
        role.followed(Instant::now());
        assert!(role.stands_by());
        role.saw(Some(leader(2)));
        role.heard(&leader(1), true);
        assert!(!role.stands_by(), "the word of the last leader does not count for the next");
    }
}
