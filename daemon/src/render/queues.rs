//! Queues as the wire shows them: slots become chips.

use chiptide_allocator::{Cluster, ColumnUse, QueueUse};
use chiptide_api::queue::{ClassUseView, QueueUseView, QueueView, QueuesView};
use chiptide_model::{Policy, SLOTS_PER_CHIP, Timestamp};

/// Every queue that the policy knows or that somebody is charged to.
pub fn queues(cluster: &Cluster, now: Timestamp) -> QueuesView {
    let uses = cluster.queue_uses(now).into_iter();
    QueuesView { items: uses.map(|queue| view(&cluster.policy, queue)).collect() }
}

fn view(policy: &Policy, queue: QueueUse) -> QueueView {
    let columns = || queue.columns.iter();
    let normalised = columns().find(|column| column.class.is_none()).map(use_view);
    let class_view = |column: &ColumnUse| {
        Some(ClassUseView {
            device_class: column.class.as_ref()?.to_string(),
            chips: use_view(column),
            recent: chips(column.past.unwrap_or(0)),
        })
    };
    QueueView {
        takes_jobs: policy.takes_jobs(&queue.queue),
        weight: queue.weight,
        // Millionths of a millionth.
        share: queue.share as f64 / 1e12,
        pending: queue.pending,
        normalised: normalised.unwrap_or_default(),
        classes: columns().filter_map(class_view).collect(),
        parent: queue.parent,
        name: queue.queue,
    }
}

fn use_view(column: &ColumnUse) -> QueueUseView {
    QueueUseView {
        guaranteed: chips(column.guaranteed),
        limit: column.limit.map(chips),
        used: chips(column.used),
        leaving: chips(column.leaving),
        borrowed: chips(column.borrowed),
        lent: chips(column.guaranteed.saturating_sub(column.used.saturating_sub(column.leaving))),
    }
}

/// Slots as chips, parts included.
fn chips(slots: u64) -> f64 {
    slots as f64 / f64::from(SLOTS_PER_CHIP)
}
