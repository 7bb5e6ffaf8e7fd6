//! Policies as the wire shows them: versions, changes, and from when each change counts.

use crate::store::policies::PolicyVersion;
use chiptide_allocator::{Cluster, policy_review};
use chiptide_api::policy::{
    ChangeView, EffectView, PolicyAppliedView, PolicyVersionView, PolicyView, WarningView, changes, document,
};
use chiptide_api::time::to_utc;
use chiptide_model::Policy;

/// One version, whole.
pub fn policy_view(version: &PolicyVersion) -> PolicyView {
    PolicyView {
        version: version.policy.version,
        author: version.author.clone(),
        reason: version.reason.clone(),
        applied_at: to_utc(version.applied_at),
        policy: document(&version.policy),
    }
}

/// One version in the history, against the one before it.
pub fn policy_version(version: &PolicyVersion, before: Option<&Policy>) -> PolicyVersionView {
    let start = Policy::default();
    PolicyVersionView {
        version: version.policy.version,
        author: version.author.clone(),
        reason: version.reason.clone(),
        applied_at: to_utc(version.applied_at),
        changes: changes(before.unwrap_or(&start), &version.policy),
    }
}

/// What a change has done, told from the cluster after it.
pub fn policy_applied(after: &Cluster, before: &Policy, author: &str, reason: &str) -> PolicyAppliedView {
    let (changes, warnings) = policy_changed(after, before, &after.policy);
    PolicyAppliedView { version: after.policy.version, author: author.into(), reason: reason.into(), changes, warnings }
}

/// What a change means: path by path from when it counts, and what the author should know.
pub fn policy_changed(cluster: &Cluster, before: &Policy, after: &Policy) -> (Vec<EffectView>, Vec<WarningView>) {
    let warnings = policy_review::review(cluster, before, after, cluster.at).into_iter();
    (
        changes(before, after).into_iter().map(effect).collect(),
        warnings.map(|fault| WarningView { field: fault.field, line: None, detail: fault.problem }).collect(),
    )
}

/// From when a changed path counts. What the allocator looks up when it decides counts at once; what a job or a lease
/// took over when it came is theirs.
fn effect(change: ChangeView) -> EffectView {
    let mut parts = change.path.split('.');
    let last = change.path.rsplit('.').next().unwrap_or_default();
    let (takes_effect, effect) = match (parts.next().unwrap_or_default(), last) {
        ("queues", _) => (
            "now",
            "counts in the round that put it in force: for who is served next and who may be reclaimed; nobody is evicted for a lowered limit",
        ),
        ("priority_classes", _) => {
            ("new_jobs", "jobs submitted from now on; those that are there keep what they came with")
        }
        ("bounds", "grace_max") => ("new_jobs", "jobs submitted from now on"),
        ("bounds", "claim") => ("new_leases", "claims made from now on; those under way keep their deadline"),
        ("bounds", "vacate") => ("new_leases", "leases that end from now on"),
        ("bounds", _) => ("now", "counts at once, also for leases that are there"),
        ("node_loss", "training" | "inference" | "ttl") => ("new_jobs", "jobs submitted from now on"),
        ("node_loss", _) => ("now", "counts at once, also for nodes that are silent already"),
        ("calendar", _) => (
            "on_its_dates",
            "its chips are chosen backfill.calendar_lead before it begins, at once if that is past; a changed entry is planned anew",
        ),
        ("windows", _) => ("on_its_dates", "counts while the window is open, from this round on if it is open now"),
        ("device_classes" | "reserve" | "backfill" | "consolidation", _) => {
            ("now", "counts for every placement from now on; what runs is not moved for it")
        }
        _ => ("now", "counts in the round that put it in force"),
    };
    EffectView { change, takes_effect: takes_effect.into(), effect: effect.into() }
}
