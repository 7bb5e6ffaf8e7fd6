//! The cluster's side of the ledger: which events change it, and what people see of it.

use super::account::{Amounts, NORMALISED, Part};
use super::ledger::{Ledger, PastUse, QueueIx};
use super::rank::Rank;
use super::standing::{QuotaBlock, Standing};
use crate::cluster::Cluster;
use crate::queue::Shape;
use crate::touched::Touched;
use chiptide_model::{
    CalendarReservation, ChipDemand, DeviceClass, Holder, JobSpec, Lease, LeaseState, Placement, SLOTS_PER_CHIP,
    Timestamp,
};
use std::cmp::Reverse;

/// Before anything: an entry at this time moves no average.
const NEVER: Timestamp = Timestamp(i64::MIN);

impl Cluster {
    /// Slots by class of a set of placements.
    pub(crate) fn amounts(&self, placements: &[Placement]) -> Amounts {
        let mut amounts = Amounts::default();
        for hold in placements.iter().flat_map(|placement| &placement.holds) {
            let Some(chip) = self.chip(&hold.chip) else { continue };
            let Some(class) = self.fleet.classes.iter().position(|class| *class == chip.facts.class) else { continue };
            amounts.add(class + 1, hold.slots.iter().map(|slots| u64::from(slots.count())).sum());
        }
        amounts
    }

    /// Enters placements of a job in its queue's books, or strikes them out.
    pub(crate) fn charge(&mut self, spec: &JobSpec, placements: &[Placement], firm: bool, add: bool, at: Timestamp) {
        let (queue, amounts) = (self.ledger.open(&spec.queue, at), self.amounts(placements));
        if self.ledger.charge(queue, &amounts, Part::Used, add, at) || (!add && self.ledger.is_bound(queue)) {
            self.queue.supply_grew();
        }
        if firm {
            self.ledger.charge(queue, &amounts, Part::Firm, add, at);
        }
        self.queue_touched(queue);
    }

    /// Notes that a lease of a job has been given notice, or that this has come to its end.
    pub(crate) fn charge_leaving(&mut self, spec: &JobSpec, placements: &[Placement], add: bool, at: Timestamp) {
        let (queue, amounts) = (self.ledger.open(&spec.queue, at), self.amounts(placements));
        if self.ledger.charge(queue, &amounts, Part::Leaving, add, at) || (add && self.ledger.is_bound(queue)) {
            self.queue.supply_grew();
        }
        self.queue_touched(queue);
    }

    /// A queue's averages, and those of the queues above it, have moved.
    fn queue_touched(&mut self, queue: QueueIx) {
        for &ix in &self.ledger.accounts[queue].path {
            self.touched.queues.insert(self.ledger.accounts[ix].name.to_string());
        }
    }

    /// Arranges the accounts by the policy and the fleet, and charges everything that is held anew.
    pub(crate) fn arrange_ledger(&mut self, at: Timestamp) {
        let mut ledger = std::mem::take(&mut self.ledger);
        ledger.arrange(&self.policy, &self.fleet.classes, &self.open_windows(), at);
        ledger.capacity = self.capacity(&ledger);
        self.charge_all(&mut ledger);
        self.touched.queues.extend(ledger.accounts.iter().map(|account| account.name.to_string()));
        self.ledger = ledger;
    }

    /// Opens the books again from what was stored and what is held.
    pub(crate) fn restore_ledger(&mut self, past: Vec<PastUse>, preempted: Vec<(String, Vec<Timestamp>)>) {
        let mut ledger = Ledger::default();
        ledger.arrange(&self.policy, &self.fleet.classes, &self.open_windows(), NEVER);
        ledger.recall(past, &self.fleet.classes);
        for (queue, times) in preempted {
            let ix = ledger.open(&queue, NEVER);
            ledger.accounts[ix].preempted = times;
        }
        ledger.capacity = self.capacity(&ledger);
        self.charge_all(&mut ledger);
        ledger.tolerate_present();
        self.ledger = ledger;
    }

    /// Charges every lease and promise to an empty ledger, without moving its averages.
    pub(crate) fn charge_all(&self, ledger: &mut Ledger) {
        ledger.clear_holdings();
        let live = self.leases.values().filter(|lease| lease.is_live());
        let held = live.map(|lease| {
            (
                lease.job,
                lease.placements.as_slice(),
                self.jobs.get(&lease.job).is_some_and(|job| is_firm(&job.spec, lease)),
                Some(lease),
            )
        });
        let claimed = self.claims.iter().map(|(job, claim)| {
            let firm = self.jobs.get(job).is_some_and(|job| !job.spec.preemptible);
            (*job, claim.placements.as_slice(), firm, None)
        });
        for (job, placements, firm, lease) in held.chain(claimed) {
            let Some(job) = self.jobs.get(&job) else { continue };
            let (queue, amounts) = (ledger.open(&job.spec.queue, NEVER), self.amounts(placements));
            let leaving = lease.is_some_and(|lease| matches!(lease.state, LeaseState::Revoking { .. }));
            let parts = [(Part::Used, true), (Part::Firm, firm), (Part::Leaving, leaving)];
            for (part, _) in parts.into_iter().filter(|(_, applies)| *applies) {
                ledger.charge(queue, &amounts, part, true, NEVER);
            }
        }
    }

    /// The calendar's windows that are open: their queues are guaranteed their chips for as long.
    fn open_windows(&self) -> Vec<&CalendarReservation> {
        let open = |entry: &&CalendarReservation| {
            self.reservation(&Holder::Calendar(entry.name.clone())).is_some_and(|reservation| reservation.open)
        };
        self.policy.calendar.iter().filter(open).collect()
    }

    /// Chips of a known class joined the fleet.
    pub(crate) fn capacity_grew(&mut self, class: &DeviceClass, chips: u64) {
        let Some(column) = self.fleet.classes.iter().position(|known| known == class).map(|class| class + 1) else {
            return;
        };
        let slots = chips * u64::from(SLOTS_PER_CHIP);
        let normalised = slots * self.ledger.speed(column) / 1000;
        self.ledger.capacity[column] += slots;
        self.ledger.capacity[NORMALISED] += normalised;
    }

    fn capacity(&self, ledger: &Ledger) -> Vec<u64> {
        let mut capacity = vec![0; self.fleet.classes.len() + 1];
        let pools = self.fleet.pools.iter().zip(&self.fleet.pool_chips);
        for (pool, chips) in pools.filter(|(_, chips)| !chips.is_empty()) {
            capacity[pool.class + 1] += chips.len() as u64 * u64::from(SLOTS_PER_CHIP);
        }
        capacity[NORMALISED] =
            capacity.iter().enumerate().skip(1).map(|(column, slots)| slots * ledger.speed(column) / 1000).sum();
        capacity
    }

    /// How the queues stand to each other now.
    pub(crate) fn standing(&self) -> Standing<'_> {
        Standing::of(&self.ledger)
    }

    /// What a whole gang would be charged if it ran on this class; `None` if its chips are too small for the share.
    pub(crate) fn asks_on(&self, shape: &Shape, class: usize) -> Option<Amounts> {
        let name = self.fleet.classes.get(class)?;
        let memory =
            || self.fleet.chips.iter().find(|chip| chip.facts.class == *name).map(|chip| chip.facts.memory_mib);
        let a_chip = match shape.demand {
            ChipDemand::ShareMemory(_) => shape.demand.slots_of(memory()?)?,
            _ => shape.demand.slots_of(0)?,
        };
        let slots = u64::from(a_chip) * u64::from(shape.demand.chips());
        Some(Amounts(vec![(class + 1, slots * u64::from(shape.replicas))]))
    }

    /// Indices of the device classes a shape admits.
    pub(crate) fn classes_of(&self, shape: &Shape) -> Vec<usize> {
        let known = &self.fleet.classes;
        match shape.device_classes.as_slice() {
            [] => (0..known.len()).collect(),
            wanted => wanted.iter().filter_map(|class| known.iter().position(|known| known == class)).collect(),
        }
    }

    /// Where a shape stands in the order of service.
    pub(crate) fn rank(&self, shape: &Shape, now: Timestamp) -> Rank {
        let Some(queue) = self.ledger.find(&shape.queue) else {
            return Rank { entitled: false, priority: shape.priority, shares: Reverse(Vec::new()) };
        };
        let entitled = self.ledger.has_guarantees && {
            let standing = self.standing();
            let classes = self.classes_of(shape).into_iter();
            classes.filter_map(|class| self.asks_on(shape, class)).any(|asks| standing.is_entitled(queue, &asks))
        };
        Rank { entitled, priority: shape.priority, shares: Reverse(self.ledger.shares(queue, now)) }
    }

    /// What the quota has against these placements for a job of this shape, once these leases have left.
    pub(crate) fn quota_against(
        &self,
        shape: &Shape,
        placements: &[Placement],
        leaving: &[&Lease],
    ) -> Option<QuotaBlock> {
        self.quota_against_amounts(shape, &self.amounts(placements), leaving)
    }

    /// The same for what a gang would be charged, wherever it runs.
    pub(crate) fn quota_against_amounts(
        &self,
        shape: &Shape,
        amounts: &Amounts,
        leaving: &[&Lease],
    ) -> Option<QuotaBlock> {
        let queue = self.ledger.find(&shape.queue).filter(|queue| self.ledger.is_bound(*queue))?;
        let mut standing = self.standing();
        for lease in leaving {
            if let Some(giver) = self.queue_of(lease) {
                standing.take(giver, &self.amounts(&lease.placements));
            }
        }
        standing.block(queue, amounts, !shape.preemptible)
    }

    /// The account a lease is charged to.
    pub(crate) fn queue_of(&self, lease: &Lease) -> Option<QueueIx> {
        self.ledger.find(&self.jobs.get(&lease.job)?.spec.queue)
    }

    /// Notes that a job of this queue was preempted.
    pub(crate) fn note_preemption(&mut self, queue: QueueIx, at: Timestamp) {
        self.ledger.note_preemption(queue, at);
        for &ix in &self.ledger.accounts[queue].path {
            self.touched.preempted_queues.insert(self.ledger.accounts[ix].name.to_string());
        }
    }

    /// What there is to keep of the queues that were touched.
    pub fn queue_past(&self, touched: &Touched) -> Vec<QueuePast> {
        let past = self.ledger.past(&self.fleet.classes);
        let keep = |queue: &String| {
            let account = &self.ledger.accounts[self.ledger.find(queue)?];
            Some(QueuePast {
                queue: queue.clone(),
                uses: past.iter().filter(|row| row.queue == *queue).cloned().collect(),
                preempted: account.preempted.clone(),
                is_newly_preempted: touched.preempted_queues.contains(queue),
            })
        };
        touched.queues.union(&touched.preempted_queues).filter_map(keep).collect()
    }

    /// What every queue has and may have, in order of name.
    pub fn queue_uses(&self, now: Timestamp) -> Vec<QueueUse> {
        let mut pending = vec![0; self.ledger.accounts.len()];
        let waiting = self.queue.shapes().map(|(shape, jobs)| (shape.queue.as_str(), jobs.len() as u64));
        let promised = self.claims.keys().filter_map(|job| Some((self.jobs.get(job)?.spec.queue.as_str(), 1)));
        for (queue, jobs) in waiting.chain(promised) {
            for &ix in self.ledger.find(queue).iter().flat_map(|ix| &self.ledger.accounts[*ix].path) {
                pending[ix] += jobs;
            }
        }
        let mut uses: Vec<QueueUse> =
            pending.into_iter().enumerate().map(|(ix, pending)| self.use_of(ix, pending, now)).collect();
        uses.sort_by(|a, b| a.queue.cmp(&b.queue));
        uses
    }

    fn use_of(&self, ix: QueueIx, pending: u64, now: Timestamp) -> QueueUse {
        let account = &self.ledger.accounts[ix];
        let column = |column: usize| ColumnUse {
            class: column.checked_sub(1).and_then(|class| self.fleet.classes.get(class).cloned()),
            guaranteed: account.guaranteed[column],
            limit: account.limit[column],
            used: account.used[column],
            leaving: account.leaving[column],
            borrowed: account.beyond(column),
            past: (column > 0).then(|| account.past_at(column, now, self.ledger.half_life)),
        };
        QueueUse {
            queue: account.name.to_string(),
            parent: account.path.get(1).map(|&above| self.ledger.accounts[above].name.to_string()),
            weight: account.weight,
            share: self.ledger.share(ix, now),
            pending,
            columns: (0..account.used.len()).map(column).collect(),
        }
    }
}

/// Whether nobody may take a lease: extra replicas may always be taken.
pub(crate) fn is_firm(spec: &JobSpec, lease: &Lease) -> bool {
    !spec.preemptible && !lease.extra
}

/// What there is to keep of a queue's past.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct QueuePast {
    /// The queue.
    pub queue: String,
    /// What it used of late; empty if nothing.
    pub uses: Vec<PastUse>,
    /// When jobs of it and of those below it were preempted.
    pub preempted: Vec<Timestamp>,
    /// Whether that has changed.
    pub is_newly_preempted: bool,
}

/// What a queue has and may have.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct QueueUse {
    /// The queue.
    pub queue: String,
    /// The queue above it.
    pub parent: Option<String>,
    /// Its weight.
    pub weight: u32,
    /// Its share of the fleet beyond its guarantee, by weight, in millionths of a millionth.
    pub share: u64,
    /// Jobs that wait, with those of the queues below.
    pub pending: u64,
    /// Normalised chips first, then by device class.
    pub columns: Vec<ColumnUse>,
}

/// One column of a queue's account, in slots.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ColumnUse {
    /// The device class; `None` for normalised chips.
    pub class: Option<DeviceClass>,
    /// Guaranteed, at least to the queues below it.
    pub guaranteed: u64,
    /// Never exceeded.
    pub limit: Option<u64>,
    /// Held or promised.
    pub used: u64,
    /// Of that, under notice.
    pub leaving: u64,
    /// Held beyond the guarantee.
    pub borrowed: u64,
    /// Average held of late; `None` for normalised chips.
    pub past: Option<u64>,
}
