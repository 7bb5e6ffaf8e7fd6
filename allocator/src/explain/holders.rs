//! Who has the chips a job could use: the few that matter, and how many there are in all.

use crate::cluster::Cluster;
use crate::queue::Shape;
use chiptide_model::{Job, JobId, Kind, Lease, LeaseId, Placement, Timestamp};
use std::cmp::Reverse;

/// Holders named; the rest are counted.
const NAMED_MAX: usize = 5;

/// Somebody who has chips: by a lease, or by a promise.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Holder {
    /// The job.
    pub job: JobId,
    /// Its name.
    pub name: String,
    /// Its queue.
    pub queue: String,
    /// Its priority.
    pub priority: i32,
    /// Training or inference.
    pub kind: Kind,
    /// The lease; `None` for a promise that is not kept yet.
    pub lease: Option<LeaseId>,
    /// Slots held, a chip being [`chiptide_model::SLOTS_PER_CHIP`] of them.
    pub slots: u64,
    /// By when its chips are proven vacant at the latest, where that is known.
    pub leaves_by: Option<Timestamp>,
}

/// Everybody who has chips of one kind.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Holders {
    /// Those who hold most, the largest first.
    pub named: Vec<Holder>,
    /// How many there are.
    pub count: u64,
    /// Slots that all of them hold together.
    pub slots: u64,
}

impl Holder {
    pub(super) fn of_lease(cluster: &Cluster, lease: &Lease) -> Option<Holder> {
        let job = cluster.job(lease.job);
        let holder = Holder::new(job?, Some(lease.id), slots_of(&lease.placements));
        Some(Holder { leaves_by: cluster.vacant_by(lease), ..holder })
    }

    fn new(job: &Job, lease: Option<LeaseId>, slots: u64) -> Holder {
        let spec = &job.spec;
        Holder {
            job: job.id,
            name: spec.name.clone(),
            queue: spec.queue.clone(),
            priority: spec.priority,
            kind: spec.kind,
            lease,
            slots,
            leaves_by: None,
        }
    }
}

/// Everybody who has chips of the classes a shape accepts; `None` if nobody has.
pub(super) fn of_shape(cluster: &Cluster, shape: &Shape) -> Option<Holders> {
    let any = shape.device_classes.is_empty()
        || cluster.fleet.classes.iter().all(|class| shape.device_classes.contains(class));
    let accepted = |placements: &[Placement]| {
        // A training gang never mixes classes and a replica never does, so the first chip of each replica tells.
        let first = |placement: &Placement| placement.holds.first().and_then(|hold| cluster.chip(&hold.chip));
        any || placements.iter().filter_map(first).any(|chip| shape.device_classes.contains(&chip.facts.class))
    };
    let mut largest: Largest = Largest::default();
    for lease in cluster.leases.values().filter(|lease| accepted(&lease.placements)) {
        largest.add(slots_of(&lease.placements), Who::Lease(lease));
    }
    for (job, claim) in cluster.claims.iter().filter(|(_, claim)| accepted(&claim.placements)) {
        largest.add(slots_of(&claim.placements), Who::Claim(*job));
    }
    Some(largest.name(cluster)).filter(|holders| holders.count > 0)
}

/// Everybody who is charged to a queue or one below it.
pub(super) fn of_queue(cluster: &Cluster, queue: &str) -> Option<Holders> {
    let queue = cluster.ledger.find(queue)?;
    let charged = |lease: &&Lease| {
        lease.is_live() && cluster.queue_of(lease).is_some_and(|ix| cluster.ledger.accounts[ix].path.contains(&queue))
    };
    let mut largest = Largest::default();
    for lease in cluster.leases.values().filter(charged) {
        largest.add(slots_of(&lease.placements), Who::Lease(lease));
    }
    Some(largest.name(cluster)).filter(|holders| holders.count > 0)
}

/// Those who have yet to leave the chips promised to a job.
pub(super) fn of_claim(cluster: &Cluster, job: JobId) -> Option<Holders> {
    let claim = cluster.claim(job)?;
    let mut largest = Largest::default();
    let mut seen = std::collections::BTreeSet::new();
    for hold in claim.placements.iter().flat_map(|placement| &placement.holds) {
        for held in cluster.chip(&hold.chip).into_iter().flat_map(|chip| &chip.holds) {
            let overlaps = held.slots.iter().any(|held| hold.slots.iter().any(|slots| slots.overlaps(*held)));
            if let Some(lease) = cluster.lease(held.lease).filter(|_| overlaps && seen.insert(held.lease)) {
                largest.add(slots_of(&lease.placements), Who::Lease(lease));
            }
        }
    }
    Some(largest.name(cluster)).filter(|holders| holders.count > 0)
}

fn slots_of(placements: &[Placement]) -> u64 {
    let slots = placements.iter().flat_map(|placement| &placement.holds).flat_map(|hold| &hold.slots);
    slots.map(|slots| u64::from(slots.count())).sum()
}

enum Who<'a> {
    Lease(&'a Lease),
    Claim(JobId),
}

/// The largest holders met so far, in order, and the sums over all of them.
#[derive(Default)]
struct Largest<'a> {
    top: Vec<(Reverse<u64>, u64, Who<'a>)>,
    count: u64,
    slots: u64,
}

impl<'a> Largest<'a> {
    /// Ties go to whoever is met first: leases and promises are met in the order of their ids.
    fn add(&mut self, slots: u64, who: Who<'a>) {
        let key = (Reverse(slots), self.count);
        (self.count, self.slots) = (self.count + 1, self.slots + slots);
        let at = self.top.partition_point(|(slots, met, _)| (*slots, *met) < key);
        if at < NAMED_MAX {
            self.top.insert(at, (key.0, key.1, who));
            self.top.truncate(NAMED_MAX);
        }
    }

    fn name(self, cluster: &Cluster) -> Holders {
        let name = |(Reverse(slots), _, who): (Reverse<u64>, u64, Who<'a>)| match who {
            Who::Lease(lease) => Holder::of_lease(cluster, lease),
            Who::Claim(job) => Some(Holder::new(cluster.job(job)?, None, slots)),
        };
        Holders { named: self.top.into_iter().filter_map(name).collect(), count: self.count, slots: self.slots }
    }
}
