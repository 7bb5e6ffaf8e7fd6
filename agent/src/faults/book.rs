//! The book of faults. Pure: sightings, readings and moments come in as arguments; what to tell comes out.

use super::clean::CleanRules;
use super::sighting::{Sighting, Which, place_of};
use super::table::{Action, XidTable};
use crate::reading::{ChipNow, NodeReading};
use chiptide_api::fault::FaultBody;
use chiptide_api::node::HealthBody;
use chiptide_api::time::to_utc;
use chiptide_model::{Dimension, FaultClass, Millis, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;

/// The same XID of the same chip within this time is one fault: a fault of the work comes as a shower of lines.
const ONE_FAULT: Millis = Millis::from_secs(10);
/// Most faults of one chip in the book.
const PER_CHIP_MAX: usize = 16;

/// What the driver holds against a chip.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Signs {
    /// The recovery it asks for; 0 for none, absent where it does not say.
    pub recovery: Option<u32>,
    /// Memory rows wait for a reset to be remapped.
    pub remap_pending: bool,
    /// Memory rows could not be remapped.
    pub remap_failed: bool,
    /// The chip is not reached any more.
    pub lost: bool,
}

/// A fault in the book.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
struct Known {
    dimension: Dimension,
    code: u32,
    class: FaultClass,
    detail: String,
    since: Timestamp,
    /// The boot it was seen in.
    boot_id: String,
    /// Whether the chip was reset since.
    reset: bool,
    ended: Option<String>,
    /// Clean readings in a row, and when the first was taken.
    #[serde(skip)]
    clean: Option<(u32, Instant)>,
}

/// What the last reading of a chip said.
#[derive(Clone, Copy, Debug, Default)]
struct Last {
    ecc_uncorrected: Option<u64>,
    signs: Signs,
}

/// The faults of a node's chips.
#[derive(Clone, Debug)]
pub struct Book {
    table: XidTable,
    rules: CleanRules,
    boot_id: String,
    known: BTreeMap<String, Vec<Known>>,
    last: BTreeMap<String, Last>,
    /// When an XID of a chip that does not last was last seen.
    passing: BTreeMap<(String, u32), Timestamp>,
    weighed: Option<Instant>,
}

impl Book {
    /// A book for this boot that goes on from what was `kept`.
    pub fn open(table: XidTable, rules: CleanRules, boot_id: &str, kept: Kept) -> Book {
        let (last, passing) = (BTreeMap::new(), BTreeMap::new());
        Book { table, rules, boot_id: boot_id.to_owned(), known: kept.0, last, passing, weighed: None }
    }

    /// What must outlive the agent.
    pub fn kept(&self) -> Kept {
        Kept(self.known.clone())
    }

    /// Takes a sighting in; answers whether it is a new fault. One of a chip that this node does not have is none.
    pub fn see(&mut self, seen: &Sighting, reading: &NodeReading, now: Timestamp) -> bool {
        let is_it = |chip: &&ChipNow| match &seen.which {
            Which::Chip(id) => chip.chip.id == *id,
            Which::At(place) => chip.chip.pci_bus_id.as_deref().and_then(place_of) == Some(*place),
        };
        let Some(chip) = reading.chips.iter().find(is_it).map(|now| now.chip.id.clone()) else { return false };
        let (action, text) = self.table.action(seen.xid);
        let class = match (action, seen.wanted) {
            (_, Some(wanted)) => class_of_recovery(wanted),
            (Action::Class(class), None) => class,
            // The next reading says what the driver wants.
            (Action::Query, None) => FaultClass::Record,
        };
        let detail = if seen.detail.is_empty() { text.to_owned() } else { format!("{text}: {}", seen.detail) };
        self.note(&chip, Dimension::Xid, seen.xid, class, detail, now)
    }

    /// Weighs a reading: what it shows to be wrong, and how clean it is of what was. Answers whether the book has changed.
    pub fn weigh(&mut self, reading: &NodeReading, now: Timestamp) -> bool {
        if self.weighed.replace(reading.taken) == Some(reading.taken) {
            return false;
        }
        let mut changed = false;
        for chip in &reading.chips {
            let id = &chip.chip.id;
            let last = self.last.get(id).copied();
            changed |= self.find_wrong(chip, last, now);
            changed |= self.find_reset(chip, last);
            changed |= self.find_clean(chip, reading.taken);
            let ecc_uncorrected = chip.reading.ecc_uncorrected.or(last.and_then(|last| last.ecc_uncorrected));
            self.last.insert(id.clone(), Last { ecc_uncorrected, signs: chip.signs });
        }
        changed
    }

    fn find_wrong(&mut self, chip: &ChipNow, last: Option<Last>, now: Timestamp) -> bool {
        let (id, signs, mut changed) = (&chip.chip.id, chip.signs, false);
        if let Some(wanted @ 1..) = signs.recovery {
            let detail = recovery_text(wanted).to_owned();
            changed |= self.note(id, Dimension::Recovery, wanted, class_of_recovery(wanted), detail, now);
        }
        if signs.remap_failed {
            let detail = "memory rows could not be remapped: the chip is worn out".to_owned();
            changed |= self.note(id, Dimension::RowRemap, 2, FaultClass::Human, detail, now);
        } else if signs.remap_pending {
            let detail = "memory rows wait for a reset to be remapped".to_owned();
            changed |= self.note(id, Dimension::RowRemap, 1, FaultClass::ResetAtIdle, detail, now);
        }
        if signs.lost {
            let detail = "the driver does not reach it any more".to_owned();
            changed |= self.note(id, Dimension::Lost, 0, FaultClass::Reset, detail, now);
        }
        let before = last.and_then(|last| last.ecc_uncorrected);
        if let Some((before, count)) = before.zip(chip.reading.ecc_uncorrected).filter(|(before, now)| now > before) {
            let detail = format!("{} more than before", count - before);
            changed |= self.note(id, Dimension::Ecc, 0, FaultClass::Job, detail, now);
        }
        changed
    }

    /// A reset shows by what it clears: errors counted since the last one, rows waiting for it, the recovery asked for.
    fn find_reset(&mut self, chip: &ChipNow, last: Option<Last>) -> bool {
        let Some(last) = last.filter(|_| chip.chip.health == HealthBody::Healthy) else { return false };
        let counted_anew = last.ecc_uncorrected.zip(chip.reading.ecc_uncorrected).is_some_and(|(was, is)| is < was);
        let remapped = last.signs.remap_pending && !chip.signs.remap_pending && !chip.signs.remap_failed;
        let recovered = last.signs.recovery.is_some_and(|wanted| wanted > 0) && chip.signs.recovery == Some(0);
        let found_again = last.signs.lost && !chip.signs.lost;
        (counted_anew || remapped || recovered || found_again) && self.was_reset(&chip.chip.id)
    }

    /// Notes that a chip has been reset. Answers whether that matters to a fault of it.
    pub fn was_reset(&mut self, chip: &str) -> bool {
        let waiting = self.known.get_mut(chip).into_iter().flatten().filter(|known| !known.reset);
        waiting.map(|known| known.reset = true).count() > 0
    }

    fn find_clean(&mut self, chip: &ChipNow, taken: Instant) -> bool {
        let mut changed = false;
        let readable = chip.chip.health == HealthBody::Healthy && chip.reading.processes.is_some();
        for known in self.known.get_mut(&chip.chip.id).into_iter().flatten().filter(|known| known.ended.is_none()) {
            let due = match known.class {
                FaultClass::Node => known.boot_id != self.boot_id,
                FaultClass::Reset | FaultClass::ResetAtIdle => known.reset || known.boot_id != self.boot_id,
                _ => true,
            };
            if !(readable && due) || lasts(known, chip) {
                known.clean = None;
                continue;
            }
            let (count, since) = known.clean.map_or((1, taken), |(count, since)| (count + 1, since));
            known.clean = Some((count, since));
            let span = taken.saturating_duration_since(since);
            if self.rules.suffice(known.class, count, span) {
                known.ended = Some(evidence(known, &self.boot_id, count, span));
                changed = true;
            }
        }
        changed
    }

    /// Notes a fault; answers whether it is a new one. Seen again while it lasts, it has to be seen clean anew.
    pub(crate) fn note(
        &mut self,
        chip: &str,
        dimension: Dimension,
        code: u32,
        class: FaultClass,
        detail: String,
        now: Timestamp,
    ) -> bool {
        let faults = self.known.entry(chip.to_owned()).or_default();
        let same = |known: &&mut Known| (known.dimension, known.code) == (dimension, code) && known.ended.is_none();
        if let Some(known) = faults.iter_mut().find(same) {
            (known.clean, known.reset) = (None, false);
            return false;
        }
        if !class.takes_out() {
            let passed = self.passing.insert((chip.to_owned(), code), now);
            if passed.is_some_and(|before| now.since(before) < ONE_FAULT) {
                return false;
            }
        }
        if faults.len() >= PER_CHIP_MAX {
            return false;
        }
        let boot_id = self.boot_id.clone();
        faults.push(Known {
            dimension,
            code,
            class,
            detail,
            since: now,
            boot_id,
            reset: false,
            ended: None,
            clean: None,
        });
        true
    }

    /// Everything to tell.
    pub fn bodies(&self) -> Vec<FaultBody> {
        let body = |(chip, known): (&String, &Known)| FaultBody {
            chip: chip.clone(),
            dimension: known.dimension.as_str().to_owned(),
            code: known.code,
            class: known.class.as_str().to_owned(),
            detail: known.detail.clone(),
            since: to_utc(known.since),
            ended: known.ended.clone(),
        };
        self.known.iter().flat_map(|(chip, faults)| faults.iter().map(move |known| (chip, known))).map(body).collect()
    }

    /// The daemon has taken these in: what does not last, or is over, need not be told again. Answers whether the book has
    /// changed.
    pub fn told(&mut self, bodies: &[FaultBody]) -> bool {
        let mut changed = false;
        for (chip, faults) in &mut self.known {
            let count = faults.len();
            faults.retain(|known| {
                let is_it = |body: &FaultBody| {
                    body.chip == *chip
                        && (body.dimension.as_str(), body.code) == (known.dimension.as_str(), known.code)
                        && body.since == to_utc(known.since)
                        && body.ended == known.ended
                };
                (known.class.takes_out() && known.ended.is_none()) || !bodies.iter().any(is_it)
            });
            changed |= faults.len() != count;
        }
        self.known.retain(|_, faults| !faults.is_empty());
        changed
    }
}

/// What the agent keeps of the book.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Kept(BTreeMap<String, Vec<Known>>);

/// Whether a reading shows that a fault lasts. XIDs are events: they are over unless they come again.
fn lasts(known: &Known, chip: &ChipNow) -> bool {
    match known.dimension {
        Dimension::Xid | Dimension::Ecc | Dimension::Link => false,
        Dimension::Recovery => chip.signs.recovery.is_none_or(|wanted| wanted > 0),
        Dimension::RowRemap => chip.signs.remap_pending || chip.signs.remap_failed,
        Dimension::Lost => chip.signs.lost,
        Dimension::ForeignProcess => chip.reading.processes.iter().flatten().any(|process| process.pid == known.code),
    }
}

fn evidence(known: &Known, boot_id: &str, count: u32, span: Duration) -> String {
    let after = match known.class {
        FaultClass::Node | FaultClass::Reset | FaultClass::ResetAtIdle if known.boot_id != boot_id => {
            "after a restart of the node, "
        }
        FaultClass::Reset | FaultClass::ResetAtIdle => "after a reset, ",
        _ => "",
    };
    format!("{after}{count} clean readings in a row over {} s", span.as_secs())
}

/// The class of a recovery that the driver asks for.
fn class_of_recovery(wanted: u32) -> FaultClass {
    match wanted {
        0 => FaultClass::Record,
        1 | 4 | 6 => FaultClass::Reset,
        2 | 7 => FaultClass::Node,
        3 => FaultClass::Link,
        _ => FaultClass::Unknown,
    }
}

/// A recovery in words.
pub(crate) fn recovery_text(wanted: u32) -> &'static str {
    match wanted {
        1 => "reset of the chip",
        2 => "reboot of the node",
        3 => "drain of its peer-to-peer traffic",
        4 => "drain, then reset of the chip",
        5 => "restart of the memory exchange service",
        6 => "reset of the bus",
        7 => "restart of the machine",
        _ => "of a kind this agent does not know",
    }
}

#[cfg(test)]
mod tests;
