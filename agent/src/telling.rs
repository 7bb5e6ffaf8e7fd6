//! What one report tells that must not wait, and whether it adds something to what was told before.

use crate::reading::NodeReading;
use crate::standing::Standing;
use chiptide_api::node::{HealthBody, VacantBody};
use std::collections::BTreeMap;
use std::mem::{Discriminant, discriminant};
use uuid::Uuid;

/// The part of a report that is news when it changes. Everything else can wait for the next regular report.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Telling {
    health: BTreeMap<String, Discriminant<HealthBody>>,
    /// Leases this node carries.
    pub(crate) confirmed: Vec<Uuid>,
    /// Chips proven vacant.
    pub(crate) vacant: Vec<VacantBody>,
}

impl Telling {
    /// What is to be told now.
    pub(crate) fn of(reading: &NodeReading, standing: &Standing) -> Telling {
        let health = reading.chips.iter().map(|now| (now.chip.id.clone(), discriminant(&now.chip.health))).collect();
        Telling { health, confirmed: standing.confirmed(), vacant: standing.vacant(reading) }
    }

    /// Whether this says something `told` did not. Less of a kind (an order that is gone) is no news.
    pub(crate) fn adds_to(&self, told: &Telling) -> bool {
        self.health != told.health
            || self.confirmed.iter().any(|lease| !told.confirmed.contains(lease))
            || self.vacant.iter().any(|proof| !told.vacant.contains(proof))
    }
}
