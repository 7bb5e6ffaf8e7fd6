//! What must never be, counted anew from the log, the machines and what clients were told: nothing of the allocator's books
//! is believed.

use super::node::Node;
use chiptide_model::{
    Cause, ChipId, Event, JobId, JobSpec, LeaseId, NodeId, Placement, SLOTS_PER_CHIP, Slots, Timestamp,
};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// How a job stands, by the log alone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Standing {
    Pending,
    Leased(LeaseId),
    Ended,
}

#[derive(Clone, Debug, Default)]
struct Grant {
    job: Option<JobId>,
    live: bool,
    /// Slots of each chip, with the epoch.
    chips: BTreeMap<ChipId, (Vec<Slots>, u64)>,
}

/// The recount of one story.
#[derive(Clone, Debug, Default)]
pub(super) struct Recount {
    followed: usize,
    epochs: BTreeMap<ChipId, u64>,
    holders: BTreeMap<ChipId, BTreeSet<LeaseId>>,
    jobs: BTreeMap<JobId, (Standing, Arc<JobSpec>)>,
    live: BTreeMap<LeaseId, Grant>,
    /// Slots of every lease ever granted, those of a log that was forgotten included.
    slots: BTreeMap<(LeaseId, ChipId), Vec<Slots>>,
    claimed: BTreeSet<JobId>,
    pub(super) grants: u64,
}

impl Recount {
    /// How a job stands.
    pub(super) fn standing(&self, job: JobId) -> Option<Standing> {
        self.jobs.get(&job).map(|(standing, _)| *standing)
    }

    /// Jobs that are not over.
    pub(super) fn unfinished(&self) -> usize {
        self.jobs.values().filter(|(standing, _)| *standing != Standing::Ended).count()
    }

    /// Follows the log on; from the start if commits have been forgotten.
    pub(super) fn follow(
        &mut self,
        log: &[(Timestamp, Event)],
        nodes: &[Node],
        lenient: bool,
        found: &mut Vec<String>,
    ) {
        if log.len() < self.followed {
            let slots = std::mem::take(&mut self.slots);
            *self = Recount { slots, grants: self.grants, ..Recount::default() };
            // What led here was judged when it happened.
            log.iter().for_each(|(_, event)| self.take(event, None, &mut Vec::new()));
            self.followed = log.len();
            return;
        }
        for (_, event) in &log[self.followed..] {
            self.take(event, (!lenient).then_some(nodes), found);
        }
        self.followed = log.len();
    }

    fn take(&mut self, event: &Event, nodes: Option<&[Node]>, found: &mut Vec<String>) {
        match event {
            Event::JobSubmitted { job, spec, .. } => {
                let twice = self.jobs.insert(*job, (Standing::Pending, spec.clone())).is_some();
                found.extend(twice.then(|| format!("I5: job {job} is accepted twice")));
            }
            Event::JobEnded { job, .. } => self.end_job(*job, found),
            Event::ClaimMade { job, .. } => drop(self.claimed.insert(*job)),
            Event::ClaimDropped { job, .. } => drop(self.claimed.remove(job)),
            Event::LeaseGranted { lease, job, placements, extra, .. } => {
                self.grant(*lease, *job, placements, *extra, nodes, found)
            }
            Event::LeaseRevoked { cause: Cause::Preempt { for_job } | Cause::Reclaim { for_job }, .. } => {
                let waits = self.standing(*for_job) == Some(Standing::Pending);
                found.extend((!waits).then(|| format!("I6: a lease is taken for job {for_job}, which does not wait")));
            }
            Event::LeaseEnded { lease, next, .. } => self.end_lease(*lease, next, found),
            Event::ChipVacated { chip, lease, .. } => {
                if self.live.get(lease).is_some_and(|grant| grant.live) {
                    found.push(format!("I1: {chip} is vacated of a lease that lives, {lease}"));
                }
                let held = self.holders.entry(chip.clone()).or_default();
                if !held.remove(lease) {
                    found.push(format!("I1: {chip} is vacated of lease {lease}, which does not hold it"));
                }
            }
            _ => {}
        }
    }

    fn grant(
        &mut self,
        lease: LeaseId,
        job: JobId,
        placements: &[Placement],
        extra: bool,
        nodes: Option<&[Node]>,
        found: &mut Vec<String>,
    ) {
        self.grants += 1;
        self.claimed.remove(&job);
        match self.jobs.get_mut(&job) {
            Some((standing @ Standing::Pending, spec)) => {
                if placements.len() as u32 != spec.gang() {
                    found.push(format!("I4: job {job} is granted {} of {} replicas", placements.len(), spec.gang()));
                }
                *standing = Standing::Leased(lease);
            }
            Some(_) if extra => {}
            other => {
                found.push(format!("I5: lease {lease} is granted to job {job}, which is {:?}", other.map(|o| o.0)))
            }
        }
        let mut grant = Grant { job: Some(job), live: true, chips: BTreeMap::new() };
        for (node, hold) in placements.iter().flat_map(|p| p.holds.iter().map(move |hold| (&p.node, hold))) {
            let last = self.epochs.insert(hold.chip.clone(), hold.epoch);
            if last.is_some_and(|last| hold.epoch <= last) {
                found.push(format!("I3: {} is granted at epoch {} after {last:?}", hold.chip, hold.epoch));
            }
            for other in self.holders.get(&hold.chip).into_iter().flatten() {
                if *other != lease && overlap(&hold.slots, self.slots_of(*other, &hold.chip)) {
                    found.push(format!("I1: {} is granted to lease {lease} while lease {other} holds it", hold.chip));
                }
            }
            self.holders.entry(hold.chip.clone()).or_default().insert(lease);
            self.slots.insert((lease, hold.chip.clone()), hold.slots.clone());
            grant.chips.insert(hold.chip.clone(), (hold.slots.clone(), hold.epoch));
            if let Some(nodes) = nodes {
                self.must_be_empty(lease, node, &hold.chip, nodes, found);
            }
        }
        self.live.insert(lease, grant);
    }

    /// A chip that is granted must be free in fact, not only in the books.
    fn must_be_empty(&self, lease: LeaseId, node: &NodeId, chip: &ChipId, nodes: &[Node], found: &mut Vec<String>) {
        let Some(node) = nodes.iter().find(|known| known.name == node.as_str()) else { return };
        let Some(at) = node.chips.iter().position(|known| known.name == *chip) else { return };
        if node.chips[at].lies_until > 0 {
            return;
        }
        let mine = self.slots_of(lease, chip);
        for process in node.processes.iter().filter(|process| process.chips.contains(&at)) {
            let other = LeaseId(process.key.lease);
            if other != lease && overlap(mine, self.slots_of(other, chip)) {
                found.push(format!("I2: {chip} is granted to lease {lease} while a process of lease {other} is on it"));
            }
        }
    }

    fn slots_of(&self, lease: LeaseId, chip: &ChipId) -> &[Slots] {
        const WHOLE: [Slots; 1] = [Slots::WHOLE];
        self.slots.get(&(lease, chip.clone())).map_or(&WHOLE, Vec::as_slice)
    }

    fn end_lease(&mut self, lease: LeaseId, next: &chiptide_model::Next, found: &mut Vec<String>) {
        let Some(grant) = self.live.get_mut(&lease).filter(|grant| grant.live) else {
            found.push(format!("I5: lease {lease} ends, which does not live"));
            return;
        };
        grant.live = false;
        let Some(job) = grant.job else { return };
        match next {
            chiptide_model::Next::Pending => {
                if let Some((standing, _)) = self.jobs.get_mut(&job) {
                    *standing = Standing::Pending;
                }
            }
            chiptide_model::Next::Ended(_) => self.end_job(job, found),
            chiptide_model::Next::Unchanged => {}
        }
    }

    fn end_job(&mut self, job: JobId, found: &mut Vec<String>) {
        match self.jobs.get_mut(&job) {
            Some((standing, _)) if *standing != Standing::Ended => *standing = Standing::Ended,
            _ => found.push(format!("I5: job {job} ends, which is not there or over")),
        }
    }

    /// No two processes of different leases are on the same slots of a chip. A chip whose driver has lied is let be: the one
    /// thing that a lie may break.
    pub(super) fn look_at(&self, nodes: &[Node], found: &mut Vec<String>) {
        for node in nodes.iter().filter(|node| node.processes.len() > 1) {
            for (at, chip) in node.chips.iter().enumerate().filter(|(_, chip)| chip.lies_until == 0) {
                let here: Vec<LeaseId> =
                    node.processes.iter().filter(|p| p.chips.contains(&at)).map(|p| LeaseId(p.key.lease)).collect();
                for (first, one) in here.iter().enumerate() {
                    for other in here[first + 1..].iter().filter(|other| *other != one) {
                        if overlap(self.slots_of(*one, &chip.name), self.slots_of(*other, &chip.name)) {
                            found.push(format!("I2: processes of leases {one} and {other} share {}", chip.name));
                        }
                    }
                }
            }
        }
    }
}

fn overlap(one: &[Slots], other: &[Slots]) -> bool {
    debug_assert!(one.iter().all(|slots| slots.end() <= SLOTS_PER_CHIP));
    one.iter().any(|slots| other.iter().any(|taken| slots.overlaps(*taken)))
}
