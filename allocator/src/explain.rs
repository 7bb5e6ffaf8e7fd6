//! Why a pending job waits: every blocker at once, with numbers. Computed on demand; a round never pays for it.

use crate::cluster::Cluster;
use crate::fleet::{Pool, PoolFree};
use crate::place::{self, Scope};
use crate::queue::Shape;
use crate::reservations;
use crate::room::Need;
use chiptide_model::{ChipDemand, DeviceClass, Job, JobState, SLOTS_PER_CHIP, Timestamp};
use rustc_hash::FxHashMap;

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
    /// Chips on nodes that do not report.
    NodesUnknown {
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
}

/// Explains jobs of one cluster, each shape once: jobs that ask for the same wait for the same reasons.
#[derive(Debug)]
pub struct Explainer<'a> {
    cluster: &'a Cluster,
    known: FxHashMap<Shape, Vec<Reason>>,
}

impl<'a> Explainer<'a> {
    /// An explainer of this cluster as it is.
    pub fn of(cluster: &'a Cluster) -> Explainer<'a> {
        Explainer { cluster, known: FxHashMap::default() }
    }

    /// The cluster it explains.
    pub fn cluster(&self) -> &'a Cluster {
        self.cluster
    }

    /// Every reason why a pending job has not started; empty for one that is not pending.
    pub fn explain(&mut self, job: &Job) -> Vec<Reason> {
        if job.state != JobState::Pending || self.cluster.claim(job.id).is_some() {
            return explain(self.cluster, job);
        }
        let shape = Shape::of(&job.spec);
        let known = self.known.entry(shape).or_insert_with_key(|shape| blockers(self.cluster, shape)).clone();
        [known, reservations::reasons(self.cluster, job)].concat()
    }
}

/// Every reason why a pending job has not started; empty for one that is not pending.
pub fn explain(cluster: &Cluster, job: &Job) -> Vec<Reason> {
    if job.state != JobState::Pending {
        return Vec::new();
    }
    if let Some(claim) = cluster.claim(job.id) {
        let holds = || claim.placements.iter().flat_map(|placement| &placement.holds);
        let occupied = |hold: &&chiptide_model::Hold| {
            let held = cluster.chip(&hold.chip).into_iter().flat_map(|chip| &chip.holds).flat_map(|held| &held.slots);
            held.into_iter().any(|held| hold.slots.iter().any(|slots| slots.overlaps(*held)))
        };
        let (chips, waiting_for) = (holds().count() as u64, holds().filter(occupied).count() as u64);
        return vec![Reason::AwaitingVacancy { chips, waiting_for, deadline: claim.deadline }];
    }
    [blockers(cluster, &Shape::of(&job.spec)), reservations::reasons(cluster, job)].concat()
}

fn blockers(cluster: &Cluster, shape: &Shape) -> Vec<Reason> {
    let mut reasons = Vec::new();
    let absent = |class: &&DeviceClass| !cluster.fleet.classes.contains(class);
    reasons.extend(shape.device_classes.iter().filter(absent).map(|class| Reason::NoSuchClass(class.clone())));
    let requested = u64::from(shape.replicas);
    let capacity = place::capacity(cluster, shape);
    if capacity < requested {
        reasons.push(Reason::NeverFits(Shortage { requested, available: capacity }));
        return reasons;
    }
    reasons.extend(shortages(cluster, shape));
    let unknown = unknown_chips(cluster, shape);
    if unknown > 0 {
        reasons.push(Reason::NodesUnknown { chips: unknown });
    }
    if reasons.is_empty() {
        let nearness = shape.same.is_some() && place::find(cluster, &Shape { same: None, ..shape.clone() }).is_some();
        reasons.push(if nearness { Reason::Topology } else { Reason::NextRound });
    }
    reasons
}

/// What is short now, in the best of the scopes the job may use.
fn shortages(cluster: &Cluster, shape: &Shape) -> Vec<Reason> {
    let scopes = place::class_scopes(cluster, shape);
    let best = |need: &Need, cap: &dyn Fn(&PoolFree) -> PoolFree| {
        scopes.iter().map(|scope| replicas(cluster, scope, need, cap)).max().unwrap_or(0)
    };
    let need = Need::of(shape);
    let requested = u64::from(shape.replicas);
    let plenty = |free: &PoolFree| PoolFree { cpu: u64::MAX, memory: u64::MAX, ..*free };
    let (by_chips, by_cpu, by_memory) = (
        best(&need, &plenty),
        best(&need, &|free| PoolFree { memory: u64::MAX, ..*free }),
        best(&need, &|free| PoolFree { cpu: u64::MAX, ..*free }),
    );
    let short = |available| Shortage { requested, available };
    let mut reasons = Vec::new();
    if by_chips < requested {
        let slots = scopes.iter().map(|scope| free_slots(cluster, scope)).max().unwrap_or(0);
        let wanted = requested * wanted_slots(shape);
        let chips = |slots: u64| slots / u64::from(SLOTS_PER_CHIP);
        reasons.push(if slots < wanted {
            let requested = wanted.div_ceil(u64::from(SLOTS_PER_CHIP));
            Reason::InsufficientChips(Shortage { requested, available: chips(slots) })
        } else {
            Reason::Fragmented(short(by_chips))
        });
    }
    if by_cpu < by_chips.min(requested) {
        reasons.push(Reason::InsufficientCpu(short(by_cpu)));
    }
    if by_memory < by_chips.min(requested) {
        reasons.push(Reason::InsufficientMemory(short(by_memory)));
    }
    // Each may suffice where the other does not: then no single one is short, and still no node has all.
    let by_all = best(&need, &|free| *free);
    if reasons.is_empty() && by_all < requested {
        reasons.push(Reason::Scattered(short(by_all)));
    }
    reasons
}

/// Slots of one replica; a share by memory counts as the least it could take.
fn wanted_slots(shape: &Shape) -> u64 {
    match shape.demand {
        ChipDemand::Chips(n) => u64::from(n) * u64::from(SLOTS_PER_CHIP),
        ChipDemand::ShareSlots(slots) => u64::from(slots),
        ChipDemand::ShareMemory(_) => 1,
    }
}

fn pools<'a>(cluster: &'a Cluster, scope: &'a Scope) -> impl Iterator<Item = (usize, &'a Pool)> {
    cluster.fleet.pools.iter().enumerate().filter(|(_, pool)| scope.admits(pool))
}

fn replicas(cluster: &Cluster, scope: &Scope, need: &Need, cap: &dyn Fn(&PoolFree) -> PoolFree) -> u64 {
    let fit = |(ix, pool): (usize, &Pool)| {
        let node_fit = need.fits_node(&cap(&pool.free));
        if !need.demand.is_share() {
            return need.fits(&cap(&pool.free));
        }
        let on_chip = |&chip: &usize| {
            let state = &cluster.fleet.chips[chip];
            let slots = need.demand.slots_of(state.facts.memory_mib)?;
            state.in_service().then(|| u64::from(state.free_slots() / slots.max(1)))
        };
        let known = cluster.fleet.nodes[pool.node].unknown_since.is_none();
        let chips: u64 = cluster.fleet.pool_chips[ix].iter().filter_map(on_chip).sum();
        if known { chips.min(node_fit) } else { 0 }
    };
    pools(cluster, scope).map(fit).fold(0, u64::saturating_add)
}

fn free_slots(cluster: &Cluster, scope: &Scope) -> u64 {
    let known = pools(cluster, scope).filter(|(_, pool)| cluster.fleet.nodes[pool.node].unknown_since.is_none());
    let chips = known.flat_map(|(ix, _)| &cluster.fleet.pool_chips[ix]).map(|&chip| &cluster.fleet.chips[chip]);
    chips.filter(|chip| chip.in_service()).map(|chip| u64::from(chip.free_slots())).sum()
}

fn unknown_chips(cluster: &Cluster, shape: &Shape) -> u64 {
    let scope = Scope::default();
    let wanted =
        |class: usize| shape.device_classes.is_empty() || shape.device_classes.contains(&cluster.fleet.classes[class]);
    let unknown = pools(cluster, &scope).filter(|(_, pool)| cluster.fleet.nodes[pool.node].unknown_since.is_some());
    unknown.filter(|(_, pool)| wanted(pool.class)).map(|(ix, _)| cluster.fleet.pool_chips[ix].len() as u64).sum()
}
