//! The ledger: what Postgres keeps of two chips (one a node) and two jobs, what a leader decides from its memory of it,
//! and what the transaction checks. Follows `allocator/src/{promise,report,register,expire}.rs` and `daemon/src/store`.

use crate::rules::{Rule, Rules};

/// The chips, one a node.
pub const NODES: [usize; 2] = [0, 1];
/// The jobs.
pub const JOBS: [u8; 2] = [0, 1];

/// A lease's hold on a chip.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Hold {
    /// Random, never used again: identity.
    pub lease: u8,
    /// Whose it is.
    pub job: u8,
    /// The chip's epoch at the grant: order.
    pub epoch: u8,
    /// The lease has ended; the chip is to be proven vacant.
    pub ended: bool,
    /// The node has said that it carries the lease.
    pub confirmed: bool,
    /// With `SaidUntilProven` off: the order to vacate has been said.
    pub said: bool,
}

/// A chip and its node.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Row {
    /// The chip's lease epoch.
    pub epoch: u8,
    /// Who has it.
    pub hold: Option<Hold>,
    /// For whom it is promised.
    pub claim: Option<u8>,
    /// The node has been heard under this leader.
    pub known: bool,
    /// The node's session.
    pub session: u8,
    /// The boot the session was registered from.
    pub boot: u8,
}

/// A job.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub enum Job {
    /// Waits.
    #[default]
    Pending,
    /// Holds a lease that is not confirmed everywhere.
    Leased(u8),
    /// Holds a lease that is.
    Running(u8),
    /// Is over.
    Done,
}

impl Job {
    /// Its live lease.
    pub fn lease(self) -> Option<u8> {
        match self {
            Job::Leased(lease) | Job::Running(lease) => Some(lease),
            Job::Pending | Job::Done => None,
        }
    }
}

/// The leader's row.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Leader {
    /// Which daemon.
    pub instance: u8,
    /// How many takeovers there have been.
    pub epoch: u8,
}

/// All of it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Ledger {
    /// Who may write.
    pub leader: Leader,
    /// The chips.
    pub rows: [Row; 2],
    /// The jobs.
    pub jobs: [Job; 2],
}

/// What an agent tells that changes a decision.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Fact {
    /// It carries the lease.
    Confirmed(u8),
    /// The chip is vacant of the lease, and this is the highest epoch seen.
    Vacant(u8, u8),
    /// It will not act on the lease.
    Refused(u8),
}

/// What a leader decides.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Change {
    /// A job takes these chips for itself once they are free, and whoever it may preempt is ended.
    Claim(u8, [bool; 2]),
    /// A job gets a lease on these chips.
    Grant(u8, [bool; 2]),
    /// A claim is given up.
    DropClaim(u8),
    /// A job's lease ends and the job waits again (a fault, a requeue, an expiry).
    Requeue(u8),
    /// A job's lease ends and so does the job.
    Finish(u8),
    /// An agent registers, from this boot, having seen so much.
    Register(usize, u8, Option<u8>),
    /// A report without facts: a sign of life, with the highest epoch seen.
    Heard(usize, Option<u8>),
    /// No report for too long.
    Silent(usize),
    /// A fact from a report.
    Told(usize, Fact),
    /// With `ProofOnly` off: the time for a proof is over.
    Forget(usize),
}

/// What is new in a change and never was before: a lease id and a session id.
#[derive(Clone, Copy, Debug)]
pub struct Fresh {
    /// For a grant.
    pub lease: u8,
    /// For a registration.
    pub session: u8,
}

/// The jobs of a world.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Demand {
    /// Both jobs are gangs of two and equals; otherwise job 0 wants one chip and gives way to the gang.
    pub two_gangs: bool,
}

impl Demand {
    /// The sets of chips that a job could have.
    pub fn choices(self, job: u8) -> &'static [[bool; 2]] {
        match job == 1 || self.two_gangs {
            true => &[[true, true]],
            false => &[[true, false], [false, true]],
        }
    }

    fn may_preempt(self, job: u8) -> bool {
        job == 1 && !self.two_gangs
    }
}

impl Ledger {
    /// The ledger after a change decided from this one; `None` where it would not be decided.
    pub fn decide(mut self, change: Change, demand: Demand, rules: Rules, fresh: Fresh) -> Option<Ledger> {
        match change {
            Change::Claim(job, chips) => self.claim(job, chips, demand, rules)?,
            Change::Grant(job, chips) => self.grant(job, chips, rules, fresh.lease)?,
            Change::DropClaim(job) => {
                let mine = |row: &Row| row.claim == Some(job);
                // The flaw of a claim bound that looks at busy chips only.
                let waits = self.rows.iter().any(|row| mine(row) && row.hold.is_some());
                if !self.rows.iter().any(mine) || (!rules.has(Rule::ClaimBound) && !waits) {
                    return None;
                }
                self.rows.iter_mut().filter(|row| mine(row)).for_each(|row| row.claim = None);
            }
            Change::Requeue(job) => self.end(job, Job::Pending)?,
            Change::Finish(job) => match self.jobs[usize::from(job)] {
                Job::Running(_) => self.end(job, Job::Done)?,
                _ => return None,
            },
            Change::Register(node, boot, seen) => self.register(node, boot, seen, rules, fresh.session),
            Change::Heard(node, seen) => {
                let row = &mut self.rows[node];
                row.known = true;
                row.go_above(seen, rules);
            }
            Change::Silent(node) => self.rows[node].known = false,
            Change::Told(node, fact) => self.told(node, fact, rules)?,
            Change::Forget(node) => {
                self.rows[node].hold.filter(|hold| hold.ended)?;
                self.rows[node].hold = None;
            }
        }
        Some(self)
    }

    /// `promise::make`: all chips in one step, those still being vacated included.
    fn claim(&mut self, job: u8, chips: [bool; 2], demand: Demand, rules: Rules) -> Option<()> {
        let whole = rules.has(Rule::ClaimWhole);
        if self.jobs[usize::from(job)] != Job::Pending || chips == [false, false] {
            return None;
        }
        let mine = NODES.map(|n| self.rows[n].claim == Some(job));
        if whole && (mine != [false, false] || !demand.choices(job).contains(&chips)) {
            return None;
        }
        if !whole && chips.iter().filter(|chip| **chip).count() != 1 {
            return None;
        }
        for n in NODES.into_iter().filter(|n| chips[*n]) {
            let row = self.rows[n];
            let gives_way = |hold: Hold| hold.ended || (demand.may_preempt(job) && hold.job != job);
            if row.claim.is_some() || !row.is_heard(rules) || !row.hold.is_none_or(gives_way) {
                return None;
            }
        }
        let all_free = NODES.into_iter().all(|n| !chips[n] || self.rows[n].hold.is_none());
        if whole && all_free {
            return None;
        }
        for n in NODES.into_iter().filter(|n| chips[*n]) {
            if let Some(victim) = self.rows[n].hold.filter(|hold| !hold.ended) {
                self.end(victim.job, Job::Pending)?;
            }
            self.rows[n].claim = Some(job);
        }
        Some(())
    }

    /// `place::find` on free chips, or `promise::keep` once what was claimed is free.
    fn grant(&mut self, job: u8, chips: [bool; 2], rules: Rules, lease: u8) -> Option<()> {
        let whole = rules.has(Rule::GrantWhole);
        let state = self.jobs[usize::from(job)];
        // Part by part, a gang goes on with the lease it has begun.
        let lease = match state {
            Job::Pending => lease,
            Job::Leased(begun) if !whole => begun,
            _ => return None,
        };
        let free = |row: &Row| row.hold.is_none() && row.is_heard(rules) && row.claim.is_none_or(|owner| owner == job);
        if chips == [false, false] || !NODES.into_iter().all(|n| !chips[n] || free(&self.rows[n])) {
            return None;
        }
        let claimed = NODES.map(|n| self.rows[n].claim == Some(job));
        if claimed != [false, false]
            && claimed != chips
            && (whole || NODES.into_iter().any(|n| chips[n] && !claimed[n]))
        {
            return None;
        }
        for n in NODES.into_iter().filter(|n| chips[*n]) {
            let row = &mut self.rows[n];
            row.epoch += 1;
            row.claim = None;
            row.hold = Some(Hold { lease, job, epoch: row.epoch, ended: false, confirmed: false, said: false });
        }
        self.jobs[usize::from(job)] = Job::Leased(lease);
        Some(())
    }

    /// `Draft::end_lease`: on all its chips, which stay held until they are proven vacant.
    fn end(&mut self, job: u8, next: Job) -> Option<()> {
        let lease = self.jobs[usize::from(job)].lease()?;
        for hold in self.rows.iter_mut().filter_map(|row| row.hold.as_mut()).filter(|hold| hold.lease == lease) {
            hold.ended = true;
        }
        self.jobs[usize::from(job)] = next;
        Some(())
    }

    /// `register::register`: a new session; another boot ends the leases that ran there.
    fn register(&mut self, node: usize, boot: u8, seen: Option<u8>, rules: Rules, session: u8) {
        let row = &mut self.rows[node];
        let rebooted = row.boot != boot;
        (row.session, row.boot, row.known) = (session, boot, true);
        row.go_above(seen, rules);
        let lost = row.hold.filter(|hold| rebooted && !hold.ended);
        if let Some(lost) = lost {
            match rules.has(Rule::EndWhole) {
                true => drop(self.end(lost.job, Job::Pending)),
                false => {
                    self.rows[node].hold = Some(Hold { ended: true, ..lost });
                    self.jobs[usize::from(lost.job)] = Job::Pending;
                }
            }
        }
    }

    /// `report::accept`.
    fn told(&mut self, node: usize, fact: Fact, rules: Rules) -> Option<()> {
        self.rows[node].known = true;
        let hold = self.rows[node].hold?;
        match fact {
            Fact::Vacant(lease, seen) => {
                let named = hold.lease == lease && hold.ended;
                let is_seen = seen >= hold.epoch || !rules.has(Rule::ProofHasSeen);
                if !is_seen || (!named && rules.has(Rule::ProofNamesLease)) {
                    return None;
                }
                self.rows[node].hold = None;
                if !hold.ended {
                    self.end(hold.job, Job::Pending)?;
                }
            }
            Fact::Confirmed(lease) => {
                if hold.lease != lease || hold.ended || hold.confirmed {
                    return None;
                }
                self.rows[node].hold = Some(Hold { confirmed: true, ..hold });
                let all = self.rows.iter().filter_map(|row| row.hold).all(|hold| hold.lease != lease || hold.confirmed);
                let job = &mut self.jobs[usize::from(hold.job)];
                if all && *job == Job::Leased(lease) {
                    *job = Job::Running(lease);
                }
            }
            Fact::Refused(lease) => {
                if hold.lease != lease || hold.ended {
                    return None;
                }
                self.end(hold.job, Job::Pending)?;
            }
        }
        Some(())
    }

    /// What the transaction of a daemon whose memory is not this ledger comes to, which decided `after` from `before`:
    /// `None` where a constraint or a count of rows refuses it.
    pub fn merge(mut self, before: &Ledger, after: &Ledger, rules: Rules) -> Option<Ledger> {
        for n in NODES {
            let (old, new, row) = (before.rows[n], after.rows[n], &mut self.rows[n]);
            match (old.hold, new.hold) {
                (None, Some(grant)) => {
                    let compared = row.epoch == old.epoch || !rules.has(Rule::EpochCompare);
                    let alone = row.hold.is_none() || !rules.has(Rule::OneHolder);
                    if !compared || !alone {
                        return None;
                    }
                    (row.epoch, row.hold) = (new.epoch, Some(grant));
                }
                (Some(held), None) => {
                    row.hold.filter(|hold| hold.lease == held.lease)?;
                    row.hold = None;
                }
                (Some(held), Some(changed)) if held != changed => {
                    row.hold.filter(|hold| hold.lease == held.lease && !hold.ended)?;
                    row.hold = Some(changed);
                }
                _ => {}
            }
            if old.claim != new.claim {
                row.claim = new.claim;
            }
            if (old.session, old.boot, old.known) != (new.session, new.boot, new.known) {
                (row.session, row.boot, row.known) = (new.session, new.boot, new.known);
            }
        }
        for job in JOBS.map(usize::from).into_iter().filter(|job| before.jobs[*job] != after.jobs[*job]) {
            let granted = after.jobs[job].lease().filter(|lease| before.jobs[job].lease() != Some(*lease));
            if granted.is_some() && rules.has(Rule::OneHolder) && self.jobs[job] != Job::Pending {
                return None;
            }
            self.jobs[job] = after.jobs[job];
        }
        Some(self)
    }
}

impl Row {
    /// Whether the chip is held by this lease, live or ended.
    pub fn holds(&self, lease: u8) -> bool {
        self.hold.is_some_and(|hold| hold.lease == lease)
    }

    fn is_heard(&self, rules: Rules) -> bool {
        self.known || !rules.has(Rule::HeardAnew)
    }

    fn go_above(&mut self, seen: Option<u8>, rules: Rules) {
        if rules.has(Rule::AboveSeen) {
            self.epoch = self.epoch.max(seen.unwrap_or(0));
        }
    }
}
