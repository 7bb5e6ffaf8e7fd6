//! The English of every reason, way out and eviction, in one place. Numbers are given as people count: chips, chip-hours.

use super::reason::Reason;
use super::standing::{Exposure, Standing};
use super::unblock::{InTheWay, Spared, Unblocker};
use chiptide_model::{Choice, Cost, DeviceClass, LeaseId, Millis, SLOTS_PER_CHIP};
use std::fmt;

/// `8 chips`, `1 chip`, `0.5 chips`.
pub fn chips_text(slots: u64) -> String {
    let per_chip = u64::from(SLOTS_PER_CHIP);
    match (slots / per_chip, slots % per_chip) {
        (1, 0) => "1 chip".into(),
        (chips, 0) => format!("{chips} chips"),
        (chips, part) => format!("{chips}.{} chips", format!("{part:03}").trim_end_matches('0')),
    }
}

/// Work in slot-milliseconds as `2.4 chip-hours`, `12 chip-minutes` or `45 chip-seconds`.
pub fn work_text(slot_ms: u64) -> String {
    let seconds = slot_ms / (u64::from(SLOTS_PER_CHIP) * 1000);
    match seconds {
        0..120 => format!("{seconds} chip-seconds"),
        120..7200 => format!("{} chip-minutes", seconds / 60),
        _ => format!("{}.{} chip-hours", seconds / 3600, seconds % 3600 / 360),
    }
}

fn count_text(count: u64, one: &str, many: &str) -> String {
    if count == 1 { format!("1 {one}") } else { format!("{count} {many}") }
}

/// ` of nvidia-h20`, where one class is meant.
fn of(class: Option<&DeviceClass>) -> String {
    class.map(|class| format!(" of {class}")).unwrap_or_default()
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::AwaitingVacancy { chips, waiting_for, .. } => {
                write!(
                    f,
                    "{} promised; {waiting_for} of them still being vacated",
                    count_text(*chips, "chip is", "chips are")
                )
            }
            Reason::NoSuchClass(class) => write!(f, "the fleet has no chip of class {class}"),
            Reason::NeverFits(s) => {
                write!(f, "the whole fleet would hold {} of {} replicas if it were empty", s.available, s.requested)
            }
            Reason::InsufficientChips(s) => {
                let needed = count_text(s.requested, "chip is", "chips are");
                write!(f, "{needed} needed, {} free", count_text(s.available, "is", "are"))
            }
            Reason::InsufficientSlots(s) => {
                write!(f, "{} are needed, {} are free", chips_text(s.requested), chips_text(s.available))
            }
            Reason::Fragmented(s) => write!(
                f,
                "enough chips are free, but together they hold only {} of {} replicas",
                s.available, s.requested
            ),
            Reason::InsufficientCpu(s) => {
                write!(f, "{} of {} replicas find chips and CPU on one node", s.available, s.requested)
            }
            Reason::InsufficientMemory(s) => {
                write!(f, "{} of {} replicas find chips and memory on one node", s.available, s.requested)
            }
            Reason::Scattered(s) => {
                write!(f, "{} of {} replicas find chips, CPU and memory together on one node", s.available, s.requested)
            }
            Reason::Topology => f.write_str("there is room, but not in one place as the job requires"),
            Reason::QueueLimit { queue, class, slots } => {
                let (asks, left) = (chips_text(slots.requested), chips_text(slots.available));
                write!(f, "it asks for {asks}{}, the limit of queue {queue} leaves {left}", of(class.as_ref()))
            }
            Reason::BorrowLimit { class, slots } => {
                let (asks, left) = (chips_text(slots.requested), chips_text(slots.available));
                write!(f, "it asks for {asks}{}, what other queues are guaranteed leaves {left}", of(class.as_ref()))
            }
            Reason::Reserve { class, chips } => write!(
                f,
                "{} chips{} are kept free for higher priorities, it would leave {}",
                chips.requested,
                of(Some(class)),
                chips.available
            ),
            Reason::NodesUnknown { chips } => {
                write!(f, "{} on nodes that do not report", count_text(*chips, "chip is", "chips are"))
            }
            Reason::OutOfService { chips } => {
                write!(
                    f,
                    "{} out of service (unhealthy, unreadable or in quarantine)",
                    count_text(*chips, "chip is", "chips are")
                )
            }
            Reason::Reserved { .. } => f.write_str("chips are set aside for it; it starts when they are free"),
            Reason::KeptForOthers { chips } => {
                write!(
                    f,
                    "{} kept for the reservations of others",
                    count_text(*chips, "free chip is", "free chips are")
                )
            }
            Reason::ReservationShort { name, shortage: s } => {
                write!(f, "the calendar's {name} has {} of {} chips kept", s.available, s.requested)
            }
            Reason::NextRound => f.write_str("nothing is in the way; the next round serves it"),
        }
    }
}

impl fmt::Display for Spared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Spared::Leaving => "is leaving already",
            Spared::NotPreemptible => "cannot be preempted",
            Spared::PriorityNotLower => "has no lower priority",
            Spared::Protected { .. } => "is protected by its least running time or its own budget",
            Spared::Budget => "is protected by its queue's preemption budget",
            Spared::Guaranteed => "holds what its queue is guaranteed",
            Spared::NotEnough => "could be taken, which alone is not enough",
        })
    }
}

impl fmt::Display for Unblocker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unblocker::Wait { leases, count, ahead, .. } => {
                let names = names(leases.iter().map(|holder| holder.name.as_str()), *count);
                write!(f, "wait: {names} will have left by then")?;
                match ahead {
                    0 => Ok(()),
                    ahead => write!(f, ", but {} served first", count_text(*ahead, "job is", "jobs are")),
                }
            }
            Unblocker::OtherClass { class } => write!(f, "accept device class {class}: there is room on it now"),
            Unblocker::FewerReplicas { replicas } => {
                write!(f, "ask for at most {}", count_text((*replicas).into(), "replica", "replicas"))
            }
            Unblocker::HearNodes { nodes, count } => {
                write!(f, "bring back {}", names(nodes.iter().map(|node| node.as_str()), *count))
            }
            Unblocker::Consolidate { leases, count, lost_slot_ms, allowed } => {
                let names = names(leases.iter().map(|holder| holder.name.as_str()), *count);
                write!(f, "move {names} to other chips, losing {}", work_text(*lost_slot_ms))?;
                if *allowed { Ok(()) } else { f.write_str("; the policy does not allow moves") }
            }
            Unblocker::EndLeases { leases, count, cost } => {
                let names = names(leases.iter().map(|lease| lease.holder.name.as_str()), *count);
                write!(f, "the end of {names} would make room, losing {}", work_text(cost.lost_slot_ms))?;
                let why = |lease: &InTheWay| format!("{} {}", lease.holder.name, lease.spared);
                leases.first().map_or(Ok(()), |lease| write!(f, "; {}", why(lease)))
            }
            Unblocker::RaiseLimit { queue, class, chips } => {
                let chips = count_text(*chips, "chip", "chips");
                write!(f, "raise the limit of queue {queue} by {chips}{}", of(class.as_ref()))
            }
            Unblocker::BePreemptible => {
                f.write_str("let it be preempted: then it may borrow what others are guaranteed")
            }
            Unblocker::AddChips { chips } => {
                write!(f, "add at least {}", count_text(*chips, "chip", "chips"))
            }
        }
    }
}

/// `a`, `a and b`, `a, b and 3 more`.
fn names<'a>(named: impl Iterator<Item = &'a str>, count: u64) -> String {
    let named: Vec<&str> = named.collect();
    let more = count.saturating_sub(named.len() as u64);
    match (named.as_slice(), more) {
        ([], more) => count_text(more, "lease", "leases"),
        ([one], 0) => (*one).to_owned(),
        ([first @ .., last], 0) => format!("{} and {last}", first.join(", ")),
        (named, more) => format!("{} and {more} more", named.join(", ")),
    }
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nodes = count_text(self.nodes, "node", "nodes");
        write!(f, "it holds {} on {nodes}; ", chips_text(self.slots))?;
        if self.extras > 0 {
            let extras = count_text(self.extras.into(), "extra replica", "extra replicas");
            write!(f, "{extras} of {} go first and come back last; ", self.replicas)?;
        }
        match &self.exposure {
            Exposure::Leaving { cause, .. } => write!(f, "they are being taken ({})", cause.as_str()),
            Exposure::Safe => f.write_str("no job may take them by priority"),
            Exposure::Preemptible { above, not_before, reclaimable, cost } => {
                let lost = work_text(cost.lost_slot_ms);
                write!(f, "a job of a priority above {above} may take them, which would lose {lost} now")?;
                if not_before.is_some() {
                    f.write_str("; for a while its least running time or a budget protects it")?;
                }
                if *reclaimable {
                    f.write_str("; its queue borrows, so whoever is guaranteed the rest may take it back")?;
                }
                Ok(())
            }
        }
    }
}

/// The job an eviction made room for, as far as it is still known.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EvictedFor {
    /// Its name.
    pub name: String,
    /// Its queue.
    pub queue: String,
    /// Its priority.
    pub priority: i32,
}

/// One eviction that has happened, as it was recorded.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Eviction<'a> {
    /// The lease that was taken.
    pub lease: LeaseId,
    /// The word of its cause.
    pub cause: &'a str,
    /// For whom.
    pub for_job: Option<&'a EvictedFor>,
    /// Whether only an extra replica of an elastic job went.
    pub extra: bool,
    /// Slots it held.
    pub slots: u64,
    /// Work it lost, slot-milliseconds.
    pub lost_slot_ms: u64,
    /// The notice it was given.
    pub notice: Millis,
    /// The weighing behind it.
    pub choice: Option<&'a Choice>,
}

impl fmt::Display for Eviction<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (chips, lost) = (chips_text(self.slots), work_text(self.lost_slot_ms));
        match (self.cause, self.for_job) {
            ("max_duration", _) => return write!(f, "its longest duration was over; it held {chips}"),
            ("expired", _) => return write!(f, "its lease was not renewed in time; it held {chips}"),
            ("fault", _) => return write!(f, "a node could not carry it any more; it held {chips} and lost {lost}"),
            (cause, Some(job)) => {
                let EvictedFor { name, queue, priority } = job;
                let right = match cause {
                    "reclaim" => ", whose queue is guaranteed them",
                    "consolidate" => ", and others were kept for it",
                    _ => "",
                };
                write!(f, "{chips} went to {name} (queue {queue}, priority {priority}){right}; {lost} were lost")?;
            }
            (cause, None) => write!(f, "{chips} were taken ({cause}); {lost} were lost")?,
        }
        write!(f, " and {} of notice given", self.notice)?;
        if self.extra {
            f.write_str(". Only an extra replica went: the job ran on")?;
        }
        let Some(choice) = self.choice.filter(|choice| choice.cost_of(self.lease).is_some()) else { return Ok(()) };
        write!(f, ". The plan it was part of was the cheapest: {}", CostText(choice.cost))?;
        match &choice.runner_up {
            Some(other) => write!(f, "; the next would have cost {}", CostText(other.cost)),
            None => f.write_str("; no other was found"),
        }
    }
}

struct CostText(Cost);

impl fmt::Display for CostText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", work_text(self.0.lost_slot_ms), count_text(self.0.gangs.into(), "gang", "gangs"))
    }
}
