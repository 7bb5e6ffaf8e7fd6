//! Jobs and leases as the log tells of them: each job pending, leased or ended, and who was preempted for whom.

use super::findings::{Findings, Rule};
use chiptide_model::{Cause, JobId, JobSpec, LeaseId, Next, NodeId, Placement};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Step {
    Pending,
    Leased(LeaseId),
    Ended,
}

#[derive(Debug)]
struct JobSeen {
    spec: Arc<JobSpec>,
    step: Step,
    attempt: u32,
    /// Live extra leases.
    extras: BTreeSet<LeaseId>,
}

#[derive(Debug)]
struct LeaseSeen {
    job: JobId,
    nodes: BTreeSet<NodeId>,
    live: bool,
    preempted: bool,
    /// One replica of an elastic job, beside its base lease.
    extra: bool,
}

/// Every job and lease the log has named.
#[derive(Debug, Default)]
pub(super) struct Jobs {
    jobs: BTreeMap<JobId, JobSeen>,
    leases: BTreeMap<LeaseId, LeaseSeen>,
    /// Promises that are open, with the leases evicted for them.
    claims: BTreeMap<JobId, BTreeSet<LeaseId>>,
    /// Leases preempted for a job of which no promise has been seen yet.
    owed: BTreeMap<JobId, BTreeSet<LeaseId>>,
    last_place: u64,
    preemptions: u64,
}

impl Jobs {
    /// How many are pending, leased and ended.
    pub(super) fn standing(&self) -> (u64, u64, u64) {
        let count = |wanted: fn(&Step) -> bool| self.jobs.values().filter(|job| wanted(&job.step)).count() as u64;
        (
            count(|step| *step == Step::Pending),
            count(|step| matches!(step, Step::Leased(_))),
            count(|step| *step == Step::Ended),
        )
    }

    /// How many were granted a lease at least once.
    pub(super) fn placed(&self) -> u64 {
        self.jobs.values().filter(|job| job.attempt > 0).count() as u64
    }

    pub(super) fn preemptions(&self) -> u64 {
        self.preemptions
    }

    pub(super) fn submitted(&mut self, job: JobId, place: u64, spec: &Arc<JobSpec>, findings: &mut Findings) {
        if place <= self.last_place {
            let detail = format!("job {job} has place {place}, after place {}", self.last_place);
            findings.add(Rule::JobOutOfStep, detail);
        }
        self.last_place = self.last_place.max(place);
        let new = JobSeen { spec: Arc::clone(spec), step: Step::Pending, attempt: 0, extras: BTreeSet::new() };
        if self.jobs.insert(job, new).is_some() {
            findings.add(Rule::JobOutOfStep, format!("job {job} was submitted twice"));
        }
    }

    pub(super) fn started(&mut self, job: JobId, findings: &mut Findings) {
        if !self.jobs.get(&job).is_some_and(|seen| matches!(seen.step, Step::Leased(_))) {
            findings.add(Rule::JobOutOfStep, format!("job {job} started without a lease"));
        }
    }

    pub(super) fn ended(&mut self, job: JobId, findings: &mut Findings) {
        match self.jobs.get_mut(&job) {
            Some(seen) if seen.step == Step::Pending => seen.step = Step::Ended,
            _ => findings.add(Rule::JobOutOfStep, format!("job {job} ended without a lease, and was not pending")),
        }
    }

    pub(super) fn claimed(&mut self, job: JobId, victims: &[LeaseId], findings: &mut Findings) {
        if self.jobs.get(&job).is_none_or(|seen| seen.step != Step::Pending) {
            findings.add(Rule::JobOutOfStep, format!("job {job} was promised chips, and was not pending"));
        }
        if let Some(owed) = self.owed.get_mut(&job) {
            owed.retain(|lease| !victims.contains(lease));
        }
        if self.claims.insert(job, victims.iter().copied().collect()).is_some() {
            findings.add(Rule::JobOutOfStep, format!("job {job} was promised chips twice"));
        }
    }

    pub(super) fn claim_dropped(&mut self, job: JobId, findings: &mut Findings) {
        self.owed.remove(&job);
        if self.claims.remove(&job).is_none() {
            findings.add(Rule::JobOutOfStep, format!("a claim of job {job} was dropped that it did not have"));
        }
    }

    /// A grant; the answer is what the job asked for.
    pub(super) fn granted(
        &mut self,
        lease: LeaseId,
        job: JobId,
        attempt: u32,
        placements: &[Placement],
        findings: &mut Findings,
    ) -> Option<Arc<JobSpec>> {
        self.claims.remove(&job);
        self.owed.remove(&job);
        let nodes = placements.iter().map(|placement| placement.node.clone()).collect();
        if self.leases.insert(lease, LeaseSeen { job, nodes, live: true, preempted: false, extra: false }).is_some() {
            findings.add(Rule::JobOutOfStep, format!("lease {lease} was granted twice"));
        }
        let Some(seen) = self.jobs.get_mut(&job) else {
            findings.add(Rule::JobOutOfStep, format!("a lease was granted to job {job}, which was never submitted"));
            return None;
        };
        if seen.step != Step::Pending || attempt != seen.attempt + 1 {
            let detail = format!("job {job} got attempt {attempt} after {}, being {:?}", seen.attempt, seen.step);
            findings.add(Rule::JobOutOfStep, detail);
        }
        (seen.step, seen.attempt) = (Step::Leased(lease), attempt);
        Some(Arc::clone(&seen.spec))
    }

    /// A grant of one more replica; the answer is what the job asked for.
    pub(super) fn grown(
        &mut self,
        lease: LeaseId,
        job: JobId,
        placements: &[Placement],
        findings: &mut Findings,
    ) -> Option<Arc<JobSpec>> {
        let nodes = placements.iter().map(|placement| placement.node.clone()).collect();
        let new = LeaseSeen { job, nodes, live: true, preempted: false, extra: true };
        if self.leases.insert(lease, new).is_some() {
            findings.add(Rule::JobOutOfStep, format!("lease {lease} was granted twice"));
        }
        let Some(seen) = self.jobs.get_mut(&job) else {
            findings.add(Rule::JobOutOfStep, format!("job {job}, which was never submitted, grew"));
            return None;
        };
        seen.extras.insert(lease);
        let most = seen.spec.replicas.saturating_sub(seen.spec.gang()) as usize;
        if !matches!(seen.step, Step::Leased(_)) || seen.extras.len() > most {
            let detail =
                format!("job {job} holds {} of {most} extra replicas, being {:?}", seen.extras.len(), seen.step);
            findings.add(Rule::JobOutOfStep, detail);
        }
        Some(Arc::clone(&seen.spec))
    }

    pub(super) fn confirmed(&mut self, lease: LeaseId, node: &NodeId, findings: &mut Findings) {
        if !self.leases.get(&lease).is_some_and(|seen| seen.live && seen.nodes.contains(node)) {
            findings.add(Rule::JobOutOfStep, format!("node {node} confirmed lease {lease}, which it does not carry"));
        }
    }

    pub(super) fn renewed(&mut self, lease: LeaseId, findings: &mut Findings) {
        if !self.leases.get(&lease).is_some_and(|seen| seen.live) {
            findings.add(Rule::JobOutOfStep, format!("lease {lease} was renewed, and was not live"));
        }
    }

    pub(super) fn revoked(&mut self, lease: LeaseId, cause: &Cause, findings: &mut Findings) {
        if !self.leases.get(&lease).is_some_and(|seen| seen.live) {
            findings.add(Rule::JobOutOfStep, format!("lease {lease} was revoked, and was not live"));
        }
        if let Some(for_job) = cause.for_job() {
            self.preempted(lease, for_job, findings);
        }
    }

    pub(super) fn lease_ended(&mut self, lease: LeaseId, cause: &Cause, next: &Next, findings: &mut Findings) {
        if let Some(for_job) = cause.for_job()
            && self.leases.get(&lease).is_some_and(|seen| !seen.preempted)
        {
            self.preempted(lease, for_job, findings);
        }
        let Some(seen) = self.leases.get_mut(&lease).filter(|seen| seen.live) else {
            return findings.add(Rule::JobOutOfStep, format!("lease {lease} ended, and was not live"));
        };
        seen.live = false;
        let next = match next {
            Next::Pending => Step::Pending,
            Next::Ended(_) => Step::Ended,
            Next::Unchanged if seen.extra => {
                self.jobs.get_mut(&seen.job).map(|job| job.extras.remove(&lease));
                return;
            }
            Next::Unchanged => Step::Leased(lease),
        };
        match self.jobs.get_mut(&seen.job) {
            Some(job) if !job.extras.is_empty() => {
                let detail = format!("lease {lease} ended before the extra replicas of job {}", seen.job);
                findings.add(Rule::JobOutOfStep, detail);
            }
            Some(job) if job.step == Step::Leased(lease) && next != job.step => job.step = next,
            _ => findings.add(Rule::JobOutOfStep, format!("lease {lease} ended, and job {} did not hold it", seen.job)),
        }
    }

    /// Notice was given for `for_job`: it must be allowed to, and must have been promised chips or be so later.
    fn preempted(&mut self, lease: LeaseId, for_job: JobId, findings: &mut Findings) {
        self.preemptions += 1;
        let Some(seen) = self.leases.get_mut(&lease) else { return };
        seen.preempted = true;
        let Some(preemptor) = self.jobs.get(&for_job) else {
            return findings.add(Rule::PreemptedForNobody, format!("lease {lease}: there is no job {for_job}"));
        };
        let fair = self.jobs.get(&seen.job).is_some_and(|victim| match seen.extra {
            true => victim.spec.priority <= preemptor.spec.priority,
            false => victim.spec.preemptible && victim.spec.priority < preemptor.spec.priority,
        });
        if !fair {
            let detail = format!("lease {lease} of job {} was preempted for job {for_job}", seen.job);
            findings.add(Rule::UnfairPreemption, detail);
        }
        if !self.claims.get(&for_job).is_some_and(|victims| victims.contains(&lease)) {
            self.owed.entry(for_job).or_default().insert(lease);
        }
    }

    /// What is missing at the end of the log. Answers how many acknowledged jobs are.
    pub(super) fn finish(&self, acknowledged: &[JobId], findings: &mut Findings) -> u64 {
        let lost: Vec<_> = acknowledged.iter().filter(|job| !self.jobs.contains_key(job)).collect();
        for job in &lost {
            findings.add(Rule::JobLost, format!("job {job} was acknowledged and is not in the log"));
        }
        for (job, leases) in self.owed.iter().filter(|(_, leases)| !leases.is_empty()) {
            let detail = format!("{} leases were preempted for job {job}, which was promised nothing", leases.len());
            findings.add(Rule::PreemptedForNobody, detail);
        }
        for job in self.claims.keys() {
            if self.jobs.get(job).is_none_or(|seen| seen.step != Step::Pending) {
                findings.add(Rule::JobOutOfStep, format!("job {job} is promised chips, and is not pending"));
            }
        }
        lost.len() as u64
    }
}
