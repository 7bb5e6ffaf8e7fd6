//! The agent's end of the book of faults: sightings come in by a channel, the book is kept on disk, reports take from it.

use super::book::{Book, Kept};
use super::clean::CleanRules;
use super::foreign::{Evictions, Machine, Strangers, describe};
use super::sighting::Sighting;
use super::table::XidTable;
use crate::agent::Agent;
use crate::reading::NodeReading;
use crate::state::{load, save};
use chiptide_api::fault::FaultBody;
use chiptide_api::node::OrdersView;
use chiptide_model::{Dimension, FaultClass, Timestamp};
use std::path::PathBuf;
use std::time::Duration;
use tokio::sync::mpsc::Receiver;
use tracing::{info, warn};

/// The book, where it is kept, and what comes for it.
#[derive(Debug)]
pub struct Watching {
    book: Book,
    kept: PathBuf,
    sightings: Receiver<Sighting>,
    /// Sightings that came and are not in the book yet.
    waiting: Vec<Sighting>,
    closed: bool,
    strangers: Strangers,
    foreign: ForeignProcesses,
    evictions: Evictions,
}

/// What is done about foreign processes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ForeignProcesses {
    /// They are named and told.
    Report,
    /// They are told to go, too: SIGTERM, and SIGKILL after this.
    Evict(Duration),
}

/// Most sightings that wait: a flood is cut at its source, this bounds what is left of it.
const WAITING_MAX: usize = 256;

impl Watching {
    /// Goes on with the book kept in `state_dir`. One that cannot be read is begun anew: what it held stays known to the
    /// daemon, and only an admin can end it.
    pub fn new(
        table: XidTable,
        rules: CleanRules,
        boot_id: &str,
        state_dir: PathBuf,
        sightings: Receiver<Sighting>,
        foreign: ForeignProcesses,
    ) -> Watching {
        let kept = state_dir.join("faults");
        let known: Kept = load(&kept).map(Option::unwrap_or_default).unwrap_or_else(|error| {
            warn!("the book of faults is begun anew; faults of before end by an admin's word only: {error}");
            Kept::default()
        });
        let book = Book::open(table, rules, boot_id, known);
        let (strangers, evictions) = (Strangers::default(), Evictions::default());
        Watching { book, kept, sightings, waiting: Vec::new(), closed: false, strangers, foreign, evictions }
    }

    /// Looks for processes that no live lease accounts for. Answers whether the book has changed.
    fn look_for_strangers(&mut self, node: &str, reading: &NodeReading, orders: &OrdersView, now: Timestamp) -> bool {
        let found = self.strangers.find(reading, orders, &Machine);
        let mut changed = false;
        for (chip, pid) in &found {
            let who = describe(*pid);
            if self.book.note(chip, Dimension::ForeignProcess, *pid, FaultClass::Foreign, who.clone(), now) {
                warn!(%node, %chip, pid, "a foreign process: {who}");
                changed = true;
            }
        }
        if let ForeignProcesses::Evict(kill_after) = self.foreign
            && !found.is_empty()
        {
            let pids: Vec<u32> = found.into_iter().map(|(_, pid)| pid).collect();
            for (pid, signal) in self.evictions.carry_out(&pids, reading.taken, kill_after) {
                warn!(%node, pid, ?signal, "a foreign process is told to go");
            }
        }
        changed
    }

    /// Waits for a sighting.
    async fn next(&mut self) {
        if self.closed {
            return std::future::pending().await;
        }
        match self.sightings.recv().await {
            Some(seen) if self.waiting.len() < WAITING_MAX => self.waiting.push(seen),
            Some(_) => {}
            None => self.closed = true,
        }
    }

    fn keep(&self, node: &str) {
        if let Err(error) = save(&self.kept, &self.book.kept()) {
            warn!(%node, "faults would be forgotten if the agent ended now: {error}");
        }
    }
}

impl Agent {
    /// This agent, watching its chips for faults.
    pub fn watching(mut self, watching: Watching) -> Agent {
        self.watching = Some(watching);
        self
    }

    /// Brings the book of faults up to date with a reading. `now` is the wall clock's time; `informed` once orders have come:
    /// before, nobody knows whose processes are whose.
    pub(crate) fn watch(&mut self, reading: &NodeReading, now: Timestamp, informed: bool) {
        let Some(watching) = &mut self.watching else { return };
        let mut changed = false;
        while let Ok(seen) = watching.sightings.try_recv() {
            watching.waiting.push(seen);
        }
        for seen in std::mem::take(&mut watching.waiting) {
            let new = watching.book.see(&seen, reading, now);
            if new {
                warn!(node = %self.config.node, xid = seen.xid, which = ?seen.which, "an XID: {}", seen.detail);
            }
            changed |= new;
        }
        changed |= watching.book.weigh(reading, now);
        if informed {
            changed |= watching.look_for_strangers(&self.config.node, reading, self.standing.orders(), now);
        }
        if changed {
            watching.keep(&self.config.node);
        }
    }

    /// What is to be told of faults.
    pub(crate) fn faults(&self) -> Vec<FaultBody> {
        self.watching.as_ref().map(|watching| watching.book.bodies()).unwrap_or_default()
    }

    /// These have been taken in.
    pub(crate) fn told_faults(&mut self, told: &[FaultBody]) {
        let Some(watching) = &mut self.watching else { return };
        for over in told.iter().filter_map(|fault| Some((fault, fault.ended.as_ref()?))) {
            info!(node = %self.config.node, chip = %over.0.chip, code = over.0.code, "a fault is over: {}", over.1);
        }
        if watching.book.told(told) {
            watching.keep(&self.config.node);
        }
    }
}

/// Waits for a sighting; for ever where nobody watches.
pub(crate) async fn seen(watching: &mut Option<Watching>) {
    match watching {
        Some(watching) => watching.next().await,
        None => std::future::pending().await,
    }
}
