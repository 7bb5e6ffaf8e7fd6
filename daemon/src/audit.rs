//! The audit on its way into its table: a bounded queue and the one that writes it, in bulk. A call that is to be kept takes
//! its place in the queue before it is let through, so nothing is done that finds no room; refusals that find none are
//! counted. What was answered in the last moments before a crash may be missing; an orderly stop writes all.

use crate::access::pace::{Pace, Rate};
use crate::metrics;
use crate::store::{self, Store};
use chiptide_api::access::Role;
use chiptide_model::Timestamp;
use serde_json::Value;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Most entries that wait to be written.
const WAITING_MAX: usize = 20_000;
/// Most entries of one write.
const BATCH_MAX: usize = 2_000;
/// From one write to the next; what comes meanwhile goes together.
const EVERY: Duration = Duration::from_millis(100);
/// The pause after a write that failed.
const PAUSE: Duration = Duration::from_secs(1);
/// How long the last writes may take at an orderly stop.
const STOP_MAX: Duration = Duration::from_secs(5);
/// Refusals of callers that nobody knows: so many are kept a second, and at once. More are counted.
const STRANGERS: (u32, u32) = (10, 100);

/// How a call ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// It was done.
    Allowed,
    /// Nothing was done.
    Refused,
    /// The daemon could not, or cannot tell.
    Failed,
}

impl Outcome {
    /// Of an answer with this status.
    pub fn of(status: u16) -> Outcome {
        match status {
            0..400 => Outcome::Allowed,
            400..500 => Outcome::Refused,
            _ => Outcome::Failed,
        }
    }

    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Outcome::Allowed => "allowed",
            Outcome::Refused => "refused",
            Outcome::Failed => "failed",
        }
    }
}

/// One call.
#[derive(Clone, PartialEq, Debug)]
pub struct Entry {
    /// When it was answered.
    pub at: Timestamp,
    /// The caller's id; empty where nobody was known.
    pub who: String,
    /// The caller's name.
    pub name: String,
    /// The caller's role.
    pub role: Option<Role>,
    /// Method and route.
    pub action: String,
    /// What the path names.
    pub target: Option<String>,
    /// Where it came from.
    pub address: String,
    /// The request's id.
    pub request_id: String,
    /// How it ended.
    pub outcome: Outcome,
    /// HTTP status.
    pub status: u16,
    /// The code of a refusal.
    pub code: Option<String>,
    /// How the target stood before.
    pub before: Option<Value>,
    /// How it stands after.
    pub after: Option<Value>,
}

/// The way into the audit.
#[derive(Debug)]
pub struct Audit {
    entries: mpsc::Sender<Entry>,
    strangers: Pace,
    strangers_rate: Rate,
    started: Instant,
    dropped: AtomicU64,
}

/// A place in the queue, taken before a call is let through.
#[derive(Debug)]
pub struct Place<'a> {
    place: mpsc::Permit<'a, Entry>,
    audit: &'a Audit,
}

impl Audit {
    /// An audit, and its other end.
    pub fn new() -> (Audit, mpsc::Receiver<Entry>) {
        let (entries, waiting) = mpsc::channel(WAITING_MAX);
        let strangers_rate = Rate::new(STRANGERS.0, STRANGERS.1);
        let (strangers, dropped) = (Pace::default(), AtomicU64::new(0));
        (Audit { entries, strangers, strangers_rate, started: Instant::now(), dropped }, waiting)
    }

    /// A place for a call that is to be kept; `None` when there is none.
    pub fn place(&self) -> Option<Place<'_>> {
        Some(Place { place: self.entries.try_reserve().ok()?, audit: self })
    }

    /// Keeps a refusal, if there is room.
    pub fn tell(&self, entry: Entry) {
        if entry.who.is_empty() && self.strangers.take(self.strangers_rate, self.started.elapsed()).is_err() {
            return self.drop_one("strangers");
        }
        match self.place() {
            Some(place) => place.keep(entry),
            None => self.drop_one("full"),
        }
    }

    fn drop_one(&self, reason: &'static str) {
        self.dropped.fetch_add(1, Ordering::Relaxed);
        metrics::audit_dropped(reason);
    }
}

impl Place<'_> {
    /// Keeps what has become of the call. The next entry after some that found no room says how many those were.
    pub fn keep(self, mut entry: Entry) {
        let dropped = self.audit.dropped.swap(0, Ordering::Relaxed);
        if dropped > 0 {
            let mut after = entry.after.take().unwrap_or_else(|| Value::Object(serde_json::Map::default()));
            if let Some(after) = after.as_object_mut() {
                after.insert("refusals_not_kept_before".into(), dropped.into());
            }
            entry.after = Some(after);
        }
        self.place.send(entry);
    }
}

/// Writes what comes in until `stop` is cancelled, and then what is left. Told only when no request is under way any more.
pub async fn write(mut waiting: mpsc::Receiver<Entry>, store: Store, stop: CancellationToken) {
    let mut batch = Vec::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            count = waiting.recv_many(&mut batch, BATCH_MAX) => if count == 0 { break },
        }
        write_batch(&mut batch, &store, &stop).await;
        tokio::select! {
            () = stop.cancelled() => break,
            () = tokio::time::sleep(EVERY) => {}
        }
    }
    waiting.close();
    let last = async {
        loop {
            if batch.is_empty() && waiting.recv_many(&mut batch, BATCH_MAX).await == 0 {
                return;
            }
            if let Err(error) = store::audit::append(&store.reader, &batch).await {
                tracing::warn!(%error, "write the audit");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
            batch.clear();
        }
    };
    if tokio::time::timeout(STOP_MAX, last).await.is_err() {
        tracing::error!("the database did not take the last entries of the audit");
    }
}

/// Writes a batch, however often that takes, until `stop` is cancelled; what is not written stays in it.
async fn write_batch(batch: &mut Vec<Entry>, store: &Store, stop: &CancellationToken) {
    while let Err(error) = store::audit::append(&store.reader, batch).await {
        tracing::warn!(%error, entries = batch.len(), "write the audit");
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(PAUSE) => {}
        }
    }
    batch.clear();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(who: &str) -> Entry {
        Entry {
            at: Timestamp(0),
            who: who.into(),
            name: String::new(),
            role: None,
            action: "POST /v1/jobs".into(),
            target: None,
            address: String::new(),
            request_id: String::new(),
            outcome: Outcome::Refused,
            status: 401,
            code: None,
            before: None,
            after: None,
        }
    }

    #[test]
    fn strangers_cannot_fill_it_and_the_next_entry_says_what_is_missing() {
        let (audit, mut waiting) = Audit::new();
        (0..1_000).for_each(|_| audit.tell(refusal("")));
        let kept = std::iter::from_fn(|| waiting.try_recv().ok()).count();
        assert!((100..200).contains(&kept), "{kept}");
        audit.tell(refusal("known"));
        let told = waiting.try_recv().expect("kept").after.expect("told");
        assert_eq!(told["refusals_not_kept_before"], 1_000 - kept);
    }

    #[test]
    fn a_full_queue_has_no_place_for_a_call() {
        let (audit, _waiting) = Audit::new();
        (0..WAITING_MAX).for_each(|_| audit.tell(refusal("known")));
        assert!(audit.place().is_none());
    }
}
