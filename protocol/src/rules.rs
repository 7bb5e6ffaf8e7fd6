//! The rules of the protocol, each a switch: L of the ledger, N of the node (the names of `docs/protocol.md`).

use std::fmt;

macro_rules! rules {
    ($($name:ident $label:literal $text:literal, $code:literal;)*) => {
        /// One rule, or one part of a rule that has several.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub enum Rule {
            $(#[doc = concat!($label, ": ", $text, ".")] $name,)*
        }

        impl Rule {
            /// Every rule, in the order of the page.
            pub const ALL: &'static [Rule] = &[$(Rule::$name),*];

            /// Its name on the page.
            pub fn label(self) -> &'static str {
                match self { $(Rule::$name => $label,)* }
            }

            /// What it says.
            pub fn text(self) -> &'static str {
                match self { $(Rule::$name => $text,)* }
            }

            /// The file that keeps it.
            pub fn code(self) -> &'static str {
                match self { $(Rule::$name => $code,)* }
            }
        }
    };
}

rules! {
    LeaderGuard "L1a" "every write transaction checks the leader's row", "daemon/src/store/leader.rs";
    LeaderInstance "L1b" "the check compares the instance beside the epoch", "daemon/src/store/leader.rs";
    EpochCompare "L2a" "a chip's epoch is raised only from the epoch it was decided from", "daemon/src/store/chips.rs";
    OneLog "L2b" "an event's number is written once", "migrations/0002_events.sql";
    OneHolder "L2c" "a slot has one hold and a job one live lease, by constraint", "migrations/0007_holds.sql";
    CommitFirst "L3" "orders leave only after their commit", "daemon/src/rounds/round_loop.rs";
    ProofOnly "L4a" "a chip becomes free by proof, never by a time-out", "allocator/src/expire.rs";
    ProofNamesLease "L4b" "a proof names the ended lease it is for", "allocator/src/report.rs";
    ProofHasSeen "L4c" "a proof has seen an epoch as high as the hold's", "allocator/src/report.rs";
    ProofOfSession "L4d" "a report counts in the session it was made in only", "daemon/src/routes/nodes.rs";
    SaidUntilProven "L4e" "what is to be vacated is said until it is proven", "daemon/src/orders.rs";
    GrantWhole "L5a" "a gang is granted in one transaction", "allocator/src/promise.rs";
    ClaimWhole "L5b" "a gang claims all its chips in one transaction", "allocator/src/promise.rs";
    EndWhole "L5c" "losing one member ends the lease on all", "allocator/src/register.rs";
    ClaimBound "L5d" "a claim is given up whole in its bound, also when what it has is free", "allocator/src/expire.rs";
    HeardAnew "L6a" "a new leader grants nothing on a node it has not heard", "allocator/src/apply/fleet.rs";
    AboveSeen "L6b" "epochs go on above the highest that the node has seen", "allocator/src/report.rs";
    OneAgent "N1a" "a node has one agent", "agent/src/state/lock.rs";
    SeenDurable "N2a" "the epochs seen are on disk before they are acted on", "agent/src/session.rs";
    OlderRefused "N2b" "an order older than one seen is not acted on", "agent/src/state/epochs.rs";
    TwinRefused "N2c" "nor is the same epoch under another lease", "agent/src/state/epochs.rs";
    RefusalAnswered "N2d" "a refusal is answered: the lease ends", "agent/src/standing.rs";
    EndedStaysEnded "N2e" "a lease that has left the orders never starts again", "agent/src/state/epochs.rs";
    FenceCancels "N3a" "a fence cancels a start that is under way", "agent/src/work/guard.rs";
    NewestOrders "N3b" "an answer older than the orders held is dropped", "agent/src/session.rs";
    Adoption "N4a" "an agent that starts knows what runs before it registers", "agent/src/work/keeper.rs";
    ClearBefore "N4b" "a chip is read clear just before a start", "agent/src/standing.rs";
    OthersGone "N4c" "nothing starts while another lease's work may be on the chip", "agent/src/wishing.rs";
    ProofByCgroup "N4d" "a proof waits until the lease's cgroup is gone", "agent/src/work/replica.rs";
}

impl Rule {
    const fn bit(self) -> u64 {
        1 << self as u64
    }
}

/// Which rules hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rules(u64);

impl Rules {
    /// All of them: the protocol.
    pub const ALL: Rules = Rules(u64::MAX);

    /// All but these.
    pub fn without(off: &[Rule]) -> Rules {
        Rules(off.iter().fold(u64::MAX, |rules, rule| rules & !rule.bit()))
    }

    /// Whether a rule holds.
    pub fn has(self, rule: Rule) -> bool {
        self.0 & rule.bit() != 0
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.label(), self.text())
    }
}
