//! The policy on the wire: its versions, what changed between two of them, and when that takes effect.

use chiptide_model::Policy;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// A version of the policy.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
pub struct PolicyView {
    /// Its number; the `ETag` of the policy in force.
    pub version: u64,
    /// Who put it in force: the public part of a token, `policy file` or `first start`.
    pub author: String,
    /// Why, in their words; may be empty.
    pub reason: String,
    /// Since when it is in force, or was.
    pub applied_at: DateTime<Utc>,
    /// The document, as `PUT /v1/policy` takes it.
    #[schema(value_type = crate::policy_document::PolicyDocument)]
    pub policy: Value,
}

/// A version in the history.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
pub struct PolicyVersionView {
    /// Its number.
    pub version: u64,
    /// Who put it in force.
    pub author: String,
    /// Why, in their words; may be empty.
    pub reason: String,
    /// When.
    pub applied_at: DateTime<Utc>,
    /// What it changed of the version before.
    pub changes: Vec<ChangeView>,
}

/// One path of the document that changed.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
pub struct ChangeView {
    /// The path: `queues.ads.guaranteed.nvidia-h20`.
    pub path: String,
    /// What it was; absent where there was nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub before: Option<Value>,
    /// What it is; absent where there is nothing any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub after: Option<Value>,
}

/// What a change of the policy did.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
pub struct PolicyAppliedView {
    /// The version in force now. The same as before if the document says nothing new.
    pub version: u64,
    /// Who changed it.
    pub author: String,
    /// Why, in their words; may be empty.
    pub reason: String,
    /// What changed, and when each change takes effect.
    pub changes: Vec<EffectView>,
    /// What the author should know: the document is sound, but may not do what is meant.
    pub warnings: Vec<WarningView>,
}

/// One path that changed, with the moment it counts from.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
pub struct EffectView {
    /// What changed.
    #[serde(flatten)]
    pub change: ChangeView,
    /// From when it counts: `now`, `new_leases`, `new_jobs` or `on_its_dates`.
    pub takes_effect: String,
    /// The same, for people.
    pub effect: String,
}

/// Something in a policy that is allowed and probably not meant.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct WarningView {
    /// The path it is about.
    pub field: String,
    /// Its line in the document that was sent, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<u64>,
    /// What is the matter, with the figures.
    pub detail: String,
}

/// Asks for an earlier version to be put in force again.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RollbackBody {
    /// Why.
    pub reason: String,
}

/// A policy as a document: without its version, which the cluster counts.
pub fn document(policy: &Policy) -> Value {
    let mut value = serde_json::to_value(policy).expect("a policy has string keys only, so it is always JSON");
    if let Value::Object(fields) = &mut value {
        fields.remove("version");
    }
    value
}

/// What differs between two policies, path by path, in order. Lists of named things are compared by name.
pub fn changes(before: &Policy, after: &Policy) -> Vec<ChangeView> {
    let mut found = Vec::new();
    compare("", Some(&document(before)), Some(&document(after)), &mut found);
    found
}

fn compare(path: &str, before: Option<&Value>, after: Option<&Value>, found: &mut Vec<ChangeView>) {
    if before == after {
        return;
    }
    let both = before.and_then(fields).zip(after.and_then(fields));
    let Some((was, is)) = both else {
        found.push(ChangeView { path: path.into(), before: before.cloned(), after: after.cloned() });
        return;
    };
    let names: std::collections::BTreeSet<&String> = was.keys().chain(is.keys()).collect();
    for name in names {
        let below = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        compare(&below, was.get(name).copied(), is.get(name).copied(), found);
    }
}

/// The parts of an object, or of a list whose items all have names of their own.
fn fields(value: &Value) -> Option<BTreeMap<String, &Value>> {
    match value {
        Value::Object(fields) => Some(fields.iter().map(|(name, value)| (name.clone(), value)).collect()),
        Value::Array(items) => items.iter().map(|item| Some((item.get("name")?.as_str()?.to_owned(), item))).collect(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(text: &str) -> Policy {
        serde_json::from_str(text).expect("a policy")
    }

    #[test]
    fn changes_are_told_by_path_with_both_values() {
        let before = policy(r#"{"queues": {"ads": {"weight": 2}, "lab": {}}}"#);
        let after = policy(r#"{"queues": {"ads": {"weight": 3, "limit": {"*": 4}}}, "bounds": {"claim": "5m"}}"#);
        let told: Vec<String> = changes(&before, &after)
            .into_iter()
            .map(|change| format!("{} {:?} {:?}", change.path, change.before.is_some(), change.after.is_some()))
            .collect();
        assert_eq!(
            told,
            [
                "bounds.claim true true",
                "queues.ads.limit false true",
                "queues.ads.weight true true",
                "queues.lab true false"
            ]
        );
        assert!(changes(&after, &after).is_empty());
    }

    #[test]
    fn lists_of_named_things_are_compared_by_name() {
        let entry = |name: &str, chips: u32| {
            format!(r#"{{"name": "{name}", "from": 1, "to": 2, "queue": "default", "chips": {chips}}}"#)
        };
        let before = policy(&format!(r#"{{"calendar": [{}, {}]}}"#, entry("a", 1), entry("b", 1)));
        let after = policy(&format!(r#"{{"calendar": [{}, {}]}}"#, entry("b", 1), entry("a", 2)));
        let told: Vec<String> = changes(&before, &after).into_iter().map(|change| change.path).collect();
        assert_eq!(told, ["calendar.a.chips"]);
    }
}
