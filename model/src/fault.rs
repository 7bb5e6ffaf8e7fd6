//! Faults of a chip: what its node saw, how grave it is, and what ended it.

use crate::id::ChipId;
use crate::time::Timestamp;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Where a fault was seen.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Dimension {
    /// An XID, from the driver's events or the kernel's log.
    Xid,
    /// Uncorrected memory errors were counted.
    Ecc,
    /// Memory rows wait for remapping, or could not be remapped.
    RowRemap,
    /// The driver no longer reaches the chip.
    Lost,
    /// Errors on a link to another chip.
    Link,
    /// The driver itself asks for a recovery.
    Recovery,
    /// A process that no live lease accounts for.
    ForeignProcess,
}

/// How grave a fault is: what it does to the chip and to who has it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultClass {
    /// Of no account; logged.
    Ignore,
    /// Worth knowing; logged.
    Record,
    /// The work on the chip is lost, the chip is not: its leases end, and it comes back by the proof of vacancy.
    Job,
    /// The chip must be reset before it is granted again; who has it may finish.
    ResetAtIdle,
    /// The chip must be reset at once: its leases end.
    Reset,
    /// A link of the chip is bad; who has it may finish.
    Link,
    /// The node must be restarted: the leases on the chip end, and no chip of the node is granted.
    Node,
    /// Somebody has to look; who has it may finish.
    Human,
    /// Not in the table; who has it may finish.
    Unknown,
    /// Somebody who holds no lease uses the chip; who has it is told.
    Foreign,
}

/// Every class, with its word.
const CLASSES: [(FaultClass, &str); 10] = [
    (FaultClass::Ignore, "ignore"),
    (FaultClass::Record, "record"),
    (FaultClass::Job, "job"),
    (FaultClass::ResetAtIdle, "reset_at_idle"),
    (FaultClass::Reset, "reset"),
    (FaultClass::Link, "link"),
    (FaultClass::Node, "node"),
    (FaultClass::Human, "human"),
    (FaultClass::Unknown, "unknown"),
    (FaultClass::Foreign, "foreign"),
];

/// Every dimension, with its word.
const DIMENSIONS: [(Dimension, &str); 7] = [
    (Dimension::Xid, "xid"),
    (Dimension::Ecc, "ecc"),
    (Dimension::RowRemap, "row_remap"),
    (Dimension::Lost, "lost"),
    (Dimension::Link, "link"),
    (Dimension::Recovery, "recovery"),
    (Dimension::ForeignProcess, "foreign_process"),
];

impl FaultClass {
    /// Whether the leases on the chip end.
    pub fn ends_leases(self) -> bool {
        matches!(self, FaultClass::Job | FaultClass::Reset | FaultClass::Node)
    }

    /// Whether the chip is out of service until the fault has ended.
    pub fn takes_out(self) -> bool {
        !matches!(self, FaultClass::Ignore | FaultClass::Record | FaultClass::Job)
    }

    /// Whether evidence from the node can end the fault; otherwise only an admin can.
    pub fn ends_by_evidence(self) -> bool {
        self.takes_out() && self != FaultClass::Human
    }

    /// The word used on the wire, in SQL and in files.
    pub fn as_str(self) -> &'static str {
        CLASSES.iter().find(|(class, _)| *class == self).map_or("unknown", |(_, word)| word)
    }
}

impl Dimension {
    /// The word used on the wire, in SQL and in files.
    pub fn as_str(self) -> &'static str {
        DIMENSIONS.iter().find(|(dimension, _)| *dimension == self).map_or("xid", |(_, word)| word)
    }
}

/// A word that is none of a closed list.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UnknownWord(String);

impl fmt::Display for UnknownWord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
impl std::error::Error for UnknownWord {}

fn word_of<T: Copy>(known: &[(T, &str)], text: &str) -> Result<T, UnknownWord> {
    known.iter().find(|(_, word)| *word == text).map(|(value, _)| *value).ok_or_else(|| {
        let words: Vec<&str> = known.iter().map(|(_, word)| *word).collect();
        UnknownWord(format!("{:?} is not one of {}", text.chars().take(40).collect::<String>(), words.join(", ")))
    })
}

impl FromStr for FaultClass {
    type Err = UnknownWord;
    fn from_str(text: &str) -> Result<FaultClass, UnknownWord> {
        word_of(&CLASSES, text)
    }
}

impl FromStr for Dimension {
    type Err = UnknownWord;
    fn from_str(text: &str) -> Result<Dimension, UnknownWord> {
        word_of(&DIMENSIONS, text)
    }
}

/// Which fault of a chip is meant. Reports repeat it, so it must not change while the fault lasts.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct FaultKey {
    /// Where it was seen.
    pub dimension: Dimension,
    /// The XID, or the pid of a foreign process; 0 where the dimension has no codes.
    pub code: u32,
    /// Since when, by the node's clock.
    pub since: Timestamp,
}

/// What ended a fault.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "by", rename_all = "snake_case")]
pub enum FaultEnd {
    /// Its node looked again, often enough, and found nothing.
    Evidence {
        /// What it found instead.
        detail: String,
    },
    /// Somebody took the responsibility.
    Admin {
        /// Who.
        who: String,
        /// Why.
        reason: String,
    },
}

/// A fault of a chip.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Fault {
    /// Which.
    #[serde(flatten)]
    pub key: FaultKey,
    /// How grave.
    pub class: FaultClass,
    /// What was seen, for people.
    pub detail: String,
    /// What ended it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<FaultEnd>,
}

impl Fault {
    /// Whether it keeps its chip out of service.
    pub fn is_open(&self) -> bool {
        self.ended.is_none() && self.class.takes_out()
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.key.dimension {
            Dimension::Xid => write!(f, "XID {}", self.key.code)?,
            Dimension::Ecc => f.write_str("uncorrected memory errors")?,
            Dimension::RowRemap => f.write_str("row remapping")?,
            Dimension::Lost => f.write_str("chip lost")?,
            Dimension::Link => f.write_str("link errors")?,
            Dimension::Recovery => f.write_str("recovery asked for")?,
            Dimension::ForeignProcess => write!(f, "foreign process {}", self.key.code)?,
        }
        if self.detail.is_empty() { Ok(()) } else { write!(f, ": {}", self.detail) }
    }
}

/// Most faults kept of one chip; the oldest that do not matter any more go first.
pub const FAULTS_MAX: usize = 32;

/// What is known of the faults of one chip, oldest first.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Faults(Vec<Fault>);

impl Faults {
    /// All of them, oldest first.
    pub fn all(&self) -> &[Fault] {
        &self.0
    }

    /// The fault that is meant.
    pub fn get(&self, key: FaultKey) -> Option<&Fault> {
        self.0.iter().find(|fault| fault.key == key)
    }

    /// The fault to show as the reason why the chip is out of service: the gravest open one.
    pub fn gravest_open(&self) -> Option<&Fault> {
        // The table of classes goes from harmless to grave, but for the last two, which say little.
        let weight = |fault: &&Fault| match fault.class {
            FaultClass::Unknown | FaultClass::Foreign => 0,
            class => 1 + class as u8,
        };
        self.0.iter().filter(|fault| fault.is_open()).max_by_key(weight)
    }

    /// Whether another one would be kept: not while as many as may be are open.
    pub fn has_room(&self) -> bool {
        self.0.iter().filter(|fault| fault.is_open()).count() < FAULTS_MAX / 2
    }

    /// Adds one that is not known. Forgets the oldest that is not open where there are too many.
    pub fn add(&mut self, fault: Fault) {
        self.0.push(fault);
        if self.0.len() > FAULTS_MAX
            && let Some(at) = self.0.iter().position(|fault| !fault.is_open())
        {
            self.0.remove(at);
        }
    }

    /// Ends the fault that is meant, if it has not ended; answers whether there was one.
    pub fn end(&mut self, key: FaultKey, end: FaultEnd) -> bool {
        match self.0.iter_mut().find(|fault| fault.key == key && fault.ended.is_none()) {
            Some(fault) => {
                fault.ended = Some(end);
                true
            }
            None => false,
        }
    }

    /// Ends every fault that has not ended.
    pub fn end_all(&mut self, end: &FaultEnd) {
        self.0.iter_mut().filter(|fault| fault.ended.is_none()).for_each(|fault| fault.ended = Some(end.clone()));
    }
}

/// A fault of one chip, as reports and events carry it.
pub type ChipFault = (ChipId, Fault);

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(code: u32, class: FaultClass) -> Fault {
        let key = FaultKey { dimension: Dimension::Xid, code, since: Timestamp(i64::from(code)) };
        Fault { key, class, detail: String::new(), ended: None }
    }

    #[test]
    fn words_can_be_read_back() {
        for (class, word) in CLASSES {
            assert_eq!((class.as_str(), word.parse()), (word, Ok(class)));
            assert_eq!(serde_json::to_value(class).expect("a word"), word);
        }
        for (dimension, word) in DIMENSIONS {
            assert_eq!((dimension.as_str(), word.parse()), (word, Ok(dimension)));
            assert_eq!(serde_json::to_value(dimension).expect("a word"), word);
        }
    }

    #[test]
    fn what_is_open_is_never_forgotten() {
        let mut faults = Faults::default();
        faults.add(fault(79, FaultClass::Node));
        (100..200).for_each(|code| faults.add(fault(code, FaultClass::Record)));
        assert_eq!(faults.all().len(), FAULTS_MAX);
        assert_eq!(faults.gravest_open().map(|fault| fault.key.code), Some(79));
    }

    #[test]
    fn the_gravest_is_shown() {
        let mut faults = Faults::default();
        let classes = [FaultClass::Unknown, FaultClass::Human, FaultClass::Reset, FaultClass::Foreign];
        (1..).zip(classes).for_each(|(code, class)| faults.add(fault(code, class)));
        assert_eq!(faults.gravest_open().map(|fault| fault.class), Some(FaultClass::Human));
    }
}
