//! What this node has been told: its orders, since when each vacate order stands, the highest lease epoch seen per chip,
//! and which leases it carries. Pure: moments and readings come in as arguments.

mod proofs;
#[cfg(test)]
mod tests;

pub use proofs::Rules;

use crate::reading::NodeReading;
use crate::state::{Epochs, Grant, Seen};
use crate::vacancy::is_clear;
use chiptide_api::node::{ChipOrder, HealthBody, LeaseOrder, OrdersView, RefusedBody, SeenBody, VacateOrder};
use proofs::Streak;
use std::collections::{BTreeMap, BTreeSet};
use tokio::time::Instant;
use uuid::Uuid;

/// The orders held and what follows from them.
///
/// Freshness of an epoch is judged once, when a grant first shows up, against what had been seen before those orders came:
/// two leases that share a chip have different epochs, and the older of the two is as live as the newer.
#[derive(Clone, Debug, Default)]
pub struct Standing {
    orders: OrdersView,
    vacate_since: BTreeMap<VacateOrder, Instant>,
    /// Vacate orders whose lease may still run something here.
    held_back: BTreeSet<VacateOrder>,
    granted_since: BTreeMap<Grant, Instant>,
    /// How proofs are weighed beyond what one reading lists; not at all for scripted chips.
    rules: Option<Rules>,
    streaks: BTreeMap<VacateOrder, Streak>,
    epochs: Epochs,
    refused: BTreeSet<Grant>,
    carried: BTreeSet<Grant>,
}

impl Standing {
    /// The standing of an agent whose node had seen these epochs before it started.
    pub fn after(epochs: Epochs) -> Standing {
        Standing { epochs, ..Standing::default() }
    }

    /// What must outlive the agent.
    pub fn epochs(&self) -> &Epochs {
        &self.epochs
    }

    /// Takes over `orders` as the whole wanted state. Answers the grants that are out of date and were not so before:
    /// their epoch is older than one already seen for the chip, so they are never confirmed.
    pub fn receive(&mut self, orders: OrdersView, now: Instant) -> Vec<Grant> {
        let (fresh, refused) =
            grants(&orders).partition::<BTreeSet<Grant>, _>(|grant: &Grant| self.epochs.is_fresh(grant));
        let news: Vec<Grant> = BTreeSet::difference(&refused, &self.refused).cloned().collect();
        self.carried = self.carried.intersection(&fresh).cloned().collect();
        let vacated = orders.vacate.iter().map(|order| (&order.chip, order.epoch, order.lease));
        let granted = fresh.iter().map(|grant| (&grant.chip, grant.epoch, grant.lease));
        for (chip, epoch, lease) in vacated.chain(granted) {
            self.epochs.note(chip, epoch, lease);
        }
        (self.epochs.fresh, self.refused) = (fresh, refused);
        let since = |order: &VacateOrder| *self.vacate_since.get(order).unwrap_or(&now);
        self.vacate_since = orders.vacate.iter().map(|order| (order.clone(), since(order))).collect();
        self.held_back.retain(|order| self.vacate_since.contains_key(order));
        let since = |grant: &Grant| *self.granted_since.get(grant).unwrap_or(&now);
        self.granted_since = grants(&orders).map(|grant| (grant.clone(), since(&grant))).collect();
        self.orders = orders;
        news
    }

    /// The orders held.
    pub fn orders(&self) -> &OrdersView {
        &self.orders
    }

    /// Whether all grants of the order are to be acted on.
    pub fn is_fresh(&self, order: &LeaseOrder) -> bool {
        order.chips.iter().all(|chip| self.epochs.fresh.contains(&grant(order, chip)))
    }

    /// Whether work may start on these chips of the order: the lease is carried, and `reading` shows them clear of
    /// everything that no other live lease accounts for.
    pub fn may_start(&self, order: &LeaseOrder, chips: &[String], reading: &NodeReading) -> bool {
        let since = |id: &String| {
            let held = order.chips.iter().find(|held| held.chip == *id)?;
            self.granted_since.get(&grant(order, held)).copied()
        };
        let clear = |chip: &String| {
            since(chip).is_some_and(|since| is_clear(chip, order.lease, since, &self.orders, reading).is_ok())
                && self.is_idle(chip, order.lease, reading).is_ok()
        };
        self.is_carried(order) && chips.iter().all(clear)
    }

    /// A lease of CPU and memory only is carried by any node.
    fn is_carried(&self, order: &LeaseOrder) -> bool {
        order.chips.iter().all(|chip| self.carried.contains(&grant(order, chip)))
    }

    /// The leases this node carries: all their grants are fresh and all their chips were there and healthy at least once
    /// since. Answers those that `reading` adds.
    pub fn carry(&mut self, reading: &NodeReading) -> Vec<Uuid> {
        let healthy = |chip: &str| reading.chip(chip).is_some_and(|now| now.chip.health == HealthBody::Healthy);
        let mut added = Vec::new();
        for order in &self.orders.leases {
            let due = order.chips.iter().map(|chip| grant(order, chip)).collect::<BTreeSet<Grant>>();
            if !due.is_subset(&self.carried)
                && due.is_subset(&self.epochs.fresh)
                && due.iter().all(|grant| self.carried.contains(grant) || healthy(&grant.chip))
            {
                self.carried.extend(due);
                added.push(order.lease);
            }
        }
        added
    }

    /// Leases of the held orders that this node carries.
    pub fn confirmed(&self) -> Vec<Uuid> {
        self.orders.leases.iter().filter(|order| self.is_carried(order)).map(|order| order.lease).collect()
    }

    /// The highest epoch seen of every chip, for a registration.
    pub fn seen(&self) -> Vec<SeenBody> {
        let body =
            |(chip, seen): (&String, &Seen)| SeenBody { chip: chip.clone(), lease: seen.lease, epoch: seen.epoch };
        self.epochs.seen.iter().map(body).collect()
    }

    /// Every grant of the held orders that is refused, with the epoch that is in its way.
    pub fn refused(&self) -> Vec<RefusedBody> {
        let body = |grant: &Grant| RefusedBody {
            lease: grant.lease,
            chip: grant.chip.clone(),
            epoch: grant.epoch,
            seen: self.epochs.highest(&grant.chip).unwrap_or(grant.epoch),
            seen_lease: self.epochs.seen.get(&grant.chip).map(|seen| seen.lease),
        };
        self.refused.iter().map(body).collect()
    }
}

fn grant(order: &LeaseOrder, chip: &ChipOrder) -> Grant {
    Grant { lease: order.lease, chip: chip.chip.clone(), epoch: chip.epoch }
}

fn grants(orders: &OrdersView) -> impl Iterator<Item = Grant> {
    orders.leases.iter().flat_map(|order| order.chips.iter().map(move |chip| grant(order, chip)))
}
