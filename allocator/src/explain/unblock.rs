//! What would let a pending job start, found by trying each on the cluster as it is: waiting, asking for less or for
//! something else, nodes that come back, leases that end, chips that are added.

use super::holders::Holder;
use super::in_the_way;
use super::quota;
use super::reason::Reason;
use super::shortage::{replicas_that_fit, would_start};
use super::start::Rehearsal;
use crate::cluster::Cluster;
use crate::fleet::{NodeIx, PoolFree};
use crate::place::Scope;
use crate::queue::Shape;
use crate::quota::QueueIx;
use crate::rights::Rights;
use crate::room::{Need, Room};
use crate::{consolidate, place};
use chiptide_model::{Cost, DeviceClass, JobId, Lease, LeaseId, LeaseState, NodeId, SLOTS_PER_CHIP, Timestamp};

/// Leases or nodes named in one way out; the rest are counted.
const NAMED_MAX: usize = 5;

/// One way to let a pending job start.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Unblocker {
    /// Wait: these leases will have left by then, and that is enough.
    Wait {
        /// When the last of them has left at the latest.
        until: Timestamp,
        /// The largest of them.
        leases: Vec<Holder>,
        /// How many they are.
        count: u64,
        /// Jobs that are served before it, and may take the room first.
        ahead: u64,
    },
    /// Accept another device class: there is room on it now.
    OtherClass {
        /// The class.
        class: DeviceClass,
    },
    /// Ask for a smaller gang.
    FewerReplicas {
        /// The largest that would find room (in an empty fleet, where the whole fleet is too small).
        replicas: u32,
    },
    /// Bring back nodes that do not report.
    HearNodes {
        /// The nodes, those that would hold most first.
        nodes: Vec<NodeId>,
        /// How many they are.
        count: u64,
    },
    /// Move these leases to other chips, which are free.
    Consolidate {
        /// The largest of them.
        leases: Vec<Holder>,
        /// How many they are.
        count: u64,
        /// Work lost by the moves, in slot-milliseconds.
        lost_slot_ms: u64,
        /// Whether the policy allows moves at all.
        allowed: bool,
    },
    /// The end of these leases would make room. The allocator does not take them, or not all of them.
    EndLeases {
        /// The cheapest such leases, with why each is spared; at most a few are named.
        leases: Vec<InTheWay>,
        /// How many they are.
        count: u64,
        /// What ending them all would lose.
        cost: Cost,
    },
    /// Raise a queue's limit.
    RaiseLimit {
        /// The queue.
        queue: String,
        /// For this class; `None` for normalised chips.
        class: Option<DeviceClass>,
        /// By so many chips.
        chips: u64,
    },
    /// Let the job be preempted: then it may borrow what others are guaranteed.
    BePreemptible,
    /// Add chips: the whole fleet is too small.
    AddChips {
        /// At least so many.
        chips: u64,
    },
}

/// A lease in the way, and why it is not taken.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct InTheWay {
    /// Whose it is.
    pub holder: Holder,
    /// Why it stays.
    pub spared: Spared,
}

/// Why a lease is not taken for a job.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Spared {
    /// It is leaving already.
    Leaving,
    /// Its job cannot be preempted.
    NotPreemptible,
    /// Its priority is not lower.
    PriorityNotLower,
    /// Its job is protected until then: it has not run its `min_runtime`, or its own budget is spent.
    Protected {
        /// Until when; `None` for ever.
        until: Option<Timestamp>,
    },
    /// Its queue has been preempted as often as its budget allows.
    Budget,
    /// Its queue is guaranteed what it holds.
    Guaranteed,
    /// It could be taken, but that alone would not make room.
    NotEnough,
}

impl Spared {
    /// The word used on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Spared::Leaving => "leaving",
            Spared::NotPreemptible => "not_preemptible",
            Spared::PriorityNotLower => "priority_not_lower",
            Spared::Protected { .. } => "protected",
            Spared::Budget => "budget",
            Spared::Guaranteed => "guaranteed",
            Spared::NotEnough => "not_enough",
        }
    }
}

impl Unblocker {
    /// The stable code used on the wire.
    pub fn code(&self) -> &'static str {
        match self {
            Unblocker::Wait { .. } => "wait",
            Unblocker::OtherClass { .. } => "other_class",
            Unblocker::FewerReplicas { .. } => "fewer_replicas",
            Unblocker::HearNodes { .. } => "hear_nodes",
            Unblocker::Consolidate { .. } => "consolidate",
            Unblocker::EndLeases { .. } => "end_leases",
            Unblocker::RaiseLimit { .. } => "raise_limit",
            Unblocker::BePreemptible => "be_preemptible",
            Unblocker::AddChips { .. } => "add_chips",
        }
    }

    /// Whether it would end this blocker.
    pub(super) fn ends(&self, reason: &Reason) -> bool {
        let held = reason.is_held_by_others();
        match self {
            Unblocker::Wait { .. } => held || reason.is_quota(),
            Unblocker::Consolidate { .. } | Unblocker::EndLeases { .. } => held,
            Unblocker::FewerReplicas { .. } => held || reason.is_quota() || matches!(reason, Reason::NeverFits(_)),
            Unblocker::OtherClass { .. } => held || reason.is_quota() || matches!(reason, Reason::NoSuchClass(_)),
            Unblocker::HearNodes { .. } => matches!(reason, Reason::NodesUnknown { .. }),
            Unblocker::RaiseLimit { queue, class, .. } => {
                matches!(reason, Reason::QueueLimit { queue: of, class: on, .. } if (of, on) == (queue, class))
            }
            Unblocker::BePreemptible => matches!(reason, Reason::BorrowLimit { .. }),
            Unblocker::AddChips { .. } => matches!(reason, Reason::NeverFits(_)),
        }
    }
}

/// Every way out that was found, what costs least first: time, then a smaller wish, then work on nodes, then others' work.
pub(super) fn ways(
    cluster: &Cluster,
    job: JobId,
    shape: &Shape,
    reasons: &[Reason],
    rehearsal: &Rehearsal,
    now: Timestamp,
) -> Vec<Unblocker> {
    if reasons.contains(&Reason::NextRound) {
        return Vec::new();
    }
    let mut ways = Vec::new();
    ways.extend(
        rehearsal.awaited.as_ref().map(|(at, leases)| wait(cluster, (*at).max(now), leases, rehearsal.estimate.ahead)),
    );
    ways.extend(other_class(cluster, shape));
    let never = reasons.iter().find_map(|reason| match reason {
        Reason::NeverFits(shortage) => Some(*shortage),
        _ => None,
    });
    let replicas = match never {
        Some(shortage) => u32::try_from(shortage.available).unwrap_or(u32::MAX),
        None => replicas_that_fit(cluster, shape),
    };
    ways.extend((replicas > 0).then_some(Unblocker::FewerReplicas { replicas }));
    ways.extend(reasons.iter().filter_map(|reason| quota_way(cluster, shape, reason)));
    match never {
        Some(shortage) => {
            let chips = shortage.shortfall() * u64::from(shape.demand.chips());
            ways.push(Unblocker::AddChips { chips });
        }
        None => {
            ways.extend(hear_nodes(cluster, shape));
            // Moves bring free chips together; they make none.
            let scattered =
                |reason: &Reason| matches!(reason, Reason::Fragmented(_) | Reason::Scattered(_) | Reason::Topology);
            ways.extend(reasons.iter().any(scattered).then(|| consolidate(cluster, job, now)).flatten());
            ways.extend(end_leases(cluster, shape, now));
        }
    }
    ways
}

fn wait(cluster: &Cluster, until: Timestamp, leases: &[LeaseId], ahead: u64) -> Unblocker {
    let holder = |id: &LeaseId| Holder::of_lease(cluster, cluster.leases.get(id)?);
    let mut holders: Vec<Holder> = leases.iter().filter_map(holder).collect();
    holders.sort_by_key(|holder| std::cmp::Reverse(holder.slots));
    holders.truncate(NAMED_MAX);
    Unblocker::Wait { until, leases: holders, count: leases.len() as u64, ahead }
}

/// Moves that would bring scattered room together.
fn consolidate(cluster: &Cluster, job: JobId, now: Timestamp) -> Option<Unblocker> {
    let proposal = consolidate::propose(cluster, job, now)?;
    let holder = |step: &consolidate::Move| Holder::of_lease(cluster, cluster.leases.get(&step.lease)?);
    let mut leases: Vec<Holder> = proposal.moves.iter().filter_map(holder).collect();
    leases.sort_by_key(|holder| std::cmp::Reverse(holder.slots));
    leases.truncate(NAMED_MAX);
    Some(Unblocker::Consolidate {
        leases,
        count: proposal.moves.len() as u64,
        lost_slot_ms: proposal.lost_chip_ms.saturating_mul(u64::from(SLOTS_PER_CHIP)),
        allowed: cluster.policy.consolidation.is_some(),
    })
}

/// The first class the job does not accept on which it would fit now.
fn other_class(cluster: &Cluster, shape: &Shape) -> Option<Unblocker> {
    let accepted = |class: &DeviceClass| shape.device_classes.is_empty() || shape.device_classes.contains(class);
    let on = |class: &DeviceClass| Shape { device_classes: vec![class.clone()], ..shape.clone() };
    let others = cluster.fleet.classes.iter().filter(|class| !accepted(class));
    let found = others.into_iter().find(|class| would_start(cluster, &on(class)));
    found.map(|class| Unblocker::OtherClass { class: class.clone() })
}

/// What would satisfy the quota.
fn quota_way(cluster: &Cluster, shape: &Shape, reason: &Reason) -> Option<Unblocker> {
    match reason {
        Reason::QueueLimit { queue, class, slots } => Some(Unblocker::RaiseLimit {
            queue: queue.clone(),
            class: class.clone(),
            chips: slots.shortfall().div_ceil(u64::from(SLOTS_PER_CHIP)),
        }),
        Reason::BorrowLimit { .. } if !shape.preemptible => {
            let (_, still) = quota::within(cluster, &Shape { preemptible: true, ..shape.clone() });
            still.is_empty().then_some(Unblocker::BePreemptible)
        }
        _ => None,
    }
}

/// The fewest silent nodes that would hold what is missing, if they came back as they were.
fn hear_nodes(cluster: &Cluster, shape: &Shape) -> Option<Unblocker> {
    let scopes = place::class_scopes(cluster, shape);
    let nodes = scopes.iter().filter_map(|scope| silent_nodes(cluster, shape, scope)).min_by_key(Vec::len)?;
    let count = nodes.len() as u64;
    let nodes = nodes.into_iter().take(NAMED_MAX).map(|node| cluster.fleet.nodes[node].id.clone()).collect();
    Some(Unblocker::HearNodes { nodes, count })
}

fn silent_nodes(cluster: &Cluster, shape: &Shape, scope: &Scope) -> Option<Vec<NodeIx>> {
    let need = Need::of(shape);
    let pools = cluster.fleet.pools.iter().enumerate().filter(|(_, pool)| scope.admits(pool));
    let silent = pools.filter(|(_, pool)| cluster.fleet.nodes[pool.node].unknown_since.is_some());
    let mut fits: Vec<(u64, NodeIx)> = silent
        .map(|(ix, pool)| (need.fits(&free_if_known(cluster, ix)), pool.node))
        .filter(|(fits, _)| *fits > 0)
        .collect();
    fits.sort_by_key(|(fits, node)| (std::cmp::Reverse(*fits), *node));
    let wanted = u64::from(shape.replicas);
    // One place for all: only a node that holds the whole gang by itself is sure to help.
    if shape.same.is_some_and(|same| same.required) {
        return fits.first().filter(|(fits, _)| *fits >= wanted).map(|(_, node)| vec![*node]);
    }
    let mut missing = wanted.saturating_sub(place::fitting(Room::of(cluster).pools(), &need, scope)).max(1);
    let mut nodes = Vec::new();
    for (fits, node) in fits {
        nodes.push(node);
        missing = missing.saturating_sub(fits);
        if missing == 0 {
            return Some(nodes);
        }
    }
    None
}

/// What would be free in the pool of a silent node if it reported.
fn free_if_known(cluster: &Cluster, ix: usize) -> PoolFree {
    let node = &cluster.fleet.nodes[cluster.fleet.pools[ix].node];
    let chips = cluster.fleet.pool_chips[ix].iter().map(|&chip| &cluster.fleet.chips[chip]);
    let free = chips.filter(|chip| chip.in_service()).map(|chip| chip.free_slots());
    free.fold(
        PoolFree {
            cpu: node.cpu_free.saturating_sub(node.cpu_claimed),
            memory: node.memory_free.saturating_sub(node.memory_claimed),
            ..PoolFree::default()
        },
        |sum, slots| PoolFree {
            whole: sum.whole + u16::from(slots == SLOTS_PER_CHIP),
            most: sum.most.max(slots),
            ..sum
        },
    )
}

/// The cheapest leases whose end would make room, whether or not they may be taken, and why each is not.
fn end_leases(cluster: &Cluster, shape: &Shape, now: Timestamp) -> Option<Unblocker> {
    let (leases, cost) = in_the_way::cheapest(cluster, shape, now)?;
    let leases: Vec<&Lease> = leases.iter().filter_map(|id| cluster.lease(*id)).collect();
    let rights = Rights::of(cluster, shape, now);
    let spared = |lease: &Lease| spared(cluster, &rights, shape, lease, now);
    // Leases that leave by themselves are the business of waiting.
    if leases.iter().all(|lease| spared(lease) == Spared::Leaving) {
        return None;
    }
    let named = |lease: &&Lease| Some(InTheWay { holder: Holder::of_lease(cluster, lease)?, spared: spared(lease) });
    let mut named: Vec<InTheWay> = leases.iter().filter_map(named).collect();
    named.sort_by_key(|lease| (lease.spared == Spared::NotEnough, std::cmp::Reverse(lease.holder.slots)));
    named.truncate(NAMED_MAX);
    Some(Unblocker::EndLeases { leases: named, count: leases.len() as u64, cost })
}

fn spared(cluster: &Cluster, rights: &Rights<'_>, shape: &Shape, lease: &Lease, now: Timestamp) -> Spared {
    let Some(job) = cluster.job(lease.job).filter(|_| matches!(lease.state, LeaseState::Active)) else {
        return Spared::Leaving;
    };
    let in_budget = |queue: QueueIx| {
        cluster.ledger.accounts[queue].path.iter().all(|&ix| cluster.ledger.accounts[ix].may_be_preempted(now, 0))
    };
    if rights.may_evict(lease).is_some() {
        Spared::NotEnough
    } else if !job.spec.preemptible {
        Spared::NotPreemptible
    } else if job.spec.priority >= shape.priority {
        Spared::PriorityNotLower
    } else if job.protected_until(lease.granted_at) > now {
        let until = Some(job.protected_until(lease.granted_at)).filter(|until| *until < Timestamp::MAX);
        Spared::Protected { until }
    } else if cluster.queue_of(lease).is_some_and(|queue| !in_budget(queue)) {
        Spared::Budget
    } else {
        Spared::Guaranteed
    }
}
