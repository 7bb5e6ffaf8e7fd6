//! What becomes of a job's lease when a node that carries it is no longer heard, and how long that takes.

use crate::job::Kind;
use crate::time::Millis;
use serde::{Deserialize, Serialize};

/// What a job wants done when one of its nodes is cut off.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NodeLossAction {
    /// Wait for the node: the job is not placed again before the node is back, or is declared off. An outage ends no work.
    #[default]
    Wait,
    /// The node ends the work by itself when its lease has not been renewed for the fence's `ttl`; once that is certain the
    /// job is placed again. Needs a clock on each side, and work that the agent runs.
    Fence,
    /// The job is placed again at once, whatever the old attempt may still do. For replicas that share no state.
    Duplicate,
}

/// A fence: how long work outlives its node's last renewed report, and how long its end may take from then on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Fence {
    /// From the sending of the last report that was renewed to SIGTERM, on the node's boot-time clock.
    pub ttl: Millis,
    /// From SIGTERM to the kill.
    pub kill: Millis,
    /// How late the node may notice that its time is up: its watchdog resets it then.
    pub watchdog: Millis,
}

/// What to do with the lease of a job when one of its nodes is no longer heard.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(tag = "action", rename_all = "snake_case")]
pub enum OnNodeLoss {
    /// Nothing, until the node is back.
    #[default]
    Wait,
    /// Call it ended once the node must have ended the work by itself.
    Fence(Fence),
    /// Call it ended although the work may go on.
    Duplicate,
}

impl OnNodeLoss {
    /// The word used on the wire.
    pub fn action(self) -> NodeLossAction {
        match self {
            OnNodeLoss::Wait => NodeLossAction::Wait,
            OnNodeLoss::Fence(_) => NodeLossAction::Fence,
            OnNodeLoss::Duplicate => NodeLossAction::Duplicate,
        }
    }

    /// The fence, if it has one.
    pub fn fence(self) -> Option<Fence> {
        match self {
            OnNodeLoss::Fence(fence) => Some(fence),
            OnNodeLoss::Wait | OnNodeLoss::Duplicate => None,
        }
    }

    /// Whether it is the plain rule that asks nothing of anybody.
    pub fn is_wait(&self) -> bool {
        *self == OnNodeLoss::Wait
    }
}

/// Shortest ttl of a fence: a few reports must fit in.
pub const FENCE_TTL_MIN: Millis = Millis::from_secs(5);
/// Greatest drift of a clock that can be configured, in millionths.
pub const DRIFT_PPM_MAX: u32 = 100_000;

/// How the loss of a node is met, and the bounds that the wait for a fenced lease is made of.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NodeLossPolicy {
    /// What training jobs want that do not say.
    pub training: NodeLossAction,
    /// What inference jobs want that do not say: by default they outlive the allocator for as long as it takes.
    pub inference: NodeLossAction,
    /// The ttl of fences that name none.
    pub ttl: Millis,
    /// From SIGTERM to the kill, when a node ends fenced work.
    pub kill: Millis,
    /// How late a node may notice that a ttl has passed.
    pub watchdog: Millis,
    /// How far a clock may be off, in millionths: 500 is what a time daemon corrects at most.
    pub drift_ppm: u32,
    /// Added to every wait, for what clocks cannot tell apart.
    pub tick: Millis,
    /// How long after its node fell silent a lease of a `duplicate` job is called ended.
    pub duplicate_after: Millis,
}

impl Default for NodeLossPolicy {
    fn default() -> Self {
        NodeLossPolicy {
            training: NodeLossAction::Wait,
            inference: NodeLossAction::Wait,
            ttl: Millis::from_secs(20),
            kill: Millis::from_secs(10),
            watchdog: Millis::from_secs(5),
            drift_ppm: 500,
            tick: Millis::from_secs(1),
            duplicate_after: Millis::from_secs(5),
        }
    }
}

impl NodeLossPolicy {
    /// What a job of this kind wants that says so much of it. Work that no agent runs cannot be fenced by one: a default of
    /// `fence` leaves it waiting.
    pub fn rule(&self, kind: Kind, action: Option<NodeLossAction>, ttl: Option<Millis>, is_run: bool) -> OnNodeLoss {
        let default = match kind {
            Kind::Training => self.training,
            Kind::Inference => self.inference,
        };
        match action.unwrap_or(default) {
            NodeLossAction::Fence if action.is_some() || is_run => {
                OnNodeLoss::Fence(Fence { ttl: ttl.unwrap_or(self.ttl), kill: self.kill, watchdog: self.watchdog })
            }
            NodeLossAction::Duplicate => OnNodeLoss::Duplicate,
            NodeLossAction::Wait | NodeLossAction::Fence => OnNodeLoss::Wait,
        }
    }

    /// How long after the last moment at which the node may have been renewed its fenced work is certainly over:
    /// (ttl + kill + watchdog) · (1+ρ)/(1−ρ), rounded up, and a tick. The node's clock may be slow by ρ, ours fast by ρ.
    pub fn fence_wait(&self, fence: Fence) -> Millis {
        let span = u128::from(fence.ttl.0) + u128::from(fence.kill.0) + u128::from(fence.watchdog.0);
        let drift = u128::from(self.drift_ppm.min(DRIFT_PPM_MAX));
        let stretched = (span * (1_000_000 + drift)).div_ceil(1_000_000 - drift);
        let wait = stretched.saturating_add(u128::from(self.tick.0));
        Millis(u64::try_from(wait).unwrap_or(u64::MAX))
    }

    /// How long after a node was last heard a lease there is called ended; `None` while the rule is to wait for the node.
    /// After a takeover every node is unheard for a moment: a duplicate is not made before a fence would be over.
    pub fn ends_after(&self, rule: OnNodeLoss, since_takeover: bool) -> Option<Millis> {
        match rule {
            OnNodeLoss::Wait => None,
            OnNodeLoss::Fence(fence) => Some(self.fence_wait(fence)),
            OnNodeLoss::Duplicate if since_takeover => {
                Some(self.fence_wait(Fence { ttl: self.ttl, kill: self.kill, watchdog: self.watchdog }))
            }
            OnNodeLoss::Duplicate => Some(self.duplicate_after),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secs(secs: u64) -> Millis {
        Millis::from_secs(secs)
    }

    #[test]
    fn a_wait_covers_both_clocks() {
        let policy = NodeLossPolicy::default();
        let fence = Fence { ttl: secs(20), kill: secs(10), watchdog: secs(5) };
        // 35 s · 1.0005/0.9995 = 35.035018 s, and a second.
        assert_eq!(policy.fence_wait(fence), Millis(36_036));
        let exact = NodeLossPolicy { drift_ppm: 0, tick: Millis(0), ..policy };
        assert_eq!(exact.fence_wait(fence), secs(35));
        let endless = Fence { ttl: Millis::MAX, kill: Millis::MAX, watchdog: Millis::MAX };
        assert!(exact.fence_wait(endless) > Millis::MAX, "nothing wraps");
    }

    #[test]
    fn what_a_job_does_not_say_the_policy_does() {
        let policy = NodeLossPolicy { inference: NodeLossAction::Fence, ..NodeLossPolicy::default() };
        let rule = |kind, action, is_run| policy.rule(kind, action, None, is_run).action();
        assert_eq!(rule(Kind::Training, None, true), NodeLossAction::Wait);
        assert_eq!(rule(Kind::Inference, None, true), NodeLossAction::Fence);
        assert_eq!(rule(Kind::Inference, None, false), NodeLossAction::Wait, "nobody there to end it");
        assert_eq!(rule(Kind::Inference, Some(NodeLossAction::Duplicate), false), NodeLossAction::Duplicate);
    }

    #[test]
    fn a_rule_reads_back_as_written() {
        let fence = OnNodeLoss::Fence(Fence { ttl: secs(20), kill: secs(10), watchdog: secs(5) });
        for (rule, text) in [
            (OnNodeLoss::Wait, r#"{"action":"wait"}"#),
            (fence, r#"{"action":"fence","ttl":"20s","kill":"10s","watchdog":"5s"}"#),
        ] {
            assert_eq!(serde_json::to_string(&rule).expect("text"), text);
            assert_eq!(serde_json::from_str::<OnNodeLoss>(text).expect("a rule"), rule);
        }
    }
}
