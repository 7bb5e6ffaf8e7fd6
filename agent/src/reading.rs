//! What a chip source knows of its node at one moment. A source publishes readings through a `watch` channel; the agent
//! takes the newest. This module only holds values: sampling is the source's job, judging is `orders` and `vacancy`.

use chiptide_api::chip::Reading;
use chiptide_api::node::{ChipBody, HealthBody};
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
        let detail = format!("no reading for more than {} s", limit.as_secs());
        let unreadable = |now: &ChipNow| ChipNow::unreadable(now.chip.clone(), &detail);
        Some(NodeReading { chips: self.chips.iter().map(unreadable).collect(), ..self.clone() })
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
}

impl ChipNow {
    /// A chip of which nothing could be read but its earlier `facts`.
    pub fn unreadable(facts: ChipBody, detail: &str) -> ChipNow {
        let health = HealthBody::Unreadable { detail: detail.to_owned() };
        ChipNow { chip: ChipBody { health, ..facts }, reading: Reading::default(), owners: BTreeMap::new() }
    }
}
