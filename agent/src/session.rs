//! One registered session: reports go out, orders come in, each kept to one call in flight. While a report travels, further
//! changes gather and go with the next. Ends when the daemon no longer knows the session, or when the chips are no longer
//! the ones that were registered.

use crate::agent::Agent;
use crate::backoff::Backoff;
use crate::complaints::Verdict;
use crate::dialogue::{BURST, Dialogue, Received};
use crate::fault_point;
use crate::faults;
use crate::host;
use crate::reading::NodeReading;
use crate::wishing::{self, Wishing};
use chiptide_api::ClientError;
use chiptide_api::node::{OrdersView, RegisterView, ReportView};
use chiptide_model::{Millis, Timestamp};
use chrono::Utc;
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

/// How often to look at the deadlines of fenced leases.
const FENCE_LOOK: Duration = Duration::from_secs(1);

/// A call under way, with the moment it was asked; `None` for no answer in time.
type Call<T> = Pin<Box<dyn Future<Output = (Instant, Option<Result<T, ClientError>>)> + Send>>;

/// Why a session is over: the node must register again.
#[derive(Debug)]
struct Over;

/// One registered session.
pub(crate) struct Session<'a> {
    agent: &'a mut Agent,
    dialogue: Dialogue,
    /// When the report in flight was sent, on the boot-time clock.
    sent: Duration,
    /// Fenced leases that were over when the last report was made.
    over: Vec<Uuid>,
    report_pause: Backoff,
    poll_pause: Backoff,
}

impl<'a> Session<'a> {
    /// The session the daemon answered, for chips as `registered` has them.
    pub(crate) fn new(agent: &'a mut Agent, told: &RegisterView, registered: &NodeReading) -> Session<'a> {
        let (boot_id, every) = (agent.config.boot_id.clone(), agent.config.report_every);
        Session {
            agent,
            dialogue: Dialogue::new(told, boot_id, every, registered, Instant::now()),
            sent: Duration::ZERO,
            over: Vec::new(),
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
            if !self.dialogue.knows(&reading) {
                info!(node = %self.agent.config.node, chips = reading.chips.len(), "the chips are not those registered");
                return;
            }
            for lease in self.agent.standing.carry(&reading) {
                info!(node = %self.agent.config.node, %lease, "carrying");
            }
            self.agent.mind_work(&reading, self.dialogue.is_informed());
            self.agent.weigh(&reading, self.dialogue.is_informed());
            self.agent.watch(&reading, Timestamp(Utc::now().timestamp_millis()), self.dialogue.is_informed());
            self.dialogue.tell_faults(self.agent.faults());
            self.mind_fences();
            if report.is_none() {
                report = self.report_if_due(&reading);
            }
            let wake = self.dialogue.wake(Instant::now());
            let over = tokio::select! {
                (asked, answer) = &mut poll => self.on_orders(asked, answer).map(|wait| {
                    poll_from = Instant::now() + wait;
                    poll = self.poll(wait);
                }),
                (asked, answer) = in_flight(&mut report) => {
                    report = None;
                    let seen = self.dialogue.revision().map(str::to_owned);
                    let over = self.on_reported(asked, answer);
                    // A reply that brought orders stands in for a poll that has not been sent yet.
                    if self.dialogue.revision() != seen.as_deref() && Instant::now() < poll_from {
                        poll_from = Instant::now() + BURST;
                        poll = self.poll(BURST);
                    }
                    over
                }
                changed = self.agent.readings.changed(), if !self.agent.source_ended => {
                    self.agent.source_ended = changed.is_err();
                    Ok(())
                }
                () = wishing::changed(&mut self.agent.work) => Ok(()),
                () = faults::seen(&mut self.agent.watching) => Ok(()),
                () = sleep_until(wake), if report.is_none() => Ok(()),
                () = fence_due(self.agent.wishing.as_ref()) => Ok(()),
            };
            if let Err(Over) = over {
                return;
            }
        }
    }

    /// A fenced lease that has run out is news, and so is one that waits for its first renewal.
    fn mind_fences(&mut self) {
        let Some(wishing) = &self.agent.wishing else { return };
        let over: Vec<Uuid> = wishing.fences().over().collect();
        for lease in over.iter().filter(|lease| !self.over.contains(lease)) {
            warn!(node = %self.agent.config.node, %lease, "not renewed in time: its work is being ended");
            self.dialogue.hurry(Instant::now());
        }
        self.over = over;
    }

    fn poll(&self, wait: Duration) -> Call<OrdersView> {
        let (client, node, session) =
            (self.agent.client.clone(), self.agent.config.node.clone(), self.dialogue.session());
        let after = self.dialogue.revision().map(str::to_owned);
        Box::pin(async move {
            sleep(wait).await;
            let asked = Instant::now();
            let answer = timeout(POLL_LIMIT, client.orders(&node, session, after.as_deref(), POLL_WAIT)).await;
            (asked, answer.ok())
        })
    }

    /// Starts a report when the time has come or something must be told at once.
    fn report_if_due(&mut self, reading: &NodeReading) -> Option<Call<ReportView>> {
        let (now, sent) = (Instant::now(), host::boot_time());
        let work = self.agent.wishing.as_ref().map(Wishing::view);
        let mut body = self.dialogue.report_if_due(reading, &self.agent.standing, work, now)?;
        if let Some(view) = work {
            let now = host::boot_time();
            body.work = view.with_ages(&body.work, now);
            body.ladders = view.ladder_reports(body.ladders.iter().map(|ladder| &ladder.lease), now);
        }
        // Work that ended because its lease ran out has not failed.
        let over = &self.over;
        body.confirmed.retain(|lease| !over.contains(lease));
        body.work.retain(|work| !over.contains(&work.lease));
        body.fenced.clone_from(over);
        self.sent = sent;
        for (order, why) in self.agent.standing.not_vacant(reading) {
            debug!(node = %self.agent.config.node, lease = %order.lease, chip = %order.chip, "not vacant yet: {why}");
        }
        fault_point::reach("report-made");
        let (client, node) = (self.agent.client.clone(), self.agent.config.node.clone());
        Some(Box::pin(async move { (now, timeout(REPORT_LIMIT, client.report(&node, &body)).await.ok()) }))
    }

    fn on_reported(&mut self, asked: Instant, answer: Option<Result<ReportView, ClientError>>) -> Result<(), Over> {
        let wait = match answer {
            Some(Ok(view)) => {
                self.agent.complaints.answered();
                if view.renewed {
                    self.agent.renew(self.sent);
                }
                if let Some(orders) = view.orders {
                    self.take_over(asked, orders);
                }
                if view.accepted {
                    fault_point::reach("report-accepted");
                    for proof in self.dialogue.new_proofs() {
                        info!(node = %self.agent.config.node, lease = %proof.lease, chip = %proof.chip,
                            epoch = proof.epoch, "proven vacant");
                    }
                    self.agent.told_faults(self.dialogue.faults_in_flight());
                    self.report_pause.reset();
                    self.dialogue.on_accepted(Instant::now());
                    return Ok(());
                }
                debug!(node = %self.agent.config.node, "a report came too late and was ignored");
                self.report_pause.next()
            }
            Some(Err(error)) => after_failure(self.agent.complaints.judge("report", &error), &mut self.report_pause)?,
            None => {
                self.agent.client.move_on();
                self.agent.complaints.unanswered("report", "no answer in time");
                self.report_pause.next()
            }
        };
        self.dialogue.on_failed(wait, Instant::now());
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

    /// Acts on orders that are news, once what they show is on disk. Answers whether to ask on at once.
    fn take_over(&mut self, asked: Instant, orders: OrdersView) -> bool {
        let now = Instant::now();
        let (standing, out_of_date) = match self.dialogue.receive(&self.agent.standing, asked, &orders, now) {
            Received::Held { ask_on } => return ask_on,
            Received::MaybeOlder => return true,
            Received::News { standing, out_of_date } => (*standing, out_of_date),
        };
        debug!(node = %self.agent.config.node, revision = %orders.revision, leases = orders.leases.len(),
            vacate = orders.vacate.len(), "orders");
        fault_point::reach("orders-received");
        if !self.agent.keep(&standing) {
            return false;
        }
        fault_point::reach("orders-kept");
        self.agent.standing = standing;
        let agent = &mut *self.agent;
        if let Some(logs) = &mut agent.logs {
            logs.heed(&orders.wanted_logs, self.dialogue.session(), &agent.config.node, &agent.client);
        }
        if let Some(wishing) = &mut self.agent.wishing {
            wishing.receive(&orders, host::boot_time());
            if wishing.fences().lacks_renewal() {
                self.dialogue.hurry(now);
            }
        }
        self.agent.keep_deadlines();
        self.dialogue.accept(&orders, now);
        for grant in out_of_date {
            warn!(node = %self.agent.config.node, lease = %grant.lease, chip = %grant.chip, epoch = grant.epoch,
                "not confirmed: a newer lease epoch of this chip has been seen");
        }
        self.agent.orders.send_replace(orders);
        fault_point::reach("orders-told");
        true
    }
}

fn after_failure(verdict: Verdict, pause: &mut Backoff) -> Result<Duration, Over> {
    match verdict {
        Verdict::Register => Err(Over),
        Verdict::Retry(told) => Ok(pause.next_told(told)),
        Verdict::Refused => Ok(pause.slow()),
    }
}

/// Waits until the next fenced lease may be over, or a moment: this wait stands still while the machine is suspended.
async fn fence_due(wishing: Option<&Wishing>) {
    match wishing.and_then(|wishing| wishing.fences().next()) {
        Some(due) => sleep(due.saturating_sub(host::boot_time()).min(FENCE_LOOK)).await,
        None => std::future::pending().await,
    }
}

/// The answer of the call in flight; never comes when there is none.
async fn in_flight<T>(call: &mut Option<Call<T>>) -> (Instant, Option<Result<T, ClientError>>) {
    match call {
        Some(call) => call.await,
        None => std::future::pending().await,
    }
}
