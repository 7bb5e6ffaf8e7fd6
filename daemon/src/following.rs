//! A standby's own copy of the cluster: the tables once, then the log's tail, folded as the leader folds it. It only reads.

use crate::shared::Shared;
use crate::store::{Result, Store, StoreError, events, load};
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
        let (mut has_copy, mut is_well) = (false, true);
        loop {
            let looked = Instant::now();
            let step = tokio::time::timeout(READ_MAX, step(&shared, &store, &mut has_copy)).await;
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

/// Reads the tables, or what the log has beyond our copy; answers how many events that was.
async fn step(shared: &Shared, store: &Store, has_copy: &mut bool) -> Result<usize> {
    if !*has_copy {
        let cluster = load::load(store).await?;
        shared.tail.restart(cluster.seq);
        *shared.cluster_arc().write() = cluster;
        shared.watchers.wake_all();
        *has_copy = true;
        return Ok(0);
    }
    let seq = shared.cluster().seq;
    let news = events::read(&store.reader, seq, EVENTS_MAX as i64).await?;
    let count = news.len();
    if count > 0 {
        fold(shared, news).inspect_err(|_| *has_copy = false)?;
    }
    Ok(count)
}

fn fold(shared: &Shared, news: Vec<(u64, chiptide_model::Timestamp, chiptide_model::Event)>) -> Result<()> {
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
