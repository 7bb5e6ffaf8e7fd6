//! The steps of a story: what may happen next, drawn from a seed before anything has happened. A step that has nothing to
//! do does nothing, so any part of a story is a story: that is what makes one shrink.

use std::fmt;

/// A small generator of numbers; the same seed gives the same numbers.
#[derive(Clone, Debug)]
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn new(seed: u64) -> Dice {
        Dice(seed)
    }

    /// The next number (SplitMix64).
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`; 0 when that is 0.
    pub(super) fn below(&mut self, end: usize) -> usize {
        if end == 0 { 0 } else { (self.next() % end as u64) as usize }
    }

    /// A number of this range.
    pub(super) fn between(&mut self, from: u64, to: u64) -> u64 {
        from + self.next() % (to - from + 1)
    }

    /// Whether something happens that does in so many of a hundred cases.
    pub(super) fn percent(&mut self, chance: u64) -> bool {
        self.next() % 100 < chance
    }
}

/// What kind of thing happens.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Kind {
    /// Everybody who lives has a turn, and all letters under way arrive: things get somewhere between the faults.
    Turn,
    /// Time passes.
    Tick,
    /// A letter arrives, not always the oldest.
    Deliver,
    /// An agent looks at its chips, its orders and its answers.
    Think,
    /// A keeper heeds the newest wish.
    Keep,
    /// A leader does the next third of a round: decide, commit, answer.
    Serve,
    /// A client asks for something.
    Ask,
    /// A letter is lost.
    Lose,
    /// A letter will arrive twice.
    Duplicate,
    /// One direction between a node and a daemon is cut.
    Cut,
    /// All cuts are healed.
    Heal,
    /// A daemon dies.
    KillDaemon,
    /// A daemon that is dead starts.
    StartDaemon,
    /// A daemon stands still for up to a minute.
    PauseDaemon,
    /// An agent dies; what it started lives on.
    KillAgent,
    /// An agent that is dead starts.
    StartAgent,
    /// An agent stands still for up to a minute.
    PauseAgent,
    /// A dead agent's disk is lost.
    WipeDisk,
    /// A node reboots.
    Reboot,
    /// Postgres fails over to a replica; in forgetful stories that one has not got the newest commits.
    FailOver,
    /// Postgres is away for some seconds.
    StopPostgres,
    /// The answer to the next commit is lost, whether it lands or not.
    LoseCommit,
    /// A chip cannot be read, or is lost, for a while.
    ChipFault,
    /// A chip's driver lists nobody, whoever is there.
    ChipLies,
    /// A process does something: exits, gets stuck in the driver, leaves its group, keeps memory.
    Process,
}

/// Everything a step is: the rest is drawn from `salt` when it happens.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Step {
    /// What kind of thing happens.
    pub kind: Kind,
    /// From which the details are drawn.
    pub salt: u64,
}

/// How often each kind is drawn.
const WEIGHTS: [(Kind, u64); 25] = [
    (Kind::Turn, 80),
    (Kind::Tick, 150),
    (Kind::Deliver, 300),
    (Kind::Think, 150),
    (Kind::Keep, 80),
    (Kind::Serve, 170),
    (Kind::Ask, 40),
    (Kind::Lose, 8),
    (Kind::Duplicate, 6),
    (Kind::Cut, 3),
    (Kind::Heal, 4),
    (Kind::KillDaemon, 4),
    (Kind::StartDaemon, 8),
    (Kind::PauseDaemon, 3),
    (Kind::KillAgent, 5),
    (Kind::StartAgent, 10),
    (Kind::PauseAgent, 4),
    (Kind::WipeDisk, 2),
    (Kind::Reboot, 3),
    (Kind::FailOver, 2),
    (Kind::StopPostgres, 2),
    (Kind::LoseCommit, 4),
    (Kind::ChipFault, 5),
    (Kind::ChipLies, 1),
    (Kind::Process, 25),
];

/// The story of a seed: so many steps.
pub fn story(seed: u64, steps: usize) -> Vec<Step> {
    let mut dice = Dice::new(seed.wrapping_mul(0xD134_2543_DE82_EF95) ^ 0xC41B);
    let total: u64 = WEIGHTS.iter().map(|(_, weight)| weight).sum();
    let mut draw = || {
        let mut at = dice.next() % total;
        let past = |(_, weight): &&(Kind, u64)| {
            let here = at < *weight;
            at = at.saturating_sub(*weight);
            here
        };
        let kind = WEIGHTS.iter().find(past).map_or(Kind::Tick, |(kind, _)| *kind);
        Step { kind, salt: dice.next() }
    };
    (0..steps).map(|_| draw()).collect()
}

impl Kind {
    /// What happens, in words.
    fn says(self) -> &'static str {
        match self {
            Kind::Turn => "everybody who lives has a turn",
            Kind::Tick => "time passes",
            Kind::Deliver => "a letter arrives",
            Kind::Think => "an agent looks at its chips and orders",
            Kind::Keep => "a keeper heeds the newest wish",
            Kind::Serve => "a leader decides, commits or answers",
            Kind::Ask => "a client asks for something",
            Kind::Lose => "a letter is lost",
            Kind::Duplicate => "a letter will arrive twice",
            Kind::Cut => "one direction between a node and a daemon is cut",
            Kind::Heal => "all cuts are healed",
            Kind::KillDaemon => "a daemon dies",
            Kind::StartDaemon => "a daemon starts, if it was dead",
            Kind::PauseDaemon => "a daemon stands still for a while",
            Kind::KillAgent => "an agent dies",
            Kind::StartAgent => "an agent starts, if it was dead",
            Kind::PauseAgent => "an agent stands still for a while",
            Kind::WipeDisk => "the disk of an agent is lost, if that is dead",
            Kind::Reboot => "a node reboots",
            Kind::FailOver => "Postgres fails over",
            Kind::StopPostgres => "Postgres is away for a while",
            Kind::LoseCommit => "the answer to a daemon's next commit will be lost",
            Kind::ChipFault => "a chip cannot be read, or is lost, for a while",
            Kind::ChipLies => "a chip's driver lists nobody for a while",
            Kind::Process => "a process ends, hangs, leaves its group, or gets stubborn",
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The first two numbers drawn from a salt: which node (of two, or of three), and which daemon.
        let mut dice = Dice::new(self.salt);
        let (of_two, of_three) = (dice.clone().below(2), dice.below(3));
        write!(f, "{} [n{of_two} of 2 or n{of_three} of 3, daemon {}]", self.kind.says(), dice.below(2))
    }
}
