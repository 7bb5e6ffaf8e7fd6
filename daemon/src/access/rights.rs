//! What each role allows: a table of rights, and nothing that depends on whose job or node it is.

use chiptide_api::access::Role;

/// A kind of thing that somebody may do.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Right {
    /// Ask who one is, and read the contract.
    BeKnown,
    /// Read what concerns all: nodes, chips, queues, the policy.
    ReadState,
    /// Read jobs, leases and what they write: a scheduler those of its queues.
    ReadJobs,
    /// Submit and manage jobs: a scheduler those of its queues.
    ManageJobs,
    /// Take nodes and chips out of service and back.
    Operate,
    /// Change the policy.
    ChangePolicy,
    /// Make and revoke tokens.
    ManageAccess,
    /// Read the audit.
    ReadAudit,
    /// Read the daemon's metrics.
    ReadMetrics,
    /// Speak as a node's agent: an agent as its own node.
    ActAsNode,
    /// A route that no rule names.
    Unruled,
}

impl Right {
    /// Every right.
    pub const ALL: [Right; 11] = [
        Right::BeKnown,
        Right::ReadState,
        Right::ReadJobs,
        Right::ManageJobs,
        Right::Operate,
        Right::ChangePolicy,
        Right::ManageAccess,
        Right::ReadAudit,
        Right::ReadMetrics,
        Right::ActAsNode,
        Right::Unruled,
    ];

    /// Its name, as a refusal tells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Right::BeKnown => "be known",
            Right::ReadState => "read the state",
            Right::ReadJobs => "read jobs",
            Right::ManageJobs => "manage jobs",
            Right::Operate => "operate nodes and chips",
            Right::ChangePolicy => "change the policy",
            Right::ManageAccess => "manage tokens",
            Right::ReadAudit => "read the audit",
            Right::ReadMetrics => "read metrics",
            Right::ActAsNode => "act as a node's agent",
            Right::Unruled => "call a route without a rule",
        }
    }

    /// Whether a role has it.
    pub fn belongs_to(self, role: Role) -> bool {
        use Right::*;
        match role {
            Role::Admin => true,
            Role::Operator => matches!(self, BeKnown | ReadState | ReadJobs | Operate | ReadAudit | ReadMetrics),
            Role::Scheduler => matches!(self, BeKnown | ReadState | ReadJobs | ManageJobs),
            Role::Viewer => matches!(self, BeKnown | ReadState | ReadJobs | ReadMetrics),
            Role::Agent => matches!(self, BeKnown | ActAsNode),
        }
    }

    /// The roles that have it, for a refusal.
    pub fn roles(self) -> String {
        let roles: Vec<&str> = Role::ALL.into_iter().filter(|role| self.belongs_to(*role)).map(Role::as_str).collect();
        roles.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_can_name_who_may() {
        assert_eq!(Right::ManageJobs.roles(), "admin, scheduler");
        assert_eq!(Right::ActAsNode.roles(), "admin, agent");
        assert_eq!(Right::Unruled.roles(), "admin");
        assert!(Right::ALL.iter().all(|right| right.belongs_to(Role::Admin)));
    }
}
