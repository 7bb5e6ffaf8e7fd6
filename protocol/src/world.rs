//! The world: the ledger, two daemons, two nodes and the network between them, and every step that any of them, or a
//! fault, may take. A step that may happen is offered whenever it may, so every crash point and every order is covered.

use crate::canon;
use crate::ledger::{Change, Demand, Fresh, JOBS, Leader, Ledger, NODES};
use crate::node::{Node, Orders};
use crate::properties;
use crate::rules::{Rule, Rules};
use stateright::{Model, Property};

/// A daemon that believes it leads.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Daemon {
    /// The epoch it took over with.
    pub epoch: u8,
    /// Its memory, where that is not the ledger itself: it has been deposed, or its database lost commits.
    pub memory: Option<Ledger>,
}

/// A state.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct World {
    /// What Postgres has.
    pub ledger: Ledger,
    /// What it would have after losing its last commit.
    pub before: Option<Ledger>,
    /// It has lost one.
    pub failed_over: bool,
    /// The daemons.
    pub daemons: [Option<Daemon>; 2],
    /// The nodes.
    pub nodes: [Node; 2],
}

/// Which faults there are, and how much of a world.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bounds {
    /// Two gangs that want the same chips, instead of one and a smaller job of low priority.
    pub two_gangs: bool,
    /// Daemons die and others take over, the old one living on, any number of times.
    pub leaders: bool,
    /// Agents die and come back, any number of times.
    pub crashes: bool,
    /// Their disk is lost when they do.
    pub wipes: bool,
    /// Machines restart.
    pub reboots: bool,
    /// A registration arrives once more, late.
    pub late_registrations: bool,
    /// Workloads end by themselves; leases end for reasons of the daemon's.
    pub ends: bool,
    /// Nodes fall silent.
    pub silence: bool,
    /// Answers travel: they arrive after what they say has changed.
    pub delays: bool,
    /// Postgres fails over once, and loses its last commit.
    pub failover: bool,
}

impl Bounds {
    /// Nothing fails.
    pub const CALM: Bounds = Bounds {
        two_gangs: false,
        leaders: false,
        crashes: false,
        wipes: false,
        reboots: false,
        late_registrations: false,
        ends: false,
        silence: false,
        delays: false,
        failover: false,
    };
}

/// A step.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Action {
    /// A daemon takes the lead.
    Lead(usize),
    /// A daemon dies.
    Die(usize),
    /// A leader reads the tables anew.
    Reload(usize),
    /// A daemon decides, commits and applies.
    Commit(usize, Change),
    /// A daemon applies and sends without having committed (`CommitFirst` off).
    Leak(usize, Change),
    /// A daemon answers a node's question for orders.
    Answer(usize, usize),
    /// The answer arrives.
    Deliver(usize),
    /// An earlier answer arrives (`NewestOrders` off).
    DeliverLate(usize),
    /// The agent starts a guardian.
    Start(usize),
    /// The guardian starts the workload.
    Spawn(usize),
    /// The workload uses the chip: the driver lists it.
    Touch(usize),
    /// The agent ends what is not wanted.
    End(usize),
    /// A workload ends by itself.
    Exit(usize),
    /// The agent dies.
    Crash(usize),
    /// The agent dies and its disk is lost.
    Wipe(usize),
    /// The machine restarts.
    Reboot(usize),
    /// The agent starts, or registers again.
    Register(usize),
    /// An earlier registration arrives once more.
    LateRegistration(usize),
    /// Postgres fails over and has lost its last commit.
    Failover,
    /// The agent is stopped between its last look and a start, and another starts beside it (`OneAgent` off).
    Stop(usize),
    /// The stopped agent goes on.
    GoOn(usize),
}

impl Action {
    /// Whether it is a fault: whoever waits for the end must not need it.
    pub fn is_fault(self) -> bool {
        match self {
            Action::Die(_) | Action::Exit(_) | Action::Crash(_) | Action::Wipe(_) | Action::Reboot(_) => true,
            Action::LateRegistration(_) | Action::Failover | Action::Stop(_) | Action::Leak(..) => true,
            Action::Commit(_, change) => matches!(change, Change::Silent(_) | Change::Requeue(_) | Change::Forget(_)),
            _ => false,
        }
    }
}

/// The protocol with these rules, in a world of these bounds.
#[derive(Clone, Copy, Debug)]
pub struct Protocol {
    /// Which rules hold.
    pub rules: Rules,
    /// Which faults there are.
    pub bounds: Bounds,
    /// The two nodes, like the two daemons, may change places: half the states, and no story.
    pub symmetric: bool,
}

impl Protocol {
    /// All rules hold.
    pub fn whole(bounds: Bounds) -> Protocol {
        Protocol { rules: Rules::ALL, bounds, symmetric: true }
    }

    /// These rules do not.
    pub fn without(off: &[Rule], bounds: Bounds) -> Protocol {
        Protocol { rules: Rules::without(off), bounds, symmetric: false }
    }

    fn name(&self, world: World) -> World {
        if self.symmetric { canon::of(world) } else { canon::numbered(world) }
    }

    fn demand(&self) -> Demand {
        Demand { two_gangs: self.bounds.two_gangs }
    }

    /// What a daemon has in memory.
    fn memory<'a>(&self, world: &'a World, d: usize) -> Option<&'a Ledger> {
        world.daemons[d].as_ref().map(|daemon| daemon.memory.as_ref().unwrap_or(&world.ledger))
    }

    fn may_commit(&self, world: &World, d: usize) -> bool {
        let Some(daemon) = world.daemons[d] else { return false };
        let leader = world.ledger.leader;
        let same = usize::from(leader.instance) == d || !self.rules.has(Rule::LeaderInstance);
        let guarded = (same && leader.epoch == daemon.epoch) || !self.rules.has(Rule::LeaderGuard);
        guarded && (daemon.memory.is_none() || !self.rules.has(Rule::OneLog))
    }

    /// Everything that a daemon with this memory could decide.
    fn changes(&self, world: &World, memory: &Ledger, push: &mut impl FnMut(Change)) {
        let (bounds, whole) = (self.bounds, self.rules.has(Rule::GrantWhole));
        const SINGLES: &[[bool; 2]] = &[[true, false], [false, true]];
        for job in JOBS {
            let choices = self.demand().choices(job);
            let parts = |whole: bool| if whole { choices } else { SINGLES };
            parts(self.rules.has(Rule::ClaimWhole)).iter().for_each(|chips| push(Change::Claim(job, *chips)));
            parts(whole).iter().for_each(|chips| push(Change::Grant(job, *chips)));
            push(Change::DropClaim(job));
            push(Change::Finish(job));
            if bounds.ends {
                push(Change::Requeue(job));
            }
        }
        for n in NODES {
            let node = &world.nodes[n];
            let (row, current) = (&memory.rows[n], memory.rows[n].session == node.session);
            for letter in node.letters.into_iter().flatten() {
                let session = current || (letter.old && !self.rules.has(Rule::ProofOfSession));
                if session {
                    push(Change::Told(n, letter.fact));
                }
            }
            if current && node.up && !row.known {
                push(Change::Heard(n, node.seen.map(|(epoch, _)| epoch)));
            }
            if bounds.silence && row.known {
                push(Change::Silent(n));
            }
            if !self.rules.has(Rule::ProofOnly) {
                push(Change::Forget(n));
            }
        }
    }

    fn orders(&self, memory: &Ledger, n: usize) -> Orders {
        match memory.rows[n].hold {
            None => Orders::Nothing,
            Some(hold) if !hold.ended => Orders::Carry(hold.lease, hold.epoch),
            Some(hold) if hold.said => Orders::Nothing,
            Some(hold) => Orders::Vacate(hold.lease, hold.epoch),
        }
    }

    fn commit(&self, world: &mut World, d: usize, change: Change) -> Option<()> {
        let memory = *self.memory(world, d)?;
        let fresh = Fresh { lease: canon::unused_lease(world), session: canon::unused_session(world) };
        let after = memory.decide(change, self.demand(), self.rules, fresh)?;
        let daemon = world.daemons[d].as_mut()?;
        let stored = match daemon.memory {
            None => after,
            Some(before) => {
                daemon.memory = Some(after);
                world.ledger.merge(&before, &after, self.rules)?
            }
        };
        if stored == world.ledger {
            return None;
        }
        self.store(world, stored, Some(d));
        Some(())
    }

    /// The ledger becomes this, by the hand of one daemon or of nobody whose memory counts.
    fn store(&self, world: &mut World, stored: Ledger, by: Option<usize>) {
        for (d, daemon) in world.daemons.iter_mut().enumerate() {
            if let Some(daemon) = daemon.as_mut().filter(|daemon| Some(d) != by && daemon.memory.is_none()) {
                daemon.memory = Some(world.ledger);
            }
        }
        world.before = (self.bounds.failover && !world.failed_over).then_some(world.ledger);
        world.ledger = stored;
    }

    fn lead(&self, world: &mut World, d: usize) {
        let mut ledger = world.ledger;
        ledger.leader = Leader { instance: d as u8, epoch: ledger.leader.epoch + 1 };
        if self.bounds.silence || self.bounds.failover {
            ledger.rows.iter_mut().for_each(|row| row.known = false);
        }
        world.daemons[d] = None;
        self.store(world, ledger, None);
        world.daemons[d] = Some(Daemon { epoch: ledger.leader.epoch, memory: None });
    }

    /// The agent's registration is committed by the leader; the agent hears of it at once (that it may not is what a
    /// late registration stands for).
    fn register(&self, world: &mut World, n: usize) -> Option<()> {
        let d = (0..2).find(|d| self.may_commit(world, *d) && world.daemons[*d].is_some_and(|d| d.memory.is_none()))?;
        let (boot, seen) = (world.nodes[n].boot, world.nodes[n].seen.map(|(epoch, _)| epoch));
        self.commit(world, d, Change::Register(n, boot, seen))?;
        world.nodes[n].begin(world.ledger.rows[n].session, self.rules);
        Some(())
    }

    fn late_registration(&self, world: &mut World, n: usize) -> Option<()> {
        let d = (0..2).find(|d| self.may_commit(world, *d) && world.daemons[*d].is_some_and(|d| d.memory.is_none()))?;
        self.commit(world, d, Change::Register(n, world.ledger.rows[n].boot, None))
    }

    fn step(&self, world: &mut World, action: Action) -> Option<()> {
        let rules = self.rules;
        match action {
            Action::Lead(d) => self.lead(world, d),
            Action::Die(d) => world.daemons[d] = None,
            Action::Reload(d) => world.daemons[d].as_mut()?.memory = None,
            Action::Commit(d, change) => self.commit(world, d, change)?,
            Action::Leak(d, change) => {
                let fresh = Fresh { lease: canon::unused_lease(world), session: canon::unused_session(world) };
                let after = self.memory(world, d)?.decide(change, self.demand(), rules, fresh)?;
                let changed = NODES.into_iter().find(|n| after.rows[*n].hold != world.ledger.rows[*n].hold)?;
                world.nodes[changed].answer = Some(self.orders(&after, changed));
            }
            Action::Answer(d, n) => {
                let orders = self.orders(self.memory(world, d)?, n);
                let node = &mut world.nodes[n];
                if !rules.has(Rule::NewestOrders) {
                    node.late = node.answer.or(node.late);
                }
                node.answer = Some(orders);
                if !rules.has(Rule::SaidUntilProven) {
                    let hold = &mut world.ledger.rows[n].hold;
                    *hold = hold.map(|hold| crate::ledger::Hold { said: hold.ended, ..hold });
                }
                if !self.bounds.delays && rules.has(Rule::NewestOrders) {
                    return self.step(world, Action::Deliver(n));
                }
            }
            Action::Deliver(n) => {
                let orders = world.nodes[n].answer.take()?;
                world.nodes[n].receive(orders, rules);
            }
            Action::DeliverLate(n) => {
                let orders = world.nodes[n].late.take()?;
                world.nodes[n].receive(orders, rules);
            }
            Action::Start(n) => world.nodes[n].start = Some(world.nodes[n].may_start(rules)?),
            Action::Spawn(n) => {
                let lease = world.nodes[n].start.take()?;
                world.nodes[n].spawn(lease, true);
            }
            Action::Touch(n) => {
                let quiet = world.nodes[n].procs.iter_mut().flatten().find(|proc| !proc.listed)?;
                quiet.listed = true;
            }
            Action::End(n) => world.nodes[n].end(rules),
            Action::Exit(n) => {
                let place = world.nodes[n].procs.iter_mut().find(|place| place.is_some())?;
                *place = None;
            }
            Action::Crash(n) => world.nodes[n].crash(false, rules),
            Action::Wipe(n) => world.nodes[n].crash(true, rules),
            Action::Reboot(n) => {
                world.nodes[n].crash(false, rules);
                (world.nodes[n].start, world.nodes[n].procs, world.nodes[n].ghost) = (None, [None; 2], None);
                world.nodes[n].boot = canon::unused_boot(world);
            }
            Action::Register(n) => self.register(world, n)?,
            Action::LateRegistration(n) => self.late_registration(world, n)?,
            Action::Failover => {
                let before = world.before?;
                self.store(world, before, None);
                (world.before, world.failed_over) = (None, true);
            }
            Action::Stop(n) => {
                world.nodes[n].ghost = Some(world.nodes[n].may_start(rules)?);
                world.nodes[n].crash(false, rules);
            }
            Action::GoOn(n) => {
                let lease = world.nodes[n].ghost.take()?;
                world.nodes[n].spawn(lease, false);
            }
        }
        Some(())
    }

    fn offer(&self, world: &World, actions: &mut Vec<Action>) {
        let bounds = self.bounds;
        for d in 0..2 {
            let leads = world.daemons[d].is_some();
            if !leads && (bounds.leaders || world.daemons == [None; 2]) {
                actions.push(Action::Lead(d));
            }
            if leads && bounds.leaders {
                actions.push(Action::Die(d));
            }
            let Some(memory) = self.memory(world, d) else { continue };
            let Some(daemon) = world.daemons[d] else { continue };
            let leader = world.ledger.leader;
            if daemon.memory.is_some() && daemon.epoch == leader.epoch && usize::from(leader.instance) == d {
                actions.push(Action::Reload(d));
            }
            let (may, leaks) = (self.may_commit(world, d), !self.rules.has(Rule::CommitFirst));
            if may || leaks {
                self.changes(world, memory, &mut |change| {
                    if may {
                        actions.push(Action::Commit(d, change));
                    }
                    if leaks && matches!(change, Change::Grant(..)) {
                        actions.push(Action::Leak(d, change));
                    }
                });
            }
            for n in NODES {
                let node = &world.nodes[n];
                let news = node.held != Some(self.orders(memory, n)) || node.answer.is_some();
                if node.up && node.session == memory.rows[n].session && news {
                    actions.push(Action::Answer(d, n));
                }
            }
        }
        if bounds.failover && world.before.is_some() {
            actions.push(Action::Failover);
        }
        NODES.into_iter().for_each(|n| self.offer_node(world, n, actions));
    }

    fn offer_node(&self, world: &World, n: usize, actions: &mut Vec<Action>) {
        let (bounds, node, row) = (self.bounds, &world.nodes[n], &world.ledger.rows[n]);
        let mut offer = |may: bool, action: Action| {
            if may {
                actions.push(action);
            }
        };
        offer(node.up && node.answer.is_some(), Action::Deliver(n));
        offer(node.up && node.late.is_some(), Action::DeliverLate(n));
        offer(node.may_start(self.rules).is_some(), Action::Start(n));
        offer(node.start.is_some(), Action::Spawn(n));
        offer(node.running().any(|proc| !proc.listed), Action::Touch(n));
        offer(node.has_to_end(self.rules), Action::End(n));
        offer(bounds.ends && node.running().next().is_some(), Action::Exit(n));
        offer(bounds.crashes && node.up, Action::Crash(n));
        offer(bounds.wipes && node.up, Action::Wipe(n));
        offer(bounds.reboots, Action::Reboot(n));
        offer(!node.up || row.session != node.session, Action::Register(n));
        offer(bounds.late_registrations && row.session == node.session, Action::LateRegistration(n));
        let two = !self.rules.has(Rule::OneAgent);
        offer(two && node.ghost.is_none() && node.may_start(self.rules).is_some(), Action::Stop(n));
        offer(node.ghost.is_some(), Action::GoOn(n));
    }
}

impl Model for Protocol {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        let mut world = World::default();
        world.nodes.iter_mut().for_each(|node| node.up = true);
        world.ledger.rows.iter_mut().for_each(|row| row.known = true);
        world.daemons[0] = Some(Daemon { epoch: 0, memory: None });
        vec![self.name(world)]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        self.offer(world, actions);
    }

    fn next_state(&self, world: &World, action: Action) -> Option<World> {
        let mut next = *world;
        self.step(&mut next, action)?;
        for node in &mut next.nodes {
            node.speak(self.rules);
        }
        canon::forget(&mut next, self.rules);
        next = self.name(next);
        (next != *world).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Protocol>> {
        properties::all()
    }
}
