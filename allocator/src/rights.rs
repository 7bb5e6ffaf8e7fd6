//! Rights: which leases may be taken for a job, and why. Kept while a plan is made, since every victim chosen leaves its
//! queue with less to give. The search for victims asks only here.

use crate::cluster::Cluster;
use crate::queue::Shape;
use crate::quota::{Amounts, QueueIx, Standing, Why};
use chiptide_model::{Lease, Timestamp};

/// All that rights distinguish of a lease beside its size: leases of one band may be taken by the same jobs.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Band {
    /// The queue its job is charged to.
    pub queue: String,
    /// The priority of its job.
    pub priority: i32,
    /// An extra replica of an elastic job: the first to go.
    pub extra: bool,
}

impl Band {
    /// Whether a job of this priority stands above it. A whole lease needs a strictly higher priority; an extra replica
    /// goes to any job of the same priority too, and never takes anything itself, so that no two jobs take from each
    /// other in turn.
    fn is_below(&self, priority: i32) -> bool {
        priority > self.priority || (self.extra && priority == self.priority)
    }
}

/// What a job may take.
#[derive(Clone)]
pub(crate) struct Rights<'a> {
    cluster: &'a Cluster,
    now: Timestamp,
    priority: i32,
    ground: Ground,
    taker: Option<QueueIx>,
    /// What the job would be charged, by device class.
    asks: Vec<Option<Amounts>>,
    standing: Standing<'a>,
    /// Preemptions of this plan, by the queue they were charged to.
    preempted: Vec<(QueueIx, u32)>,
}

/// On which ground leases are taken.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ground {
    /// By priority alone: no queue has a guarantee, a budget or a cohort.
    Priority,
    /// By priority within guarantees and budgets, and by quota.
    Quota,
    /// Everyone in the books: they are not taken, only moved, or asked about.
    Anyone,
}

impl<'a> Rights<'a> {
    /// The rights of a job of this shape.
    pub(crate) fn of(cluster: &'a Cluster, shape: &Shape, now: Timestamp) -> Rights<'a> {
        let ground = if cluster.ledger.binds_preemption() { Ground::Quota } else { Ground::Priority };
        let asks = |class| if ground == Ground::Quota { cluster.asks_on(shape, class) } else { None };
        Rights {
            cluster,
            now,
            priority: shape.priority,
            ground,
            taker: cluster.ledger.find(&shape.queue),
            asks: (0..cluster.fleet.classes.len()).map(asks).collect(),
            standing: cluster.standing(),
            preempted: Vec::new(),
        }
    }

    /// No rights are asked for: for moves, and for what would happen if.
    pub(crate) fn over_anyone(cluster: &'a Cluster, shape: &Shape, now: Timestamp) -> Rights<'a> {
        Rights { ground: Ground::Anyone, ..Rights::of(cluster, shape, now) }
    }

    /// Whether some lease of this band might be taken. Which ones, [`Rights::take`] says.
    pub(crate) fn admits(&self, band: &Band) -> bool {
        let below = band.is_below(self.priority);
        match self.ground {
            Ground::Anyone => true,
            Ground::Priority => below,
            Ground::Quota => {
                let slot = |class: usize| Amounts(vec![(class + 1, 1)]);
                (0..self.asks.len()).any(|class| self.why(band, &slot(class)).is_some())
            }
        }
    }

    /// Whether this lease may be taken, and why: by priority, within the budget of its queue and without cutting into
    /// what that is guaranteed; or by quota, from a queue that borrowed what the job's own is guaranteed.
    pub(crate) fn may_evict(&self, lease: &Lease) -> Option<Why> {
        let band = self.cluster.stakes.band_of(lease.id)?;
        match self.ground {
            Ground::Quota => self.why(band, &self.cluster.amounts(&lease.placements)),
            _ => self.admits(band).then_some(Why::Preempt),
        }
    }

    fn why(&self, band: &Band, gives: &Amounts) -> Option<Why> {
        let giver = self.cluster.ledger.find(&band.queue)?;
        let lower = band.is_below(self.priority) && (band.extra || self.in_budget(giver));
        let Some(taker) = self.taker else { return lower.then_some(Why::Preempt) };
        let asks = gives.0.iter().find_map(|(column, _)| self.asks.get(column - 1)?.as_ref())?;
        self.standing.may_take(taker, asks, giver, gives, lower)
    }

    /// Whether the budgets of a queue and of those above it leave another preemption.
    fn in_budget(&self, giver: QueueIx) -> bool {
        let accounts = &self.cluster.ledger.accounts;
        accounts[giver].path.iter().all(|&ix| {
            let more = self.preempted.iter().find(|(known, _)| *known == ix).map_or(0, |(_, count)| *count);
            accounts[ix].may_be_preempted(self.now, more)
        })
    }

    /// Notes that this lease will be taken, with the extra replicas that end with it; `false`, and nothing noted, if it
    /// may not be, after those taken before.
    pub(crate) fn take(&mut self, lease: &Lease) -> bool {
        if self.ground == Ground::Anyone {
            return true;
        }
        let Some(why) = self.may_evict(lease) else { return false };
        if self.ground == Ground::Priority {
            return true;
        }
        if let Some(giver) = self.cluster.queue_of(lease) {
            for id in self.cluster.with_extras(lease.id) {
                if let Some(one) = self.cluster.lease(id).filter(|lease| lease.is_active()) {
                    self.standing.take(giver, &self.cluster.amounts(&one.placements));
                }
            }
            if why == Why::Preempt && !lease.extra {
                self.count(giver);
            }
        }
        true
    }

    fn count(&mut self, giver: QueueIx) {
        for &ix in &self.cluster.ledger.accounts[giver].path {
            match self.preempted.iter_mut().find(|(known, _)| *known == ix) {
                Some((_, count)) => *count += 1,
                None => self.preempted.push((ix, 1)),
            }
        }
    }
}
