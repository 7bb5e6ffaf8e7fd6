//! The recount: everything the cluster must never be, found by counting anew rather than by trusting the books.

use crate::cluster::{Cluster, Timer};
use crate::faults;
use crate::fleet::Chip;
use crate::touched::Touched;
use chiptide_model::{
    Cause, ChipDemand, ChipId, Holder, Job, JobId, JobState, Lease, LeaseId, LeaseState, SLOTS_PER_CHIP, Slots,
};
use std::collections::BTreeSet;
use std::fmt;

/// A broken invariant, by its number in the design, with the evidence.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Violation {
    /// `I1` no slot held twice, `I3` epochs only grow, `I4` gangs whole, `I5` every job in exactly one state,
    /// `books` a count that memory keeps and that is wrong.
    pub invariant: &'static str,
    /// What was found.
    pub evidence: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.invariant, self.evidence)
    }
}

fn broken(invariant: &'static str, evidence: String) -> Violation {
    Violation { invariant, evidence }
}

/// Recounts the whole cluster. Costs as much as the cluster is large: for tests, simulation and debug builds.
pub fn check(cluster: &Cluster) -> Vec<Violation> {
    let mut found = Vec::new();
    for chip in &cluster.fleet.chips {
        chip_is_sound(cluster, chip, &mut found);
    }
    for lease in cluster.leases.values() {
        lease_is_sound(cluster, lease, &mut found);
    }
    for job in cluster.jobs.values() {
        job_is_sound(cluster, job, &mut found);
    }
    for node in 0..cluster.fleet.nodes.len() {
        node_is_sound(cluster, node, &mut found);
    }
    for holder in cluster.reservations().map(|(holder, _)| holder) {
        reservation_is_sound(cluster, holder, &mut found);
    }
    for lease in cluster.leases.values() {
        if cluster.reservations.leaving.by(lease.id) != cluster.vacant_by(lease) {
            found.push(broken("books", format!("when lease {} leaves is noted wrongly", lease.id)));
        }
    }
    totals_are_sound(cluster, &mut found);
    found
}

/// Recounts only what has changed: cheap enough for every round in production.
pub fn check_touched(cluster: &Cluster, touched: &Touched) -> Vec<Violation> {
    let mut found = Vec::new();
    for chip in touched.chips.iter().filter_map(|id: &ChipId| cluster.chip(id)) {
        chip_is_sound(cluster, chip, &mut found);
    }
    for lease in touched.leases.iter().filter_map(|id: &LeaseId| cluster.lease(*id)) {
        lease_is_sound(cluster, lease, &mut found);
    }
    for job in touched.jobs.iter().filter_map(|id: &JobId| cluster.job(*id)) {
        job_is_sound(cluster, job, &mut found);
    }
    for holder in &touched.reservations {
        reservation_is_sound(cluster, holder, &mut found);
    }
    found
}

fn chip_is_sound(cluster: &Cluster, chip: &Chip, found: &mut Vec<Violation>) {
    let id = &chip.facts.id;
    if let Some(twice) = overlap(chip.holds.iter().flat_map(|hold| hold.slots.iter().copied())) {
        found.push(broken("I1", format!("slots {twice:?} of chip {id} are held twice")));
    }
    if let Some(twice) = overlap(chip.claims.iter().flat_map(|(_, slots)| slots.iter().copied())) {
        found.push(broken("I1", format!("slots {twice:?} of chip {id} are promised twice")));
    }
    for hold in &chip.holds {
        if hold.epoch > chip.epoch {
            found.push(broken("I3", format!("chip {id} is at epoch {}, a hold of it at {}", chip.epoch, hold.epoch)));
        }
        let lease = cluster.leases.get(&hold.lease);
        let named = lease.is_some_and(|lease| {
            let mut holds = lease.placements.iter().flat_map(|placement| &placement.holds);
            lease.is_live() == hold.vacate_by.is_none()
                && holds.any(|wanted| wanted.chip == *id && wanted.slots == hold.slots && wanted.epoch == hold.epoch)
        });
        if !named {
            found.push(broken("books", format!("chip {id} is held by lease {}, which does not say so", hold.lease)));
        }
    }
    let is_out = chip.quarantine.is_some();
    if let Some(wanted) = faults::wanted(cluster, chip).filter(|_| !is_out) {
        found.push(broken("books", format!("chip {id} is in service although: {wanted}")));
    }
    reserved_is_sound(cluster, chip, found);
    for (job, slots) in &chip.claims {
        let named = cluster.claims.get(job).is_some_and(|claim| {
            let mut holds = claim.placements.iter().flat_map(|placement| &placement.holds);
            holds.any(|wanted| wanted.chip == *id && wanted.slots == *slots)
        });
        if !named {
            found.push(broken("books", format!("chip {id} is promised to job {job}, which claims nothing there")));
        }
    }
}

/// No slot is set aside for two jobs, nor for two windows of the calendar. A job may have its own within a window.
fn reserved_is_sound(cluster: &Cluster, chip: &Chip, found: &mut Vec<Violation>) {
    let id = &chip.facts.id;
    let of_job = |holder: &Holder| matches!(holder, Holder::Job(_));
    for jobs in [true, false] {
        let reserved = chip.reserved.iter().filter(|(holder, _)| of_job(holder) == jobs);
        if let Some(twice) = overlap(reserved.flat_map(|(_, slots)| slots.iter().copied())) {
            found.push(broken("I1", format!("slots {twice:?} of chip {id} are reserved twice")));
        }
    }
    for (holder, slots) in &chip.reserved {
        let reservation = cluster.reservation(holder);
        let mut holds = reservation.into_iter().flat_map(|known| &known.placements).flat_map(|known| &known.holds);
        if !holds.any(|wanted| wanted.chip == *id && wanted.slots == *slots) {
            found.push(broken("books", format!("chip {id} is reserved for {holder}, which has nothing there")));
        }
    }
}

fn reservation_is_sound(cluster: &Cluster, holder: &Holder, found: &mut Vec<Violation>) {
    let Some(reservation) = cluster.reservation(holder) else { return };
    for hold in reservation.placements.iter().flat_map(|placement| &placement.holds) {
        let there = cluster
            .chip(&hold.chip)
            .is_some_and(|chip| chip.reserved.iter().any(|(owner, slots)| owner == holder && *slots == hold.slots));
        if !there {
            found.push(broken("books", format!("{holder} has chip {} reserved, which does not say so", hold.chip)));
        }
    }
    let Holder::Job(id) = holder else { return };
    let moving = |job: &Job| {
        let lease = job.state.lease().and_then(|lease| cluster.lease(lease));
        matches!(lease.map(|lease| &lease.state), Some(LeaseState::Revoking { cause: Cause::Consolidate { .. }, .. }))
    };
    if !cluster.job(*id).is_some_and(|job| cluster.waits(*id) || moving(job)) {
        found.push(broken("I5", format!("job {id} has a reservation and neither waits nor moves")));
    }
}

fn overlap(ranges: impl Iterator<Item = Slots>) -> Option<Slots> {
    let mut ranges: Vec<Slots> = ranges.collect();
    ranges.sort_unstable();
    ranges.windows(2).find(|pair| pair[0].overlaps(pair[1])).map(|pair| pair[1])
}

fn lease_is_sound(cluster: &Cluster, lease: &Lease, found: &mut Vec<Violation>) {
    let id = lease.id;
    if !lease.is_live() {
        return;
    }
    let Some(job) = cluster.jobs.get(&lease.job) else {
        found.push(broken("I5", format!("live lease {id} belongs to job {}, which is not live", lease.job)));
        return;
    };
    let is_named = if lease.extra { job.extras.contains(&id) } else { job.state.lease() == Some(id) };
    if !is_named {
        found.push(broken("I5", format!("live lease {id} is not the lease of job {}", job.id)));
    }
    if let Some(fault) = gang_fault(cluster, job, lease) {
        found.push(broken("I4", format!("lease {id} of job {}: {fault}", job.id)));
    }
    for placement in &lease.placements {
        for hold in &placement.holds {
            let held = cluster.chip(&hold.chip).is_some_and(|chip| {
                chip.holds.iter().any(|held| held.lease == id && held.slots == hold.slots && held.vacate_by.is_none())
            });
            if !held {
                found.push(broken("I4", format!("lease {id} names chip {}, which it does not hold", hold.chip)));
            }
        }
    }
}

/// What is wrong with a lease as the whole of its job's gang.
fn gang_fault(cluster: &Cluster, job: &Job, lease: &Lease) -> Option<String> {
    let wanted = if lease.extra { 1 } else { job.spec.gang() };
    if lease.placements.len() != wanted as usize {
        return Some(format!("{} of {wanted} replicas placed", lease.placements.len()));
    }
    lease.placements.iter().find_map(|placement| {
        let held: u64 = placement.holds.iter().flat_map(|h| &h.slots).map(|s| u64::from(s.count())).sum();
        let wanted = match job.spec.demand {
            ChipDemand::Chips(n) => u64::from(n) * u64::from(SLOTS_PER_CHIP),
            ChipDemand::ShareSlots(slots) => u64::from(slots),
            ChipDemand::ShareMemory(_) => {
                let chip = cluster.chip(&placement.holds.first()?.chip)?;
                u64::from(job.spec.demand.slots_of(chip.facts.memory_mib).unwrap_or(0))
            }
        };
        (held != wanted).then(|| format!("replica {} holds {held} slots of {wanted}", placement.replica))
    })
}

fn job_is_sound(cluster: &Cluster, job: &Job, found: &mut Vec<Violation>) {
    let id = job.id;
    let waits = cluster.queue.contains(&job.spec, job.place);
    let claims = cluster.claims.contains_key(&id);
    extras_are_sound(cluster, job, found);
    match &job.state {
        JobState::Pending if waits == claims => {
            found.push(broken("I5", format!("pending job {id}: in the queue {waits}, holding a claim {claims}")));
        }
        JobState::Pending => {}
        JobState::Ended(_) => found.push(broken("I5", format!("ended job {id} is still live"))),
        _ if waits || claims => found.push(broken("I5", format!("job {id} holds a lease and waits"))),
        _ => {
            let live = job.state.lease().and_then(|lease| cluster.leases.get(&lease));
            if !live.is_some_and(|lease| lease.is_live() && !lease.extra && lease.job == id) {
                found.push(broken("I5", format!("job {id} is {} without a live lease", job.state.as_str())));
            }
        }
    }
}

/// An elastic job holds its base lease and beside it extra replicas, each a lease of its own, up to its size.
fn extras_are_sound(cluster: &Cluster, job: &Job, found: &mut Vec<Violation>) {
    let id = job.id;
    if job.extras.is_empty() {
        return;
    }
    if job.state.lease().is_none() || job.replicas_held() > job.spec.replicas {
        let evidence = format!("{} job {id} holds {} extra replicas", job.state.as_str(), job.extras.len());
        found.push(broken("I4", evidence));
    }
    let held = job.state.lease().into_iter().chain(job.extras.iter().copied());
    let leases: Vec<&Lease> = held.filter_map(|lease| cluster.leases.get(&lease)).collect();
    let replicas: Vec<u32> = leases.iter().flat_map(|lease| &lease.placements).map(|p| p.replica).collect();
    if replicas.iter().collect::<BTreeSet<_>>().len() != replicas.len() {
        found.push(broken("I4", format!("job {id} runs one of its replicas twice: {replicas:?}")));
    }
    for extra in &job.extras {
        let lease = cluster.leases.get(extra);
        if !lease.is_some_and(|lease| lease.is_live() && lease.extra && lease.job == id) {
            found.push(broken("I4", format!("job {id} names extra lease {extra}, which it does not hold")));
        }
    }
}

fn node_is_sound(cluster: &Cluster, ix: usize, found: &mut Vec<Violation>) {
    let node = &cluster.fleet.nodes[ix];
    for pool in cluster.fleet.pools_of(ix) {
        if cluster.fleet.pools[pool].free != cluster.fleet.count_free(pool) {
            found.push(broken("books", format!("a pool of node {} does not count what is free", node.id)));
        }
        if !cluster.fleet.index_is_sound(pool) {
            found.push(broken("books", format!("placement sees a pool of node {} as it is not", node.id)));
        }
    }
    if (node.cpu_reserved, node.memory_reserved) != cluster.reserved_on(ix) {
        found.push(broken("books", format!("what is set aside on node {} is counted wrongly", node.id)));
    }
    let here = node.leases.iter().filter_map(|id| cluster.leases.get(id)).flat_map(|lease| &lease.placements);
    let cpu: u64 = here.filter(|placement| placement.node == node.id).map(|placement| placement.cpu_milli).sum();
    if node.cpu_free != node.facts.cpu_milli.saturating_sub(cpu) {
        let evidence =
            format!("node {}: {} CPU free of {}, {cpu} in use", node.id, node.cpu_free, node.facts.cpu_milli);
        found.push(broken("books", evidence));
    }
}

fn totals_are_sound(cluster: &Cluster, found: &mut Vec<Violation>) {
    let pending = cluster.jobs.values().filter(|job| job.state == JobState::Pending).count();
    if pending != cluster.queue.len() + cluster.claims.len() {
        let evidence = format!("{pending} pending, {} queued, {} promised", cluster.queue.len(), cluster.claims.len());
        found.push(broken("I5", evidence));
    }
    timers_are_sound(cluster, found);
    found.extend(cluster.stakes_fault().map(|evidence| broken("books", evidence)));
    let holds = || cluster.fleet.chips.iter().flat_map(|chip| &chip.holds);
    if cluster.vacating != holds().filter(|hold| hold.vacate_by.is_some()).count() {
        found.push(broken("books", format!("{} holds said to be vacating", cluster.vacating)));
    }
    ledger_is_sound(cluster, found);
    if cluster.priorities.values().sum::<usize>() != cluster.jobs.len() {
        found.push(broken("books", "the count of live jobs by priority is wrong".into()));
    }
}

/// What the clock will do to each lease follows from its state and that of its nodes, and from nothing else.
fn timers_are_sound(cluster: &Cluster, found: &mut Vec<Violation>) {
    let kept = cluster.timers.iter().filter(|(_, timer)| !matches!(timer, Timer::Claim(_)));
    let kept: BTreeSet<_> = kept.cloned().collect();
    let of_leases = cluster.leases.values().flat_map(|lease| cluster.dues(lease)).flatten();
    let wanted: BTreeSet<_> = of_leases.chain(cluster.proofs_of_all()).collect();
    if let Some((at, timer)) = kept.symmetric_difference(&wanted).next() {
        found
            .push(broken("books", format!("timer {timer:?} at {at:?} is kept and not wanted, or wanted and not kept")));
    }
}

/// Counts every queue's holdings anew, and compares them with its limit.
fn ledger_is_sound(cluster: &Cluster, found: &mut Vec<Violation>) {
    let mut recount = cluster.ledger.clone();
    cluster.charge_all(&mut recount);
    for (account, counted) in cluster.ledger.accounts.iter().zip(&recount.accounts) {
        let name = &account.name;
        if (&account.used, &account.leaving, &account.firm) != (&counted.used, &counted.leaving, &counted.firm) {
            found.push(broken("books", format!("the account of queue {name} does not count what its jobs hold")));
        }
        for (column, limit) in account.limit.iter().enumerate() {
            let Some(limit) = limit.map(|limit| limit.max(account.tolerated[column])) else { continue };
            let held = account.settled(column);
            if held > limit {
                found.push(broken("I9", format!("queue {name} holds {held} slots of column {column}, limit {limit}")));
            }
        }
    }
}
