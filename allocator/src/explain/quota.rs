//! What a queue's quota has against a pending job.

use super::reason::{Reason, Shortage};
use crate::cluster::Cluster;
use crate::queue::Shape;
use crate::quota::{QueueIx, QuotaBlock, Standing};
use crate::serve::within_quota;
use chiptide_model::{Kind, Lease, Placement};
use std::borrow::Cow;

/// The shape with the classes that its quota leaves open (`None` if it leaves none), and a reason for each it closes. If
/// it closes all of them, the one that asks for least is told.
pub(super) fn within<'s>(cluster: &Cluster, shape: &'s Shape) -> (Option<Cow<'s, Shape>>, Vec<Reason>) {
    let open = within_quota(cluster, shape);
    if matches!(open, Some(Cow::Borrowed(_))) {
        return (open, Vec::new());
    }
    let Some(queue) = cluster.ledger.find(&shape.queue) else { return (open, Vec::new()) };
    let one = Shape { replicas: 1, ..shape.clone() };
    let asking = if shape.kind == Kind::Inference { &one } else { shape };
    let standing = cluster.standing();
    let block = |class: usize| {
        let asks = cluster.asks_on(asking, class)?;
        standing.block(queue, &asks, !shape.preemptible)
    };
    let mut blocks: Vec<QuotaBlock> = cluster.classes_of(shape).into_iter().filter_map(block).collect();
    blocks.sort_by_key(|block| block.requested.saturating_sub(block.available));
    if open.is_none() {
        blocks.truncate(1);
    }
    let reasons = blocks.iter().map(|block| reason(cluster, block)).collect();
    (open, reasons)
}

/// A block of the quota as a reason.
pub(super) fn reason(cluster: &Cluster, block: &QuotaBlock) -> Reason {
    let class = block.class.and_then(|class| cluster.fleet.classes.get(class).cloned());
    let slots = Shortage { requested: block.requested, available: block.available };
    match block.limit_of.and_then(|queue| cluster.ledger.accounts.get(queue)) {
        Some(account) => Reason::QueueLimit { queue: account.name.to_string(), class, slots },
        None => Reason::BorrowLimit { class, slots },
    }
}

/// The quota of a job's queue while others leave.
pub(super) struct Leaving<'a> {
    cluster: &'a Cluster,
    standing: Standing<'a>,
    queue: Option<QueueIx>,
    firm: bool,
}

impl<'a> Leaving<'a> {
    pub(super) fn of(cluster: &'a Cluster, shape: &Shape) -> Leaving<'a> {
        let queue = cluster.ledger.find(&shape.queue).filter(|queue| cluster.ledger.is_bound(*queue));
        Leaving { cluster, standing: cluster.standing(), queue, firm: !shape.preemptible }
    }

    /// A lease has ended. One under notice is not counted against its queue any more as it is.
    pub(super) fn leave(&mut self, lease: &Lease) {
        if self.queue.is_some()
            && lease.is_active()
            && let Some(giver) = self.cluster.queue_of(lease)
        {
            self.standing.take(giver, &self.cluster.amounts(&lease.placements));
        }
    }

    /// Whether the queue may hold these placements by now.
    pub(super) fn leaves(&self, placements: &[Placement]) -> bool {
        let block = |queue| self.standing.block(queue, &self.cluster.amounts(placements), self.firm);
        self.queue.and_then(block).is_none()
    }
}
