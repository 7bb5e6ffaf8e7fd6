//! One who watches: a position, a filter, and the next bytes for them. Nothing is kept for a watcher but its position: one that
//! reads slowly is cut off once the press has moved on too far, and resumes from the table.

use super::directory::Directory;
use super::filter::Filter;
use super::press::{Block, Printed, print_past};
use crate::app::App;
use axum::body::Bytes;
use futures_util::Stream;
use futures_util::stream::unfold;
use std::convert::Infallible;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::Instant;

/// A watcher hears something at least this often.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// One who watches.
#[derive(Debug)]
pub struct Watching {
    app: App,
    filter: Filter,
    position: u64,
    directory: Directory,
    moves: watch::Receiver<()>,
    state: State,
    speak_by: Instant,
    ends_at: Instant,
    _place: OwnedSemaphorePermit,
}

/// Longest life of a stream: whoever goes on shows their token again, which may have been revoked.
const LIFE_MAX: Duration = Duration::from_secs(3600);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// Has been told nothing yet.
    New,
    /// Reads the past.
    Past,
    /// Has caught up once.
    Live,
    /// Has been cut off.
    Over,
}

impl Watching {
    /// One who watches what follows a position.
    pub fn new(app: App, filter: Filter, position: u64, place: OwnedSemaphorePermit) -> Watching {
        app.shared.press.enter();
        let (moves, speak_by) = (app.shared.press.moves(), Instant::now() + KEEP_ALIVE);
        let ends_at = Instant::now() + LIFE_MAX;
        let (directory, state) = (Directory::default(), State::New);
        Watching { app, filter, position, directory, moves, state, speak_by, ends_at, _place: place }
    }

    /// The next bytes; `None` at the end, which is when the daemon stops or the watcher was cut off.
    async fn next(&mut self) -> Option<Bytes> {
        if self.state == State::New {
            self.state = State::Past;
            return Some(format!("retry: 1000\n{}", self.standing()).into());
        }
        let stopping = self.app.shared.stopping.clone();
        loop {
            if self.state == State::Over || stopping.is_cancelled() || self.ends_at <= Instant::now() {
                return None;
            }
            self.moves.mark_unchanged();
            let bytes = match self.app.shared.press.after(self.position) {
                Printed::Block(block) => {
                    self.state = State::Live;
                    self.take(&block)
                }
                Printed::Gone if self.state == State::Live => self.cut_off("too slow"),
                Printed::Gone => self.read_past().await,
                Printed::Nothing => {
                    tokio::select! {
                        _ = self.moves.changed() => {}
                        () = tokio::time::sleep_until(self.speak_by) => {}
                        () = stopping.cancelled() => {}
                    }
                    Bytes::new()
                }
            };
            if !bytes.is_empty() {
                self.speak_by = Instant::now() + KEEP_ALIVE;
                return Some(bytes);
            }
            if self.speak_by <= Instant::now() {
                self.speak_by = Instant::now() + KEEP_ALIVE;
                return Some(format!(": keep-alive\n{}", self.standing()).into());
            }
        }
    }

    fn take(&mut self, block: &Block) -> Bytes {
        let bytes = block.after(self.position, &self.filter);
        self.position = block.last;
        bytes
    }

    async fn read_past(&mut self) -> Bytes {
        let app = self.app.clone();
        let Ok(_turn) = app.shared.press.past.acquire().await else { return Bytes::new() };
        match print_past(self.position, &mut self.directory, &app.shared, &app.store).await {
            Ok(Some(block)) => self.take(&block),
            // What was pushed is committed and will be read; what is read next must not be skipped.
            Ok(None) => Bytes::new(),
            Err(error) => {
                tracing::warn!(%error, "read past events for a watcher");
                self.cut_off("the log cannot be read now")
            }
        }
    }

    /// Moves the position that a client resumes from, past what did not fit its filter. An event without data is no event.
    fn standing(&self) -> String {
        format!("id: {}\n\n", self.position)
    }

    fn cut_off(&mut self, why: &str) -> Bytes {
        self.state = State::Over;
        format!(": cut off ({why}); resume with Last-Event-ID: {}\n\n", self.position).into()
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.app.shared.press.leave();
    }
}

/// The stream of a watcher's bytes.
pub fn stream(watching: Watching) -> impl Stream<Item = Result<Bytes, Infallible>> + Send {
    unfold(watching, async |mut watching| watching.next().await.map(|bytes| (Ok(bytes), watching)))
}
