//! After a round that did not go through: memory is read anew, for as long as that takes. Meanwhile nobody waits: what
//! comes in is refused at once, and those whose round's outcome is open are told within a moment what became of it, or that
//! nobody knows.

use super::gathering::Reply;
use super::{Entry, Lanes};
use crate::health::Witness;
use crate::routes::problem::Refused;
use crate::shared::Shared;
use crate::store::leader::{self, Leadership};
use crate::store::trouble::Trouble;
use crate::store::{Result, Store, StoreError, load};
use chiptide_allocator::Cluster;
use std::time::Duration;
use tokio::time::{Instant, sleep, sleep_until};

/// How long the callers of a round whose outcome is open wait to be told, before they are told that nobody knows.
const OUTCOME_WAIT: Duration = Duration::from_secs(2);
/// The pause between two tries: short at first, since most outages are short.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// Answers whose commit was sent to Postgres and not acknowledged.
#[derive(Debug)]
pub(super) struct Unsettled {
    /// The last event of the round: in the log, all of it is. `None` for a round without events.
    pub(super) last_seq: Option<u64>,
    /// The answers, valid if the round has landed.
    pub(super) replies: Vec<Reply>,
}

/// How a recovery ended.
#[derive(Debug)]
pub(super) enum Recovered {
    /// With the cluster as the tables have it.
    Read(Box<Cluster>),
    /// All senders are gone: the daemon stops.
    Closed,
}

/// Reads the cluster anew until that works, or nobody is left who could ask for something.
pub(super) async fn recover(
    shared: &Shared,
    store: &mut Store,
    leadership: Leadership,
    entries: &mut Lanes,
    mut trouble: Trouble,
    mut unsettled: Option<Unsettled>,
) -> Result<Recovered> {
    let told_by = Instant::now() + OUTCOME_WAIT;
    let mut pause = PAUSES.0;
    loop {
        *store = store.with_new_writer();
        let mut reading = Box::pin(read(store.clone(), leadership, trouble == Trouble::DiskFull));
        let mut waited = Box::pin(sleep(Duration::ZERO));
        let mut outcome = None;
        // One try, then a pause; whoever comes meanwhile is refused.
        loop {
            tokio::select! {
                read = &mut reading, if outcome.is_none() => {
                    waited = Box::pin(sleep(pause));
                    match read {
                        Ok(cluster) => {
                            unsettled.take().into_iter().for_each(|open| settle(open, &cluster));
                            return Ok(Recovered::Read(Box::new(cluster)));
                        }
                        Err(StoreError::Deposed) => return Err(StoreError::Deposed),
                        Err(error) => outcome = Some(error),
                    }
                }
                () = &mut waited, if outcome.is_some() => break,
                entry = entries.recv() => match entry {
                    Some(entry) => refuse(entry, shared),
                    None => return Ok(Recovered::Closed),
                },
                () = sleep_until(told_by), if unsettled.is_some() => {
                    unsettled.take().into_iter().for_each(|open| tell_unknown(open.replies));
                }
            }
        }
        let Some(error) = outcome else { continue };
        trouble = Trouble::of(&error);
        shared.health.trouble(Witness::Rounds, trouble, &error.to_string(), shared.now());
        pause = (pause * 2).min(PAUSES.1);
    }
}

/// One try. The plain connection first: unlike a pool's, its failure says what is wrong. Then our own last round, should
/// Postgres still be busy with it, is waited for: what is read after that is final. A disk that was full must have room first: reading needs none.
async fn read(store: Store, leadership: Leadership, needs_room: bool) -> Result<Cluster> {
    let mut connection = store.connect().await?;
    crate::store::is_writable(&mut connection).await?;
    if needs_room {
        crate::store::has_room(&mut connection).await?;
    }
    leader::settle(&mut connection, leadership).await?;
    load::load_over(&mut connection).await
}

/// Tells the callers of a round what became of it.
fn settle(open: Unsettled, cluster: &Cluster) {
    match open.last_seq {
        Some(last_seq) if cluster.seq >= last_seq => {
            tracing::info!(answers = open.replies.len(), "the round had been committed");
            for (reply, answer) in open.replies {
                drop(reply.send(answer));
            }
        }
        Some(_) => refuse_all(open.replies, Trouble::Refused),
        None => tell_unknown(open.replies),
    }
}

/// Tells callers that nothing was done.
pub(super) fn refuse_all(replies: Vec<Reply>, trouble: Trouble) {
    let refusal = Refused::store_unavailable(trouble).answer();
    for (reply, _) in replies {
        // A client that has gone away needs no answer; so below.
        drop(reply.send(refusal.clone()));
    }
}

fn tell_unknown(replies: Vec<Reply>) {
    let unknown = Refused::outcome_unknown().answer();
    for (reply, _) in replies {
        drop(reply.send(unknown.clone()));
    }
}

/// Tells one who has come meanwhile that nothing was done.
pub(super) fn refuse(entry: Entry, shared: &Shared) {
    let trouble = shared.health.unwritable().map_or(Trouble::Refused, |known| known.trouble);
    drop(entry.reply.send(Refused::store_unavailable(trouble).answer()));
}
