//! The protocol with a rule less: what is tried, within which bounds, and what comes of it.

use crate::explore::{End, Explored, explore};
use crate::properties::{self, RECOVERS};
use crate::rules::Rule;
use crate::world::{Action, Bounds, Protocol};

/// No ablation is explored further than this; what is then not found is said to be not found in so many states.
pub const STATES_MAX: usize = 150_000;

/// Rules switched off together, and the world they are missed in.
#[derive(Clone, Copy, Debug)]
pub struct Ablation {
    /// What is off.
    pub off: &'static [Rule],
    /// The world.
    pub bounds: Bounds,
    /// The world in words.
    pub world: &'static str,
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
const FAILOVER: Bounds = Bounds { failover: true, leaders: true, ..CALM };

macro_rules! ablations {
    ($([$($rule:ident)+] $bounds:expr, $world:literal;)*) => {
        /// Every ablation, each rule alone first.
        pub const ALL: &[Ablation] = &[$(Ablation { off: &[$(Rule::$rule),+], bounds: $bounds, world: $world }),*];
    };
}

ablations! {
    [LeaderGuard] LEADERS, "takeovers";
    [LeaderInstance] FAILOVER, "takeovers, a failover";
    [EpochCompare] LEADERS, "takeovers";
    [OneLog] LEADERS, "takeovers";
    [OneHolder] LEADERS, "takeovers";
    [CommitFirst] CALM, "no fault";
    [ProofOnly] CALM, "no fault";
    [ProofNamesLease] ENDS, "ends";
    [ProofHasSeen] CRASHES, "agent crashes";
    [ProofOfSession] Bounds { crashes: true, wipes: true, ..ENDS }, "ends, agent crashes, disks lost";
    [SaidUntilProven] Bounds { crashes: true, ..ENDS }, "ends, agent crashes";
    [GrantWhole] CALM, "no fault";
    [ClaimWhole] Bounds { two_gangs: true, ..CALM }, "two gangs";
    [EndWhole] Bounds { reboots: true, ..CALM }, "reboots";
    [ClaimBound] Bounds { two_gangs: true, ..CALM }, "two gangs";
    [HeardAnew] FAILOVER, "takeovers, a failover";
    [AboveSeen] FAILOVER, "takeovers, a failover";
    [OneAgent] ENDS, "ends";
    [SeenDurable] Bounds { delays: true, ..CRASHES }, "agent crashes, slow answers";
    [OlderRefused] FAILOVER, "takeovers, a failover";
    [TwinRefused] FAILOVER, "takeovers, a failover";
    [RefusalAnswered] Bounds { leaders: false, ..FAILOVER }, "a failover";
    [EndedStaysEnded] LEADERS, "takeovers";
    [FenceCancels] ENDS, "ends";
    [NewestOrders] ENDS, "ends";
    [Adoption] Bounds { crashes: true, ..ENDS }, "ends, agent crashes";
    [ClearBefore] ENDS, "ends";
    [OthersGone] FAILOVER, "takeovers, a failover";
    [ProofByCgroup] ENDS, "ends";
    [LeaderGuard OneLog] LEADERS, "takeovers";
    [LeaderGuard OneLog EpochCompare OneHolder] LEADERS, "takeovers";
    [LeaderInstance OneLog] FAILOVER, "takeovers, a failover";
    [ClaimWhole ClaimBound] Bounds { two_gangs: true, ..CALM }, "two gangs";
    [EndedStaysEnded NewestOrders] ENDS, "ends";
    [ClearBefore OthersGone] FAILOVER, "takeovers, a failover";
    [TwinRefused RefusalAnswered] FAILOVER, "takeovers, a failover";
    [ProofNamesLease ProofOfSession ProofHasSeen] Bounds { crashes: true, ..ENDS }, "ends, agent crashes";
    [AboveSeen RefusalAnswered] FAILOVER, "takeovers, a failover";
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
