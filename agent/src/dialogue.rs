//! What one registered session says and what it makes of the answers: when a report is due and what it tells, which orders
//! are news. Pure: moments, readings and answers come in, what to send and what to act on come out. It sends nothing, and
//! waits for nothing.

use crate::reading::NodeReading;
use crate::standing::Standing;
use crate::state::Grant;
use crate::telling::Telling;
use crate::work::View;
use chiptide_api::fault::FaultBody;
use chiptide_api::node::{ChipBody, HealthBody, OrdersView, RegisterView, ReportBody, VacantBody};
use std::time::Duration;
use tokio::time::Instant;
use uuid::Uuid;

/// News come at once to an agent that was idle; of a burst, whatever happens within this goes into one poll or report.
pub(crate) const BURST: Duration = Duration::from_millis(40);
/// The shortest time between two regular reports, whatever is configured.
const EVERY_MIN: Duration = Duration::from_millis(50);

/// One session's side of the talk with the daemon.
#[derive(Clone, Debug)]
pub struct Dialogue {
    session: Uuid,
    boot_id: String,
    every: Duration,
    facts: Vec<ChipBody>,
    seq: u64,
    /// Revision of the orders received in this session, and when they came.
    seen: Option<(String, Instant)>,
    /// What the last accepted report told, and what the one in flight tells.
    told: Option<Telling>,
    telling: Option<Telling>,
    /// Faults of the chips, as they are to be told.
    faults: Vec<FaultBody>,
    /// When the next report is due, and before when none may go (after a failure).
    due: Instant,
    not_before: Instant,
}

/// What orders that came in mean.
#[derive(Clone, Debug)]
pub enum Received {
    /// They are the ones held. `ask_on` when they were asked for before those came, so that a later question may bring more.
    Held {
        /// Whether to ask on at once.
        ask_on: bool,
    },
    /// They were asked for before the held ones came, and may be older: they are let be.
    MaybeOlder,
    /// They are to be acted on as soon as [`Standing::epochs`] of this standing is on disk.
    News {
        /// What this node has been told once it acts on them.
        standing: Box<Standing>,
        /// Grants that are out of date and were not so before.
        out_of_date: Vec<Grant>,
    },
}

impl Dialogue {
    /// The session the daemon answered, on a node in this boot with chips as `reading` has them. Reports go every `every`,
    /// or as often as the daemon asks for.
    pub fn new(
        told: &RegisterView,
        boot_id: String,
        every: Option<Duration>,
        reading: &NodeReading,
        now: Instant,
    ) -> Dialogue {
        Dialogue {
            session: told.session,
            boot_id,
            every: every.unwrap_or(Duration::from_millis(told.report_every.0)).max(EVERY_MIN),
            facts: facts(reading),
            seq: 0,
            seen: None,
            told: None,
            telling: None,
            faults: Vec::new(),
            due: now,
            not_before: now,
        }
    }

    /// The session.
    pub fn session(&self) -> Uuid {
        self.session
    }

    /// Whether the chips are still those that were registered; when not, the node must register again.
    pub fn knows(&self, reading: &NodeReading) -> bool {
        self.facts == facts(reading)
    }

    /// Revision of the orders received in this session.
    pub fn revision(&self) -> Option<&str> {
        self.seen.as_ref().map(|(revision, _)| revision.as_str())
    }

    /// Whether orders have come in this session: before, nothing is known to be unwanted.
    pub fn is_informed(&self) -> bool {
        self.seen.is_some()
    }

    /// When to look again although nothing happened: the next report, or the end of a pause that holds back news.
    pub fn wake(&self, now: Instant) -> Instant {
        if self.not_before > now { self.not_before } else { self.due }
    }

    /// The report to send now, when the time has come or something must be told at once. At most one may be in flight.
    pub fn report_if_due(
        &mut self,
        reading: &NodeReading,
        standing: &Standing,
        work: Option<&View>,
        now: Instant,
    ) -> Option<ReportBody> {
        let telling = Telling::of(reading, standing, work, self.faults.clone());
        let urgent = self.told.as_ref().is_none_or(|told| telling.adds_to(told));
        if now < self.not_before || (now < self.due && !urgent) {
            return None;
        }
        self.seq += 1;
        let body = ReportBody {
            session: self.session,
            boot_id: self.boot_id.clone(),
            seq: self.seq,
            chips: reading.reports(),
            confirmed: telling.confirmed.clone(),
            vacant: telling.vacant.clone(),
            refused: telling.refused.clone(),
            fenced: Vec::new(),
            work: telling.work.clone(),
            faults: telling.faults.clone(),
            ladders: work.map(|view| view.ladder_reports(telling.ladders.keys(), Duration::ZERO)).unwrap_or_default(),
            orders_seen: self.revision().map(str::to_owned),
        };
        self.telling = Some(telling);
        self.due = now + self.every;
        Some(body)
    }

    /// What is to be told of faults from now on.
    pub fn tell_faults(&mut self, faults: Vec<FaultBody>) {
        self.faults = faults;
    }

    /// What the report in flight tells of faults.
    pub fn faults_in_flight(&self) -> &[FaultBody] {
        self.telling.as_ref().map_or(&[], |telling| &telling.faults)
    }

    /// Something else than what reports tell makes the next one due.
    pub fn hurry(&mut self, now: Instant) {
        self.due = self.due.min(now);
    }

    /// The proofs of the report in flight that the last accepted one did not tell.
    pub fn new_proofs(&self) -> impl Iterator<Item = &VacantBody> {
        let before = self.told.as_ref().map_or(&[][..], |told| &told.vacant);
        self.telling.iter().flat_map(|telling| &telling.vacant).filter(|proof| !before.contains(proof))
    }

    /// The report in flight was taken in.
    pub fn on_accepted(&mut self, now: Instant) {
        self.told = self.telling.take();
        self.not_before = now + BURST;
    }

    /// The report in flight was not taken in: what it told is told again, after so long.
    pub fn on_failed(&mut self, wait: Duration, now: Instant) {
        self.telling = None;
        self.not_before = now + wait;
        self.due = self.due.min(self.not_before);
    }

    /// What orders mean that were asked for at `asked`. An answer to a question asked before the held orders came says
    /// nothing about what followed them.
    pub fn receive(&self, standing: &Standing, asked: Instant, orders: &OrdersView, now: Instant) -> Received {
        if let Some((revision, came)) = &self.seen {
            if *revision == orders.revision {
                return Received::Held { ask_on: asked < *came };
            }
            if asked < *came {
                return Received::MaybeOlder;
            }
        }
        let mut standing = standing.clone();
        let out_of_date = standing.receive(orders.clone(), now);
        Received::News { standing: Box::new(standing), out_of_date }
    }

    /// Orders that were news are being acted on from now on.
    pub fn accept(&mut self, orders: &OrdersView, now: Instant) {
        self.seen = Some((orders.revision.clone(), now));
    }
}

/// What a reading says of its chips that only a registration can tell: everything but health.
fn facts(reading: &NodeReading) -> Vec<ChipBody> {
    reading.chips.iter().map(|now| ChipBody { health: HealthBody::Healthy, ..now.chip.clone() }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scripted::{chip, lease, reading_at};
    use chiptide_model::Millis;

    fn orders(revision: &str, epoch: u64) -> OrdersView {
        OrdersView { revision: revision.into(), leases: vec![lease(1, "c0", epoch)], ..OrdersView::default() }
    }

    /// A session begun at the first moment, and moments counted in milliseconds from there.
    fn begun() -> (Dialogue, impl Fn(u64) -> Instant) {
        let start = Instant::now();
        let told = RegisterView {
            session: Uuid::from_u128(1),
            report_every: Millis::from_secs(2),
            silent_after: Millis::from_secs(10),
        };
        let dialogue = Dialogue::new(&told, "b1".into(), None, &reading_at(start, [chip("c0")]), start);
        (dialogue, move |ms| start + Duration::from_millis(ms))
    }

    #[test]
    fn an_answer_to_a_question_older_than_the_held_orders_is_let_be() {
        let (mut dialogue, at) = begun();
        let standing = Standing::default();
        assert!(matches!(dialogue.receive(&standing, at(0), &orders("1.1", 1), at(10)), Received::News { .. }));
        dialogue.accept(&orders("1.1", 1), at(10));
        assert!(matches!(dialogue.receive(&standing, at(5), &orders("1.0", 1), at(20)), Received::MaybeOlder));
        let same = dialogue.receive(&standing, at(5), &orders("1.1", 1), at(20));
        assert!(matches!(same, Received::Held { ask_on: true }));
        assert!(matches!(dialogue.receive(&standing, at(11), &orders("1.2", 2), at(20)), Received::News { .. }));
    }

    #[test]
    fn a_report_that_failed_is_told_again_after_its_pause() {
        let (mut dialogue, at) = begun();
        let (standing, reading) = (Standing::default(), reading_at(at(0), [chip("c0")]));
        let mut due = |ms| dialogue.report_if_due(&reading, &standing, None, at(ms)).map(|report| report.seq);
        assert_eq!((due(0), due(1999)), (Some(1), Some(2)), "nothing has been accepted: everything is news");
        dialogue.on_failed(Duration::from_millis(300), at(2000));
        assert!(dialogue.report_if_due(&reading, &standing, None, at(2299)).is_none());
        assert_eq!(dialogue.wake(at(2001)), at(2300));
        assert!(dialogue.report_if_due(&reading, &standing, None, at(2300)).is_some());
        dialogue.on_accepted(at(2310));
        assert!(dialogue.report_if_due(&reading, &standing, None, at(4299)).is_none(), "nothing new, and not due");
        assert!(dialogue.report_if_due(&reading, &standing, None, at(4300)).is_some());
    }
}
