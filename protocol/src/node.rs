//! A node: its agent, what is on the agent's disk, what runs, and what may be in the network. Follows `agent/src`:
//! `standing.rs` and `state/epochs.rs` (what is fresh), `wishing.rs` and `work/` (what starts and ends), `vacancy.rs`.

use crate::ledger::Fact;
use crate::rules::{Rule, Rules};

/// The whole wanted state of a node with one chip.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Orders {
    /// Nothing is wanted.
    Nothing,
    /// This lease is to be carried, under this epoch.
    Carry(u8, u8),
    /// The chip is to be proven vacant of this lease.
    Vacate(u8, u8),
}

/// A workload on the chip.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Proc {
    /// Whose.
    pub lease: u8,
    /// The driver lists it: it has used the chip.
    pub listed: bool,
    /// The agent knows it: it started it, or found it at its start.
    pub known: bool,
}

/// A report in the network: it may arrive at any time, any number of times.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Letter {
    /// What it says.
    pub fact: Fact,
    /// It was written in a session that is over.
    pub old: bool,
}

/// One node.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Node {
    /// The agent lives and has registered.
    pub up: bool,
    /// Its session.
    pub session: u8,
    /// The machine's boot.
    pub boot: u8,
    /// On disk: the highest epoch seen, and its lease.
    pub seen: Option<(u8, u8)>,
    /// On disk: that grant is one of the newest orders', and was fresh.
    pub fresh: bool,
    /// The orders held; lost with the agent.
    pub held: Option<Orders>,
    /// An answer on its way to the agent.
    pub answer: Option<Orders>,
    /// With `NewestOrders` off: an answer to an earlier question that is still on its way.
    pub late: Option<Orders>,
    /// A guardian that has been started and has not started its workload yet. It outlives the agent.
    pub start: Option<u8>,
    /// What runs. It outlives the agent.
    pub procs: [Option<Proc>; 2],
    /// What may be in the network.
    pub letters: [Option<Letter>; 4],
    /// With `OneAgent` off: another agent, stopped between its last look and its start of this lease.
    pub ghost: Option<u8>,
}

impl Node {
    /// What runs.
    pub fn running(&self) -> impl Iterator<Item = Proc> {
        self.procs.into_iter().flatten()
    }

    /// Whether the agent acts on a lease (`Standing::is_fresh`).
    fn is_wanted(&self, lease: u8, rules: Rules) -> bool {
        let fresh = self.fresh || !rules.has(Rule::OlderRefused);
        matches!(self.held, Some(Orders::Carry(held, _)) if held == lease && fresh)
    }

    /// `Standing::receive`, synced before it is acted on.
    pub fn receive(&mut self, orders: Orders, rules: Rules) {
        match orders {
            Orders::Nothing => self.fresh = false,
            Orders::Carry(lease, epoch) => {
                let same = self.seen == Some((epoch, lease));
                self.fresh = match self.seen {
                    None => true,
                    Some((seen, _)) if epoch != seen => epoch > seen,
                    Some(_) if same => self.fresh || !rules.has(Rule::EndedStaysEnded),
                    Some(_) => !rules.has(Rule::TwinRefused),
                };
                if self.fresh {
                    self.seen = Some((epoch, lease));
                }
            }
            Orders::Vacate(lease, epoch) => {
                self.fresh = false;
                if self.seen.is_none_or(|(seen, _)| epoch > seen) {
                    self.seen = Some((epoch, lease));
                }
            }
        }
        self.held = Some(orders);
    }

    /// The lease that may be started now (`Standing::may_start`, `Wishing::wanted`, `Keeper::start`).
    pub fn may_start(&self, rules: Rules) -> Option<u8> {
        let Some(Orders::Carry(lease, _)) = self.held else { return None };
        let own = self.running().any(|proc| proc.lease == lease);
        let clear = !self.running().any(|proc| proc.listed) || !rules.has(Rule::ClearBefore);
        let others = self.running().any(|proc| proc.known && proc.lease != lease) && rules.has(Rule::OthersGone);
        (self.up && self.is_wanted(lease, rules) && self.start.is_none() && !own && clear && !others).then_some(lease)
    }

    /// A workload begins.
    pub fn spawn(&mut self, lease: u8, known: bool) {
        if let Some(place) = self.procs.iter_mut().find(|place| place.is_none()) {
            *place = Some(Proc { lease, listed: false, known });
        }
    }

    /// Whether the keeper has something to end: before orders have come nothing is known to be unwanted.
    pub fn has_to_end(&self, rules: Rules) -> bool {
        let unwanted = |lease: u8| !self.is_wanted(lease, rules);
        let start = self.start.is_some_and(unwanted) && rules.has(Rule::FenceCancels);
        self.up && self.held.is_some() && (start || self.running().any(|proc| proc.known && unwanted(proc.lease)))
    }

    /// The keeper ends what is not wanted, and what of it is on its way (`work/ladder.rs`, `work/guard.rs`).
    pub fn end(&mut self, rules: Rules) {
        let node = *self;
        let unwanted = |lease: u8| !node.is_wanted(lease, rules);
        if rules.has(Rule::FenceCancels) {
            self.start = self.start.filter(|lease| !unwanted(*lease));
        }
        for place in &mut self.procs {
            *place = place.filter(|proc| !proc.known || !unwanted(proc.lease));
        }
    }

    /// What the agent may say now.
    pub fn facts(&self, rules: Rules) -> [Option<Fact>; 1] {
        let highest = self.seen.map_or(0, |(epoch, _)| epoch);
        let fact = match self.held.filter(|_| self.up) {
            Some(Orders::Carry(lease, _)) if self.is_wanted(lease, rules) => Some(Fact::Confirmed(lease)),
            Some(Orders::Carry(lease, _)) => rules.has(Rule::RefusalAnswered).then_some(Fact::Refused(lease)),
            Some(Orders::Vacate(lease, _)) if self.is_vacant(lease, rules) => Some(Fact::Vacant(lease, highest)),
            _ => None,
        };
        [fact]
    }

    /// `Standing::prove` with `Wishing::mind`: nothing of the lease is left or may come, and the driver lists nobody.
    fn is_vacant(&self, lease: u8, rules: Rules) -> bool {
        let listed = self.running().any(|proc| proc.listed);
        let left = self.running().any(|proc| proc.known && proc.lease == lease);
        let coming = self.start == Some(lease) && rules.has(Rule::FenceCancels);
        !listed && !coming && (!left || !rules.has(Rule::ProofByCgroup))
    }

    /// Puts what may be said into the network, where it stays.
    pub fn speak(&mut self, rules: Rules) {
        for fact in self.facts(rules).into_iter().flatten() {
            let letter = Some(Letter { fact, old: false });
            if !self.letters.contains(&letter)
                && let Some(place) = self.letters.iter_mut().find(|place| place.is_none())
            {
                *place = letter;
            }
        }
    }

    /// The agent begins a session; letters of older ones are dropped on arrival, so they need not be kept.
    pub fn begin(&mut self, session: u8, rules: Rules) {
        (self.up, self.session, self.answer, self.late) = (true, session, None, None);
        for place in &mut self.letters {
            *place = place.filter(|_| !rules.has(Rule::ProofOfSession)).map(|letter| Letter { old: true, ..letter });
        }
    }

    /// The agent dies. What runs, runs on; with `SeenDurable` off it forgets what it has seen.
    pub fn crash(&mut self, wipe: bool, rules: Rules) {
        (self.up, self.held, self.answer, self.late) = (false, None, None, None);
        if wipe || !rules.has(Rule::SeenDurable) {
            (self.seen, self.fresh) = (None, false);
        }
        if !rules.has(Rule::Adoption) {
            self.procs.iter_mut().flatten().for_each(|proc| proc.known = false);
            // The next agent does not know of a guardian that is on its way either; it starts what it was told to.
        } else {
            self.procs.iter_mut().flatten().for_each(|proc| proc.known = true);
        }
    }
}
