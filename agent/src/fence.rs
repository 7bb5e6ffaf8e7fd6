//! Fenced leases: until when the work of each may run on a node that may be cut off, and which of them are over for want of a
//! renewal. Pure: moments are on the boot-time clock, which a suspended machine does not stop, and come in as arguments.
//!
//! A deadline counts from when a report was *sent* that the daemon answered as renewed. Once it has passed, the lease is over
//! on this node, whatever answer comes late: the daemon may have called it ended. Nothing of it starts here again.

use chiptide_api::node::{FenceOrder, OrdersView};
use std::collections::BTreeMap;
use std::time::Duration;
use uuid::Uuid;

/// Every fenced lease that the orders hold, or that an earlier agent of this boot has left deadlines of.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Fences {
    leases: BTreeMap<Uuid, Fence>,
    /// When the newest report that was answered as renewed had been sent.
    renewed_at: Option<Duration>,
}

#[derive(Clone, Copy, PartialEq, Debug)]
struct Fence {
    /// Absent until orders have come that say so.
    order: Option<FenceOrder>,
    /// Until when it may run; absent until it has been renewed here.
    deadline: Option<Duration>,
    over: bool,
    /// Whether the newest orders have it.
    ordered: bool,
}

impl Fence {
    fn tick(&mut self, now: Duration) {
        self.over |= self.deadline.is_some_and(|deadline| now >= deadline);
    }
}

impl Fences {
    /// Fences of an agent that finds these deadlines of an earlier one.
    pub fn after(deadlines: BTreeMap<Uuid, Duration>) -> Fences {
        let fence = |deadline| Fence { order: None, deadline: Some(deadline), over: false, ordered: false };
        Fences { leases: deadlines.into_iter().map(|(lease, at)| (lease, fence(at))).collect(), renewed_at: None }
    }

    /// Takes over the leases of these orders. One that is new here, or older than this agent, runs by the last renewal, if
    /// that still holds.
    pub fn receive(&mut self, orders: &OrdersView, now: Duration) {
        self.tick(now);
        let fenced = orders.leases.iter().filter_map(|order| Some((order.lease, order.fence?)));
        let renewed_at = self.renewed_at;
        let fence = |(lease, order): (Uuid, FenceOrder)| {
            let renewed = renewed_at.map(|at| at.saturating_add(ttl(order))).filter(|deadline| now < *deadline);
            let known = self.leases.get(&lease).copied();
            let fence = known.unwrap_or(Fence { order: None, deadline: renewed, over: false, ordered: true });
            (lease, Fence { order: Some(order), ordered: true, ..fence })
        };
        let ordered: BTreeMap<Uuid, Fence> = fenced.map(fence).collect();
        // What is over stays so, should older orders come back that have it.
        self.leases.retain(|_, fence| fence.over);
        self.leases.values_mut().for_each(|fence| fence.ordered = false);
        self.leases.extend(ordered);
    }

    /// Lets time pass. What is over stays over.
    pub fn tick(&mut self, now: Duration) {
        self.leases.values_mut().for_each(|fence| fence.tick(now));
    }

    /// A report sent at `sent` was answered as renewed, `now`. What was over by then stays so.
    pub fn renew(&mut self, sent: Duration, now: Duration) {
        self.tick(now);
        self.renewed_at = self.renewed_at.max(Some(sent));
        for fence in self.leases.values_mut().filter(|fence| !fence.over) {
            let renewed = fence.order.map(|order| sent.saturating_add(ttl(order)));
            fence.deadline = fence.deadline.max(renewed);
        }
        self.tick(now);
    }

    /// Whether a lease may run: it has no fence, or one that holds.
    pub fn may_run(&self, lease: Uuid, order: Option<FenceOrder>) -> bool {
        let holds = |fence: &Fence| !fence.over && fence.deadline.is_some();
        match self.leases.get(&lease) {
            Some(fence) => holds(fence),
            None => order.is_none(),
        }
    }

    /// Leases of the orders that are over here for want of a renewal.
    pub fn over(&self) -> impl Iterator<Item = Uuid> + '_ {
        self.leases.iter().filter(|(_, fence)| fence.over && fence.ordered).map(|(lease, _)| *lease)
    }

    /// Whether a lease is over here.
    pub fn is_over(&self, lease: Uuid) -> bool {
        self.leases.get(&lease).is_some_and(|fence| fence.over)
    }

    /// Whether a lease is known here, over or not.
    pub fn knows(&self, lease: Uuid) -> bool {
        self.leases.contains_key(&lease)
    }

    /// Whether a lease waits for its first renewal: a report is worth sending at once.
    pub fn lacks_renewal(&self) -> bool {
        self.leases.values().any(|fence| fence.deadline.is_none())
    }

    /// When the next lease is over unless it is renewed.
    pub fn next(&self) -> Option<Duration> {
        self.leases.values().filter(|fence| !fence.over).filter_map(|fence| fence.deadline).min()
    }

    /// The deadline of every lease that has one: what those must see who end the work should this agent be gone.
    pub fn deadlines(&self) -> BTreeMap<Uuid, Duration> {
        self.leases.iter().filter_map(|(lease, fence)| Some((*lease, fence.deadline?))).collect()
    }

    /// Until when a lease may run, as far as that is bounded.
    pub fn deadline(&self, lease: Uuid) -> Option<Duration> {
        self.leases.get(&lease)?.deadline
    }
}

fn ttl(order: FenceOrder) -> Duration {
    Duration::from_millis(order.ttl.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scripted::lease;
    use chiptide_model::Millis;

    const SERVE: Uuid = Uuid::from_u128(1);

    fn ms(at: u64) -> Duration {
        Duration::from_millis(at)
    }

    fn orders(leases: &[u128]) -> OrdersView {
        let fence = Some(FenceOrder { ttl: Millis(1000), kill: Millis(100) });
        let order = |id: &u128| chiptide_api::node::LeaseOrder { fence, ..lease(*id, "c0", 1) };
        OrdersView { leases: leases.iter().map(order).collect(), ..OrdersView::default() }
    }

    #[test]
    fn a_lease_runs_from_its_first_renewal_until_the_last_one_has_lapsed() {
        let mut fences = Fences::default();
        fences.receive(&orders(&[1]), ms(0));
        let may = |fences: &Fences| fences.may_run(SERVE, None);
        assert!(!may(&fences) && fences.lacks_renewal() && fences.next().is_none(), "nothing has renewed it");
        fences.renew(ms(10), ms(500));
        assert!(may(&fences) && fences.next() == Some(ms(1010)), "from when the report was sent");
        fences.renew(ms(5), ms(600));
        assert_eq!(fences.next(), Some(ms(1010)), "an older answer takes nothing away");
        fences.tick(ms(1009));
        assert!(may(&fences));
        fences.tick(ms(1010));
        assert!(!may(&fences) && fences.over().eq([SERVE]));
        fences.renew(ms(1009), ms(1011));
        assert!(!may(&fences), "an answer that comes late does not bring it back");
        fences.receive(&orders(&[]), ms(1012));
        assert_eq!(fences.over().count(), 0, "nobody asks for it any more");
        fences.receive(&orders(&[1]), ms(1013));
        assert!(fences.is_over(SERVE), "orders that have it again do not bring it back");
    }

    #[test]
    fn who_was_stopped_past_the_deadline_finds_it_passed_before_the_answer_counts() {
        let mut fences = Fences::default();
        fences.receive(&orders(&[1]), ms(0));
        fences.renew(ms(0), ms(1));
        // Sent in time, answered in time, read after a long stop.
        fences.renew(ms(990), ms(1100));
        assert!(fences.is_over(SERVE));
        fences.receive(&orders(&[1]), ms(1200));
        assert!(fences.is_over(SERVE), "orders that still have it do not bring it back");
    }

    #[test]
    fn a_new_lease_runs_by_a_renewal_that_still_holds() {
        let mut fences = Fences::default();
        fences.renew(ms(100), ms(110));
        fences.receive(&orders(&[1]), ms(200));
        assert_eq!(fences.deadline(SERVE), Some(ms(1100)));
        fences.receive(&orders(&[1, 2]), ms(1100));
        assert!(fences.is_over(SERVE) && !fences.is_over(Uuid::from_u128(2)), "the second has not begun");
    }

    #[test]
    fn a_new_agent_keeps_to_the_deadlines_of_the_last() {
        let mut fences = Fences::after([(SERVE, ms(1000))].into());
        assert!(fences.may_run(SERVE, None) && fences.next() == Some(ms(1000)));
        fences.renew(ms(900), ms(910));
        assert_eq!(fences.next(), Some(ms(1000)), "how long it lives is not known yet");
        let mut late = fences.clone();
        fences.receive(&orders(&[1]), ms(950));
        fences.renew(ms(940), ms(950));
        assert_eq!(fences.next(), Some(ms(1940)));
        late.receive(&orders(&[1]), ms(1000));
        assert!(late.is_over(SERVE));
    }
}
