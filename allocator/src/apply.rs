//! How each event changes the cluster. Total: an event that does not fit the state is reported, never panics, so a
//! corrupt log is found and named instead of taking the daemon down.

use crate::cluster::{Claim, Cluster, Timer};
use crate::fleet::{Chip, ChipHold, ChipIx, Node, NodeIx};
use chiptide_model::{
    Cause, ChipFacts, ChipId, Event, Health, Job, JobId, JobSpec, JobState, Lease, LeaseId, LeaseState, Next, NodeId,
    Outcome, Placement, Quarantine, Timestamp,
};
use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

/// An event names something that is not there, or is not in a state it can change.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Unfounded {
    /// The event's kind.
    pub event: &'static str,
    /// What is missing.
    pub missing: String,
}

impl fmt::Display for Unfounded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "event {} does not fit the state: {}", self.event, self.missing)
    }
}
impl std::error::Error for Unfounded {}

type Applied = Result<(), String>;

impl Cluster {
    /// Applies the next event of the log, which happened at `at`.
    pub fn apply(&mut self, at: Timestamp, event: &Event) -> Result<(), Unfounded> {
        self.seq += 1;
        let applied = match event {
            Event::LeaderTookOver { epoch } => self.on_took_over(at, *epoch),
            Event::PolicyApplied { policy } => {
                self.policy = policy.clone();
                self.touched.policy = true;
                Ok(())
            }
            Event::NodeRegistered { node, session, boot_id, facts, chips } => {
                let fresh = Node {
                    id: node.clone(),
                    facts: facts.clone(),
                    session: *session,
                    boot_id: boot_id.clone(),
                    unknown_since: None,
                    chips: Vec::new(),
                    cpu_free: facts.cpu_milli,
                    memory_free: facts.memory_mib,
                    cpu_claimed: 0,
                    memory_claimed: 0,
                    leases: BTreeSet::new(),
                    orders_revision: 0,
                };
                self.on_registered(fresh, chips)
            }
            Event::NodeHeard { node } => self.on_known(node, None),
            Event::NodeSilent { node } => self.on_known(node, Some(at)),
            Event::ChipHealthChanged { chip, health } => self.on_chip(chip, |chip| chip.health = health.clone()),
            Event::ChipQuarantined { chip, quarantine } => self.on_quarantine(chip, Some(quarantine)),
            Event::ChipRestored { chip } => self.on_quarantine(chip, None),
            Event::ChipVacated { chip, lease, .. } => self.on_vacated(chip, *lease),
            Event::JobSubmitted { job, place, spec } => self.on_submitted(at, *job, *place, spec),
            Event::JobStarted { job } => self.on_started(at, *job),
            Event::JobEnded { job, outcome } => self.on_job_ended(at, *job, outcome.clone()),
            Event::ClaimMade { job, placements, victims, deadline } => {
                let (placements, victims) = (placements.clone(), victims.clone());
                self.on_claim(*job, Claim { placements, victims, since: at, deadline: *deadline })
            }
            Event::ClaimDropped { job, .. } => self.on_claim_dropped(*job),
            Event::LeaseGranted { lease, job, attempt, placements, expires_at, ends_at } => self.on_granted(Lease {
                id: *lease,
                job: *job,
                attempt: *attempt,
                placements: placements.clone(),
                granted_at: at,
                expires_at: *expires_at,
                ends_at: *ends_at,
                state: LeaseState::Active,
                confirmed: BTreeSet::new(),
            }),
            Event::LeaseConfirmed { lease, node } => self.change_lease(*lease, |lease| {
                lease.confirmed.insert(node.clone());
            }),
            Event::LeaseRenewed { lease, expires_at } => {
                self.change_lease(*lease, |lease| lease.expires_at = Some(*expires_at))
            }
            Event::LeaseRevoked { lease, cause, deadline } => self.on_revoked(at, *lease, cause, *deadline),
            Event::LeaseEnded { lease, cause, next } => self.on_lease_ended(at, *lease, cause, next),
        };
        applied.map_err(|missing| Unfounded { event: event.kind(), missing })
    }

    fn on_took_over(&mut self, at: Timestamp, epoch: u64) -> Applied {
        if epoch <= self.leader_epoch {
            return Err(format!("epoch {epoch} after {}", self.leader_epoch));
        }
        self.leader_epoch = epoch;
        for node in 0..self.fleet.nodes.len() {
            if self.fleet.nodes[node].unknown_since.is_none() {
                self.set_known(node, Some(at));
            }
        }
        Ok(())
    }

    fn on_registered(&mut self, fresh: Node, chips: &[(ChipFacts, Health)]) -> Applied {
        let id = fresh.id.clone();
        let (node, is_new) = match self.nodes_by_id.get(&id) {
            Some(&ix) => {
                let old = &mut self.fleet.nodes[ix];
                let cpu_used = old.facts.cpu_milli.saturating_sub(old.cpu_free);
                let memory_used = old.facts.memory_mib.saturating_sub(old.memory_free);
                old.cpu_free = fresh.facts.cpu_milli.saturating_sub(cpu_used);
                old.memory_free = fresh.facts.memory_mib.saturating_sub(memory_used);
                (old.facts, old.session, old.boot_id) = (fresh.facts, fresh.session, fresh.boot_id);
                old.unknown_since = None;
                (ix, false)
            }
            None => {
                self.fleet.nodes.push(fresh);
                self.nodes_by_id.insert(id.clone(), self.fleet.nodes.len() - 1);
                (self.fleet.nodes.len() - 1, true)
            }
        };
        let mut rebuild = false;
        for (facts, health) in chips {
            match self.chips_by_id.get(&facts.id) {
                Some(&ix) if self.fleet.chips[ix].node == node => {
                    let chip = &mut self.fleet.chips[ix];
                    rebuild |= chip.facts.class != facts.class;
                    (chip.facts, chip.health) = (facts.clone(), health.clone());
                    self.touched.chip_facts.insert(facts.id.clone());
                }
                Some(_) => return Err(format!("chip {} belongs to another node", facts.id)),
                None => {
                    self.add_chip(node, facts, health);
                    self.touched.new_chips.insert(facts.id.clone());
                    rebuild = true;
                }
            }
            self.touched.chips.insert(facts.id.clone());
        }
        for ix in self.fleet.nodes[node].chips.clone() {
            let chip = &mut self.fleet.chips[ix];
            if !chips.iter().any(|(facts, _)| facts.id == chip.facts.id) {
                chip.health = Health::Unhealthy { detail: "missing from the node's inventory".into() };
                self.touched.chips.insert(chip.facts.id.clone());
                self.touched.chip_facts.insert(chip.facts.id.clone());
            }
        }
        if is_new {
            self.fleet.append_pools(node);
        } else if rebuild {
            self.fleet.rebuild_pools();
        }
        self.node_changed(node);
        self.queue.supply_grew();
        Ok(())
    }

    pub(crate) fn add_chip(&mut self, node: NodeIx, facts: &ChipFacts, health: &Health) -> ChipIx {
        let ix = self.fleet.chips.len();
        self.fleet.chips.push(Chip {
            facts: facts.clone(),
            node,
            epoch: 0,
            health: health.clone(),
            quarantine: None,
            holds: Vec::new(),
            claims: Vec::new(),
        });
        self.fleet.nodes[node].chips.push(ix);
        self.chips_by_id.insert(facts.id.clone(), ix);
        ix
    }

    fn on_known(&mut self, node: &NodeId, unknown_since: Option<Timestamp>) -> Applied {
        let ix = *self.nodes_by_id.get(node).ok_or_else(|| format!("no node {node}"))?;
        self.set_known(ix, unknown_since);
        Ok(())
    }

    fn set_known(&mut self, node: NodeIx, unknown_since: Option<Timestamp>) {
        self.fleet.nodes[node].unknown_since = unknown_since;
        self.node_changed(node);
        self.check_claims_of(node);
        if unknown_since.is_none() {
            self.queue.supply_grew();
        }
    }

    fn on_chip(&mut self, chip: &ChipId, change: impl FnOnce(&mut Chip)) -> Applied {
        let ix = self.chip_ix(chip)?;
        change(&mut self.fleet.chips[ix]);
        let node = self.fleet.chips[ix].node;
        self.touched.chip_facts.insert(chip.clone());
        self.touched.chips.insert(chip.clone());
        self.fleet.recount_node(node);
        self.check_claims_of(node);
        self.queue.supply_grew();
        Ok(())
    }

    /// A chip out of service is no longer pressed for proof; back in service it is again.
    fn on_quarantine(&mut self, chip: &ChipId, quarantine: Option<&Quarantine>) -> Applied {
        let ix = self.chip_ix(chip)?;
        for hold in &self.fleet.chips[ix].holds {
            let Some(by) = hold.vacate_by else { continue };
            let timer = (by, Timer::Vacate(ix, hold.lease));
            if quarantine.is_some() {
                self.timers.remove(&timer)
            } else {
                self.timers.insert(timer)
            };
        }
        self.on_chip(chip, |chip| chip.quarantine = quarantine.cloned())
    }

    fn on_vacated(&mut self, chip: &ChipId, lease: LeaseId) -> Applied {
        let ix = self.chip_ix(chip)?;
        let is_gone = |hold: &ChipHold| hold.lease == lease && hold.vacate_by.is_some();
        let due = |hold: &ChipHold| hold.vacate_by.filter(|_| hold.lease == lease);
        let by = self.fleet.chips[ix].holds.iter().find_map(due);
        let by = by.ok_or_else(|| format!("chip {chip} is not vacating lease {lease}"))?;
        let before = self.fleet.chips[ix].holds.len();
        self.fleet.chips[ix].holds.retain(|hold| !is_gone(hold));
        self.vacating -= before - self.fleet.chips[ix].holds.len();
        self.timers.remove(&(by, Timer::Vacate(ix, lease)));
        let node = self.fleet.chips[ix].node;
        self.touched.chips.insert(chip.clone());
        self.leave_node_if_empty(node, lease);
        self.orders_changed(node);
        self.fleet.recount_node(node);
        self.check_claims_of(node);
        self.queue.supply_grew();
        Ok(())
    }

    /// Gives a lease's CPU and memory on a node back once its last chip there is vacant, and forgets the lease once
    /// its last node is.
    fn leave_node_if_empty(&mut self, node: NodeIx, lease: LeaseId) {
        let held = |&chip: &ChipIx| self.fleet.chips[chip].holds.iter().any(|hold| hold.lease == lease);
        if self.fleet.nodes[node].chips.iter().any(held) {
            return;
        }
        let state = &mut self.fleet.nodes[node];
        state.leases.remove(&lease);
        let Some(record) = self.leases.get(&lease) else { return };
        for placement in record.placements.iter().filter(|placement| placement.node == state.id) {
            state.cpu_free += placement.cpu_milli;
            state.memory_free += placement.memory_mib;
        }
        state.cpu_free = state.cpu_free.min(state.facts.cpu_milli);
        state.memory_free = state.memory_free.min(state.facts.memory_mib);
        let elsewhere = record
            .nodes()
            .iter()
            .any(|id| self.nodes_by_id.get(id).is_some_and(|&ix| self.fleet.nodes[ix].leases.contains(&lease)));
        if !elsewhere && let Some(record) = self.leases.remove(&lease) {
            self.touched.leases.remove(&lease);
            self.touched.vacated_leases.insert(lease, record);
        }
    }

    fn on_submitted(&mut self, at: Timestamp, id: JobId, place: u64, spec: &Arc<JobSpec>) -> Applied {
        let job = Job {
            id,
            spec: spec.clone(),
            place,
            submitted_at: at,
            state: JobState::Pending,
            attempt: 0,
            preemptions: 0,
            changed_at: at,
            revision: 1,
        };
        if self.jobs.contains_key(&id) || place <= self.last_place {
            return Err(format!("job {id} at place {place} is there already"));
        }
        self.last_place = place;
        *self.priorities.entry(spec.priority).or_default() += 1;
        self.queue.insert(spec, place, id);
        self.jobs.insert(id, job);
        self.touched.jobs.insert(id);
        Ok(())
    }

    fn on_started(&mut self, at: Timestamp, id: JobId) -> Applied {
        match self.jobs.get(&id).map(|job| job.state.clone()) {
            Some(JobState::Leased { lease }) => self.set_state(at, id, JobState::Running { lease }),
            _ => Err(format!("job {id} is not leased")),
        }
    }

    fn on_job_ended(&mut self, at: Timestamp, id: JobId, outcome: Outcome) -> Applied {
        match self.jobs.get(&id).map(|job| &job.state) {
            Some(JobState::Pending) => {
                if self.claims.contains_key(&id) {
                    return Err(format!("job {id} still holds a claim"));
                }
                self.end_job(at, id, outcome)
            }
            _ => Err(format!("job {id} is not pending")),
        }
    }

    fn end_job(&mut self, at: Timestamp, id: JobId, outcome: Outcome) -> Applied {
        let mut job = self.jobs.remove(&id).ok_or_else(|| format!("no job {id}"))?;
        self.queue.remove(&job.spec, job.place);
        if let Some(count) = self.priorities.get_mut(&job.spec.priority) {
            *count -= 1;
            if *count == 0 {
                self.priorities.remove(&job.spec.priority);
            }
        }
        job.state = JobState::Ended(outcome);
        job.changed_at = at;
        job.revision += 1;
        self.touched.jobs.remove(&id);
        self.touched.ended_jobs.insert(id, job);
        Ok(())
    }

    fn on_claim(&mut self, id: JobId, claim: Claim) -> Applied {
        let job = self.jobs.get_mut(&id).ok_or_else(|| format!("no job {id}"))?;
        if job.state != JobState::Pending || self.claims.contains_key(&id) {
            return Err(format!("job {id} cannot make a claim"));
        }
        job.revision += 1;
        self.queue.remove(&job.spec, job.place);
        self.timers.insert((claim.deadline, Timer::Claim(id)));
        let placements = claim.placements.clone();
        self.claims.insert(id, claim);
        self.set_claimed(id, &placements, true)?;
        self.claims_to_check.insert(id);
        self.touched.jobs.insert(id);
        self.touched.claims.insert(id);
        Ok(())
    }

    fn on_claim_dropped(&mut self, id: JobId) -> Applied {
        self.drop_claim(id)?;
        let job = self.jobs.get_mut(&id).ok_or_else(|| format!("no job {id}"))?;
        job.revision += 1;
        self.queue.insert(&job.spec, job.place, id);
        self.queue.supply_grew();
        self.touched.jobs.insert(id);
        Ok(())
    }

    fn drop_claim(&mut self, id: JobId) -> Applied {
        let claim = self.claims.remove(&id).ok_or_else(|| format!("job {id} holds no claim"))?;
        self.timers.remove(&(claim.deadline, Timer::Claim(id)));
        self.claims_to_check.remove(&id);
        self.touched.claims.insert(id);
        self.set_claimed(id, &claim.placements, false)
    }

    pub(crate) fn set_claimed(&mut self, id: JobId, placements: &[Placement], claimed: bool) -> Applied {
        let mut nodes = BTreeSet::new();
        for placement in placements {
            let node = *self.nodes_by_id.get(&placement.node).ok_or_else(|| format!("no node {}", placement.node))?;
            for hold in &placement.holds {
                let ix = self.chip_ix(&hold.chip)?;
                let chip = &mut self.fleet.chips[ix];
                if claimed {
                    chip.claims.push((id, hold.slots.clone()));
                } else {
                    chip.claims.retain(|(job, _)| *job != id);
                }
            }
            let state = &mut self.fleet.nodes[node];
            if claimed {
                state.cpu_claimed += placement.cpu_milli;
                state.memory_claimed += placement.memory_mib;
            } else {
                state.cpu_claimed = state.cpu_claimed.saturating_sub(placement.cpu_milli);
                state.memory_claimed = state.memory_claimed.saturating_sub(placement.memory_mib);
            }
            nodes.insert(node);
        }
        nodes.into_iter().for_each(|node| self.fleet.recount_node(node));
        Ok(())
    }

    fn on_granted(&mut self, lease: Lease) -> Applied {
        let (id, job_id, at) = (lease.id, lease.job, lease.granted_at);
        let job = self.jobs.get_mut(&job_id).ok_or_else(|| format!("no job {job_id}"))?;
        if job.state != JobState::Pending || lease.attempt != job.attempt + 1 {
            return Err(format!("job {job_id} cannot take lease {id}"));
        }
        job.attempt = lease.attempt;
        self.queue.remove(&job.spec, job.place);
        if job.spec.preemptible {
            self.preemptible.insert((job.spec.priority, id));
        }
        if self.claims.contains_key(&job_id) {
            self.drop_claim(job_id)?;
        }
        self.hold_chips(&lease)?;
        if let Some(due) = lease.next_due() {
            self.timers.insert((due, Timer::Lease(id)));
        }
        self.leases.insert(id, lease);
        self.touched.leases.insert(id);
        self.set_state(at, job_id, JobState::Leased { lease: id })
    }

    /// Puts a lease's holds on its chips and sets its CPU and memory aside.
    fn hold_chips(&mut self, lease: &Lease) -> Applied {
        for placement in &lease.placements {
            let node = *self.nodes_by_id.get(&placement.node).ok_or_else(|| format!("no node {}", placement.node))?;
            for hold in &placement.holds {
                let ix = self.chip_ix(&hold.chip)?;
                let chip = &mut self.fleet.chips[ix];
                if hold.epoch <= chip.epoch {
                    return Err(format!("chip {} epoch {} after {}", hold.chip, hold.epoch, chip.epoch));
                }
                self.touched.epochs.entry(hold.chip.clone()).or_insert(chip.epoch);
                chip.epoch = hold.epoch;
                chip.holds.push(ChipHold {
                    lease: lease.id,
                    job: lease.job,
                    slots: hold.slots.clone(),
                    epoch: hold.epoch,
                    vacate_by: None,
                });
                self.touched.chips.insert(hold.chip.clone());
            }
            let state = &mut self.fleet.nodes[node];
            state.cpu_free = state.cpu_free.saturating_sub(placement.cpu_milli);
            state.memory_free = state.memory_free.saturating_sub(placement.memory_mib);
            state.leases.insert(lease.id);
        }
        for node in self.nodes_of(lease) {
            self.orders_changed(node);
            self.fleet.recount_node(node);
        }
        Ok(())
    }

    /// Changes a live lease and keeps its timer in step.
    fn change_lease(&mut self, id: LeaseId, change: impl FnOnce(&mut Lease)) -> Applied {
        let lease =
            self.leases.get_mut(&id).filter(|lease| lease.is_live()).ok_or_else(|| format!("no live lease {id}"))?;
        let before = lease.next_due();
        change(lease);
        let after = lease.next_due();
        if before != after {
            if let Some(due) = before {
                self.timers.remove(&(due, Timer::Lease(id)));
            }
            if let Some(due) = after {
                self.timers.insert((due, Timer::Lease(id)));
            }
        }
        self.touched.leases.insert(id);
        Ok(())
    }

    fn on_revoked(&mut self, at: Timestamp, id: LeaseId, cause: &Cause, deadline: Timestamp) -> Applied {
        self.change_lease(id, |lease| lease.state = LeaseState::Revoking { cause: cause.clone(), deadline })?;
        let lease = self.leases.get(&id).ok_or_else(|| format!("no lease {id}"))?;
        let (job, nodes) = (lease.job, self.nodes_of(lease));
        nodes.into_iter().for_each(|node| self.orders_changed(node));
        let spec = self.jobs.get(&job).ok_or_else(|| format!("no job {job}"))?.spec.clone();
        self.preemptible.remove(&(spec.priority, id));
        self.set_state(at, job, JobState::Preempting { lease: id, deadline })
    }

    fn on_lease_ended(&mut self, at: Timestamp, id: LeaseId, cause: &Cause, next: &Next) -> Applied {
        self.change_lease(id, |lease| lease.state = LeaseState::Ended { cause: cause.clone(), at })?;
        let lease = self.leases.get(&id).ok_or_else(|| format!("no lease {id}"))?.clone();
        let by = at + self.policy.bounds.vacate;
        for hold in lease.placements.iter().flat_map(|placement| &placement.holds) {
            let ix = self.chip_ix(&hold.chip)?;
            let chip = &mut self.fleet.chips[ix];
            for held in chip.holds.iter_mut().filter(|held| held.lease == id && held.vacate_by.is_none()) {
                held.vacate_by = Some(by);
                self.vacating += 1;
            }
            if chip.quarantine.is_none() {
                self.timers.insert((by, Timer::Vacate(ix, id)));
            }
            self.touched.chips.insert(hold.chip.clone());
        }
        self.nodes_of(&lease).into_iter().for_each(|node| self.orders_changed(node));
        let spec = self.jobs.get(&lease.job).ok_or_else(|| format!("no job {}", lease.job))?.spec.clone();
        self.preemptible.remove(&(spec.priority, id));
        match next {
            Next::Ended(outcome) => self.end_job(at, lease.job, outcome.clone()),
            Next::Pending => {
                self.set_state(at, lease.job, JobState::Pending)?;
                let job = self.jobs.get_mut(&lease.job).ok_or_else(|| format!("no job {}", lease.job))?;
                job.preemptions += u32::from(matches!(cause, Cause::Preempt { .. }));
                self.queue.insert(&spec, job.place, lease.job);
                self.queue.supply_grew();
                Ok(())
            }
        }
    }

    fn set_state(&mut self, at: Timestamp, id: JobId, state: JobState) -> Applied {
        let job = self.jobs.get_mut(&id).ok_or_else(|| format!("no job {id}"))?;
        job.state = state;
        job.changed_at = at;
        job.revision += 1;
        self.touched.jobs.insert(id);
        Ok(())
    }

    pub(crate) fn chip_ix(&self, id: &ChipId) -> Result<ChipIx, String> {
        self.chips_by_id.get(id).copied().ok_or_else(|| format!("no chip {id}"))
    }

    pub(crate) fn nodes_of(&self, lease: &Lease) -> BTreeSet<NodeIx> {
        lease.placements.iter().filter_map(|placement| self.nodes_by_id.get(&placement.node).copied()).collect()
    }

    fn node_changed(&mut self, node: NodeIx) {
        self.touched.nodes.insert(self.fleet.nodes[node].id.clone());
        self.fleet.recount_node(node);
    }

    fn orders_changed(&mut self, node: NodeIx) {
        self.fleet.nodes[node].orders_revision += 1;
        self.touched.orders.insert(self.fleet.nodes[node].id.clone());
    }

    /// Something about a node changed: claims on its chips are worth another look.
    fn check_claims_of(&mut self, node: NodeIx) {
        for &chip in &self.fleet.nodes[node].chips {
            self.claims_to_check.extend(self.fleet.chips[chip].claims.iter().map(|(job, _)| *job));
        }
    }
}
