//! Readings as JSON, for people on a real machine and for tests.

use crate::reading::{ChipNow, NodeReading};
use chiptide_api::chip::Reading;
use chiptide_api::node::ChipBody;
use serde::Serialize;
use std::collections::BTreeMap;
use uuid::Uuid;

#[derive(Serialize)]
struct Node<'a> {
    driver_version: Option<&'a str>,
    chips: Vec<Chip<'a>>,
}

#[derive(Serialize)]
struct Chip<'a> {
    #[serde(flatten)]
    chip: &'a ChipBody,
    reading: &'a Reading,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    owners: &'a BTreeMap<u32, Uuid>,
}

impl NodeReading {
    /// This reading as one JSON value.
    pub fn to_json<'a>(&'a self) -> serde_json::Result<serde_json::Value> {
        let chip = |now: &'a ChipNow| Chip { chip: &now.chip, reading: &now.reading, owners: &now.owners };
        let chips = self.chips.iter().map(chip).collect();
        serde_json::to_value(Node { driver_version: self.driver_version.as_deref(), chips })
    }
}
