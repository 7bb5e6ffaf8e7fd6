//! The policy that a term of leadership begins with.

use crate::store::{Store, StoreError, policies};
use chiptide_allocator::{Cluster, PolicyChange};
use chiptide_model::Policy;

/// The policy to begin with: in a new cluster the file's or the default; later the file's, if it says something else
/// than the file did last. What an admin has changed since stays.
pub(super) async fn first_policy(
    draft: &Cluster,
    store: &Store,
    file: Option<Policy>,
) -> Result<Option<PolicyChange>, StoreError> {
    let change = |policy, author: &str, reason: &str| {
        Some(PolicyChange { policy, after: None, author: author.into(), reason: reason.into() })
    };
    if draft.seq == 0 {
        return Ok(match file {
            Some(file) => change(file, policies::FILE, ""),
            None => change(Policy::default(), policies::START, "what a new cluster starts with"),
        });
    }
    let Some(file) = file else { return Ok(None) };
    let same = |other: &Policy| Policy { version: other.version, ..file.clone() } == *other;
    if same(&draft.policy) {
        return Ok(None);
    }
    if policies::last_of_file(&store.reader).await?.is_some_and(|last| same(&last)) {
        tracing::info!("the policy file is as it was; what was changed since stays in force");
        return Ok(None);
    }
    Ok(change(file, policies::FILE, "the file has changed"))
}
