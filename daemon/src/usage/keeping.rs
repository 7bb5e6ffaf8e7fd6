//! Keeps the accounts: enters events as they are committed, and writes what was counted now and then, with the position it
//! goes up to, in one transaction. What is not written when a daemon ends is counted again from the log.

use super::book::Book;
use crate::shared::Shared;
use crate::store::leader::Leadership;
use crate::store::{Result, Store, events, usage};
use chiptide_model::{Millis, Timestamp};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

/// How often what was counted is written.
const WRITE_EVERY: Duration = Duration::from_secs(30);
/// Writing takes at most this part of the time, however large the book is.
const WRITE_SHARE: u32 = 50;
/// How often chips are asked whether they are at work.
const SAMPLE_EVERY: Duration = Duration::from_secs(10);
/// A round takes less: what happened longer ago is in the log.
const ROUND_MAX: Millis = Millis::from_secs(10);
/// Most events read from the table at once.
const READ_MAX: i64 = 2000;
/// The pause after a failure.
const PAUSE: Duration = Duration::from_secs(1);

/// Where those who read the accounts ask for them to be brought up to date.
#[derive(Debug)]
pub struct Desk {
    asked: Notify,
    written: watch::Sender<()>,
}

impl Default for Desk {
    fn default() -> Desk {
        Desk { asked: Notify::new(), written: watch::Sender::new(()) }
    }
}

impl Desk {
    /// Waits until what is committed now is in the tables, but no longer than `limit`; the accounts say how far they go.
    pub async fn bring_up_to_date(&self, limit: Duration) {
        let mut written = self.written.subscribe();
        self.asked.notify_one();
        // On time or not, what is there is answered.
        let _ = tokio::time::timeout(limit, written.changed()).await;
    }
}

/// Keeps the accounts until `stop` is cancelled, or another daemon leads.
pub async fn keep(shared: Arc<Shared>, store: Store, leadership: Leadership, stop: CancellationToken) {
    let keep = async {
        loop {
            match keep_on(&shared, &store, leadership).await {
                Ok(never) => match never {},
                Err(crate::store::StoreError::Deposed) => return,
                Err(error) => tracing::warn!(%error, "keep the accounts"),
            }
            tokio::time::sleep(PAUSE).await;
        }
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = keep => {}
    }
}

/// Goes on from what was written last, until something fails.
async fn keep_on(shared: &Shared, store: &Store, leadership: Leadership) -> Result<std::convert::Infallible> {
    let mut book = usage::load(&store.reader).await?;
    let mut changes = shared.tail.changes();
    let (mut written, mut sampled, mut pause) = (Instant::now(), Instant::now(), WRITE_EVERY);
    loop {
        changes.mark_unchanged();
        while enter_next(&mut book, shared, store).await? {
            tokio::task::yield_now().await;
        }
        let is_asked = tokio::select! {
            _ = changes.changed() => {
                // A moment's events are entered together.
                tokio::time::sleep(Duration::from_millis(20)).await;
                false
            }
            () = shared.usage.asked.notified() => true,
            () = tokio::time::sleep(SAMPLE_EVERY) => false,
        };
        if sampled.elapsed() >= SAMPLE_EVERY {
            sample(&mut book, shared, sampled.elapsed().min(SAMPLE_EVERY * 3));
            sampled = Instant::now();
        }
        if is_asked || written.elapsed() >= pause {
            while enter_next(&mut book, shared, store).await? {}
            let started = Instant::now();
            book.settle(shared.now() - ROUND_MAX);
            usage::write(store, leadership, &mut book).await?;
            (written, pause) = (Instant::now(), WRITE_EVERY.max(started.elapsed() * WRITE_SHARE));
            shared.usage.written.send_replace(());
        }
    }
}

/// Enters what follows, from the tail or else from the table; whether there was something.
async fn enter_next(book: &mut Book, shared: &Shared, store: &Store) -> Result<bool> {
    if shared.tail.head().is_none_or(|head| head <= book.position) {
        return Ok(false);
    }
    let from = book.position;
    if let Some(batch) = shared.tail.after(from) {
        batch.after(from).for_each(|(seq, at, event)| book.enter(seq, at, event));
        return Ok(true);
    }
    let read = events::read(&store.reader, from, READ_MAX).await?;
    read.iter().for_each(|(seq, at, event)| book.enter(*seq, *at, event));
    Ok(!read.is_empty())
}

/// Counts the time for which chips that are granted say that they were at work.
fn sample(book: &mut Book, shared: &Shared, span: Duration) {
    let now: Timestamp = shared.now();
    let share = |node, chip: &str| shared.telemetry.reading(node, chip)?.values.utilization;
    let busy = book.granted().filter_map(|(node, chip, class, job, queue, slots)| {
        let share = f64::from(share(node, chip.as_str())?.clamp(0.0, 1.0));
        let slot_ms = (share * f64::from(slots) * span.as_millis() as f64).round() as i64;
        Some((queue.to_owned(), job, class.clone(), slot_ms))
    });
    let busy: Vec<_> = busy.collect();
    busy.iter().for_each(|(queue, job, class, slot_ms)| book.busy(now, queue, *job, class, *slot_ms));
}
