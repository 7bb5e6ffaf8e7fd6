//! What one report tells that must not wait, and whether it adds something to what was told before.

use crate::reading::NodeReading;
use crate::standing::Standing;
use crate::work::View;
use chiptide_api::fault::FaultBody;
use chiptide_api::node::{HealthBody, RefusedBody, VacantBody};
use chiptide_api::work::WorkReport;
use std::collections::{BTreeMap, BTreeSet};
use std::mem::{Discriminant, discriminant};
use std::time::Duration;
use uuid::Uuid;

/// The part of a report that is news when it changes. Everything else can wait for the next regular report.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Telling {
    health: BTreeMap<String, Discriminant<HealthBody>>,
    /// Leases this node carries.
    pub(crate) confirmed: Vec<Uuid>,
    /// Chips proven vacant.
    pub(crate) vacant: Vec<VacantBody>,
    /// Grants that are out of date.
    pub(crate) refused: Vec<RefusedBody>,
    /// How the workloads are.
    pub(crate) work: Vec<WorkReport>,
    /// Faults of the chips.
    pub(crate) faults: Vec<FaultBody>,
    /// Leases whose ladder is to be told, and how many steps it has.
    pub(crate) ladders: BTreeMap<Uuid, usize>,
}

impl Telling {
    /// What is to be told now. `work` is what the keeper knows, where there is one: then a lease with a workload is carried
    /// only once that has been started.
    pub(crate) fn of(
        reading: &NodeReading,
        standing: &Standing,
        work: Option<&View>,
        faults: Vec<FaultBody>,
    ) -> Telling {
        let health = reading.chips.iter().map(|now| (now.chip.id.clone(), discriminant(&now.chip.health))).collect();
        Telling {
            health,
            confirmed: confirmed(standing, work),
            vacant: standing.vacant(reading),
            refused: standing.refused(),
            work: work.map(View::reports).unwrap_or_default(),
            faults,
            ladders: work.map(|view| ladders(standing, view)).unwrap_or_default(),
        }
    }

    /// Whether this says something `told` did not. Less of a kind (an order that is gone) is no news.
    pub(crate) fn adds_to(&self, told: &Telling) -> bool {
        self.health != told.health
            || self.confirmed.iter().any(|lease| !told.confirmed.contains(lease))
            || self.vacant.iter().any(|proof| !told.vacant.contains(proof))
            || self.ladders.iter().any(|(lease, steps)| told.ladders.get(lease) != Some(steps))
            || self.work.iter().any(|work| !told.work.contains(work))
            || self.faults.iter().any(|fault| !told.faults.contains(fault))
            || self.refused.iter().any(|grant| !told.refused.contains(grant))
    }
}

/// The ladders of leases that the orders still name.
fn ladders(standing: &Standing, view: &View) -> BTreeMap<Uuid, usize> {
    let orders = standing.orders();
    let named = orders.leases.iter().map(|order| order.lease).chain(orders.vacate.iter().map(|order| order.lease));
    let named: BTreeSet<Uuid> = named.collect();
    let reports = view.ladder_reports(&named, Duration::ZERO);
    reports.into_iter().map(|ladder| (ladder.lease, ladder.steps.len())).collect()
}

fn confirmed(standing: &Standing, work: Option<&View>) -> Vec<Uuid> {
    let mut confirmed = standing.confirmed();
    if let Some(view) = work {
        let orders = standing.orders().leases.iter().filter_map(|order| Some((order.lease, order.work.as_ref()?)));
        let waits: BTreeSet<Uuid> =
            orders.filter(|(lease, work)| !view.has_begun(*lease, work)).map(|(l, _)| l).collect();
        confirmed.retain(|lease| !waits.contains(lease));
    }
    confirmed
}
