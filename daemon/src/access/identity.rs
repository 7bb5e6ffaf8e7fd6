//! Whose a request is, and which queues and node are theirs.

use super::pace::Pace;
use chiptide_api::access::{Role, WhoamiView};
use chiptide_api::time::to_utc;
use chiptide_model::{NodeId, Policy, Timestamp};
use std::sync::Arc;

/// Somebody known.
#[derive(Debug)]
pub struct Identity {
    /// Stable and never given twice: a token's public part, or the issuer's or certificate's word with a prefix.
    pub id: String,
    /// What the token is for, or whose it is.
    pub name: String,
    /// What it allows.
    pub role: Role,
    /// The queues a scheduler may use, those below them included.
    pub queues: Vec<String>,
    /// An agent's node.
    pub node: Option<NodeId>,
    /// When it becomes void.
    pub expires_at: Option<Timestamp>,
    /// How fast it has come of late.
    pub pace: Pace,
}

/// Who a request comes from; in the request's extensions once that is known.
#[derive(Clone, Debug)]
pub struct Who(pub Arc<Identity>);

impl Identity {
    /// Whether it is void at `now`.
    pub fn is_void(&self, now: Timestamp) -> bool {
        self.expires_at.is_some_and(|at| at <= now)
    }

    /// Whether jobs of this queue are theirs: everybody's but for a scheduler, whose token, or whose entry among the
    /// `submitters`, names the queue or one above it.
    pub fn has_queue(&self, policy: &Policy, queue: &str) -> bool {
        if self.role != Role::Scheduler {
            return true;
        }
        let mut at = Some(queue);
        // A policy with a cycle is refused; the bound is for the proof of it to be here.
        for _ in 0..=policy.queues.len() {
            let Some(name) = at else { return false };
            let known = policy.queues.get(name);
            let is_named = known.is_some_and(|queue| queue.submitters.contains(&self.id));
            if is_named || self.queues.iter().any(|own| own == name) {
                return true;
            }
            at = known.and_then(|queue| queue.parent.as_deref());
        }
        false
    }

    /// The queues whose jobs are theirs; `None` when every queue's are. Queues that the policy has no more are theirs by name.
    pub fn queues_in(&self, policy: &Policy) -> Option<Vec<String>> {
        if self.role != Role::Scheduler {
            return None;
        }
        let known = policy.queues.keys().filter(|queue| self.has_queue(policy, queue));
        let gone = self.queues.iter().filter(|queue| !policy.queues.contains_key(*queue));
        Some(known.chain(gone).cloned().collect())
    }

    /// The same for its owner.
    pub fn view(&self) -> WhoamiView {
        WhoamiView {
            id: self.id.clone(),
            name: self.name.clone(),
            role: self.role,
            queues: self.queues.clone(),
            node: self.node.as_ref().map(|node| node.as_str().to_owned()),
            expires_at: self.expires_at.map(to_utc),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chiptide_model::QueuePolicy;

    fn who(role: Role, queues: &[&str]) -> Identity {
        let queues = queues.iter().map(|queue| (*queue).to_owned()).collect();
        let (id, name) = ("abc".to_owned(), "platform".to_owned());
        Identity { id, name, role, queues, node: None, expires_at: None, pace: Pace::default() }
    }

    fn policy() -> Policy {
        let below = |parent: &str| QueuePolicy { parent: Some(parent.into()), ..QueuePolicy::default() };
        let named = QueuePolicy { submitters: vec!["abc".into()], ..QueuePolicy::default() };
        let queues = [
            ("team".to_owned(), QueuePolicy::default()),
            ("team-a".to_owned(), below("team")),
            ("team-a-x".to_owned(), below("team-a")),
            ("other".to_owned(), QueuePolicy::default()),
            ("shared".to_owned(), named),
        ];
        Policy { queues: queues.into(), ..Policy::default() }
    }

    #[test]
    fn a_scheduler_has_its_queues_and_those_below_and_those_that_name_it() {
        let (who, policy) = (who(Role::Scheduler, &["team-a", "gone"]), policy());
        let has = |queue| who.has_queue(&policy, queue);
        assert_eq!(
            ["team", "team-a", "team-a-x", "other", "shared", "no-such"].map(has),
            [false, true, true, false, true, false]
        );
        assert!(has("gone"), "a queue that the policy has no more still has its jobs");
        assert_eq!(who.queues_in(&policy).expect("some"), ["shared", "team-a", "team-a-x", "gone"]);
    }

    #[test]
    fn the_other_roles_are_not_bound_to_queues() {
        for role in [Role::Admin, Role::Operator, Role::Viewer] {
            assert!(who(role, &[]).has_queue(&policy(), "other") && who(role, &[]).queues_in(&policy()).is_none());
        }
    }
}
