//! What is wrong with a policy: found all at once, each with the place it is at, before anything comes into force.

use crate::id::is_name;
use crate::node_loss::{DRIFT_PPM_MAX, FENCE_TTL_MIN};
use crate::policy::Policy;
use crate::queue::{QueuePolicy, Quota};
use crate::reservation::CalendarReservation;
use std::collections::BTreeMap;
use std::fmt;

/// Queues may be nested this deep.
pub const DEPTH_MAX: usize = 8;
/// So many jobs at most may hold reservations: each costs a look in every round.
pub const RESERVATIONS_MAX: u32 = 64;

/// The greatest number of preemptions a day that a budget may allow.
pub const BUDGET_MAX: u32 = 1000;

/// One thing that is wrong with a policy.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PolicyFault {
    /// Where: `queues.ads.parent`.
    pub field: String,
    /// What.
    pub problem: String,
}

impl fmt::Display for PolicyFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.problem)
    }
}

impl Policy {
    /// Everything that contradicts itself; empty for a sound policy.
    pub fn faults(&self) -> Vec<PolicyFault> {
        let mut faults = Vec::new();
        if self.queues.is_empty() {
            faults.push(fault("queues", "at least one queue is needed"));
        }
        for (name, queue) in &self.queues {
            queue_faults(&self.queues, name, queue, &mut faults);
        }
        if self.priority_classes.is_empty() {
            faults.push(fault("priority_classes", "at least one class is needed"));
        }
        for (name, class) in &self.priority_classes {
            if class.grace.is_some_and(|grace| grace > self.bounds.grace_max) {
                let problem = format!("at most {}, which is bounds.grace_max", self.bounds.grace_max);
                faults.push(fault(&format!("priority_classes.{name}.grace"), problem));
            }
        }
        for (class, known) in &self.device_classes {
            if !(1..=1_000_000).contains(&known.speed_permille) {
                faults.push(fault(&format!("device_classes.{class}.speed_permille"), "between 1 and 1,000,000"));
            }
        }
        for (class, rule) in
            self.device_classes.iter().filter_map(|(class, known)| Some((class, known.replicas.as_ref()?)))
        {
            if !rule.chips.iter().all(|chips| (1..=64).contains(chips)) {
                faults.push(fault(&format!("device_classes.{class}.replicas.chips"), "each between 1 and 64"));
            }
            if rule.set.is_some_and(|set| !(2..=64).contains(&set.get())) {
                faults.push(fault(&format!("device_classes.{class}.replicas.set"), "between 2 and 64"));
            }
        }
        if self.bounds.start.is_some_and(|span| span.0 < 1000) {
            faults.push(fault("bounds.start", "at least 1s"));
        }
        if self.node_loss.ttl < FENCE_TTL_MIN {
            faults.push(fault("node_loss.ttl", format!("at least {FENCE_TTL_MIN}")));
        }
        if self.node_loss.drift_ppm > DRIFT_PPM_MAX {
            faults.push(fault("node_loss.drift_ppm", format!("at most {DRIFT_PPM_MAX}")));
        }
        if self.fair_share.half_life.is_some_and(|span| span.0 < 1000) {
            faults.push(fault("fair_share.half_life", "at least 1s"));
        }
        if self.reserve.as_ref().is_some_and(|reserve| reserve.block == 0) {
            faults.push(fault("reserve.block", "at least 1"));
        }
        for (at, entry) in self.calendar.iter().enumerate() {
            self.calendar_faults(at, entry, &mut faults);
        }
        if self.backfill.reservations_max > RESERVATIONS_MAX {
            faults.push(fault("backfill.reservations_max", format!("at most {RESERVATIONS_MAX}")));
        }
        faults
    }

    fn calendar_faults(&self, at: usize, entry: &CalendarReservation, faults: &mut Vec<PolicyFault>) {
        let field = |field: &str| format!("calendar.{at}.{field}");
        if !is_name(&entry.name) {
            faults.push(fault(&field("name"), "1 to 128 of A-Z a-z 0-9 . _ : -"));
        }
        if self.calendar[..at].iter().any(|other| other.name == entry.name) {
            faults.push(fault(&field("name"), format!("{:?} is there twice", entry.name)));
        }
        if entry.to <= entry.from {
            faults.push(fault(&field("to"), "after `from`"));
        }
        if !self.queues.contains_key(&entry.queue) {
            faults.push(fault(&field("queue"), format!("there is no queue {:?}", entry.queue)));
        }
        if entry.chips == 0 {
            faults.push(fault(&field("chips"), "at least 1"));
        }
        if entry.per_node == Some(0) {
            faults.push(fault(&field("per_node"), "at least 1"));
        }
    }
}

fn fault(field: &str, problem: impl Into<String>) -> PolicyFault {
    PolicyFault { field: field.into(), problem: problem.into() }
}

fn queue_faults(
    queues: &BTreeMap<String, QueuePolicy>,
    name: &str,
    queue: &QueuePolicy,
    faults: &mut Vec<PolicyFault>,
) {
    let at = |field: &str| format!("queues.{name}.{field}");
    if name.is_empty() || name.len() > 128 {
        faults.push(fault(&format!("queues.{name}"), "a name has 1 to 128 bytes"));
    }
    if !(1..=1_000_000).contains(&queue.weight) {
        faults.push(fault(&at("weight"), "between 1 and 1,000,000"));
    }
    if queue.preemption_budget.is_some_and(|budget| budget.per_day.is_some_and(|most| most > BUDGET_MAX)) {
        faults.push(fault(&at("preemption_budget.per_day"), format!("at most {BUDGET_MAX}")));
    }
    if queue.parent.is_some() && queue.cohort.is_some() {
        faults.push(fault(&at("cohort"), "only a queue at the top names a cohort"));
    }
    if let Some(parent) = &queue.parent
        && !queues.contains_key(parent)
    {
        faults.push(fault(&at("parent"), format!("there is no queue {parent:?}")));
    }
    if chain(queues, name).is_none() {
        faults.push(fault(&at("parent"), format!("it lies on a circle, or deeper than {DEPTH_MAX} queues")));
    }
    for (class, guaranteed, limit) in both(&queue.guaranteed, &queue.limit) {
        if guaranteed > limit {
            faults.push(fault(&at("guaranteed"), format!("{guaranteed} chips of {class}, above its limit of {limit}")));
        }
    }
    let below: Vec<&QueuePolicy> = queues.values().filter(|other| other.parent.as_deref() == Some(name)).collect();
    for (class, limit) in entries(&queue.limit) {
        let sum: u64 = below.iter().map(|other| u64::from(entry(&other.guaranteed, &class).unwrap_or(0))).sum();
        if sum > u64::from(limit) {
            let problem = format!("{limit} chips of {class}, below the {sum} guaranteed to the queues under it");
            faults.push(fault(&at("limit"), problem));
        }
    }
}

/// The queue and those above it, or `None` where that never ends.
fn chain<'a>(queues: &'a BTreeMap<String, QueuePolicy>, name: &'a str) -> Option<Vec<&'a str>> {
    let mut chain = vec![name];
    while let Some(parent) = queues.get(*chain.last()?).and_then(|queue| queue.parent.as_deref()) {
        if chain.len() == DEPTH_MAX {
            return None;
        }
        chain.push(parent);
    }
    Some(chain)
}

fn entries(quota: &Quota) -> Vec<(String, u32)> {
    let star = quota.normalised.map(|chips| ("*".to_owned(), chips));
    star.into_iter().chain(quota.classes.iter().map(|(class, chips)| (class.to_string(), *chips))).collect()
}

fn entry(quota: &Quota, class: &str) -> Option<u32> {
    entries(quota).into_iter().find(|(known, _)| known == class).map(|(_, chips)| chips)
}

fn both(guaranteed: &Quota, limit: &Quota) -> Vec<(String, u32, u32)> {
    let pair = |(class, chips): (String, u32)| entry(limit, &class).map(|limit| (class, chips, limit));
    entries(guaranteed).into_iter().filter_map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Timestamp;

    #[test]
    fn everything_wrong_is_named_at_once() {
        let mut policy = Policy::default();
        let quota = |chips| Quota { normalised: Some(chips), ..Quota::default() };
        let queue = |parent: &str| QueuePolicy { parent: Some(parent.into()), ..QueuePolicy::default() };
        policy.queues.insert("a".into(), queue("b"));
        policy.queues.insert("b".into(), queue("a"));
        policy.queues.insert("lost".into(), queue("nowhere"));
        policy.queues.insert("top".into(), QueuePolicy { limit: quota(4), weight: 0, ..QueuePolicy::default() });
        policy.queues.insert("low".into(), QueuePolicy { guaranteed: quota(5), limit: quota(3), ..queue("top") });
        policy.calendar.push(CalendarReservation {
            name: "the lab's".into(),
            from: Timestamp(1),
            to: Timestamp(1),
            queue: "nowhere".into(),
            device_class: None,
            chips: 0,
            per_node: Some(0),
        });
        let found: Vec<String> = policy.faults().iter().map(PolicyFault::to_string).collect();
        expect_test::expect![[r#"
            queues.a.parent: it lies on a circle, or deeper than 8 queues
            queues.b.parent: it lies on a circle, or deeper than 8 queues
            queues.lost.parent: there is no queue "nowhere"
            queues.low.guaranteed: 5 chips of *, above its limit of 3
            queues.top.weight: between 1 and 1,000,000
            queues.top.limit: 4 chips of *, below the 5 guaranteed to the queues under it
            calendar.0.name: 1 to 128 of A-Z a-z 0-9 . _ : -
            calendar.0.to: after `from`
            calendar.0.queue: there is no queue "nowhere"
            calendar.0.chips: at least 1
            calendar.0.per_node: at least 1"#]]
        .assert_eq(&found.join("\n"));
        assert_eq!(Policy::default().faults(), Vec::new());
    }
}
