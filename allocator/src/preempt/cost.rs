//! What taking a lease costs: lost work first, then gangs broken, then age.

use crate::cluster::Cluster;
use chiptide_model::{Cost, Lease, LeaseId, Timestamp};

/// What the cost of one lease is computed from, at any time.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct CostBasis {
    /// Its band: index in [`super::stakes::Stakes::bands`].
    pub band: u32,
    /// An extra replica: the rest of its job goes on.
    pub extra: bool,
    /// What it counts for among gangs broken.
    gangs: u32,
    slots: u64,
    granted_at: Timestamp,
    /// The last checkpoint reported since the grant.
    checkpointed_at: Option<Timestamp>,
    /// How often a job checkpoints that does not report it; 0 for never.
    every: u64,
    /// Milliseconds from notice to the end of the lease.
    grace: u64,
    /// Milliseconds a restart costs each chip.
    restart: u64,
    /// The extra replicas that go with a base lease.
    pub extras: Vec<Extra>,
}

/// An extra replica that goes with its base lease.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Extra {
    pub lease: LeaseId,
    slots: u64,
    granted_at: Timestamp,
}

impl CostBasis {
    pub(crate) fn of(cluster: &Cluster, lease: &Lease) -> CostBasis {
        let job = cluster.jobs.get(&lease.job);
        let extra = |id: &LeaseId| {
            let lease = cluster.leases.get(id).filter(|lease| lease.is_active())?;
            Some(Extra { lease: *id, slots: lease.slot_total(), granted_at: lease.granted_at })
        };
        let family = job.filter(|_| !lease.extra).map(|job| &job.extras);
        CostBasis {
            band: 0,
            extra: lease.extra,
            gangs: u32::from(!lease.extra),
            slots: lease.slot_total(),
            granted_at: lease.granted_at,
            checkpointed_at: job.and_then(|job| job.checkpointed_at).filter(|at| *at >= lease.granted_at),
            every: job.and_then(|job| job.spec.checkpoint_every).map_or(0, |every| every.0),
            grace: job.map_or(0, |job| job.spec.grace.0),
            restart: job.and_then(|job| job.spec.restart_cost).map_or(0, |cost| cost.0),
            extras: family.into_iter().flatten().filter_map(extra).collect(),
        }
    }

    /// The same, counting for more than one among gangs broken.
    pub(crate) fn counting(self, gangs: u32) -> CostBasis {
        CostBasis { gangs, ..self }
    }

    /// What taking it at this time costs. An extra replica costs no work: its job goes on without it.
    pub(crate) fn cost(&self, now: Timestamp) -> Cost {
        let age = now.since(self.granted_at).0;
        if self.extra {
            return Cost { lost_slot_ms: 0, gangs: 0, age_ms: age };
        }
        let since_checkpoint = match self.checkpointed_at {
            Some(at) => now.since(at).0,
            // It works on until its notice runs out, and saves its work on the way if that is due.
            None if self.every > 0 => age.saturating_add(self.grace) % self.every,
            None => age,
        };
        let lost = self.slots.saturating_mul(since_checkpoint.saturating_add(self.restart));
        let with_it = self.extras.iter().map(|extra| {
            let worked = since_checkpoint.min(now.since(extra.granted_at).0);
            extra.slots.saturating_mul(worked.saturating_add(self.restart))
        });
        Cost { lost_slot_ms: with_it.fold(lost, u64::saturating_add), gangs: self.gangs, age_ms: age }
    }

    /// Slots it holds, with the extra replicas that go with it.
    pub(crate) fn slots_in_all(&self) -> u64 {
        self.slots + self.extras.iter().map(|extra| extra.slots).sum::<u64>()
    }
}

impl Cluster {
    /// What taking a lease now would cost. Work lost counts from the last checkpoint the job reported; where it reports
    /// none, from the last it can have made by its `checkpoint_every` by the time its notice runs out, else from the grant.
    pub fn eviction_cost(&self, lease: &Lease, now: Timestamp) -> Cost {
        CostBasis::of(self, lease).cost(now)
    }
}
