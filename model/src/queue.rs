//! A queue: where jobs wait and what they are charged to. Queues form a tree; each has a quota.

use crate::chip::DeviceClass;
use crate::time::Millis;
use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// Whole chips, by device class and in normalised chips: chips of any class, each counted at its relative speed.
/// Written `{"nvidia-h20": 64, "*": 100}`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Quota {
    /// Normalised chips over all classes.
    #[serde(rename = "*", default, skip_serializing_if = "Option::is_none")]
    pub normalised: Option<u32>,
    /// Chips of single classes.
    #[serde(flatten)]
    pub classes: BTreeMap<DeviceClass, u32>,
}

impl Quota {
    /// Whether it says nothing.
    pub fn is_empty(&self) -> bool {
        self.normalised.is_none() && self.classes.is_empty()
    }
}

/// How often the jobs of one owner may be preempted.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PreemptionBudget {
    /// At most so many within 24 hours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_day: Option<u32>,
    /// At least this long from one to the next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cool_down: Option<Millis>,
}

/// What an admin grants a queue. The default guarantees nothing and limits nothing.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QueuePolicy {
    /// The queue above it; its use is charged there as well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
    /// Queues at the top that name the same cohort lend to each other; those that name none form one together.
    /// Queues below belong to the cohort of the one at their top.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cohort: Option<String>,
    /// What it gets whenever it wants it. What it leaves idle is lent, and comes back by reclaim.
    #[serde(default, skip_serializing_if = "Quota::is_empty")]
    pub guaranteed: Quota,
    /// What it never exceeds.
    #[serde(default, skip_serializing_if = "Quota::is_empty")]
    pub limit: Quota,
    /// Its part of what is beyond the guarantees, against its siblings.
    #[serde(default = "one")]
    pub weight: u32,
    /// How often jobs of this queue may be preempted in all. Reclaim is not bound by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preemption_budget: Option<PreemptionBudget>,
    /// Who may use it and the queues below it although their token does not name it: ids of tokens, or `oidc:` and a
    /// subject.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub submitters: Vec<String>,
}

fn one() -> u32 {
    1
}

impl Default for QueuePolicy {
    fn default() -> Self {
        QueuePolicy {
            parent: None,
            cohort: None,
            guaranteed: Quota::default(),
            limit: Quota::default(),
            weight: 1,
            preemption_budget: None,
            submitters: Vec::new(),
        }
    }
}

/// Reads queues as a map, or, as policies were first written, as a plain list of names. By hand, so that a fault keeps
/// the line and field it is at.
pub(crate) fn read_queues<'de, D: Deserializer<'de>>(from: D) -> Result<BTreeMap<String, QueuePolicy>, D::Error> {
    struct Queues;
    impl<'de> Visitor<'de> for Queues {
        type Value = BTreeMap<String, QueuePolicy>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("queues by name")
        }
        fn visit_seq<A: SeqAccess<'de>>(self, mut names: A) -> Result<Self::Value, A::Error> {
            let mut queues = BTreeMap::new();
            while let Some(name) = names.next_element()? {
                queues.insert(name, QueuePolicy::default());
            }
            Ok(queues)
        }
        fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
            let mut queues = BTreeMap::new();
            while let Some((name, queue)) = entries.next_entry::<String, QueuePolicy>()? {
                if queues.insert(name.clone(), queue).is_some() {
                    return Err(serde::de::Error::custom(format_args!("queue {name} is there twice")));
                }
            }
            Ok(queues)
        }
    }
    from.deserialize_any(Queues)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quota_is_written_by_class_with_a_star_for_all() {
        let quota: Quota = serde_json::from_str(r#"{"nvidia-h20": 64, "*": 100}"#).expect("a quota");
        assert_eq!(quota.normalised, Some(100));
        assert_eq!(quota.classes.values().copied().collect::<Vec<_>>(), [64]);
        assert_eq!(serde_json::to_string(&quota).expect("json"), r#"{"*":100,"nvidia-h20":64}"#);
    }
}
