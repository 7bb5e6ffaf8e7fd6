//! Prints events for those who watch: each once, however many watch, in blocks whose bytes all of them share. Works only
//! while somebody watches, and keeps a bounded number of blocks: who falls behind them is cut off and resumes from the table.

use super::directory::{About, Directory, Numbered};
use super::filter::Filter;
use crate::render;
use crate::shared::Shared;
use crate::store::{Result, Store, StoreError, events};
use axum::body::Bytes;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::io::Write;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::{Notify, Semaphore, watch};
use tokio_util::sync::CancellationToken;

/// Blocks are printed at most this often: a thousand watchers cost one write each a block, however many events are in it.
const PACE: Duration = Duration::from_millis(100);
/// How often to look whether anybody still watches.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Most events of one block.
const BLOCK_MAX: usize = 2000;
/// Bytes of blocks kept for watchers that are not quite up to date.
const KEPT_MAX: usize = 32 * 1024 * 1024;
/// Watchers that read the past from the table at the same time.
const PAST_MAX: usize = 4;

#[derive(Debug)]
struct Frame {
    seq: u64,
    kind: &'static str,
    about: About,
    bytes: Range<usize>,
}

/// Events printed together.
#[derive(Debug)]
pub struct Block {
    /// Position of the first.
    pub first: u64,
    /// Position of the last.
    pub last: u64,
    frames: Vec<Frame>,
    all: Bytes,
}

impl Block {
    /// Prints events that follow each other. `None` when there are none.
    pub fn print(events: &[Numbered<'_>], directory: &Directory) -> Option<Block> {
        let (mut all, mut frames) = (Vec::new(), Vec::new());
        for &(seq, at, event) in events {
            let (start, about, kind) = (all.len(), directory.about(event), event.kind());
            let view = render::event(seq, at, event, about.clone());
            let json = crate::store::json(&view);
            // Writing to memory does not fail.
            let _ = write!(all, "id: {seq}\nevent: {kind}\ndata: {json}\n\n");
            frames.push(Frame { seq, kind, about, bytes: start..all.len() });
        }
        let (first, last) = (frames.first()?.seq, frames.last()?.seq);
        Some(Block { first, last, frames, all: all.into() })
    }

    /// The bytes of what follows a position and fits.
    pub fn after(&self, position: u64, filter: &Filter) -> Bytes {
        let skipped = self.frames.partition_point(|frame| frame.seq <= position);
        let frames = &self.frames[skipped..];
        if filter.is_open() {
            return frames.first().map_or_else(Bytes::new, |first| self.all.slice(first.bytes.start..));
        }
        let mut fitting = frames.iter().filter(|frame| filter.fits(frame.kind, &frame.about));
        let Some(first) = fitting.next() else { return Bytes::new() };
        let mut rest = fitting.peekable();
        if rest.peek().is_none() {
            return self.all.slice(first.bytes.clone());
        }
        let mut bytes = self.all[first.bytes.clone()].to_vec();
        rest.for_each(|frame| bytes.extend_from_slice(&self.all[frame.bytes.clone()]));
        bytes.into()
    }
}

#[derive(Debug, Default)]
struct Kept {
    blocks: VecDeque<Arc<Block>>,
    bytes: usize,
    /// The last position that was printed, or at which printing began.
    printed: u64,
}

/// What the press has after a position.
#[derive(Debug)]
pub enum Printed {
    /// This.
    Block(Arc<Block>),
    /// Nothing yet.
    Nothing,
    /// Nothing any more: the table has it.
    Gone,
}

/// The press.
#[derive(Debug)]
pub struct Press {
    kept: Mutex<Kept>,
    moved: watch::Sender<()>,
    watchers: AtomicUsize,
    wanted: Notify,
    /// Turns to read the past.
    pub past: Semaphore,
}

impl Default for Press {
    fn default() -> Press {
        Press {
            kept: Mutex::default(),
            moved: watch::Sender::new(()),
            watchers: AtomicUsize::new(0),
            wanted: Notify::new(),
            past: Semaphore::new(PAST_MAX),
        }
    }
}

impl Press {
    /// One more watches.
    pub fn enter(&self) {
        self.watchers.fetch_add(1, Ordering::Relaxed);
        self.wanted.notify_one();
    }

    /// One less watches.
    pub fn leave(&self) {
        self.watchers.fetch_sub(1, Ordering::Relaxed);
    }

    /// How many watch.
    pub fn watchers(&self) -> usize {
        self.watchers.load(Ordering::Relaxed)
    }

    /// A receiver that sees every new block.
    pub fn moves(&self) -> watch::Receiver<()> {
        self.moved.subscribe()
    }

    /// What follows a position.
    pub fn after(&self, position: u64) -> Printed {
        let kept = self.kept.lock();
        if position >= kept.printed {
            return Printed::Nothing;
        }
        let at = kept.blocks.partition_point(|block| block.last <= position);
        let block = kept.blocks.get(at).filter(|block| block.first <= position + 1);
        block.map_or(Printed::Gone, |block| Printed::Block(block.clone()))
    }

    /// Prints whenever somebody watches, until `stop` is cancelled.
    pub async fn run(&self, shared: &Shared, store: &Store, stop: CancellationToken) {
        let run = async {
            loop {
                self.wanted.notified().await;
                self.print_while_watched(shared, store).await;
                *self.kept.lock() = Kept::default();
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = run => {}
        }
    }

    async fn print_while_watched(&self, shared: &Shared, store: &Store) {
        let (mut changes, mut directory) = (shared.tail.changes(), Directory::default());
        let mut position = None;
        while self.watchers() > 0 {
            let head = *changes.borrow_and_update();
            let from = match (position, head) {
                (_, None) => None,
                (None, Some(head)) => {
                    self.kept.lock().printed = head;
                    self.moved.send_replace(());
                    position = Some(head);
                    None
                }
                (Some(at), Some(head)) => (head > at).then_some(at),
            };
            let Some(at) = from else {
                // The sender is in `shared`, which is borrowed.
                let _ = tokio::time::timeout(LOOK_EVERY, changes.changed()).await;
                continue;
            };
            match print_next(at, &mut directory, shared, store).await {
                Ok(Some(block)) => {
                    position = Some(block.last);
                    self.keep(block);
                    tokio::time::sleep(PACE).await;
                }
                Ok(None) => tokio::time::sleep(PACE).await,
                Err(error) => {
                    tracing::warn!(%error, "print events for watchers");
                    tokio::time::sleep(LOOK_EVERY).await;
                }
            }
        }
    }

    fn keep(&self, block: Block) {
        let mut kept = self.kept.lock();
        kept.printed = block.last;
        kept.bytes += block.all.len();
        kept.blocks.push_back(Arc::new(block));
        while kept.bytes > KEPT_MAX && kept.blocks.len() > 1 {
            let dropped = kept.blocks.pop_front();
            kept.bytes -= dropped.map_or(0, |block| block.all.len());
        }
        drop(kept);
        self.moved.send_replace(());
    }
}

/// What follows a position, as one block: from the tail, else from the table.
async fn print_next(position: u64, directory: &mut Directory, shared: &Shared, store: &Store) -> Result<Option<Block>> {
    let (mut batches, mut count, mut at) = (Vec::new(), 0, position);
    while count < BLOCK_MAX
        && let Some(batch) = shared.tail.after(at)
    {
        count += batch.events.len();
        at = batch.first + batch.events.len() as u64 - 1;
        batches.push(batch);
    }
    if batches.is_empty() {
        return print_past(position, directory, shared, store).await;
    }
    let events: Vec<Numbered<'_>> = batches.iter().flat_map(|batch| batch.after(position)).collect();
    directory.learn(&events, shared, &store.reader).await?;
    Ok(Block::print(&events, directory))
}

/// What follows a position in the table, as one block.
pub(super) async fn print_past(
    position: u64,
    directory: &mut Directory,
    shared: &Shared,
    store: &Store,
) -> Result<Option<Block>> {
    let limit = store.limits().read;
    let read = tokio::time::timeout(limit, events::read(&store.reader, position, BLOCK_MAX as i64)).await;
    let read = read.unwrap_or(Err(StoreError::TooLate(limit)))?;
    let events: Vec<Numbered<'_>> = read.iter().map(|(seq, at, event)| (*seq, *at, event)).collect();
    directory.learn(&events, shared, &store.reader).await?;
    Ok(Block::print(&events, directory))
}

#[cfg(test)]
mod tests {
    use super::*;
    use chiptide_model::{Event, NodeId, Timestamp};

    fn block(first: u64) -> Block {
        let node = |name: &str| Event::NodeHeard { node: NodeId::new(name).expect("a name") };
        let events = [node("n1"), node("n2"), node("n1")];
        let numbered: Vec<Numbered<'_>> =
            (first..).zip(&events).map(|(seq, event)| (seq, Timestamp(0), event)).collect();
        Block::print(&numbered, &Directory::default()).expect("three events")
    }

    fn ids(bytes: &Bytes) -> Vec<u64> {
        let text = std::str::from_utf8(bytes).expect("UTF-8");
        text.lines().filter_map(|line| line.strip_prefix("id: ")).map(|id| id.parse().expect("a number")).collect()
    }

    #[test]
    fn a_watcher_gets_what_follows_its_position_and_fits() {
        let block = block(5);
        assert_eq!(ids(&block.after(4, &Filter::default())), [5, 6, 7]);
        assert_eq!(ids(&block.after(5, &Filter::default())), [6, 7]);
        let of_n1 = Filter { nodes: vec!["n1".into()], ..Filter::default() };
        assert_eq!(ids(&block.after(0, &of_n1)), [5, 7]);
        assert_eq!(ids(&block.after(5, &of_n1)), [7]);
        assert!(block.after(7, &of_n1).is_empty());
    }

    #[test]
    fn the_press_knows_what_it_has_no_more() {
        let press = Press::default();
        press.kept.lock().printed = 4;
        press.keep(block(5));
        press.keep(block(8));
        assert!(matches!(press.after(4), Printed::Block(block) if block.first == 5));
        assert!(matches!(press.after(8), Printed::Block(block) if block.first == 8));
        assert!(matches!(press.after(10), Printed::Nothing));
        assert!(matches!(press.after(2), Printed::Gone));
    }
}
