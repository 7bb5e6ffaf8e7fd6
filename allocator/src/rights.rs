//! Rights: which leases may be taken for a job, and why. Kept while a plan is made, since every victim chosen leaves its
//! queue with less to give.

use crate::cluster::Cluster;
use crate::queue::Shape;
use crate::quota::{Amounts, QueueIx, Standing, Why};
use chiptide_model::{Lease, Timestamp};

/// What a job may take.
#[derive(Clone)]
pub(crate) struct Rights<'a> {
    cluster: &'a Cluster,
    now: Timestamp,
    priority: i32,
    taker: Option<QueueIx>,
    /// What the job would be charged, by device class.
    asks: Vec<Option<Amounts>>,
    standing: Standing<'a>,
    /// No queue has a guarantee, a budget or a cohort: priority alone decides.
    by_priority_only: bool,
    /// Preemptions of this plan, by the queue they were charged to.
    preempted: Vec<(QueueIx, u32)>,
}

impl<'a> Rights<'a> {
    /// The rights of a job of this shape.
    pub(crate) fn of(cluster: &'a Cluster, shape: &Shape, now: Timestamp) -> Rights<'a> {
        let by_priority_only = !cluster.ledger.binds_preemption();
        let asks = |class| if by_priority_only { None } else { cluster.asks_on(shape, class) };
        Rights {
            cluster,
            now,
            priority: shape.priority,
            taker: cluster.ledger.find(&shape.queue),
            asks: (0..cluster.fleet.classes.len()).map(asks).collect(),
            standing: cluster.standing(),
            by_priority_only,
            preempted: Vec::new(),
        }
    }

    /// Whether this lease may be taken, and why: by priority, within the budget of its queue and without cutting into
    /// what that is guaranteed; or by quota, from a queue that borrowed what the job's own is guaranteed.
    pub(crate) fn may_evict(&self, lease: &Lease) -> Option<Why> {
        let job = self.cluster.job(lease.job)?;
        if !lease.is_active() || !job.spec.preemptible {
            return None;
        }
        let lower = job.spec.priority < self.priority;
        if self.by_priority_only {
            return lower.then_some(Why::Preempt);
        }
        let giver = self.cluster.ledger.find(&job.spec.queue)?;
        let gives = self.cluster.amounts(&lease.placements);
        let in_budget = || {
            self.cluster.ledger.accounts[giver].path.iter().all(|&ix| {
                let more = self.preempted.iter().find(|(known, _)| *known == ix).map_or(0, |(_, count)| *count);
                self.cluster.ledger.accounts[ix].may_be_preempted(self.now, more)
            })
        };
        let Some(taker) = self.taker else { return (lower && in_budget()).then_some(Why::Preempt) };
        let asks = gives.0.iter().find_map(|(column, _)| self.asks.get(column - 1)?.as_ref())?;
        self.standing.may_take(taker, asks, giver, &gives, lower && in_budget())
    }

    /// Notes that this lease will be taken; `false`, and nothing noted, if it may not be, after those taken before.
    pub(crate) fn take(&mut self, lease: &Lease) -> bool {
        let Some(why) = self.may_evict(lease) else { return false };
        if self.by_priority_only {
            return true;
        }
        if let Some(giver) = self.cluster.queue_of(lease) {
            self.standing.take(giver, &self.cluster.amounts(&lease.placements));
            if why == Why::Preempt {
                for &ix in &self.cluster.ledger.accounts[giver].path {
                    match self.preempted.iter_mut().find(|(known, _)| *known == ix) {
                        Some((_, count)) => *count += 1,
                        None => self.preempted.push((ix, 1)),
                    }
                }
            }
        }
        true
    }
}
