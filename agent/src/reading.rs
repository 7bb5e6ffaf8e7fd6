//! What a chip source knows of its node at one moment. A source publishes readings through a `watch` channel; the agent
//! takes the newest. This module only holds values: sampling is the source's job, judging is `orders` and `vacancy`.

use crate::faults::Signs;
use chiptide_api::chip::Reading;
use chiptide_api::node::{ChipBody, ChipReport, HealthBody};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;
use uuid::Uuid;

/// Everything a chip source knows of its node at one moment.
#[derive(Clone, Debug)]
pub struct NodeReading {
    /// When sampling began: nothing in here is older.
    pub taken: Instant,
    /// Version of the vendor driver.
    pub driver_version: Option<String>,
    /// Every chip of the node; one that has vanished stays listed as unhealthy.
    pub chips: Vec<ChipNow>,
}

impl NodeReading {
    /// The chip of this id.
    pub fn chip(&self, id: &str) -> Option<&ChipNow> {
        self.chips.iter().find(|now| now.chip.id == id)
    }

    /// This reading as it must be told when nothing newer than `limit` is at hand: every chip unreadable. "Could not
    /// read" is never idle and never healthy, so an old reading must not pass for a new one.
    pub fn gone_stale(&self, now: Instant, limit: Duration) -> Option<NodeReading> {
        let age = now.saturating_duration_since(self.taken);
        if age <= limit {
            return None;
        }
        Some(self.all_unreadable(&format!("no reading for more than {} s", limit.as_secs())))
    }

    /// The same chips, none of them readable.
    pub(crate) fn all_unreadable(&self, detail: &str) -> NodeReading {
        let chips = self.chips.iter().map(|now| ChipNow::blank(now.chip.clone(), detail)).collect();
        NodeReading { taken: self.taken, driver_version: self.driver_version.clone(), chips }
    }

    /// The chips as a report tells them.
    pub(crate) fn reports(&self) -> Vec<ChipReport> {
        let report = |now: &ChipNow| ChipReport {
            id: now.chip.id.clone(),
            health: now.chip.health.clone(),
            reading: now.reading.clone(),
        };
        self.chips.iter().map(report).collect()
    }
}

/// One chip at one moment.
#[derive(Clone, Debug)]
pub struct ChipNow {
    /// Its facts and its health.
    pub chip: ChipBody,
    /// What was measured.
    pub reading: Reading,
    /// Which lease each listed process (by pid) belongs to, where that is known.
    pub owners: BTreeMap<u32, Uuid>,
    /// What the driver holds against it.
    pub signs: Signs,
}

impl ChipNow {
    /// A chip of which nothing could be read but its earlier `facts`.
    pub fn blank(facts: ChipBody, detail: &str) -> ChipNow {
        let health = HealthBody::Unreadable { detail: detail.to_owned() };
        ChipNow {
            chip: ChipBody { health, ..facts },
            reading: Reading::default(),
            owners: BTreeMap::new(),
            signs: Signs::default(),
        }
    }
}
