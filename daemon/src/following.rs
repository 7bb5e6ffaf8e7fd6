//! A standby's own copy of the cluster: the tables once, then the log's tail, folded as the leader folds it. It only reads.

use crate::shared::Shared;
use crate::store::{Result, Store, StoreError, events, load};
use chiptide_model::{Event, Timestamp};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// How often the tail is read.
const EVERY: Duration = Duration::from_millis(250);
/// How long one read may take before it is tried again.
const READ_MAX: Duration = Duration::from_secs(30);
/// Most events of one read; a standby that is behind reads on at once.
const EVENTS_MAX: usize = 2000;

/// Follows until `stop` is cancelled.
pub async fn follow(shared: Arc<Shared>, store: Store, stop: CancellationToken) {
    let follow = async {
        let (mut last, mut is_well) = (None, true);
        loop {
            let looked = Instant::now();
            let step = tokio::time::timeout(READ_MAX, step(&shared, &store, &mut last)).await;
            let is_behind = match step.unwrap_or(Err(StoreError::TooLate(READ_MAX))) {
                Ok(count) => {
                    is_well = true;
                    count == EVENTS_MAX
                }
                Err(error) => {
                    if std::mem::replace(&mut is_well, false) {
                        tracing::warn!(%error, "follow the log");
                    }
                    tokio::time::sleep(EVERY).await;
                    continue;
                }
            };
            if !is_behind {
                shared.role.followed(looked);
                tokio::time::sleep(EVERY).await;
            }
        }
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = follow => {}
    }
}

/// Reads what the log has beyond our copy, or the tables where there is no copy to build upon; answers how many events that
/// was. `last` is the newest event of the copy: it is read once more, since a replica that was promoted may have forgotten it
/// and have another under its number.
async fn step(shared: &Shared, store: &Store, last: &mut Option<(u64, Timestamp)>) -> Result<usize> {
    if let Some((seq, at)) = *last {
        let mut news = events::read(&store.reader, seq.saturating_sub(1), EVENTS_MAX as i64).await?;
        let count = news.len();
        if seq == 0 || news.first().is_some_and(|(number, moment, _)| (*number, *moment) == (seq, at)) {
            news.drain(..usize::from(seq > 0));
            if let Some((number, moment, _)) = news.last() {
                let until = (*number, *moment);
                *last = None;
                fold(shared, news)?;
                *last = Some(until);
            }
            return Ok(count);
        }
        tracing::warn!(seq, "the log does not go on from what was read of it; reading the tables again");
        *last = None;
    }
    let cluster = load::load(store).await?;
    let seq = cluster.seq;
    shared.tail.restart(seq);
    *shared.cluster_arc().write() = cluster;
    shared.watchers.wake_all();
    let newest = events::read(&store.reader, seq.saturating_sub(1), 1).await?;
    let newest = newest.first().map(|(number, moment, _)| (*number, *moment)).filter(|(number, _)| *number == seq);
    *last = newest.or((seq == 0).then_some((0, Timestamp(0))));
    Ok(0)
}

fn fold(shared: &Shared, news: Vec<(u64, Timestamp, Event)>) -> Result<()> {
    let broken = |detail: String| StoreError::Unreadable { table: "events", row: "the copy".into(), detail };
    let cluster = shared.cluster_arc();
    let mut cluster = cluster.write();
    let first = cluster.seq + 1;
    for (seq, at, event) in &news {
        if *seq != cluster.seq + 1 {
            return Err(broken(format!("event {seq} follows {}", cluster.seq)));
        }
        cluster.apply(*at, event).map_err(|unfounded| broken(unfounded.to_string()))?;
    }
    let touched = cluster.take_touched();
    drop(cluster);
    shared.watchers.wake(&touched);
    shared.tail.push(first, news.into_iter().map(|(_, at, event)| (at, event)).collect());
    Ok(())
}
