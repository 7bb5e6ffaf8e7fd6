//! What an admin should know about a policy before it counts: it contradicts nothing, and may still not do what is meant.
//! Judged against the fleet and what is held, with the figures.

use crate::cluster::Cluster;
use crate::quota::QueueUse;
use chiptide_model::{DeviceClass, Policy, PolicyFault, Quota, SLOTS_PER_CHIP, Timestamp};
use std::collections::{BTreeMap, BTreeSet};

/// Everything about `policy` that is allowed and probably not meant, if it comes after `before` in this cluster now.
pub fn review(cluster: &Cluster, before: &Policy, policy: &Policy, now: Timestamp) -> Vec<PolicyFault> {
    let fleet = fleet(cluster, policy);
    let mut found = Vec::new();
    guarantees(policy, &fleet, &mut found);
    classes(policy, &fleet, &mut found);
    let uses = cluster.queue_uses(now);
    held(before, policy, &uses, &mut found);
    for queue in &uses {
        orphaned(policy, queue, &mut found);
    }
    for entry in &policy.calendar {
        let at = format!("calendar.{}", entry.name);
        if entry.to <= now {
            found.push(fault(at.clone(), "is over already".into()));
        }
        let class = entry.device_class.as_ref().map_or("*".to_owned(), ToString::to_string);
        let there = if class == "*" { fleet.values().map(|(chips, _)| chips).sum() } else { chips_of(&fleet, &class) };
        if u64::from(entry.chips) > there {
            found.push(fault(at, format!("sets {} chips aside; the fleet has {there}", entry.chips)));
        }
    }
    found
}

fn fault(field: String, problem: String) -> PolicyFault {
    PolicyFault { field, problem }
}

/// Chips by device class, each with its speed in thousandths.
fn fleet(cluster: &Cluster, policy: &Policy) -> BTreeMap<String, (u64, u64)> {
    let mut chips: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    for chip in &cluster.fleet.chips {
        let class = &chip.facts.class;
        chips.entry(class.to_string()).or_insert((0, u64::from(policy.speed_permille(class)))).0 += 1;
    }
    chips
}

fn chips_of(fleet: &BTreeMap<String, (u64, u64)>, class: &str) -> u64 {
    match class {
        "*" => fleet.values().map(|(chips, speed)| chips * speed).sum::<u64>() / 1000,
        class => fleet.get(class).map_or(0, |(chips, _)| *chips),
    }
}

fn entry(quota: &Quota, class: &str) -> Option<u32> {
    match class {
        "*" => quota.normalised,
        class => quota.classes.iter().find(|(known, _)| known.as_str() == class).map(|(_, chips)| *chips),
    }
}

/// The classes that a policy's quotas name, the star among them.
fn named(policy: &Policy) -> BTreeSet<String> {
    let quotas = policy.queues.values().flat_map(|queue| [&queue.guaranteed, &queue.limit]);
    let classes = quotas.flat_map(|quota| quota.classes.keys().map(DeviceClass::to_string));
    classes.chain(["*".to_owned()]).collect()
}

/// What a queue is owed: its own guarantee, or what those below it are owed together, if that is more.
fn owed(policy: &Policy, queue: &str, class: &str, depth: usize) -> u64 {
    let own = policy.queues.get(queue).and_then(|known| entry(&known.guaranteed, class)).map_or(0, u64::from);
    if depth == 0 {
        return own;
    }
    let below = policy.queues.iter().filter(|(_, other)| other.parent.as_deref() == Some(queue));
    own.max(below.map(|(name, _)| owed(policy, name, class, depth - 1)).sum())
}

fn guarantees(policy: &Policy, fleet: &BTreeMap<String, (u64, u64)>, found: &mut Vec<PolicyFault>) {
    let depth = chiptide_model::policy_fault::DEPTH_MAX;
    for class in named(policy) {
        let tops = policy.queues.iter().filter(|(_, queue)| queue.parent.is_none());
        let owed: Vec<(&String, u64)> = tops.map(|(name, _)| (name, owed(policy, name, &class, depth))).collect();
        let (sum, there) = (owed.iter().map(|(_, chips)| chips).sum::<u64>(), chips_of(fleet, &class));
        let largest = owed.iter().max_by_key(|(_, chips)| *chips).filter(|_| sum > there);
        if let Some((name, _)) = largest {
            let of = if class == "*" { "normalised chips".to_owned() } else { format!("chips of {class}") };
            let detail = format!(
                "{sum} {of} are guaranteed in all, and the fleet has {there}: not every guarantee can be kept at once"
            );
            found.push(fault(format!("queues.{name}.guaranteed"), detail));
        }
    }
}

/// Classes that no queue may use, and classes that the fleet does not have.
fn classes(policy: &Policy, fleet: &BTreeMap<String, (u64, u64)>, found: &mut Vec<PolicyFault>) {
    for class in fleet.keys() {
        let barred = |queue: &str| {
            let parent = |name: &&str| policy.queues.get(*name).and_then(|queue| queue.parent.as_deref());
            let path = std::iter::successors(Some(queue), parent).take(chiptide_model::policy_fault::DEPTH_MAX);
            let mut limits = path.filter_map(|name| entry(&policy.queues.get(name)?.limit, class));
            limits.any(|limit| limit == 0)
        };
        if let Some(first) = policy.leaves().next().filter(|_| policy.leaves().all(barred)) {
            let detail = format!("no queue may use {class}: every one has a limit of 0 on it");
            found.push(fault(format!("queues.{first}.limit.{class}"), detail));
        }
    }
    for class in policy.device_classes.keys().filter(|class| !fleet.contains_key(class.as_str())) {
        found.push(fault(format!("device_classes.{class}"), "the fleet has no chip of this class".into()));
    }
}

/// Limits and guarantees below what is held now, and what that means.
fn held(before: &Policy, policy: &Policy, uses: &[QueueUse], found: &mut Vec<PolicyFault>) {
    for used in uses {
        let Some(queue) = policy.queues.get(&used.queue) else { continue };
        let before = before.queues.get(&used.queue);
        for column in &used.columns {
            let class = column.class.as_ref().map_or("*".to_owned(), ToString::to_string);
            let holds = column.used as f64 / f64::from(SLOTS_PER_CHIP);
            let over = |chips: u32| column.used > u64::from(chips) * u64::from(SLOTS_PER_CHIP);
            if let Some(limit) = entry(&queue.limit, &class).filter(|limit| over(*limit)) {
                let detail = format!(
                    "the queue holds {holds} chips ({class}), above the limit of {limit}: nobody is evicted for that, and it gets nothing more until it holds less"
                );
                found.push(fault(format!("queues.{}.limit.{class}", used.queue), detail));
            }
            let was = before.and_then(|queue| entry(&queue.guaranteed, &class)).unwrap_or(0);
            let is = entry(&queue.guaranteed, &class).unwrap_or(0);
            if is < was && over(is) {
                let detail = format!(
                    "the queue holds {holds} chips ({class}), above the guarantee that falls from {was} to {is}: what is beyond becomes a loan, which other queues may reclaim with notice"
                );
                found.push(fault(format!("queues.{}.guaranteed.{class}", used.queue), detail));
            }
        }
    }
}

/// Jobs in queues that the policy does not have, or that take no jobs any more.
fn orphaned(policy: &Policy, used: &QueueUse, found: &mut Vec<PolicyFault>) {
    let holds = used.columns.first().map_or(0, |column| column.used);
    let is_there = policy.queues.contains_key(&used.queue);
    if !is_there && (used.pending > 0 || holds > 0) {
        let detail = format!(
            "{} jobs wait in the queue and {} chips are held; they stay, without guarantee or limit, and no new job may name it",
            used.pending,
            holds as f64 / f64::from(SLOTS_PER_CHIP)
        );
        found.push(fault(format!("queues.{}", used.queue), detail));
    }
}
