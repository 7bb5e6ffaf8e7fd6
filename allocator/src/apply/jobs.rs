//! Events of jobs and their promises.

use super::Applied;
use crate::cluster::{Claim, Cluster, Timer};
use crate::place;
use chiptide_model::{Holder, Job, JobId, JobSpec, JobState, Outcome, Placement, Timestamp};
use std::collections::BTreeSet;
use std::sync::Arc;

impl Cluster {
    pub(super) fn on_submitted(&mut self, at: Timestamp, id: JobId, place: u64, spec: &Arc<JobSpec>) -> Applied {
        let job = Job {
            id,
            spec: spec.clone(),
            place,
            submitted_at: at,
            state: JobState::Pending,
            attempt: 0,
            preemptions: 0,
            evictions: Vec::new(),
            checkpointed_at: None,
            extras: BTreeSet::new(),
            given_back: 0,
            restarts: 0,
            changed_at: at,
            revision: 1,
        };
        if self.jobs.contains_key(&id) || place <= self.last_place {
            return Err(format!("job {id} at place {place} is there already"));
        }
        self.last_place = place;
        *self.priorities.entry(spec.priority).or_default() += 1;
        self.queue.insert(spec, place, id);
        self.count_demand(spec);
        self.jobs.insert(id, job);
        self.touched.jobs.insert(id);
        Ok(())
    }

    /// Placement learns what is asked for.
    fn count_demand(&mut self, spec: &JobSpec) {
        let share = place::share_of(self, &spec.classes_by_speed(), spec.demand);
        if self.demand.count(spec, share) {
            self.fleet.learn(&self.demand.known);
        }
        self.touched.demand = true;
    }

    pub(super) fn on_started(&mut self, at: Timestamp, id: JobId) -> Applied {
        match self.jobs.get(&id).map(|job| job.state.clone()) {
            Some(JobState::Leased { lease }) => self.set_state(at, id, JobState::Running { lease }),
            _ => Err(format!("job {id} is not leased")),
        }
    }

    pub(super) fn on_checkpointed(&mut self, at: Timestamp, id: JobId) -> Applied {
        let job = self.jobs.get_mut(&id).ok_or_else(|| format!("no job {id}"))?;
        let Some(lease) = job.state.lease() else { return Err(format!("job {id} holds no lease")) };
        job.checkpointed_at = Some(at);
        job.revision += 1;
        self.reprice_base(lease);
        self.touched.jobs.insert(id);
        Ok(())
    }

    /// The replicas are started anew: their nodes get new orders, and confirm again once they have.
    pub(super) fn on_restarted(&mut self, id: JobId, run: u32) -> Applied {
        let job = self.jobs.get_mut(&id).ok_or_else(|| format!("no job {id}"))?;
        let Some(base) = job.state.lease().filter(|_| run == job.restarts + 1) else {
            return Err(format!("job {id} in run {} cannot go on with run {run}", job.restarts));
        };
        job.restarts = run;
        job.revision += 1;
        self.touched.jobs.insert(id);
        for lease in self.with_extras(base) {
            self.change_lease(lease, |lease| lease.confirmed.clear())?;
            let nodes = self.leases.get(&lease).map(|lease| self.nodes_of(lease)).unwrap_or_default();
            nodes.into_iter().for_each(|node| self.orders_changed(node));
        }
        Ok(())
    }

    pub(super) fn on_job_ended(&mut self, at: Timestamp, id: JobId, outcome: Outcome) -> Applied {
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

    pub(super) fn end_job(&mut self, at: Timestamp, id: JobId, outcome: Outcome) -> Applied {
        if self.reservations.by_holder.contains_key(&Holder::Job(id)) {
            return Err(format!("job {id} still has a reservation"));
        }
        let mut job = self.jobs.remove(&id).ok_or_else(|| format!("no job {id}"))?;
        self.reservations.looked_at.remove(&id);
        if self.consolidations.moved.remove(&id).is_some() {
            self.touched.consolidations.insert(id);
        }
        self.queue.remove(&job.spec, job.place);
        self.growth.forget(id);
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

    pub(super) fn on_claim(&mut self, at: Timestamp, id: JobId, claim: Claim) -> Applied {
        let job = self.jobs.get_mut(&id).ok_or_else(|| format!("no job {id}"))?;
        if job.state != JobState::Pending || self.claims.contains_key(&id) {
            return Err(format!("job {id} cannot make a claim"));
        }
        job.revision += 1;
        let spec = job.spec.clone();
        self.queue.remove(&spec, job.place);
        self.timers.insert((claim.deadline, Timer::Claim(id)));
        let placements = claim.placements.clone();
        self.claims.insert(id, claim);
        self.set_claimed(id, &placements, true)?;
        self.charge(&spec, &placements, !spec.preemptible, true, at);
        self.claims_to_check.insert(id);
        self.touched.jobs.insert(id);
        self.touched.claims.insert(id);
        Ok(())
    }

    pub(super) fn on_claim_dropped(&mut self, at: Timestamp, id: JobId) -> Applied {
        self.drop_claim(at, id)?;
        let job = self.jobs.get_mut(&id).ok_or_else(|| format!("no job {id}"))?;
        job.revision += 1;
        self.queue.insert(&job.spec, job.place, id);
        self.queue.supply_grew();
        self.touched.jobs.insert(id);
        Ok(())
    }

    pub(super) fn drop_claim(&mut self, at: Timestamp, id: JobId) -> Applied {
        let spec = self.jobs.get(&id).ok_or_else(|| format!("no job {id}"))?.spec.clone();
        let claim = self.claims.remove(&id).ok_or_else(|| format!("job {id} holds no claim"))?;
        self.timers.remove(&(claim.deadline, Timer::Claim(id)));
        self.claims_to_check.remove(&id);
        self.touched.claims.insert(id);
        self.charge(&spec, &claim.placements, !spec.preemptible, false, at);
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
        for node in nodes {
            self.fleet.recount_node(node);
            self.recount_stakes_of(node);
        }
        Ok(())
    }

    pub(super) fn set_state(&mut self, at: Timestamp, id: JobId, state: JobState) -> Applied {
        let job = self.jobs.get_mut(&id).ok_or_else(|| format!("no job {id}"))?;
        job.state = state;
        job.changed_at = at;
        job.revision += 1;
        self.touched.jobs.insert(id);
        Ok(())
    }
}
