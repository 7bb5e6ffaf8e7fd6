//! States that differ in names only are one state: leases, sessions and boots are numbered by where they first appear,
//! epochs by their order, and the two nodes, like the two daemons, may change places. What can never matter again is
//! forgotten. This is what makes "any number of times" finite.

use crate::ledger::{Fact, Hold, Leader, Ledger, NODES, Row};
use crate::node::{Node, Orders};
use crate::rules::{Rule, Rules};
use crate::world::World;

/// The number of a name that nothing else bears any more.
const NOBODY: u8 = 200;
/// What a deposed daemon remembers and can no longer use.
const UNUSED: u8 = 201;

/// The state with its names numbered. Nodes and daemons stay in their places, as a story needs it.
pub fn numbered(mut world: World) -> World {
    number(&mut world);
    world
}

/// The state that stands for all that differ from this one in names and places only.
pub fn of(mut world: World) -> World {
    if world.ledger.leader.instance == 1 {
        swap_daemons(&mut world);
    }
    let (mut other, [first, second]) = (world, [0, 1].map(|n| shape(&world, n)));
    match first.cmp(&second) {
        std::cmp::Ordering::Less => number(&mut world),
        std::cmp::Ordering::Greater => {
            swap_nodes(&mut world);
            number(&mut world);
        }
        std::cmp::Ordering::Equal => {
            number(&mut world);
            swap_nodes(&mut other);
            number(&mut other);
            world = world.min(other);
        }
    }
    world
}

/// Drops what can never matter again.
pub fn forget(world: &mut World, rules: Rules) {
    let copies = *world;
    for n in NODES {
        let any =
            |matters: &dyn Fn(Hold) -> bool| ledgers(&copies).any(|ledger| ledger.rows[n].hold.is_some_and(matters));
        for place in &mut world.nodes[n].letters {
            let matters = |fact: Fact| match fact {
                Fact::Vacant(..) if !rules.has(Rule::ProofNamesLease) => true,
                Fact::Vacant(lease, _) => any(&|hold| hold.lease == lease),
                Fact::Confirmed(lease) => any(&|hold| hold.lease == lease && !hold.ended && !hold.confirmed),
                Fact::Refused(lease) => any(&|hold| hold.lease == lease && !hold.ended),
            };
            *place = place.filter(|letter| matters(letter.fact));
        }
        let node = &mut world.nodes[n];
        for orders in [&mut node.held, &mut node.answer] {
            if let Some(Orders::Carry(lease, epoch) | Orders::Vacate(lease, epoch)) = *orders
                && is_over(&copies, n, lease, epoch, rules)
            {
                *orders = Some(Orders::Nothing);
            }
        }
        world.nodes[n].letters.sort();
        world.nodes[n].procs.sort();
    }
    for daemon in world.daemons.iter_mut().flatten() {
        if let Some(memory) = &mut daemon.memory {
            memory.leader = Leader::default();
            if rules.has(Rule::OneLog) {
                only_answers(memory, &copies, rules);
            }
        }
    }
}

/// What a daemon remembers that can no longer commit anything: all it can do is answer agents whose session it knows.
fn only_answers(memory: &mut Ledger, world: &World, rules: Rules) {
    memory.jobs = Default::default();
    for (n, row) in memory.rows.iter_mut().enumerate() {
        let asked = row.session == world.nodes[n].session;
        let matters = |hold: &Hold| asked && !is_over(world, n, hold.lease, hold.epoch, rules);
        let hold = row.hold.filter(matters).map(|hold| Hold { job: 0, confirmed: false, said: false, ..hold });
        let session = if asked { row.session } else { UNUSED };
        *row = Row { session, hold, epoch: 0, boot: UNUSED, ..Row::default() };
    }
}

/// Whether orders about a lease come to the same as none: the ledger has forgotten it and its node refuses it.
fn is_over(world: &World, n: usize, lease: u8, epoch: u8, rules: Rules) -> bool {
    const REFUSING: [Rule; 4] = [Rule::EndedStaysEnded, Rule::OlderRefused, Rule::TwinRefused, Rule::ProofNamesLease];
    let known = [&world.ledger].into_iter().chain(&world.before).any(|ledger| ledger.rows[n].holds(lease));
    let node = &world.nodes[n];
    let refused = node.seen.is_some_and(|(seen, last)| epoch <= seen && !(node.fresh && last == lease));
    REFUSING.into_iter().all(|rule| rules.has(rule)) && !known && refused
}

fn ledgers(world: &World) -> impl Iterator<Item = &Ledger> {
    let memories = world.daemons.iter().flatten().filter_map(|daemon| daemon.memory.as_ref());
    [&world.ledger].into_iter().chain(&world.before).chain(memories)
}

fn ledgers_mut(world: &mut World) -> impl Iterator<Item = &mut Ledger> {
    let memories = world.daemons.iter_mut().flatten().filter_map(|daemon| daemon.memory.as_mut());
    [&mut world.ledger].into_iter().chain(&mut world.before).chain(memories)
}

/// A lease id that nobody has.
pub fn unused_lease(world: &World) -> u8 {
    let (mut world, mut highest) = (*world, 0);
    each_lease(&mut world, &mut |lease| highest = highest.max(if *lease < NOBODY { *lease + 1 } else { 0 }));
    highest
}

/// A session that no node has.
pub fn unused_session(world: &World) -> u8 {
    let told = ledgers(world).flat_map(|ledger| ledger.rows.map(|row| row.session));
    let known = told.chain(world.nodes.iter().map(|node| node.session));
    known.filter(|session| *session < NOBODY).max().map_or(0, |last| last + 1)
}

/// A boot that no machine has had.
pub fn unused_boot(world: &World) -> u8 {
    let told = ledgers(world).flat_map(|ledger| ledger.rows.map(|row| row.boot));
    let known = told.chain(world.nodes.iter().map(|node| node.boot));
    known.filter(|boot| *boot < NOBODY).max().map_or(0, |last| last + 1)
}

fn swap_daemons(world: &mut World) {
    world.daemons.swap(0, 1);
    for ledger in [&mut world.ledger].into_iter().chain(&mut world.before) {
        ledger.leader.instance = 1 - ledger.leader.instance;
    }
}

fn swap_nodes(world: &mut World) {
    world.nodes.swap(0, 1);
    ledgers_mut(world).for_each(|ledger| ledger.rows.swap(0, 1));
}

/// What tells two nodes apart whatever the names are.
fn shape(world: &World, n: usize) -> impl Ord + use<> {
    let (row, node) = (&world.ledger.rows[n], &world.nodes[n]);
    let held = node.held.map(|orders| match orders {
        Orders::Nothing => 0,
        Orders::Carry(..) => 1,
        Orders::Vacate(..) => 2,
    });
    let hold = row.hold.map(|hold| (hold.job, hold.ended, hold.confirmed));
    (hold, row.claim, row.known, node.up, node.fresh, held, node.start.is_some(), node.running().count())
}

fn number(world: &mut World) {
    number_leases(world);
    for n in NODES {
        number_epochs(world, n);
        number_visits(world, n);
    }
    number_leaders(world);
}

fn number_leases(world: &mut World) {
    let mut names = [NOBODY; 16];
    let mut count = 0;
    let mut name = |lease: &mut u8| {
        let known = names[..count].iter().position(|name| name == lease);
        let number = known.unwrap_or_else(|| {
            names[count] = *lease;
            count += 1;
            count - 1
        });
        *lease = number as u8;
    };
    each_lease_but_seen(world, &mut name);
    // A lease that only the disk remembers will never be met again.
    for (_, lease) in world.nodes.iter_mut().filter_map(|node| node.seen.as_mut()) {
        *lease = names[..count].iter().position(|name| name == lease).map_or(NOBODY, |number| number as u8);
    }
}

fn each_lease(world: &mut World, visit: &mut impl FnMut(&mut u8)) {
    each_lease_but_seen(world, visit);
    world.nodes.iter_mut().filter_map(|node| node.seen.as_mut()).for_each(|(_, lease)| visit(lease));
}

fn each_lease_but_seen(world: &mut World, visit: &mut impl FnMut(&mut u8)) {
    use crate::ledger::Job;
    for ledger in ledgers_mut(world) {
        ledger.rows.iter_mut().filter_map(|row| row.hold.as_mut()).for_each(|hold| visit(&mut hold.lease));
        for job in &mut ledger.jobs {
            if let Job::Leased(lease) | Job::Running(lease) = job {
                visit(lease);
            }
        }
    }
    for node in &mut world.nodes {
        for orders in [&mut node.held, &mut node.answer, &mut node.late] {
            if let Some(Orders::Carry(lease, _) | Orders::Vacate(lease, _)) = orders {
                visit(lease);
            }
        }
        [&mut node.start, &mut node.ghost].into_iter().flatten().for_each(&mut *visit);
        node.procs.iter_mut().flatten().for_each(|proc| visit(&mut proc.lease));
        for letter in node.letters.iter_mut().flatten() {
            match &mut letter.fact {
                Fact::Confirmed(lease) | Fact::Refused(lease) | Fact::Vacant(lease, _) => visit(lease),
            }
        }
    }
}

/// Keeps the order of a chip's epochs and whether one follows the other at once.
fn number_epochs(world: &mut World, n: usize) {
    let (mut known, mut count) = ([0; 32], 0);
    each_epoch(world, n, &mut |epoch| {
        known[count] = *epoch;
        count += 1;
    });
    let known = &mut known[..count];
    known.sort_unstable();
    let mut renamed = [0; 32];
    for at in 1..known.len() {
        renamed[at] = renamed[at - 1] + (known[at] - known[at - 1]).min(2);
    }
    each_epoch(world, n, &mut |epoch| {
        if let Ok(at) = known.binary_search(epoch) {
            *epoch = renamed[at];
        }
    });
}

fn each_epoch(world: &mut World, n: usize, visit: &mut impl FnMut(&mut u8)) {
    for ledger in ledgers_mut(world) {
        let row = &mut ledger.rows[n];
        if row.boot != UNUSED {
            visit(&mut row.epoch);
        }
        row.hold.iter_mut().for_each(|hold| visit(&mut hold.epoch));
    }
    let node: &mut Node = &mut world.nodes[n];
    node.seen.iter_mut().for_each(|(epoch, _)| visit(epoch));
    for orders in [&mut node.held, &mut node.answer, &mut node.late] {
        if let Some(Orders::Carry(_, epoch) | Orders::Vacate(_, epoch)) = orders {
            visit(epoch);
        }
    }
    for letter in node.letters.iter_mut().flatten() {
        if let Fact::Vacant(_, epoch) = &mut letter.fact {
            visit(epoch);
        }
    }
}

/// Sessions and boots are compared for equality only.
fn number_visits(world: &mut World, n: usize) {
    let (mut sessions, mut boots) = (Vec::with_capacity(4), Vec::with_capacity(4));
    fn number(known: &mut Vec<u8>, name: &mut u8) {
        let at = known.iter().position(|other| other == name).unwrap_or_else(|| {
            known.push(*name);
            known.len() - 1
        });
        *name = at as u8;
    }
    for ledger in ledgers_mut(world) {
        if ledger.rows[n].session != UNUSED {
            number(&mut sessions, &mut ledger.rows[n].session);
        }
        if ledger.rows[n].boot != UNUSED {
            number(&mut boots, &mut ledger.rows[n].boot);
        }
    }
    let node = &mut world.nodes[n];
    let find = |known: &[u8], name: u8| known.iter().position(|other| *other == name).map_or(NOBODY, |at| at as u8);
    (node.session, node.boot) = (find(&sessions, node.session), find(&boots, node.boot));
}

/// Leader epochs are compared with the ledger's for equality only; an older one can come back by one failover.
fn number_leaders(world: &mut World) {
    let now = i16::from(world.ledger.leader.epoch);
    let number = |epoch: &mut u8| *epoch = (i16::from(*epoch) - now + 2).clamp(0, 4) as u8;
    world.daemons.iter_mut().flatten().for_each(|daemon| number(&mut daemon.epoch));
    world.before.iter_mut().for_each(|before| number(&mut before.leader.epoch));
    number(&mut world.ledger.leader.epoch);
}
