//! The protocol with a rule less: what is tried, within which bounds, and what comes of it.

use crate::explore::{End, Explored, explore};
use crate::properties::{self, RECOVERS};
use crate::rules::Rule;
use crate::world::{Action, Bounds, Protocol};

/// No ablation is explored further than this; what is then not found is said to be not found in so many states.
pub const STATES_MAX: usize = 100_000;

/// Rules switched off together, and the world they are missed in.
#[derive(Clone, Copy, Debug)]
pub struct Ablation {
    /// What is off.
    pub off: &'static [Rule],
    /// The world.
    pub bounds: Bounds,
    /// The world in words.
    pub world: &'static str,
    /// Which rule covers for it, where nothing is lost.
    pub covered: &'static str,
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// States explored.
    pub states: usize,
    /// Whether that was all of them.
    pub whole: bool,
    /// Which property is lost, and the shortest way to where it is.
    pub lost: Option<(&'static str, Vec<Action>)>,
}

const CALM: Bounds = Bounds::CALM;
const ENDS: Bounds = Bounds { ends: true, ..CALM };
const CRASHES: Bounds = Bounds { crashes: true, ..CALM };
const LEADERS: Bounds = Bounds { leaders: true, ..CALM };
const LOSS: Bounds = Bounds { failover: true, ..CALM };
const FAILOVER: Bounds = Bounds { failover: true, leaders: true, ..CALM };

macro_rules! ablations {
    ($([$($rule:ident)+] $bounds:expr, $world:literal $(, $covered:literal)?;)*) => {
        /// Every ablation, each rule alone first.
        pub const ALL: &[Ablation] = &[$(Ablation { off: &[$(Rule::$rule),+], bounds: $bounds, world: $world, covered: concat!("" $(, $covered)?) }),*];
    };
}

ablations! {
    [LeaderGuard] LEADERS, "takeovers",
        "L2b: a deposed leader's events have numbers that are taken";
    [LeaderInstance] FAILOVER, "takeovers, a failover",
        "L2b";
    [EpochCompare] LEADERS, "takeovers",
        "L1a and L2b: nobody but the leader writes";
    [OneLog] LEADERS, "takeovers",
        "L1a";
    [OneHolder] LEADERS, "takeovers",
        "L1a and L2b";
    [CommitFirst] CALM, "no fault";
    [ProofOnly] CALM, "no fault";
    [ProofNamesLease] ENDS, "ends",
        "sessions (L4d) and N4d: a proof is made for what was to be vacated only";
    [ProofHasSeen] CRASHES, "agent crashes",
        "L4b: the lease named is identity enough while no commit is lost";
    [ProofOfSession] Bounds { crashes: true, wipes: true, ..ENDS }, "ends, agent crashes, disks lost",
        "L4b: a late proof is of a lease that is gone, and true";
    [SaidUntilProven] CRASHES, "agent crashes";
    [GrantWhole] CALM, "no fault";
    [ClaimWhole] Bounds { two_gangs: true, ..CALM }, "two gangs",
        "L5d gives half a claim up again";
    [EndWhole] Bounds { reboots: true, ..CALM }, "reboots";
    [ClaimBound] Bounds { two_gangs: true, ..CALM }, "two gangs",
        "L5b: no half claims, so none waits for another";
    [HeardAnew] FAILOVER, "takeovers, a failover",
        "N2b and N2c refuse what was granted on hearsay, N2d ends it";
    [AboveSeen] LOSS, "a failover",
        "N2c and N2d: the twin is refused and ends, the next grant is above";
    [OneAgent] ENDS, "ends";
    [SeenDurable] Bounds { delays: true, ..CRASHES }, "agent crashes, slow answers",
        "sessions: an order from before the crash reaches no later agent";
    [OlderRefused] FAILOVER, "takeovers, a failover";
    [TwinRefused] FAILOVER, "takeovers, a failover";
    [RefusalAnswered] LOSS, "a failover";
    [EndedStaysEnded] LEADERS, "takeovers";
    [FenceCancels] ENDS, "ends";
    [NewestOrders] ENDS, "ends",
        "N2e";
    [Adoption] Bounds { crashes: true, ..ENDS }, "ends, agent crashes";
    [ClearBefore] LOSS, "a failover",
        "N4c here; for work that is not the agent's own (a foreign process) nothing else would";
    [OthersGone] LOSS, "a failover";
    [ProofByCgroup] ENDS, "ends";
    [LeaderGuard OneLog] LEADERS, "takeovers",
        "L2a and L2c: the rows compare";
    [LeaderGuard OneLog EpochCompare OneHolder] LEADERS, "takeovers";
    [LeaderInstance OneLog] FAILOVER, "takeovers, a failover";
    [ClaimWhole ClaimBound] Bounds { two_gangs: true, ..CALM }, "two gangs";
    [EndedStaysEnded NewestOrders] ENDS, "ends";
    [ClearBefore OthersGone] LOSS, "a failover";
    [TwinRefused RefusalAnswered] LOSS, "a failover",
        "L6b, said by the agent with its next report; without L6b see N2d";
    [ProofNamesLease ProofOfSession ProofHasSeen] Bounds { crashes: true, ..ENDS }, "ends, agent crashes";
    [OthersGone AboveSeen] LOSS, "a failover";
    [ClearBefore OthersGone AboveSeen TwinRefused] LOSS, "a failover";
    [AboveSeen RefusalAnswered] LOSS, "a failover";
}

impl Ablation {
    /// Explores it.
    pub fn explore(&self) -> Outcome {
        let protocol = Protocol::without(self.off, self.bounds);
        let end = End::<Protocol> { is_end: &properties::is_over, counts: &|action| !action.is_fault() };
        match explore(&protocol, STATES_MAX, Some(&end)) {
            None => Outcome { states: STATES_MAX, whole: false, lost: None },
            Some(Explored { states, violation: Some(lost), .. }) => Outcome { states, whole: true, lost: Some(lost) },
            Some(Explored { states, stuck, .. }) => {
                Outcome { states, whole: true, lost: stuck.map(|way| (RECOVERS, way)) }
            }
        }
    }

    /// The names of what is off.
    pub fn name(&self) -> String {
        self.off.iter().map(|rule| rule.label()).collect::<Vec<_>>().join(" + ")
    }
}
