//! One registered session: reports go out, orders come in, each kept to one call in flight. While a report travels, further
//! changes gather and go with the next. Ends when the daemon no longer knows the session, or when the chips are no longer
//! the ones that were registered.

use crate::agent::{Agent, facts};
use crate::backoff::Backoff;
use crate::complaints::Verdict;
use crate::host;
use crate::reading::NodeReading;
use crate::telling::Telling;
use crate::wishing::{self, Wishing};
use chiptide_api::ClientError;
use chiptide_api::node::{ChipBody, OrdersView, RegisterView, ReportBody, ReportView};
use chiptide_model::Millis;
use std::pin::Pin;
use std::time::Duration;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::{debug, info, warn};
use uuid::Uuid;

/// How long the daemon may hold a poll that has nothing new.
const POLL_WAIT: Millis = Millis::from_secs(30);
/// How long a poll may take in all.
const POLL_LIMIT: Duration = Duration::from_secs(45);
/// How long a report may take.
const REPORT_LIMIT: Duration = Duration::from_secs(10);
/// A poll without news that comes back sooner than this was not held; the next one waits a moment.
const POLL_HELD: Duration = Duration::from_millis(500);
/// That moment.
const POLL_PAUSE: Duration = Duration::from_secs(1);
/// News come at once to an agent that was idle; of a burst, whatever happens within this goes into one poll or report.
const BURST: Duration = Duration::from_millis(40);

/// A call under way, with the moment it was asked; `None` for no answer in time.
type Call<T> = Pin<Box<dyn Future<Output = (Instant, Option<Result<T, ClientError>>)> + Send>>;

/// Why a session is over: the node must register again.
#[derive(Debug)]
struct Over;

/// One registered session.
pub(crate) struct Session<'a> {
    agent: &'a mut Agent,
    id: Uuid,
    every: Duration,
    facts: Vec<ChipBody>,
    seq: u64,
    /// Revision of the orders received in this session, and when they came.
    seen: Option<(String, Instant)>,
    /// What the last accepted report told, and what the one in flight tells.
    told: Option<Telling>,
    telling: Option<Telling>,
    /// When the next report is due, and before when none may go (after a failure).
    due: Instant,
    not_before: Instant,
    report_pause: Backoff,
    poll_pause: Backoff,
}

impl<'a> Session<'a> {
    /// The session the daemon answered, for chips of these facts.
    pub(crate) fn new(agent: &'a mut Agent, told: RegisterView, facts: Vec<ChipBody>) -> Session<'a> {
        let now = Instant::now();
        let every = agent.config.report_every.unwrap_or(Duration::from_millis(told.report_every.0));
        Session {
            agent,
            id: told.session,
            every: every.max(Duration::from_millis(50)),
            facts,
            seq: 0,
            seen: None,
            told: None,
            telling: None,
            due: now,
            not_before: now,
            report_pause: Backoff::default(),
            poll_pause: Backoff::default(),
        }
    }

    /// Reports and polls until the node must register again.
    pub(crate) async fn serve(mut self) {
        let mut poll = self.poll(Duration::ZERO);
        let mut poll_from = Instant::now();
        let mut report: Option<Call<ReportView>> = None;
        loop {
            let reading = self.agent.reading();
            if facts(&reading) != self.facts {
                info!(node = %self.agent.config.node, chips = reading.chips.len(), "the chips are not those registered");
                return;
            }
            for lease in self.agent.standing.carry(&reading) {
                info!(node = %self.agent.config.node, %lease, "carrying");
            }
            self.agent.mind_work(&reading, self.seen.is_some());
            self.agent.weigh(&reading, self.seen.is_some());
            if report.is_none() {
                report = self.report_if_due(&reading);
            }
            let wake = self.wake();
            let over = tokio::select! {
                (asked, answer) = &mut poll => self.on_orders(asked, answer).map(|wait| {
                    poll_from = Instant::now() + wait;
                    poll = self.poll(wait);
                }),
                (asked, answer) = in_flight(&mut report) => {
                    report = None;
                    let seen = self.seen.clone();
                    let over = self.on_reported(asked, answer);
                    // A reply that brought orders stands in for a poll that has not been sent yet.
                    if self.seen != seen && Instant::now() < poll_from {
                        poll_from = Instant::now() + BURST;
                        poll = self.poll(BURST);
                    }
                    over
                }
                changed = self.agent.readings.changed(), if !self.agent.source_ended => {
                    self.agent.source_ended = changed.is_err();
                    Ok(())
                }
                () = wishing::changed(&mut self.agent.wishing) => Ok(()),
                () = sleep_until(wake), if report.is_none() => Ok(()),
            };
            if let Err(Over) = over {
                return;
            }
        }
    }

    /// When to look again although nothing happened: the next report, or the end of a pause that holds back news.
    fn wake(&self) -> Instant {
        if self.not_before > Instant::now() { self.not_before } else { self.due }
    }

    fn poll(&self, wait: Duration) -> Call<OrdersView> {
        let (client, node, session) = (self.agent.client.clone(), self.agent.config.node.clone(), self.id);
        let after = self.seen.as_ref().map(|(revision, _)| revision.clone());
        Box::pin(async move {
            sleep(wait).await;
            let asked = Instant::now();
            let answer = timeout(POLL_LIMIT, client.orders(&node, session, after.as_deref(), POLL_WAIT)).await;
            (asked, answer.ok())
        })
    }

    /// Starts a report when the time has come or something must be told at once.
    fn report_if_due(&mut self, reading: &NodeReading) -> Option<Call<ReportView>> {
        let now = Instant::now();
        let telling = Telling::of(reading, &self.agent.standing, self.agent.wishing.as_ref().map(Wishing::view));
        let urgent = self.told.as_ref().is_none_or(|told| telling.adds_to(told));
        if now < self.not_before || (now < self.due && !urgent) {
            return None;
        }
        for (order, why) in self.agent.standing.not_vacant(reading) {
            debug!(node = %self.agent.config.node, lease = %order.lease, chip = %order.chip, "not vacant yet: {why}");
        }
        self.seq += 1;
        let body = ReportBody {
            session: self.id,
            boot_id: self.agent.config.boot_id.clone(),
            seq: self.seq,
            chips: reading.reports(),
            confirmed: telling.confirmed.clone(),
            vacant: telling.vacant.clone(),
            refused: telling.refused.clone(),
            work: match &self.agent.wishing {
                Some(wishing) => wishing.view().with_ages(&telling.work, host::boot_time()),
                None => telling.work.clone(),
            },
            orders_seen: self.seen.as_ref().map(|(revision, _)| revision.clone()),
        };
        self.telling = Some(telling);
        self.due = now + self.every;
        let (client, node) = (self.agent.client.clone(), self.agent.config.node.clone());
        Some(Box::pin(async move { (now, timeout(REPORT_LIMIT, client.report(&node, &body)).await.ok()) }))
    }

    fn on_reported(&mut self, asked: Instant, answer: Option<Result<ReportView, ClientError>>) -> Result<(), Over> {
        let telling = self.telling.take();
        let wait = match answer {
            Some(Ok(view)) => {
                self.agent.complaints.answered();
                if let Some(orders) = view.orders {
                    self.take_over(asked, orders);
                }
                if view.accepted {
                    self.note_proofs(telling.as_ref());
                    self.told = telling;
                    self.report_pause.reset();
                    self.not_before = Instant::now() + BURST;
                    return Ok(());
                }
                debug!(node = %self.agent.config.node, seq = self.seq, "a report came too late and was ignored");
                self.report_pause.next()
            }
            Some(Err(error)) => after_failure(self.agent.complaints.judge("report", &error), &mut self.report_pause)?,
            None => {
                self.agent.client.move_on();
                self.agent.complaints.unanswered("report", "no answer in time");
                self.report_pause.next()
            }
        };
        self.not_before = Instant::now() + wait;
        self.due = self.due.min(self.not_before);
        Ok(())
    }

    fn on_orders(&mut self, asked: Instant, answer: Option<Result<OrdersView, ClientError>>) -> Result<Duration, Over> {
        match answer {
            Some(Ok(orders)) => {
                self.agent.complaints.answered();
                self.poll_pause.reset();
                let news = self.take_over(asked, orders);
                Ok(match asked.elapsed() >= POLL_HELD {
                    _ if news => BURST,
                    true => Duration::ZERO,
                    false => POLL_PAUSE,
                })
            }
            Some(Err(error)) => after_failure(self.agent.complaints.judge("orders", &error), &mut self.poll_pause),
            None => {
                self.agent.client.move_on();
                self.agent.complaints.unanswered("orders", "no answer in time");
                Ok(self.poll_pause.next())
            }
        }
    }

    /// Takes over orders, unless they are the ones held or may be older: an answer to a question asked before the held
    /// orders came says nothing about what followed them (the next poll does, at once). Answers whether to ask on at once.
    fn take_over(&mut self, asked: Instant, orders: OrdersView) -> bool {
        let now = Instant::now();
        if let Some((revision, came)) = &self.seen {
            if *revision == orders.revision {
                return asked < *came;
            }
            if asked < *came {
                return true;
            }
        }
        debug!(node = %self.agent.config.node, revision = %orders.revision, leases = orders.leases.len(),
            vacate = orders.vacate.len(), "orders");
        let mut standing = self.agent.standing.clone();
        let out_of_date = standing.receive(orders.clone(), now);
        if !self.agent.keep(&standing) {
            return false;
        }
        self.agent.standing = standing;
        let agent = &mut *self.agent;
        if let Some(logs) = &mut agent.logs {
            logs.heed(&orders.wanted_logs, self.id, &agent.config.node, &agent.client);
        }
        if let Some(wishing) = &mut self.agent.wishing {
            wishing.receive(&orders);
        }
        self.seen = Some((orders.revision.clone(), now));
        for grant in out_of_date {
            warn!(node = %self.agent.config.node, lease = %grant.lease, chip = %grant.chip, epoch = grant.epoch,
                "not confirmed: a newer lease epoch of this chip has been seen");
        }
        self.agent.orders.send_replace(orders);
        true
    }

    fn note_proofs(&self, telling: Option<&Telling>) {
        let before = self.told.as_ref().map_or(&[][..], |told| &told.vacant);
        for proof in telling.iter().flat_map(|telling| &telling.vacant).filter(|proof| !before.contains(proof)) {
            info!(node = %self.agent.config.node, lease = %proof.lease, chip = %proof.chip, epoch = proof.epoch,
                "proven vacant");
        }
    }
}

fn after_failure(verdict: Verdict, pause: &mut Backoff) -> Result<Duration, Over> {
    match verdict {
        Verdict::Register => Err(Over),
        Verdict::Retry => Ok(pause.next()),
        Verdict::Refused => Ok(pause.slow()),
    }
}

/// The answer of the call in flight; never comes when there is none.
async fn in_flight<T>(call: &mut Option<Call<T>>) -> (Instant, Option<Result<T, ClientError>>) {
    match call {
        Some(call) => call.await,
        None => std::future::pending().await,
    }
}
