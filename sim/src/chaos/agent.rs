//! The production agent's decisions, with the simulated machine below them and the simulated network before them: what
//! `session.rs` and the keeper's thread are in production.

use super::letter::{Body, Letter, Place};
use super::node::{Cell, Node};
use super::rules::Rules;
use chiptide_agent::NodeReading;
use chiptide_agent::dialogue::{Dialogue, Received};
use chiptide_agent::idle::Baselines;
use chiptide_agent::standing::{self, Standing};
use chiptide_agent::state::Epochs;
use chiptide_agent::vacancy::NotProven;
use chiptide_agent::wishing::Wishing;
use chiptide_agent::work::{Act, Bounds, Key, Ladder, ReplicaView, View, Wanted, Wish, wanted};
use chiptide_api::node::OrdersView;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::time::Instant;
use uuid::Uuid;

const BOUNDS: Bounds = Bounds { kill_after: Duration::from_secs(2), verify_for: Duration::from_secs(5) };
/// How long the agent waits for each kind of answer, and before it tries again, in milliseconds.
const REGISTER_LIMIT: u64 = 15_000;
const REPORT_LIMIT: u64 = 10_000;
const POLL_LIMIT: u64 = 45_000;
const AGAIN: u64 = 1_000;

/// A call under way: its number and when it was asked.
type Call = Option<(u64, u64)>;

/// One incarnation of a node's agent.
#[derive(Clone, Debug)]
pub(super) struct Agent {
    standing: Standing,
    wishing: Wishing,
    dialogue: Option<Dialogue>,
    /// What the keeper was told last, and the newest it has heeded.
    wish: Wish,
    heeded: u64,
    ladders: BTreeMap<Key, Ladder>,
    /// Replicas the keeper knows of.
    known: BTreeSet<Key>,
    register: Call,
    report: Call,
    poll: Call,
    register_after: u64,
    poll_after: u64,
    daemon: usize,
}

/// What an agent does its work with.
pub(super) struct Surroundings<'a> {
    pub(super) at: usize,
    pub(super) node: &'a mut Node,
    /// Epochs on disk.
    pub(super) disk: &'a mut Epochs,
    pub(super) now: u64,
    pub(super) base: Instant,
    pub(super) rules: Rules,
    pub(super) daemons: usize,
    pub(super) calls: &'a mut u64,
    pub(super) out: &'a mut Vec<Letter>,
}

impl Surroundings<'_> {
    fn local(&self) -> Instant {
        self.base + self.node.local(self.now)
    }

    fn send(&mut self, daemon: usize, body: Body) -> Call {
        *self.calls += 1;
        let (from, to) = (Place::Node(self.at), Place::Daemon(daemon));
        self.out.push(Letter { from, to, call: *self.calls, body });
        Some((*self.calls, self.now))
    }
}

impl Agent {
    /// Starts: reads its disk, and finds what an agent before it left running.
    pub(super) fn start(around: &Surroundings<'_>) -> Agent {
        let mut standing = Standing::after(around.disk.clone());
        standing.weigh_by(standing::Rules { readings: 3, baselines: Baselines::default() });
        let mut agent = Agent {
            standing,
            wishing: Wishing::default(),
            dialogue: None,
            wish: Wish::default(),
            heeded: 0,
            ladders: BTreeMap::new(),
            known: BTreeSet::new(),
            register: None,
            report: None,
            poll: None,
            register_after: 0,
            poll_after: 0,
            daemon: around.at % around.daemons,
        };
        if !around.rules.no_adoption {
            agent.known = around.node.cells.keys().copied().collect();
        }
        agent.wishing = Wishing::new(agent.view(around.node, around.rules));
        agent
    }

    /// One turn of the loop in `session.rs`.
    pub(super) fn think(&mut self, around: &mut Surroundings<'_>) {
        let reading = around.node.read(around.now, around.base);
        self.give_up_calls(around);
        if self.dialogue.as_ref().is_some_and(|dialogue| !dialogue.knows(&reading)) {
            self.dialogue = None;
        }
        let Some(informed) = self.dialogue.as_ref().map(Dialogue::is_informed) else {
            if self.register.is_none() && around.now >= self.register_after {
                let (boot_id, chips) = (around.node.boot_id(), around.node.registered_chips(&reading));
                let seen = self.standing.seen();
                self.register = around.send(self.daemon, Body::Register { boot_id, chips, seen });
            }
            return;
        };
        self.standing.carry(&reading);
        let (view, now) = (self.view(around.node, around.rules), around.local());
        let mut trusting = self.standing.clone();
        let wish = self.wishing.mind(view.clone(), &mut self.standing, &reading, informed, now);
        if around.rules.driver_only {
            trusting.hold_back(|_| false, now);
            self.standing = trusting;
        }
        if let Some(wish) = wish {
            self.wish = wish;
        }
        if informed {
            self.weigh(around, &reading);
        }
        if self.report.is_none() {
            let dialogue = self.dialogue.as_mut().expect("looked at above");
            if let Some(body) = dialogue.report_if_due(&reading, &self.standing, Some(&view), now) {
                self.report = around.send(self.daemon, Body::Report(Box::new(body)));
            }
        }
        if self.poll.is_none() && around.now >= self.poll_after {
            let dialogue = self.dialogue.as_ref().expect("looked at above");
            let (session, after) = (dialogue.session(), dialogue.revision().map(str::to_owned));
            self.poll = around.send(self.daemon, Body::Poll { session, after });
        }
    }

    /// Who has a chip's device node open is asked of the process table, whatever the driver says, unless that lies too.
    fn weigh(&mut self, around: &Surroundings<'_>, reading: &NodeReading) {
        let (node, now) = (&*around.node, around.now);
        self.standing.weigh(reading, |name, sharers: &BTreeSet<Uuid>| {
            let at = node.chips.iter().position(|chip| chip.name.as_str() == name).ok_or(NotProven::Missing)?;
            if now < node.chips[at].lies_until {
                return Ok(());
            }
            match node.open_on(at, now).find(|process| !(process.in_group && sharers.contains(&process.key.lease))) {
                Some(process) => Err(NotProven::Held(process.pid)),
                None => Ok(()),
            }
        });
    }

    fn give_up_calls(&mut self, around: &Surroundings<'_>) {
        let is_over = |call: Call, limit: u64| call.is_some_and(|(_, asked)| around.now >= asked + limit);
        if is_over(self.register, REGISTER_LIMIT) {
            (self.register, self.register_after) = (None, around.now + AGAIN);
            self.daemon = (self.daemon + 1) % around.daemons;
        }
        if is_over(self.report, REPORT_LIMIT) {
            self.report_failed(around);
        }
        if is_over(self.poll, POLL_LIMIT) {
            (self.poll, self.poll_after) = (None, around.now + AGAIN);
        }
    }

    fn report_failed(&mut self, around: &Surroundings<'_>) {
        self.report = None;
        self.daemon = (self.daemon + 1) % around.daemons;
        if let Some(dialogue) = &mut self.dialogue {
            dialogue.on_failed(Duration::from_millis(AGAIN), around.local());
        }
    }

    /// Takes an answer. One to a call that is over is for nobody.
    pub(super) fn receive(&mut self, letter: Letter, around: &mut Surroundings<'_>) {
        let is = |call: Call| call.filter(|(number, _)| *number == letter.call);
        if is(self.register).is_some() {
            self.register = None;
            self.on_registered(letter.body, around);
        } else if let Some((_, asked)) = is(self.report) {
            match letter.body {
                Body::Reported(view) => {
                    self.report = None;
                    if let Some(orders) = view.orders {
                        self.take_over(asked, orders, around);
                    }
                    match (&mut self.dialogue, view.accepted) {
                        (Some(dialogue), true) => dialogue.on_accepted(around.local()),
                        _ => self.report_failed(around),
                    }
                }
                Body::Stranger => self.forget_session(),
                _ => self.report_failed(around),
            }
        } else if let Some((_, asked)) = is(self.poll) {
            (self.poll, self.poll_after) = (None, around.now + 20);
            match letter.body {
                Body::Orders(orders) => self.take_over(asked, *orders, around),
                Body::Stranger => self.forget_session(),
                // Reports find the daemon that leads; were polls to change it as well, the two could take turns for ever.
                _ => self.poll_after = around.now + AGAIN,
            }
        }
    }

    fn on_registered(&mut self, body: Body, around: &mut Surroundings<'_>) {
        let Body::Registered(told) = body else {
            self.register_after = around.now + AGAIN;
            self.daemon = (self.daemon + 1) % around.daemons;
            return;
        };
        let reading = around.node.read(around.now, around.base);
        let boot_id = around.node.boot_id();
        self.dialogue = Some(Dialogue::new(&told, boot_id, None, &reading, around.local()));
        (self.report, self.poll, self.poll_after) = (None, None, 0);
    }

    fn forget_session(&mut self) {
        (self.dialogue, self.report, self.poll) = (None, None, None);
    }

    /// Acts on orders that are news, once what they show is on disk.
    fn take_over(&mut self, asked: u64, orders: OrdersView, around: &mut Surroundings<'_>) {
        let Some(dialogue) = &mut self.dialogue else { return };
        let (asked, now) = (around.base + around.node.local(asked), around.local());
        let Received::News { standing, .. } = dialogue.receive(&self.standing, asked, &orders, now) else { return };
        around.disk.clone_from(standing.epochs());
        self.standing = *standing;
        self.wishing.receive(&orders, around.node.local(around.now));
        dialogue.accept(&orders, now);
    }

    /// One turn of the keeper's thread.
    pub(super) fn keep(&mut self, around: &mut Surroundings<'_>) {
        let (now, local) = (around.now, around.node.local(around.now));
        self.start_wanted(around);
        for key in self.known.clone() {
            let Some(cell) = around.node.cells.get(&key) else { continue };
            let (stray, over) = (!cell.on_record, cell.ended.is_some());
            let wants = if stray { Wanted::End } else { self.wants(key) };
            match self.ladders.entry(key).or_default().climb(local, wants, over, BOUNDS) {
                Act::Nothing | Act::Notice(_) => {}
                Act::Terminate => {
                    around.node.terminate(key, now);
                    self.fence(around.node, key);
                }
                Act::Kill | Act::KillLoudly => {
                    around.node.kill(key, now);
                    self.fence(around.node, key);
                }
            }
        }
        let rules = around.rules;
        let gone = |key: &Key, node: &Node| {
            let stray = node.cells.get(key).is_some_and(|cell| !cell.on_record);
            !node.is_present(*key, rules.start_outlives_fence) && (stray || self.wants(*key) == Wanted::End)
        };
        let over: Vec<Key> = self.known.iter().filter(|key| gone(key, around.node)).copied().collect();
        for key in over {
            self.known.remove(&key);
            self.ladders.remove(&key);
            if !(rules.start_outlives_fence && around.node.cells.get(&key).is_some_and(|cell| cell.starts_at.is_some()))
            {
                around.node.cells.remove(&key);
            }
        }
        self.heeded = self.wish.number;
    }

    fn fence(&self, node: &mut Node, key: Key) {
        if let Some(cell) = node.cells.get_mut(&key) {
            cell.fenced = true;
        }
    }

    fn wants(&self, key: Key) -> Wanted {
        wanted(&self.wish, self.wish.leases.get(&key.lease), key.rank)
    }

    fn start_wanted(&mut self, around: &mut Surroundings<'_>) {
        for (lease, wanted) in self.wish.leases.iter().filter(|(_, wanted)| wanted.deadline.is_none()) {
            for replica in wanted.work.replicas.iter().filter(|replica| wanted.may_start.contains(&replica.rank)) {
                let key = Key { lease: *lease, rank: replica.rank };
                if self.known.contains(&key) || around.node.cells.contains_key(&key) {
                    continue;
                }
                // Now and then a guardian is slow.
                let slowest = if lease.as_u128() % 3 == 0 { 8_000 } else { 400 };
                let delay = (lease.as_u128() % slowest) as u64;
                let cell = Cell {
                    chips: replica.chips.clone(),
                    starts_at: Some(around.now + delay),
                    fenced: false,
                    started: false,
                    ended: None,
                    on_record: true,
                };
                around.node.cells.insert(key, cell);
                self.known.insert(key);
            }
        }
    }

    /// What the keeper knows.
    fn view(&self, node: &Node, rules: Rules) -> View {
        let replica = |key: &Key| {
            let cell = node.cells.get(key)?;
            let running = cell.started.then_some(chiptide_api::work::WorkBody::Running);
            let present = node.is_present(*key, rules.start_outlives_fence) || !cell.fenced;
            let view = ReplicaView {
                run: 0,
                ended_at: None,
                work: cell.ended.clone().or(running),
                present,
                chips: cell.on_record.then(|| cell.chips.clone()),
            };
            Some((*key, view))
        };
        View::of(self.heeded, self.known.iter().filter_map(replica).collect())
    }
}
