//! What a job holds, and who may take it.

use crate::cluster::Cluster;
use chiptide_model::{Cause, Cost, Job, Lease, LeaseId, LeaseState, Timestamp};
use std::collections::BTreeSet;

/// What a job that is not pending holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Standing {
    /// Its lease.
    pub lease: LeaseId,
    /// Slots held, by all its leases.
    pub slots: u64,
    /// Nodes it spans.
    pub nodes: u64,
    /// Replicas held, those beyond the gang included.
    pub replicas: u32,
    /// Replicas of an elastic job that may go and come; 0 of them for others.
    pub extras: u32,
    /// Since when.
    pub since: Timestamp,
    /// When it ends whatever happens.
    pub ends_at: Option<Timestamp>,
    /// When it lapses unless renewed.
    pub expires_at: Option<Timestamp>,
    /// Who may take it.
    pub exposure: Exposure,
}

/// Whether and why a lease may be taken next.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Exposure {
    /// It is being taken.
    Leaving {
        /// Why.
        cause: Cause,
        /// The end at the latest.
        by: Timestamp,
    },
    /// No priority may take it.
    Safe,
    /// Others may take it.
    Preemptible {
        /// Jobs of a priority above this may.
        above: i32,
        /// Until then priority takes nothing: it has not run its least time, or a budget is spent.
        not_before: Option<Timestamp>,
        /// Its queue holds more than it is guaranteed: whoever is guaranteed the rest may take it back.
        reclaimable: bool,
        /// What taking it now would lose.
        cost: Cost,
    },
}

impl Exposure {
    /// The word used on the wire.
    pub fn as_str(&self) -> &'static str {
        match self {
            Exposure::Leaving { .. } => "leaving",
            Exposure::Safe => "safe",
            Exposure::Preemptible { .. } => "preemptible",
        }
    }
}

/// The standing of a job; `None` while it holds no lease.
pub(super) fn of(cluster: &Cluster, job: &Job, now: Timestamp) -> Option<Standing> {
    let lease = cluster.lease(job.state.lease()?)?;
    let extras: Vec<&Lease> = job.extras.iter().filter_map(|id| cluster.lease(*id)).collect();
    let exposure = match &lease.state {
        LeaseState::Revoking { cause, deadline } => Exposure::Leaving { cause: cause.clone(), by: *deadline },
        _ if !job.spec.preemptible => Exposure::Safe,
        _ => {
            let cost = cluster.eviction_cost(lease, now);
            let (by_queue, reclaimable) = by_queue(cluster, job, now);
            let by_itself = Some(job.protected_until(lease.granted_at)).filter(|until| *until > now);
            let not_before = by_queue.max(by_itself);
            match not_before {
                // Its budget allows none at all.
                Some(Timestamp::MAX) if !reclaimable => Exposure::Safe,
                not_before => Exposure::Preemptible { above: job.spec.priority, not_before, reclaimable, cost },
            }
        }
    };
    Some(Standing {
        lease: lease.id,
        slots: lease.slot_total() + extras.iter().map(|lease| lease.slot_total()).sum::<u64>(),
        replicas: job.replicas_held(),
        extras: u32::try_from(extras.len()).unwrap_or(u32::MAX),
        nodes: std::iter::once(lease).chain(extras).flat_map(Lease::nodes).collect::<BTreeSet<_>>().len() as u64,
        since: lease.granted_at,
        ends_at: lease.ends_at,
        expires_at: lease.expires_at,
        exposure,
    })
}

/// Until when the budget of a job's queue protects it, and whether the queue borrows.
fn by_queue(cluster: &Cluster, job: &Job, now: Timestamp) -> (Option<Timestamp>, bool) {
    let Some(queue) = cluster.ledger.find(&job.spec.queue) else { return (None, false) };
    let accounts = || cluster.ledger.accounts[queue].path.iter().map(|&ix| &cluster.ledger.accounts[ix]);
    let spent = accounts().filter(|account| !account.may_be_preempted(now, 0));
    let not_before = spent.filter_map(|account| account.next_release(now)).max();
    (not_before, cluster.ledger.has_guarantees && accounts().all(|account| account.is_beyond_guarantee()))
}
