//! Events of leases: granted, changed, taken, over, and proven vacant chip by chip.

use super::Applied;
use crate::cluster::{Cluster, Timer};
use crate::fleet::{ChipHold, ChipIx, NodeIx};
use crate::quota::is_firm;
use chiptide_model::{Cause, ChipId, Holder, JobId, JobState, Lease, LeaseId, LeaseState, Next, Timestamp};
use std::collections::BTreeSet;

impl Cluster {
    pub(super) fn on_vacated(&mut self, chip: &ChipId, lease: LeaseId) -> Applied {
        let ix = self.chip_ix(chip)?;
        let is_gone = |hold: &ChipHold| hold.lease == lease && hold.vacate_by.is_some();
        if !self.fleet.chips[ix].holds.iter().any(is_gone) {
            return Err(format!("chip {chip} is not vacating lease {lease}"));
        }
        let due = self.proofs_due(ix);
        let before = self.fleet.chips[ix].holds.len();
        self.fleet.chips[ix].holds.retain(|hold| !is_gone(hold));
        self.vacating -= before - self.fleet.chips[ix].holds.len();
        let still_due = self.proofs_due(ix);
        self.move_timers(due, still_due);
        let node = self.fleet.chips[ix].node;
        self.touched.chips.insert(chip.clone());
        self.leave_node_if_empty(node, lease);
        self.orders_changed(node);
        self.fleet.recount_node(node);
        self.settle_reserved(node);
        self.recount_stakes_of(node);
        self.check_claims_of(node);
        self.queue.supply_grew_of(&self.fleet.chips[ix].facts.class);
        Ok(())
    }

    /// Gives a lease's CPU and memory on a node back once its last chip there is vacant, and forgets the lease once
    /// its last node is.
    pub(super) fn leave_node_if_empty(&mut self, node: NodeIx, lease: LeaseId) {
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
            self.reservations.leaving.set(lease, None);
            self.stakes.remove(lease);
            self.touched.leases.remove(&lease);
            self.touched.vacated_leases.insert(lease, record);
        }
    }

    /// Work without chips leaves nothing to prove: its CPU and memory are free when its lease ends.
    fn leave_nodes_without_chips(&mut self, lease: &Lease) {
        if lease.placements.iter().all(|placement| !placement.holds.is_empty()) {
            return;
        }
        for node in self.nodes_of(lease) {
            self.leave_node_if_empty(node, lease.id);
            self.fleet.recount_node(node);
        }
        self.queue.supply_grew();
    }

    pub(super) fn on_granted(&mut self, lease: Lease) -> Applied {
        let (id, job_id, at) = (lease.id, lease.job, lease.granted_at);
        if lease.extra {
            return self.on_extra_granted(lease);
        }
        let job = self.jobs.get_mut(&job_id).ok_or_else(|| format!("no job {job_id}"))?;
        if job.state != JobState::Pending || lease.attempt != job.attempt + 1 {
            return Err(format!("job {job_id} cannot take lease {id}"));
        }
        (job.attempt, job.given_back) = (lease.attempt, 0);
        let (spec, place) = (job.spec.clone(), job.place);
        self.queue.remove(&spec, place);
        if self.claims.contains_key(&job_id) {
            self.drop_claim(at, job_id)?;
        }
        self.add_lease(lease)?;
        self.set_state(at, job_id, JobState::Leased { lease: id })?;
        self.resize(job_id);
        Ok(())
    }

    /// One more replica for an elastic job that holds its base lease. The job's state does not change.
    fn on_extra_granted(&mut self, lease: Lease) -> Applied {
        let (id, job_id) = (lease.id, lease.job);
        let job = self.jobs.get_mut(&job_id).ok_or_else(|| format!("no job {job_id}"))?;
        if job.state.lease().is_none() || lease.attempt != job.attempt || job.replicas_held() >= job.spec.replicas {
            return Err(format!("job {job_id} cannot take extra lease {id}"));
        }
        job.extras.insert(id);
        job.revision += 1;
        self.touched.jobs.insert(job_id);
        self.add_lease(lease)?;
        self.resize(job_id);
        Ok(())
    }

    fn add_lease(&mut self, lease: Lease) -> Applied {
        let id = lease.id;
        let spec = self.jobs.get(&lease.job).ok_or_else(|| format!("no job {}", lease.job))?.spec.clone();
        self.hold_chips(&lease)?;
        self.charge(&spec, &lease.placements, is_firm(&spec, &lease), true, lease.granted_at);
        self.timers.extend(self.dues(&lease).into_iter().flatten());
        let nodes = self.nodes_of(&lease);
        self.leases.insert(id, lease);
        nodes.into_iter().for_each(|node| self.settle_reserved(node));
        self.note_leaving(id);
        self.touched.leases.insert(id);
        self.restand_lease(id);
        Ok(())
    }

    /// Puts a lease's holds on its chips and sets its CPU and memory aside.
    pub(super) fn hold_chips(&mut self, lease: &Lease) -> Applied {
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
    pub(super) fn change_lease(&mut self, id: LeaseId, change: impl FnOnce(&mut Lease)) -> Applied {
        let live = self.leases.get(&id).filter(|lease| lease.is_live()).ok_or_else(|| format!("no live lease {id}"))?;
        let before = self.dues(live);
        self.leases.get_mut(&id).map(change);
        self.retime(vec![(id, before)]);
        self.touched.leases.insert(id);
        Ok(())
    }

    pub(super) fn on_revoked(&mut self, at: Timestamp, id: LeaseId, cause: &Cause, deadline: Timestamp) -> Applied {
        self.change_lease(id, |lease| lease.state = LeaseState::Revoking { cause: cause.clone(), deadline })?;
        let lease = self.leases.get(&id).ok_or_else(|| format!("no lease {id}"))?;
        let (job, extra, nodes, placements) = (lease.job, lease.extra, self.nodes_of(lease), lease.placements.clone());
        if let Cause::Consolidate { for_job } = cause {
            self.consolidations.note(at, *for_job, job);
            self.touched.consolidations.insert(*for_job);
        }
        self.note_leaving(id);
        nodes.into_iter().for_each(|node| self.orders_changed(node));
        let spec = self.jobs.get(&job).ok_or_else(|| format!("no job {job}"))?.spec.clone();
        self.charge_leaving(&spec, &placements, true, at);
        if let (Cause::Preempt { .. }, false, Some(queue)) = (cause, extra, self.ledger.find(&spec.queue)) {
            self.note_preemption(queue, at);
        }
        self.restand_lease(id);
        if extra {
            self.resize(job);
            return self.revise_job(job);
        }
        self.set_state(at, job, JobState::Preempting { lease: id, deadline })?;
        self.resize(job);
        Ok(())
    }

    /// The promises on its chips wait as much longer as they may have to.
    pub(super) fn on_extended(&mut self, at: Timestamp, id: LeaseId, deadline: Timestamp) -> Applied {
        let lease = self.leases.get(&id).ok_or_else(|| format!("no lease {id}"))?;
        let (job, extra, nodes) = (lease.job, lease.extra, self.nodes_of(lease));
        let LeaseState::Revoking { cause, .. } = lease.state.clone() else {
            return Err(format!("lease {id} is not being taken"));
        };
        let holds = lease.placements.iter().flat_map(|placement| &placement.holds);
        let claimed = holds.filter_map(|hold| self.chip(&hold.chip)).flat_map(|chip| &chip.claims);
        let claimants: BTreeSet<JobId> = claimed.map(|(job, _)| *job).chain(cause.for_job()).collect();
        self.change_lease(id, |lease| {
            (lease.state, lease.extended) = (LeaseState::Revoking { cause, deadline }, true);
        })?;
        self.note_leaving(id);
        nodes.into_iter().for_each(|node| self.orders_changed(node));
        let until = deadline + self.policy.bounds.claim;
        claimants.into_iter().for_each(|job| self.put_claim_off(job, until));
        self.restand_lease(id);
        if extra {
            return self.revise_job(job);
        }
        self.set_state(at, job, JobState::Preempting { lease: id, deadline })
    }

    fn put_claim_off(&mut self, job: JobId, until: Timestamp) {
        let Some(claim) = self.claims.get_mut(&job).filter(|claim| claim.deadline < until) else { return };
        self.timers.remove(&(claim.deadline, Timer::Claim(job)));
        claim.deadline = until;
        self.timers.insert((until, Timer::Claim(job)));
        self.touched.claims.insert(job);
        if let Some(job) = self.jobs.get_mut(&job) {
            job.revision += 1;
            self.touched.jobs.insert(job.id);
        }
    }

    /// Something about the job changed that is not its state.
    fn revise_job(&mut self, id: JobId) -> Applied {
        let job = self.jobs.get_mut(&id).ok_or_else(|| format!("no job {id}"))?;
        job.revision += 1;
        self.touched.jobs.insert(id);
        Ok(())
    }

    pub(super) fn on_lease_ended(&mut self, at: Timestamp, id: LeaseId, cause: &Cause, next: &Next) -> Applied {
        let was_leaving = self.leases.get(&id).is_some_and(|lease| matches!(lease.state, LeaseState::Revoking { .. }));
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
            let due = self.proofs_due(ix);
            self.move_timers(Vec::new(), due);
            self.touched.chips.insert(hold.chip.clone());
        }
        self.note_leaving(id);
        self.nodes_of(&lease).into_iter().for_each(|node| self.orders_changed(node));
        self.restand_lease(id);
        let spec = self.jobs.get(&lease.job).ok_or_else(|| format!("no job {}", lease.job))?.spec.clone();
        self.charge(&spec, &lease.placements, is_firm(&spec, &lease), false, at);
        if was_leaving {
            self.charge_leaving(&spec, &lease.placements, false, at);
        }
        self.leave_nodes_without_chips(&lease);
        let job = self.jobs.get_mut(&lease.job).ok_or_else(|| format!("no job {}", lease.job))?;
        if lease.extra != (*next == Next::Unchanged) || (!lease.extra && !job.extras.is_empty()) {
            return Err(format!("job {} holds {} extra replicas, and lease {id} ends", job.id, job.extras.len()));
        }
        match next {
            Next::Ended(outcome) => self.end_job(at, lease.job, outcome.clone()),
            Next::Unchanged => {
                job.extras.remove(&id);
                job.given_back += u32::from(*cause == Cause::Released);
                self.revise_job(lease.job)?;
                self.resize(lease.job);
                Ok(())
            }
            Next::Pending => {
                job.preemptions += u32::from(cause.for_job().is_some());
                if matches!(cause, Cause::Preempt { .. }) {
                    job.note_eviction(at);
                }
                let (spec, place) = (job.spec.clone(), job.place);
                self.set_state(at, lease.job, JobState::Pending)?;
                self.resize(lease.job);
                self.queue.insert(&spec, place, lease.job);
                self.queue.supply_grew();
                self.reservations.check(&Holder::Job(lease.job));
                Ok(())
            }
        }
    }

    pub(crate) fn nodes_of(&self, lease: &Lease) -> BTreeSet<NodeIx> {
        lease.placements.iter().filter_map(|placement| self.nodes_by_id.get(&placement.node).copied()).collect()
    }
}
