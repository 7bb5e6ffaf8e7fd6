//! Who may do what: roles, tokens, join tokens, and the audit of what was done.

use chiptide_model::Millis;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What somebody may do.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Only what the agent of one node does.
    Agent,
    /// Reads everything but tokens and the audit.
    Viewer,
    /// Submits and manages the jobs of its queues, and reads those and the general state.
    Scheduler,
    /// Reads everything but tokens; cordons, drains and quarantines.
    Operator,
    /// Everything.
    Admin,
}

impl Role {
    /// Every role.
    pub const ALL: [Role; 5] = [Role::Admin, Role::Operator, Role::Scheduler, Role::Viewer, Role::Agent];

    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Role::Admin => "admin",
            Role::Operator => "operator",
            Role::Scheduler => "scheduler",
            Role::Viewer => "viewer",
            Role::Agent => "agent",
        }
    }

    /// The role of this name.
    pub fn named(name: &str) -> Option<Role> {
        Role::ALL.into_iter().find(|role| role.as_str() == name)
    }
}

impl std::fmt::Display for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::str::FromStr for Role {
    type Err = String;
    fn from_str(name: &str) -> Result<Role, String> {
        let all = Role::ALL.map(Role::as_str).join(", ");
        Role::named(name).ok_or_else(|| format!("{name:?} is not one of {all}"))
    }
}

/// A token to be made.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TokenBody {
    /// What it is for, 1 to 100 bytes; shown in lists and in the audit.
    #[schema(example = "training platform")]
    pub name: String,
    /// What it allows.
    pub role: Role,
    /// For a scheduler, and only there: the queues it may use, those below them included.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub queues: Vec<String>,
    /// For an agent, and only there: its node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// After how long it is void; without, it holds until it is revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "90d")]
    pub expires_in: Option<Millis>,
}

/// A token, without its secret.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
pub struct TokenView {
    /// Its public part: what stands between `chiptide_` and the secret.
    pub id: String,
    /// What it is for.
    pub name: String,
    /// What it allows.
    pub role: Role,
    /// The queues it may use, those below them included.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub queues: Vec<String>,
    /// Its node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// Who made it: the id of their token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_by: Option<String>,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When it becomes void by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<DateTime<Utc>>,
    /// When it was revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked_at: Option<DateTime<Utc>>,
    /// When it was last used, give or take half a minute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_used_at: Option<DateTime<Utc>>,
}

/// A token just made. Its secret is told here and nowhere else.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
pub struct NewTokenView {
    /// The whole token: what goes behind `Authorization: Bearer`.
    pub token: String,
    /// What is kept of it.
    #[serde(flatten)]
    pub about: TokenView,
}

/// Who the caller is.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
pub struct WhoamiView {
    /// The id of the token; `oidc:` and the subject; or `certificate:` and the node.
    pub id: String,
    /// What it is for, or whose it is.
    pub name: String,
    /// What it allows.
    pub role: Role,
    /// The queues it may use, those below them included; absent where every queue may be.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub queues: Vec<String>,
    /// Its node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// When it becomes void.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<DateTime<Utc>>,
}

/// One call that changed something, or was to, and who made it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
pub struct AuditView {
    /// Its number; later ones have higher ones.
    pub seq: u64,
    /// When it was answered.
    pub at: DateTime<Utc>,
    /// Who called: the id of a token, `oidc:` and a subject, `certificate:` and a node; empty where nobody was known.
    pub who: String,
    /// What the token is for, or whose it is.
    pub name: String,
    /// The role they had.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// Method and route.
    #[schema(example = "POST /v1/jobs/{id}/cancel")]
    pub action: String,
    /// What the path names: a job, a lease, a node, a chip, a token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// The address it came from.
    pub address: String,
    /// The request's id, which is in the answer's `x-request-id`.
    pub request_id: String,
    /// `allowed`; `refused`: nothing was done; `failed`: the daemon could not, or cannot tell.
    pub outcome: String,
    /// HTTP status of the answer.
    pub status: u16,
    /// The stable code of a refusal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// How the target stood before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub before: Option<serde_json::Value>,
    /// How it, or what was made, stood after.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub after: Option<serde_json::Value>,
}

/// A join token to be made: it lets one agent in, once.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct JoinTokenBody {
    /// The only node it is good for, in place of the credentials that node may have; without, it is good for any node that
    /// has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// After how long it is void; default 10 minutes, at most 24 hours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "10m")]
    pub expires_in: Option<Millis>,
}

/// A join token just made. Its secret is told here and nowhere else.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
pub struct JoinTokenView {
    /// The whole join token: what the agent is given.
    pub join_token: String,
    /// Its public part.
    pub id: String,
    /// The only node it is good for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// When it becomes void.
    pub expires_at: DateTime<Utc>,
}

/// An agent that joins.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct JoinBody {
    /// The join token.
    pub join_token: String,
    /// The node's name.
    pub node: String,
}
