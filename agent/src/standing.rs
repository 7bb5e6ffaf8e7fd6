//! What this node has been told: its orders, since when each vacate order stands, the highest lease epoch seen per chip,
//! and which leases it carries. Pure: moments and readings come in as arguments.

use crate::idle::Baselines;
use crate::reading::NodeReading;
use crate::state::{Epochs, Grant, Seen};
use crate::vacancy::{NotProven, is_clear, prove, sharers};
use chiptide_api::node::{
    ChipOrder, HealthBody, LeaseOrder, OrdersView, RefusedBody, SeenBody, VacantBody, VacateOrder,
};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
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

/// What a proof takes beyond a reading that lists nobody.
#[derive(Clone, PartialEq, Debug)]
pub struct Rules {
    /// So many readings in a row.
    pub readings: u32,
    /// Memory as when idle.
    pub baselines: Baselines,
}

/// Readings in a row that agree that a chip is vacant.
#[derive(Clone, Debug, Default)]
struct Streak {
    count: u32,
    last: Option<Instant>,
    /// What the last look beyond the readings found, and when that was.
    found: Option<(NotProven, Instant)>,
}

/// A look beyond the readings costs milliseconds: one that found something is not repeated sooner than this.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

impl Standing {
    /// Weighs proofs by these rules from now on.
    pub fn weigh_by(&mut self, rules: Rules) {
        self.rules = Some(rules);
    }

    /// The rules in force.
    pub fn rules(&self) -> Option<&Rules> {
        self.rules.as_ref()
    }

    /// Counts a reading towards every proof that waits for more. `look` is asked last, of a chip for which all else is
    /// proven and of the leases that may have processes there: does anything speak against it that no reading shows?
    pub fn weigh(&mut self, reading: &NodeReading, look: impl Fn(&str, &BTreeSet<Uuid>) -> Result<(), NotProven>) {
        let Some(needed) = self.rules.as_ref().map(|rules| rules.readings) else { return };
        let mut streaks = std::mem::take(&mut self.streaks);
        streaks.retain(|order, _| self.vacate_since.contains_key(order));
        for (order, since) in &self.vacate_since {
            let streak = streaks.entry(order.clone()).or_default();
            if streak.last.replace(reading.taken) == Some(reading.taken) {
                continue;
            }
            if self.read(order, *since, reading).is_err() {
                *streak = Streak { last: streak.last, ..Streak::default() };
            } else if streak.count + 1 < needed {
                streak.count += 1;
            } else if streak.found.as_ref().is_none_or(|(_, at)| reading.taken >= *at + LOOK_AGAIN) {
                let found = look(&order.chip, &sharers(&order.chip, order.lease, &self.orders)).err();
                streak.found = found.map(|found| (found, reading.taken));
                streak.count = if streak.found.is_none() { needed } else { needed - 1 };
            }
        }
        self.streaks = streaks;
    }

    /// Learns what chips use when nobody has them. Answers whether it learned something that is worth keeping.
    pub fn learn(&mut self, reading: &NodeReading) -> bool {
        let Some(rules) = &mut self.rules else { return false };
        let (orders, vacate) = (&self.orders, &self.vacate_since);
        let nobody_has = |chip: &str| {
            let leased = orders.leases.iter().any(|order| order.chips.iter().any(|held| held.chip == chip));
            !leased && !vacate.keys().any(|order| order.chip == chip)
        };
        rules.baselines.learn(reading, nobody_has)
    }

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

    /// Holds back the proof of every chip whose lease may still run something here. Once it no longer may, only what is
    /// read from then on counts.
    pub fn hold_back(&mut self, may_run: impl Fn(&VacateOrder) -> bool, now: Instant) {
        for (order, since) in &mut self.vacate_since {
            if may_run(order) {
                self.held_back.insert(order.clone());
            } else if self.held_back.remove(order) {
                *since = now;
            }
        }
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

    /// Every vacate order that `reading` proves carried out.
    pub fn vacant(&self, reading: &NodeReading) -> Vec<VacantBody> {
        self.vacate_since
            .iter()
            .filter(|(order, since)| self.prove(order, **since, reading).is_ok())
            .map(|(order, _)| VacantBody { chip: order.chip.clone(), lease: order.lease, epoch: self.highest(order) })
            .collect()
    }

    /// Every vacate order that `reading` does not prove, with the reason, for people.
    pub fn not_vacant<'a>(&'a self, reading: &'a NodeReading) -> impl Iterator<Item = (&'a VacateOrder, NotProven)> {
        self.vacate_since.iter().filter_map(|(order, since)| Some((order, self.prove(order, *since, reading).err()?)))
    }

    fn prove(&self, order: &VacateOrder, since: Instant, reading: &NodeReading) -> Result<(), NotProven> {
        self.read(order, since, reading)?;
        let Some(rules) = &self.rules else { return Ok(()) };
        match self.streaks.get(order) {
            Some(Streak { found: Some((found, _)), .. }) => Err(found.clone()),
            Some(streak) if streak.count >= rules.readings => Ok(()),
            _ => Err(NotProven::Unsettled),
        }
    }

    /// What one reading says of an order.
    fn read(&self, order: &VacateOrder, since: Instant, reading: &NodeReading) -> Result<(), NotProven> {
        if self.held_back.contains(order) {
            return Err(NotProven::StillRunning);
        }
        prove(order, since, &self.orders, reading)?;
        self.is_idle(&order.chip, order.lease, reading)
    }

    /// Whether a chip that no other live lease has uses no more memory than when idle.
    fn is_idle(&self, chip: &str, lease: Uuid, reading: &NodeReading) -> Result<(), NotProven> {
        let (Some(rules), Some(now)) = (&self.rules, reading.chip(chip)) else { return Ok(()) };
        if !sharers(chip, lease, &self.orders).is_empty() {
            return Ok(());
        }
        let check = rules.baselines.check(now, reading.driver_version.as_deref());
        check.map_err(|(used_mib, allowed_mib)| NotProven::NotIdle { used_mib, allowed_mib })
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

    fn highest(&self, order: &VacateOrder) -> u64 {
        self.epochs.highest(&order.chip).unwrap_or(order.epoch)
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
    use crate::ChipNow;
    use crate::scripted::{chip, lease, reading_at, vacate};

    fn id(lease: u128) -> Uuid {
        Uuid::from_u128(lease)
    }

    fn told(leases: Vec<LeaseOrder>, vacate: Vec<VacateOrder>) -> OrdersView {
        OrdersView { leases, vacate, ..OrdersView::default() }
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
    fn a_proof_waits_for_the_workload_and_then_for_a_reading_from_after_it() {
        let (start, mut standing) = (Instant::now(), Standing::default());
        let at = |ms| start + Duration::from_millis(ms);
        standing.receive(told(vec![], vec![vacate(1, "c0", 6)]), at(0));
        standing.hold_back(|order| order.lease == id(1), at(0));
        assert!(standing.vacant(&reading_at(at(10), [chip("c0")])).is_empty(), "its process may be on no list yet");
        standing.hold_back(|_| false, at(20));
        assert!(standing.vacant(&reading_at(at(10), [chip("c0")])).is_empty(), "from before it was gone");
        assert_eq!(standing.vacant(&reading_at(at(30), [chip("c0")])).len(), 1);
    }

    #[test]
    fn work_starts_only_on_chips_that_a_later_reading_shows_clear() {
        let (start, mut standing) = (Instant::now(), Standing::default());
        let at = |ms| start + Duration::from_millis(ms);
        let order = lease(1, "c0", 6);
        standing.receive(told(vec![order.clone()], vec![]), at(10));
        standing.carry(&reading_at(at(5), [chip("c0")]));
        assert!(
            !standing.may_start(&order, &["c0".to_owned()], &reading_at(at(5), [chip("c0")])),
            "read before the order came"
        );
        assert!(
            !standing.may_start(&order, &["c0".to_owned()], &reading_at(at(20), [chip("c0").running(9, None)])),
            "somebody is on it"
        );
        assert!(!standing.may_start(&order, &["c0".to_owned()], &reading_at(at(20), [chip("c0").unreadable()])));
        assert!(standing.may_start(&order, &["c0".to_owned()], &reading_at(at(20), [chip("c0")])));
    }

    /// A standing that must prove chip `c0` vacant with three readings, and one that is taken at this millisecond.
    fn weighing() -> (Standing, impl Fn(u64, ChipNow) -> NodeReading) {
        let (start, mut standing) = (Instant::now(), Standing::default());
        standing.weigh_by(Rules { readings: 3, baselines: Baselines::default() });
        standing.receive(told(vec![], vec![vacate(1, "c0", 6)]), start);
        let reading = move |ms, mut chip: ChipNow| {
            chip.reading.memory_used_mib.get_or_insert(1);
            reading_at(start + Duration::from_millis(ms), [chip])
        };
        (standing, reading)
    }

    #[test]
    fn several_readings_in_a_row_make_a_proof_and_a_contrary_one_starts_anew() {
        let (mut standing, at) = weighing();
        let mut proves = |reading: NodeReading| {
            standing.weigh(&reading, |_, _| Ok(()));
            standing.weigh(&reading, |_, _| Ok(()));
            standing.vacant(&reading).len() == 1
        };
        let mut full = chip("c0");
        full.reading.memory_used_mib = Some(9000);
        assert!(!proves(at(1, chip("c0"))) && !proves(at(2, chip("c0"))), "the same reading counts once");
        assert!(!proves(at(3, full)), "its memory is not as when idle");
        assert!(!proves(at(4, chip("c0"))) && !proves(at(5, chip("c0"))));
        assert!(proves(at(6, chip("c0"))));
        assert!(!proves(at(7, chip("c0").running(9, None))));
    }

    #[test]
    fn whoever_has_the_device_node_open_keeps_the_chip_from_being_proven() {
        let (mut standing, at) = weighing();
        for ms in 1..5 {
            standing.weigh(&at(ms, chip("c0")), |_, _| Err(NotProven::Held(9)));
        }
        let reading = at(4, chip("c0"));
        assert!(standing.vacant(&reading).is_empty());
        assert_eq!(standing.not_vacant(&reading).map(|(_, why)| why).collect::<Vec<_>>(), [NotProven::Held(9)]);
        let reading = at(1000, chip("c0"));
        standing.weigh(&reading, |_, _| Ok(()));
        assert_eq!(standing.vacant(&reading).len(), 1, "the readings had agreed all along");
    }

    #[test]
    fn what_was_refused_is_answered_while_it_is_ordered() {
        let (mut standing, _) =
            confirms([told(vec![lease(1, "c0", 6)], vec![]), told(vec![lease(2, "c0", 5)], vec![])]);
        assert_eq!(
            standing.refused(),
            [RefusedBody { lease: id(2), chip: "c0".into(), epoch: 5, seen: 6, seen_lease: Some(id(1)) }]
        );
        standing.receive(told(vec![], vec![]), Instant::now());
        assert!(standing.refused().is_empty());
    }

    #[test]
    fn an_epoch_given_twice_is_refused_to_the_second_lease() {
        let (standing, confirmed) =
            confirms([told(vec![lease(1, "c0", 6)], vec![]), told(vec![lease(2, "c0", 6)], vec![])]);
        assert!(confirmed.is_empty() && standing.refused().len() == 1);
    }

    #[test]
    fn a_lease_that_was_to_be_vacated_is_never_carried_again() {
        let live = told(vec![lease(1, "c0", 6)], vec![]);
        let (standing, confirmed) = confirms([live.clone(), told(vec![], vec![vacate(1, "c0", 6)]), live]);
        assert!(confirmed.is_empty() && standing.refused().len() == 1, "said by a daemon that was deposed meanwhile");
    }

    #[test]
    fn an_agent_that_starts_again_knows_old_from_live() {
        let shared = told(vec![lease(1, "c0", 5), lease(2, "c0", 6)], vec![]);
        let (before, _) = confirms([shared.clone()]);
        let mut again = Standing::after(before.epochs().clone());
        again.receive(shared, Instant::now());
        again.carry(&reading_at(Instant::now(), [chip("c0")]));
        assert_eq!(again.confirmed(), [id(1), id(2)], "the older of two sharers is as live as the newer");
        let mut later = Standing::after(before.epochs().clone());
        assert_eq!(later.receive(told(vec![lease(3, "c0", 5)], vec![]), Instant::now()).len(), 1);
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
