//! What this node has been told: its orders, since when each vacate order stands, the highest lease epoch seen per chip,
//! and which leases it carries. Pure: moments and readings come in as arguments.

use crate::reading::NodeReading;
use crate::vacancy::{NotProven, prove};
use chiptide_api::node::{ChipOrder, HealthBody, LeaseOrder, OrdersView, VacantBody, VacateOrder};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use tokio::time::Instant;
use uuid::Uuid;

/// One chip under one grant of a lease.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Grant {
    /// The lease.
    pub lease: Uuid,
    /// The chip.
    pub chip: String,
    /// The lease epoch of the grant.
    pub epoch: u64,
}

/// The orders held and what follows from them.
///
/// Freshness of an epoch is judged once, when a grant first shows up, against what had been seen before those orders came:
/// two leases that share a chip have different epochs, and the older of the two is as live as the newer.
#[derive(Clone, Debug, Default)]
pub struct Standing {
    orders: OrdersView,
    vacate_since: BTreeMap<VacateOrder, Instant>,
    highest: HashMap<String, u64>,
    fresh: BTreeSet<Grant>,
    refused: BTreeSet<Grant>,
    carried: BTreeSet<Grant>,
}

impl Standing {
    /// Takes over `orders` as the whole wanted state. Answers the grants that are out of date and were not so before:
    /// their epoch is older than one already seen for the chip, so they are never confirmed.
    pub fn receive(&mut self, orders: OrdersView, now: Instant) -> Vec<Grant> {
        let (fresh, refused) = grants(&orders).partition(|grant: &Grant| {
            self.fresh.contains(grant) || self.highest.get(&grant.chip).is_none_or(|seen| grant.epoch >= *seen)
        });
        let news: Vec<Grant> = BTreeSet::difference(&refused, &self.refused).cloned().collect();
        self.carried = self.carried.intersection(&fresh).cloned().collect();
        (self.fresh, self.refused) = (fresh, refused);
        let vacated = orders.vacate.iter().map(|order| (&order.chip, order.epoch));
        let granted = self.fresh.iter().map(|grant| (&grant.chip, grant.epoch));
        for (chip, epoch) in vacated.chain(granted) {
            let seen = self.highest.entry(chip.clone()).or_default();
            *seen = epoch.max(*seen);
        }
        let since = |order: &VacateOrder| *self.vacate_since.get(order).unwrap_or(&now);
        self.vacate_since = orders.vacate.iter().map(|order| (order.clone(), since(order))).collect();
        self.orders = orders;
        news
    }

    /// The leases this node carries: all their grants are fresh and all their chips were there and healthy at least once
    /// since. Answers those that `reading` adds.
    pub fn carry(&mut self, reading: &NodeReading) -> Vec<Uuid> {
        let healthy = |chip: &str| reading.chip(chip).is_some_and(|now| now.chip.health == HealthBody::Healthy);
        let mut added = Vec::new();
        for order in &self.orders.leases {
            let due = order.chips.iter().map(|chip| grant(order, chip)).collect::<BTreeSet<Grant>>();
            if !due.is_subset(&self.carried)
                && due.is_subset(&self.fresh)
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
        let carries = |order: &&LeaseOrder| {
            !order.chips.is_empty() && order.chips.iter().all(|chip| self.carried.contains(&grant(order, chip)))
        };
        self.orders.leases.iter().filter(carries).map(|order| order.lease).collect()
    }

    /// Every vacate order that `reading` proves carried out.
    pub fn vacant(&self, reading: &NodeReading) -> Vec<VacantBody> {
        self.vacate_since
            .iter()
            .filter(|(order, since)| prove(order, **since, &self.orders, reading).is_ok())
            .map(|(order, _)| VacantBody { chip: order.chip.clone(), lease: order.lease, epoch: self.highest(order) })
            .collect()
    }

    /// Every vacate order that `reading` does not prove, with the reason, for people.
    pub fn not_vacant<'a>(&'a self, reading: &'a NodeReading) -> impl Iterator<Item = (&'a VacateOrder, NotProven)> {
        self.vacate_since
            .iter()
            .filter_map(|(order, since)| Some((order, prove(order, *since, &self.orders, reading).err()?)))
    }

    fn highest(&self, order: &VacateOrder) -> u64 {
        self.highest.get(&order.chip).copied().unwrap_or(order.epoch)
    }
}

fn grant(order: &LeaseOrder, chip: &ChipOrder) -> Grant {
    Grant { lease: order.lease, chip: chip.chip.clone(), epoch: chip.epoch }
}

fn grants(orders: &OrdersView) -> impl Iterator<Item = Grant> {
    orders.leases.iter().flat_map(|order| order.chips.iter().map(move |chip| grant(order, chip)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scripted::{chip, lease, reading_at, vacate};
    use std::time::Duration;

    fn id(lease: u128) -> Uuid {
        Uuid::from_u128(lease)
    }

    fn told(leases: Vec<LeaseOrder>, vacate: Vec<VacateOrder>) -> OrdersView {
        OrdersView { revision: String::new(), leases, vacate }
    }

    /// A standing that has received each of `rounds` while chip `c0` was healthy, and what it confirms then.
    fn confirms(rounds: impl IntoIterator<Item = OrdersView>) -> (Standing, Vec<Uuid>) {
        let mut standing = Standing::default();
        for orders in rounds {
            standing.receive(orders, Instant::now());
            standing.carry(&reading_at(Instant::now(), [chip("c0")]));
        }
        let confirmed = standing.confirmed();
        (standing, confirmed)
    }

    #[test]
    fn an_epoch_older_than_one_seen_is_refused_and_said_once() {
        let (mut standing, confirmed) = confirms([told(vec![lease(1, "c0", 6)], vec![]), told(vec![], vec![])]);
        assert!(confirmed.is_empty());
        let late = told(vec![lease(2, "c0", 5)], vec![]);
        assert_eq!(standing.receive(late.clone(), Instant::now()).len(), 1);
        assert!(standing.receive(late, Instant::now()).is_empty());
        standing.carry(&reading_at(Instant::now(), [chip("c0")]));
        assert!(standing.confirmed().is_empty());
    }

    #[test]
    fn an_order_to_vacate_also_shows_an_epoch() {
        let (_, confirmed) =
            confirms([told(vec![], vec![vacate(1, "c0", 9)]), told(vec![lease(2, "c0", 8)], vec![vacate(1, "c0", 9)])]);
        assert!(confirmed.is_empty());
    }

    #[test]
    fn leases_that_share_a_chip_are_all_live_whatever_their_epochs() {
        let (_, confirmed) = confirms([told(vec![lease(1, "c0", 5), lease(2, "c0", 6)], vec![])]);
        assert_eq!(confirmed, [id(1), id(2)]);
        let (_, confirmed) =
            confirms([told(vec![lease(1, "c0", 5)], vec![]), told(vec![lease(1, "c0", 5), lease(2, "c0", 6)], vec![])]);
        assert_eq!(confirmed, [id(1), id(2)]);
    }

    #[test]
    fn a_lease_waits_until_all_its_chips_are_healthy_and_is_then_carried_on() {
        let mut standing = Standing::default();
        let mut gang = lease(1, "c0", 5);
        gang.chips.push(ChipOrder { chip: "c1".into(), slots: 1000, epoch: 8 });
        standing.receive(told(vec![gang], vec![]), Instant::now());
        for sick in [chip("c1").unreadable(), chip("c1").lost(), chip("c9")] {
            assert!(standing.carry(&reading_at(Instant::now(), [chip("c0"), sick])).is_empty());
        }
        assert_eq!(standing.carry(&reading_at(Instant::now(), [chip("c0"), chip("c1")])), [id(1)]);
        assert!(standing.carry(&reading_at(Instant::now(), [chip("c0").unreadable()])).is_empty());
        assert_eq!(standing.confirmed(), [id(1)]);
    }

    #[test]
    fn a_proof_counts_from_the_first_time_the_order_came_and_names_the_highest_epoch() {
        let (start, mut standing) = (Instant::now(), Standing::default());
        let at = |ms| start + Duration::from_millis(ms);
        standing.receive(told(vec![], vec![vacate(1, "c0", 6)]), at(10));
        assert!(standing.vacant(&reading_at(at(10), [chip("c0")])).is_empty());
        standing.receive(told(vec![lease(2, "c0", 7)], vec![vacate(1, "c0", 6)]), at(30));
        let proofs = standing.vacant(&reading_at(at(20), [chip("c0")]));
        assert_eq!(proofs, [VacantBody { chip: "c0".into(), lease: id(1), epoch: 7 }]);
        standing.receive(told(vec![], vec![]), at(40));
        assert!(standing.vacant(&reading_at(at(50), [chip("c0")])).is_empty(), "repeated only while it is ordered");
    }
}
