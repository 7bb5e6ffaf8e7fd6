//! Proofs of vacancy beyond what a reading lists: several readings in a row, memory as when idle, nobody at the device node.

use crate::agent::Agent;
use crate::holders::DeviceNodes;
use crate::idle::{Baselines, Idle};
use crate::nvml;
use crate::reading::NodeReading;
use crate::standing::Rules;
use crate::state::{load, save};
use crate::vacancy::NotProven;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use tracing::{info, warn};
use uuid::Uuid;

/// So many readings in a row must agree that a chip is vacant.
const READINGS: u32 = 3;

/// How an agent of real chips weighs proofs.
#[derive(Debug)]
pub(crate) struct Weighing {
    nodes: Option<DeviceNodes>,
    /// Where what was learned of idle chips is kept.
    kept: PathBuf,
}

impl Agent {
    /// This agent, proving chips vacant by all the evidence there is: the chips are real. `nodes` is where to look for who
    /// has their device nodes open, if that can be asked. What is learned of idle chips is kept in `state_dir`.
    pub fn weighing(mut self, nodes: Option<DeviceNodes>, state_dir: PathBuf) -> Agent {
        let kept = state_dir.join("idle");
        let known: BTreeMap<String, Idle> = load(&kept).map(Option::unwrap_or_default).unwrap_or_else(|error| {
            warn!("what was known of idle chips is learned anew: {error}");
            BTreeMap::new()
        });
        self.standing.weigh_by(Rules { readings: READINGS, baselines: Baselines::of(known) });
        self.weighing = Some(Weighing { nodes, kept });
        self
    }

    /// Weighs a reading. `informed` once orders have come: before, nobody knows which chips are anybody's. Looking for
    /// holders of device nodes blocks for some milliseconds, once a proof.
    pub(crate) fn weigh(&mut self, reading: &NodeReading, informed: bool) {
        let Some(weighing) = &self.weighing else { return };
        if !informed {
            return;
        }
        self.standing.weigh(reading, |chip, sharers| nobody_holds(weighing.nodes.as_ref(), reading, chip, sharers));
        if self.standing.learn(reading)
            && let Some(rules) = self.standing.rules()
        {
            info!(node = %self.config.node, "learned what its chips use when idle");
            if let Err(error) = save(&weighing.kept, rules.baselines.known()) {
                warn!(node = %self.config.node, "it will be learned again by the next agent: {error}");
            }
        }
    }
}

fn nobody_holds(
    nodes: Option<&DeviceNodes>,
    reading: &NodeReading,
    chip: &str,
    sharers: &BTreeSet<Uuid>,
) -> Result<(), NotProven> {
    let node = nodes
        .zip(reading.chip(chip))
        .and_then(|(nodes, now)| nodes.node_of(&now.chip.vendor, now.chip.pci_bus_id.as_deref()));
    let Some(node) = node else { return Ok(()) };
    let holders = node.holders().map_err(|error| NotProven::NoHolderList(error.to_string()))?;
    let accounted = |pid: &u32| nvml::owner(*pid).is_some_and(|lease| sharers.contains(&lease));
    match holders.into_iter().find(|pid| !accounted(pid)) {
        Some(pid) => Err(NotProven::Held(pid)),
        None => Ok(()),
    }
}
