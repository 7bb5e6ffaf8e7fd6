//! One story's world, and what each step does to it.

use super::agent::{Agent, Surroundings};
use super::clients::Clients;
use super::daemon::{Daemon, Office};
use super::database::Database;
use super::letter::{Letter, Place};
use super::node::Node;
use super::recount::Recount;
use super::rules::Rules;
use super::step::{Dice, Kind, Step};
use chiptide_agent::state::Epochs;
use std::collections::BTreeSet;
use tokio::time::Instant;

const DAEMONS: usize = 2;
/// How long the quiet at the end may last until everything is finished, in virtual milliseconds.
const QUIET_MAX: u64 = 900_000;
/// How long everybody's turn takes.
const TURN: u64 = 250;
/// Most letters under way.
const LETTERS_MAX: usize = 200;

/// Everything there is.
pub(super) struct World {
    pub(super) now: u64,
    base: Instant,
    rules: Rules,
    pub(super) database: Database,
    daemons: Vec<Daemon>,
    pub(super) nodes: Vec<Node>,
    agents: Vec<Option<Agent>>,
    agents_paused: Vec<u64>,
    disks: Vec<Epochs>,
    pub(super) clients: Clients,
    letters: Vec<Letter>,
    cuts: BTreeSet<(Place, Place)>,
    calls: u64,
    instances: u64,
    /// Whether failovers of this story forget commits.
    forgets: bool,
    pub(super) recount: Recount,
    pub(super) found: Vec<String>,
    /// Faults that struck.
    pub(super) faults: u64,
}

impl World {
    pub(super) fn new(seed: u64, rules: Rules, base: Instant) -> World {
        let mut dice = Dice::new(seed ^ 0x5EED);
        let nodes: Vec<Node> = (0..dice.between(2, 3) as usize)
            .map(|at| Node::new(at, dice.between(1, 2) as usize, dice.between(0, 1000) as i64 - 500))
            .collect();
        World {
            now: 1_000,
            base,
            rules,
            database: Database::new(),
            daemons: (0..DAEMONS).map(|at| Daemon::new(at, dice.between(0, 3_000))).collect(),
            agents: nodes.iter().map(|_| None).collect(),
            agents_paused: vec![0; nodes.len()],
            disks: nodes.iter().map(|_| Epochs::default()).collect(),
            nodes,
            clients: Clients::default(),
            letters: Vec::new(),
            cuts: BTreeSet::new(),
            calls: 0,
            instances: 0,
            forgets: seed % 8 == 7,
            recount: Recount::default(),
            found: Vec::new(),
            faults: 0,
        }
    }

    /// The first seconds, without a fault: a leader, and every node registered.
    pub(super) fn begin(&mut self) {
        (0..self.agents.len()).for_each(|at| self.start_agent(at));
        (0..60).for_each(|_| self.turn());
    }

    /// Does one step.
    pub(super) fn step(&mut self, step: Step) {
        let mut dice = Dice::new(step.salt);
        let (node, daemon) = (dice.below(self.nodes.len()), dice.below(DAEMONS));
        match step.kind {
            Kind::Tick => {
                let pass = match dice.below(20) {
                    0 => dice.between(3_000, 30_000),
                    1..6 => dice.between(300, 3_000),
                    _ => dice.between(10, 300),
                };
                self.pass(pass);
            }
            Kind::Turn => self.turn(),
            Kind::Deliver => self.deliver(&mut dice),
            Kind::Think => self.with_agent(node, Agent::think),
            Kind::Keep => self.with_agent(node, Agent::keep),
            Kind::Serve => self.serve(daemon, &mut dice),
            Kind::Ask => {
                let nodes = self.nodes.iter().map(|node| node.chips.len()).sum();
                self.clients.ask(nodes, daemon, self.now, &mut self.calls, &mut dice, &mut self.letters);
            }
            fault => {
                self.faults += 1;
                self.strike(fault, node, daemon, &mut dice);
            }
        }
        self.look();
    }

    fn strike(&mut self, fault: Kind, node: usize, daemon: usize, dice: &mut Dice) {
        let (now, pause) = (self.now, dice.between(500, 60_000));
        match fault {
            Kind::Lose if !self.letters.is_empty() => drop(self.letters.remove(dice.below(self.letters.len()))),
            Kind::Duplicate if !self.letters.is_empty() => {
                let twin = self.letters[dice.below(self.letters.len())].clone();
                self.letters.push(twin);
            }
            Kind::Cut => {
                let (one, other) = (Place::Node(node), Place::Daemon(daemon));
                self.cuts.insert(if dice.percent(50) { (one, other) } else { (other, one) });
            }
            Kind::Heal => self.cuts.clear(),
            Kind::KillDaemon => self.daemons[daemon].kill(),
            Kind::StartDaemon => self.daemons[daemon].up = true,
            Kind::PauseDaemon => self.daemons[daemon].paused_until = now + pause,
            Kind::KillAgent => self.agents[node] = None,
            Kind::StartAgent if self.agents[node].is_none() => self.start_agent(node),
            Kind::PauseAgent => self.agents_paused[node] = now + pause,
            Kind::WipeDisk if self.agents[node].is_none() => {
                self.disks[node] = Epochs::default();
                self.nodes[node].cells.values_mut().for_each(|cell| cell.on_record = false);
            }
            Kind::Reboot => {
                self.agents[node] = None;
                self.nodes[node].reboot();
            }
            Kind::FailOver => {
                let lost = if self.forgets { dice.below(4) } else { 0 };
                self.database.fail_over(lost);
            }
            Kind::StopPostgres => self.database.away_until = now + pause / 4,
            Kind::LoseCommit => self.daemons[daemon].lose_commit = Some(dice.percent(50)),
            Kind::ChipFault | Kind::ChipLies => {
                let at = dice.below(self.nodes[node].chips.len());
                let chip = &mut self.nodes[node].chips[at];
                match fault {
                    Kind::ChipLies => chip.lies_until = now + pause,
                    _ if dice.percent(60) => chip.unreadable_until = now + pause,
                    _ => chip.lost_until = now + pause,
                }
            }
            Kind::Process => self.disturb(node, dice),
            _ => {}
        }
    }

    /// Something happens to a process: it exits, hangs in the driver, leaves its group, or will not heed a signal.
    fn disturb(&mut self, node: usize, dice: &mut Dice) {
        let now = self.now;
        let here = &mut self.nodes[node].processes;
        let at = dice.below(here.len());
        let Some(process) = here.get_mut(at) else { return };
        match dice.below(5) {
            0 => process.ends_at = now,
            1 => process.stuck_until = now + dice.between(1_000, 40_000),
            // Only what the driver lists can be told from a stranger's process once it is out of its group.
            2 if process.opens_at <= now => process.in_group = false,
            3 => process.heeds_term = None,
            _ => process.leaves_memory = dice.between(1, 20_000),
        }
    }

    fn start_agent(&mut self, at: usize) {
        let mut started = None;
        self.around(at, |around| started = Some(Agent::start(around)));
        self.agents[at] = started;
    }

    fn around(&mut self, at: usize, then: impl FnOnce(&mut Surroundings<'_>)) {
        then(&mut Surroundings {
            at,
            node: &mut self.nodes[at],
            disk: &mut self.disks[at],
            now: self.now,
            base: self.base,
            rules: self.rules,
            daemons: DAEMONS,
            calls: &mut self.calls,
            out: &mut self.letters,
        });
    }

    fn with_agent(&mut self, at: usize, act: impl FnOnce(&mut Agent, &mut Surroundings<'_>)) {
        if self.now < self.agents_paused[at] {
            return;
        }
        let Some(mut agent) = self.agents[at].take() else { return };
        self.around(at, |around| act(&mut agent, around));
        self.agents[at] = Some(agent);
    }

    fn with_daemon(&mut self, at: usize, act: impl FnOnce(&mut Daemon, &mut Office<'_>)) {
        let mut office = Office {
            database: &mut self.database,
            now: self.now,
            rules: self.rules,
            instances: &mut self.instances,
            out: &mut self.letters,
            found: &mut self.found,
        };
        if self.daemons[at].runs(self.now) {
            act(&mut self.daemons[at], &mut office);
        }
    }

    fn serve(&mut self, at: usize, dice: &mut Dice) {
        self.with_daemon(at, |daemon, office| daemon.serve(office, dice));
        let lenient = self.database.forgetful || self.rules.unguarded;
        self.recount.follow(&self.database.log, &self.nodes, lenient, &mut self.found);
    }

    fn pass(&mut self, milliseconds: u64) {
        self.now += milliseconds;
        for node in &mut self.nodes {
            node.live(self.now, self.rules.start_outlives_fence);
        }
        (0..DAEMONS).for_each(|at| self.with_daemon(at, Daemon::tick));
        self.clients.ask_again(self.now, &mut self.calls, &mut self.letters);
        let surplus = self.letters.len().saturating_sub(LETTERS_MAX);
        self.letters.drain(..surplus);
    }

    /// One letter arrives, unless its way is cut or nobody is there.
    fn deliver(&mut self, dice: &mut Dice) {
        if self.letters.is_empty() {
            return;
        }
        // The oldest most of the time.
        let at = if dice.percent(60) { 0 } else { dice.below(self.letters.len()) };
        let letter = self.letters.remove(at);
        self.hand_over(letter, dice);
    }

    fn hand_over(&mut self, letter: Letter, dice: &mut Dice) {
        if self.cuts.contains(&(letter.from, letter.to)) {
            return;
        }
        match letter.to {
            Place::Clients => self.clients.receive(&letter),
            Place::Node(at) => self.with_agent(at, |agent, around| agent.receive(letter, around)),
            Place::Daemon(at) => self.with_daemon(at, |daemon, office| daemon.receive(letter, office, dice)),
        }
    }

    fn look(&mut self) {
        if self.rules.unguarded && self.found.is_empty() {
            self.recount.follow(&self.database.log, &self.nodes, true, &mut self.found);
        }
        self.recount.look_at(&self.nodes, &mut self.found);
    }

    /// The faults stop: everything starts again and stays, and all work ends. Then all must be finished in time.
    pub(super) fn end(&mut self) {
        self.calm();
        let until = self.now + QUIET_MAX;
        while self.found.is_empty() && self.now < until {
            self.turn();
            if self.is_finished() {
                return self.count_promises();
            }
        }
        if self.found.is_empty() && !self.database.forgetful {
            self.found.push(self.what_is_stuck());
        }
    }

    fn calm(&mut self) {
        let now = self.now;
        self.cuts.clear();
        self.database.away_until = 0;
        self.agents_paused.fill(0);
        for daemon in &mut self.daemons {
            (daemon.up, daemon.paused_until, daemon.lose_commit) = (true, 0, None);
        }
        for node in &mut self.nodes {
            for chip in &mut node.chips {
                (chip.unreadable_until, chip.lost_until) = (0, 0);
                chip.lies_until = chip.lies_until.min(now);
            }
            for process in &mut node.processes {
                process.stuck_until = process.stuck_until.min(now + 5_000);
                if !process.in_group {
                    process.ends_at = process.ends_at.min(now + 5_000);
                }
            }
        }
        for at in 0..self.agents.len() {
            if self.agents[at].is_none() {
                self.start_agent(at);
            }
        }
        self.clients.calm(now);
    }

    /// Everybody who lives does what is next, and all letters arrive whose way is not cut.
    fn turn(&mut self) {
        self.pass(TURN);
        let mut dice = Dice::new(self.now);
        for at in 0..self.agents.len() {
            self.with_agent(at, Agent::think);
            self.with_agent(at, Agent::keep);
        }
        for letter in std::mem::take(&mut self.letters) {
            self.hand_over(letter, &mut dice);
        }
        for at in 0..DAEMONS {
            (0..4).for_each(|_| self.serve(at, &mut dice));
        }
        self.clients.finish(&self.recount, self.now, &mut self.calls, &mut self.letters);
        self.look();
    }

    fn is_finished(&self) -> bool {
        let free = |chip: &chiptide_allocator::fleet::Chip| chip.holds.is_empty() && chip.quarantine.is_none();
        let tables = self.database.tables();
        self.clients.is_finished(&self.recount)
            && self.recount.unfinished() == 0
            && tables.fleet.chips.iter().all(free)
            && tables.fleet.nodes.iter().all(|node| node.unknown_since.is_none())
    }

    /// What clients were told must be so.
    fn count_promises(&mut self) {
        if !self.database.forgetful {
            let lost = self.clients.acknowledged().filter(|job| self.recount.standing(*job).is_none());
            self.found.extend(lost.map(|job| format!("I10: job {job} was acknowledged and is not in the log")));
        }
    }

    fn what_is_stuck(&self) -> String {
        let tables = self.database.tables();
        let jobs = tables.jobs().map(|job| format!("job {} is {}", job.id, job.state.as_str()));
        let chips = tables.fleet.chips.iter().filter(|chip| !chip.holds.is_empty() || chip.quarantine.is_some());
        let chips = chips.map(|chip| format!("{} is {}", chip.facts.id, chip.state(&tables.fleet.nodes[chip.node])));
        let unknown = tables.fleet.nodes.iter().filter(|node| node.unknown_since.is_some());
        let unknown = unknown.map(|node| format!("node {} is unknown", node.id));
        let waiting = (!self.clients.is_finished(&self.recount)).then(|| "a client waits for its answer".to_owned());
        let all: Vec<String> = jobs.chain(chips).chain(unknown).chain(waiting).collect();
        format!("stuck: {} s after the last fault: {}", QUIET_MAX / 1000, all.join(", "))
    }
}
