//! How a lease was taken, step by step.

use crate::store::eviction_steps::{LastEviction, StepRow};
use chiptide_api::lease::{EvictionStepView, EvictionView};
use chiptide_api::time::to_utc;

/// The last eviction of a job.
pub fn eviction(last: &LastEviction) -> EvictionView {
    EvictionView {
        lease: last.lease.0,
        attempt: last.attempt,
        cause: last.cause.clone(),
        for_job: last.for_job.map(|job| job.0),
        steps: steps(&last.steps),
    }
}

/// Steps in order of time. A node tells its steps again when there are more of them: each is shown once.
pub fn steps(rows: &[StepRow]) -> Vec<EvictionStepView> {
    let mut steps: Vec<EvictionStepView> = Vec::with_capacity(rows.len());
    for row in rows {
        let node = row.node.as_ref().map(ToString::to_string);
        if node.is_none() || !steps.iter().any(|known| known.step == row.step && known.node == node) {
            steps.push(EvictionStepView {
                step: row.step.clone(),
                at: to_utc(row.at),
                node,
                detail: row.detail.clone(),
            });
        }
    }
    steps.sort_by_key(|step| step.at);
    steps
}
