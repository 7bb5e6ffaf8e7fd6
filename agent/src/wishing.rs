//! From orders to what the keeper of workloads is to do, and from what it knows to what may be proven. Pure, but for the
//! few lines at the end that put it to work.

use crate::agent::Agent;
use crate::fence::Fences;
use crate::host;
use crate::reading::NodeReading;
use crate::standing::Standing;
use crate::work::{Fitted, View, WantedLease, Wish, Work};
use chiptide_api::node::{LeaseOrder, OrdersView, VacateOrder};
use chiptide_api::work::ReplicaOrder;
use chrono::{DateTime, Utc};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;
use uuid::Uuid;

/// The agent's end of its node's workloads.
#[derive(Clone, Debug, Default)]
pub struct Wishing {
    view: View,
    wish: Wish,
    /// The last wish that wanted a lease on a chip, by number: until a later one is heeded, it may still be started there.
    last_wanted: BTreeMap<(Uuid, String), u64>,
    /// When the time of each lease under notice is up, by the orders' word and on the boot-time clock.
    deadlines: BTreeMap<Uuid, (Option<DateTime<Utc>>, Duration)>,
    fences: Fences,
    /// Since when nothing is left of the runs before this one, by lease.
    past: BTreeMap<Uuid, (u32, Instant)>,
}

impl Wishing {
    /// Of a node whose keeper knows this.
    pub fn new(view: View) -> Wishing {
        Wishing { view, ..Wishing::default() }
    }

    /// The same, with the fences that an agent before has left.
    pub fn fenced(self, fences: Fences) -> Wishing {
        Wishing { fences, ..self }
    }

    /// Until when fenced leases may run.
    pub fn fences(&self) -> &Fences {
        &self.fences
    }

    /// Other fences hold from now on.
    pub fn set_fences(&mut self, fences: Fences) {
        self.fences = fences;
    }

    /// What the keeper knew when it was last asked.
    pub fn view(&self) -> &View {
        &self.view
    }

    /// Takes note of deadlines. They count from when the orders came, on a clock that no sleep of the machine stops (`now`).
    /// One that is said again only gets nearer: orders may be slow. Another one, of a lease that got more time, takes its
    /// place.
    pub fn receive(&mut self, orders: &OrdersView, now: Duration) {
        let deadline = |order: &LeaseOrder| {
            let known = self.deadlines.get(&order.lease).copied();
            let Some(left) = order.ends_in else { return Some((order.lease, known?)) };
            let new = now.saturating_add(Duration::from_millis(left.0));
            let same = known.filter(|(of, _)| *of == order.deadline).map(|(_, at)| at);
            Some((order.lease, (order.deadline, same.map_or(new, |same| same.min(new)))))
        };
        self.deadlines = orders.leases.iter().filter_map(deadline).collect();
        self.fences.receive(orders, now);
    }

    /// What the keeper, who knows `view`, is to be told, if that is something else than it was told last; and holds back the
    /// proofs that have to wait for it. `informed` once orders have come.
    pub fn mind(
        &mut self,
        view: View,
        standing: &mut Standing,
        reading: &NodeReading,
        informed: bool,
        now: Instant,
    ) -> Option<Wish> {
        self.view = view;
        self.note_past_runs(standing, now);
        let mut told = None;
        if informed {
            let next = self.wish_of(standing, reading);
            if next.leases != self.wish.leases || next.chips != self.wish.chips || self.wish.number == 0 {
                self.wish = next;
                self.wish.number += 1;
                told = Some(self.wish.clone());
            }
        }
        let chips = self.wish.leases.iter().flat_map(|(lease, wanted)| {
            let chips = wanted.work.replicas.iter().flat_map(|replica| &replica.chips);
            chips.map(|chip| ((*lease, chip.clone()), self.wish.number))
        });
        self.last_wanted.extend(chips);
        let heeded = self.view.heeded;
        let may_start = |order: &VacateOrder| {
            self.last_wanted.get(&(order.lease, order.chip.clone())).is_some_and(|last| heeded <= *last)
        };
        let may_run = |order: &VacateOrder| self.view.may_be_on(order.lease, &order.chip) || may_start(order);
        standing.hold_back(may_run, now);
        self.last_wanted.retain(|_, last| heeded <= *last);
        told
    }

    /// A run starts on what is read after the last one is gone.
    fn note_past_runs(&mut self, standing: &Standing, now: Instant) {
        let work = |order: &LeaseOrder| Some((order.lease, order.work.as_ref()?.run));
        let runs: BTreeMap<Uuid, u32> = standing.orders().leases.iter().filter_map(work).collect();
        self.past.retain(|lease, (run, _)| runs.get(lease) == Some(run));
        for (lease, run) in runs.into_iter().filter(|(_, run)| *run > 0) {
            if self.view.is_past(lease, run) {
                self.past.entry(lease).or_insert((run, now));
            }
        }
    }

    /// Work without chips leaves nothing that a reading could show.
    fn is_after_past_runs(&self, lease: Uuid, run: u32, replica: &ReplicaOrder, reading: &NodeReading) -> bool {
        let since = self.past.get(&lease).map(|(_, since)| *since);
        run == 0 || since.is_some_and(|since| replica.chips.is_empty() || reading.taken > since)
    }

    /// Whether something may still run on a chip of this replica that no order accounts for: work of a lease that is over
    /// here, or that the daemon has forgotten, and that no reading shows because it has not begun to use the chip, or
    /// that the keeper is about to start because it has not heeded yet that nobody wants it any more.
    fn is_taken(&self, orders: &OrdersView, lease: Uuid, replica: &ReplicaOrder) -> bool {
        let ordered = |other: &Uuid| orders.leases.iter().any(|order| order.lease == *other);
        let strangers = self.view.leases_present().filter(|other| *other != lease && !ordered(other));
        let may_come = |other: &Uuid, last: u64| *other != lease && !ordered(other) && self.view.heeded <= last;
        strangers.into_iter().any(|other| replica.chips.iter().any(|chip| self.view.may_be_on(other, chip)))
            || self.last_wanted.iter().any(|((other, on), last)| replica.chips.contains(on) && may_come(other, *last))
    }

    fn wish_of(&self, standing: &Standing, reading: &NodeReading) -> Wish {
        let fresh = standing.orders().leases.iter().filter(|order| standing.is_fresh(order));
        let fresh = fresh.filter(|order| self.fences.may_run(order.lease, order.fence));
        let leases = fresh.filter_map(|order| Some((order.lease, self.wanted(standing, order, reading)?)));
        let fitted = |now: &crate::ChipNow| {
            let (vendor, bus_id) = (now.chip.vendor.clone(), now.chip.pci_bus_id.clone());
            (now.chip.id.clone(), Fitted { vendor, bus_id })
        };
        Wish { number: self.wish.number, leases: leases.collect(), chips: reading.chips.iter().map(fitted).collect() }
    }

    fn wanted(&self, standing: &Standing, order: &LeaseOrder, reading: &NodeReading) -> Option<WantedLease> {
        let work = order.work.clone()?;
        // What may start stays so: its own process, once at work, is nothing that speaks against it.
        let before = self.wish.leases.get(&order.lease).filter(|wanted| wanted.work.run == work.run);
        let before = before.map(|wanted| &wanted.may_start);
        let may_start = |replica: &&ReplicaOrder| {
            before.is_some_and(|before| before.contains(&replica.rank))
                || self.is_after_past_runs(order.lease, work.run, replica, reading)
                    && !self.is_taken(standing.orders(), order.lease, replica)
                    && standing.may_start(order, &replica.chips, reading)
        };
        Some(WantedLease {
            job: order.job,
            epoch: order.chips.iter().map(|chip| chip.epoch).max().unwrap_or(0),
            deadline: self.deadlines.get(&order.lease).map(|(_, at)| *at),
            deadline_at: order.deadline,
            fence_kill: order.fence.map(|fence| Duration::from_millis(fence.kill.0)),
            may_start: work.replicas.iter().filter(may_start).map(|replica| replica.rank).collect(),
            work,
        })
    }
}

impl Agent {
    /// Keeps the workloads in step with the orders, where this agent runs any. `informed` once orders have come.
    pub(crate) fn mind_work(&mut self, reading: &NodeReading, informed: bool) {
        let (Some(wishing), Some(work)) = (&mut self.wishing, &mut self.work) else { return };
        let view = work.view();
        // After the look at the work: what its guardian has ended in time is known to be over by then.
        wishing.fences.tick(host::boot_time());
        if let Some(wish) = wishing.mind(view, &mut self.standing, reading, informed, Instant::now()) {
            work.wish(wish);
        }
    }
}

/// Waits until the keeper knows something else; for ever where there is none.
pub(crate) async fn changed(work: &mut Option<Work>) {
    match work {
        Some(work) => work.changed().await,
        None => std::future::pending().await,
    }
}
