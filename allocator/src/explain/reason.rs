//! What can keep a job from starting: a closed set, each with a stable code and its numbers.

use chiptide_model::{DeviceClass, SLOTS_PER_CHIP, Timestamp};

/// One thing that keeps a job from starting.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Reason {
    /// Its chips are promised; this many of them still have to be proven vacant.
    AwaitingVacancy {
        /// Chips promised.
        chips: u64,
        /// Chips not vacant yet.
        waiting_for: u64,
        /// When the promise is given up.
        deadline: Timestamp,
    },
    /// The fleet has no chip of this class.
    NoSuchClass(DeviceClass),
    /// The whole fleet, empty, holds fewer replicas.
    NeverFits(Shortage),
    /// Fewer chips are free than the job needs.
    InsufficientChips(Shortage),
    /// Fewer slots are free than the shares of the job need.
    InsufficientSlots(Shortage),
    /// Enough chips are free, but not enough of them together.
    Fragmented(Shortage),
    /// Chips are free where CPU is not: this many replicas find both.
    InsufficientCpu(Shortage),
    /// Chips are free where memory is not: this many replicas find both.
    InsufficientMemory(Shortage),
    /// Chips, CPU and memory are each free somewhere, but this many replicas find all of them on one node.
    Scattered(Shortage),
    /// Enough room in all, but not on one node or rack.
    Topology,
    /// A queue on the way up may not hold as much more, in slots.
    QueueLimit {
        /// The queue whose limit it is.
        queue: String,
        /// The class that is limited; `None` for chips of all classes, normalised.
        class: Option<DeviceClass>,
        /// What the job asks for, and what the limit leaves.
        slots: Shortage,
    },
    /// What other queues are guaranteed leaves less to borrow, in slots.
    BorrowLimit {
        /// The class that is short; `None` for chips of all classes, normalised.
        class: Option<DeviceClass>,
        /// What the job asks for, and what the guarantees leave.
        slots: Shortage,
    },
    /// The policy keeps chips free for jobs of higher priority.
    Reserve {
        /// Their class.
        class: DeviceClass,
        /// Chips to be kept free, and those that would be left.
        chips: Shortage,
    },
    /// Chips on nodes that do not report.
    NodesUnknown {
        /// How many chips.
        chips: u64,
    },
    /// Chips that are unhealthy, unreadable or in quarantine.
    OutOfService {
        /// How many chips.
        chips: u64,
    },
    /// Chips are set aside for it: it starts by then at the latest.
    Reserved {
        /// When.
        starts_at: Timestamp,
    },
    /// Chips that nobody holds, kept for the reservations of others.
    KeptForOthers {
        /// How many chips.
        chips: u64,
    },
    /// The calendar should have kept chips for its queue, and could not: their holders have no known end.
    ReservationShort {
        /// The calendar's name for it.
        name: String,
        /// Chips asked for, and chips kept.
        shortage: Shortage,
    },
    /// Nothing is in the way any more; the next round will serve it.
    NextRound,
}

/// How much is asked for and how much there is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Shortage {
    /// Asked for.
    pub requested: u64,
    /// There now.
    pub available: u64,
}

impl Shortage {
    /// How much is missing.
    pub fn shortfall(&self) -> u64 {
        self.requested.saturating_sub(self.available)
    }

    /// Slots as whole chips, where they are such.
    fn in_chips(self) -> (Unit, Shortage) {
        let per_chip = u64::from(SLOTS_PER_CHIP);
        let Shortage { requested, available } = self;
        if requested.is_multiple_of(per_chip) && available.is_multiple_of(per_chip) {
            (Unit::Chips, Shortage { requested: requested / per_chip, available: available / per_chip })
        } else {
            (Unit::Slots, self)
        }
    }
}

/// What the numbers of a reason count.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unit {
    /// Chips.
    Chips,
    /// Thousandths of a chip.
    Slots,
    /// Replicas of the gang.
    Replicas,
}

impl Unit {
    /// The word used on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Unit::Chips => "chips",
            Unit::Slots => "slots",
            Unit::Replicas => "replicas",
        }
    }
}

impl Reason {
    /// The stable code used on the wire and in metrics.
    pub fn code(&self) -> &'static str {
        match self {
            Reason::AwaitingVacancy { .. } => "awaiting_vacancy",
            Reason::NoSuchClass(_) => "no_such_class",
            Reason::NeverFits(_) => "never_fits",
            Reason::InsufficientChips(_) | Reason::InsufficientSlots(_) => "insufficient_chips",
            Reason::Fragmented(_) => "fragmented",
            Reason::InsufficientCpu(_) => "insufficient_cpu",
            Reason::InsufficientMemory(_) => "insufficient_memory",
            Reason::Scattered(_) => "scattered",
            Reason::Topology => "topology",
            Reason::QueueLimit { .. } => "queue_limit",
            Reason::BorrowLimit { .. } => "borrow_limit",
            Reason::Reserve { .. } => "reserve",
            Reason::NodesUnknown { .. } => "nodes_unknown",
            Reason::OutOfService { .. } => "out_of_service",
            Reason::Reserved { .. } => "reserved",
            Reason::KeptForOthers { .. } => "kept_for_others",
            Reason::ReservationShort { .. } => "reservation_short",
            Reason::NextRound => "next_round",
        }
    }

    /// What is asked for, what there is, and in which unit, where the reason is a matter of numbers.
    pub fn shortage(&self) -> Option<(Unit, Shortage)> {
        match self {
            Reason::AwaitingVacancy { chips, waiting_for, .. } => {
                let vacant = chips.saturating_sub(*waiting_for);
                Some((Unit::Chips, Shortage { requested: *chips, available: vacant }))
            }
            Reason::InsufficientChips(shortage)
            | Reason::ReservationShort { shortage, .. }
            | Reason::Reserve { chips: shortage, .. } => Some((Unit::Chips, *shortage)),
            Reason::InsufficientSlots(slots) | Reason::QueueLimit { slots, .. } | Reason::BorrowLimit { slots, .. } => {
                Some(slots.in_chips())
            }
            Reason::NeverFits(shortage)
            | Reason::Fragmented(shortage)
            | Reason::InsufficientCpu(shortage)
            | Reason::InsufficientMemory(shortage)
            | Reason::Scattered(shortage) => Some((Unit::Replicas, *shortage)),
            _ => None,
        }
    }

    /// The device class it is about, where it is about one.
    pub fn device_class(&self) -> Option<&DeviceClass> {
        match self {
            Reason::NoSuchClass(class) | Reason::Reserve { class, .. } => Some(class),
            Reason::QueueLimit { class, .. } | Reason::BorrowLimit { class, .. } => class.as_ref(),
            _ => None,
        }
    }

    /// When it is over at the latest, where that is known.
    pub fn over_by(&self) -> Option<Timestamp> {
        match self {
            Reason::AwaitingVacancy { deadline: at, .. } | Reason::Reserved { starts_at: at } => Some(*at),
            _ => None,
        }
    }

    /// The queue it is about, where it is about one.
    pub fn queue(&self) -> Option<&str> {
        match self {
            Reason::QueueLimit { queue, .. } => Some(queue),
            _ => None,
        }
    }

    /// Chips that are there and cannot be used, where it is about those.
    pub fn unusable(&self) -> Option<u64> {
        match self {
            Reason::NodesUnknown { chips } | Reason::OutOfService { chips } | Reason::KeptForOthers { chips } => {
                Some(*chips)
            }
            _ => None,
        }
    }

    /// Whether it is a matter of quota, not of room.
    pub fn is_quota(&self) -> bool {
        matches!(self, Reason::QueueLimit { .. } | Reason::BorrowLimit { .. })
    }

    /// Whether somebody else's leases stand in the way: if they ended, this would be over.
    pub fn is_held_by_others(&self) -> bool {
        matches!(
            self,
            Reason::InsufficientChips(_)
                | Reason::InsufficientSlots(_)
                | Reason::Fragmented(_)
                | Reason::InsufficientCpu(_)
                | Reason::InsufficientMemory(_)
                | Reason::Scattered(_)
                | Reason::Topology
        )
    }
}
