//! Every chip ever met on this node, and how one round of looks becomes a reading. A chip is known by its uuid; the index it
//! had only tells whom a failed look was about. A chip is never forgotten: what the driver no longer lists is lost.

use super::facts::{Facts, Link, Place};
use super::sample::{Fault, Sample};
use crate::faults::Signs;
use crate::reading::ChipNow;
use chiptide_api::chip::Reading;
use chiptide_api::node::{ChipBody, HealthBody};
use std::collections::{BTreeMap, BTreeSet};
use tracing::warn;

/// What the look at one index of the driver's list brought.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Look {
    /// An answer in time.
    Answered(Result<Box<Sample>, Fault>),
    /// None in time.
    Late,
}

/// The chips met so far.
#[derive(Debug, Default)]
pub(crate) struct Inventory {
    known: BTreeMap<String, Met>,
    unmet: BTreeSet<usize>,
}

#[derive(Debug)]
struct Met {
    facts: Facts,
    index: usize,
}

impl Inventory {
    /// One round: the look at each index the driver counts, in order.
    pub(crate) fn merge(&mut self, looks: Vec<Look>) -> Vec<ChipNow> {
        let mut seen: BTreeMap<String, Box<Sample>> = BTreeMap::new();
        let mut failed: BTreeMap<usize, Fault> = BTreeMap::new();
        for (index, look) in looks.into_iter().enumerate() {
            match look {
                Look::Answered(Ok(sample)) => {
                    let facts = sample.facts.clone();
                    self.known.insert(facts.chip.id.clone(), Met { facts, index });
                    seen.insert(sample.facts.chip.id.clone(), sample);
                }
                Look::Answered(Err(fault)) => drop(failed.insert(index, fault)),
                Look::Late => {
                    drop(failed.insert(index, Fault::Unreadable("the driver does not answer in time".into())))
                }
            }
        }
        self.note_unmet(&failed);
        let mut order: Vec<(&String, &Met)> = self.known.iter().collect();
        order.sort_by_key(|(_, met)| (met.facts.place, met.index));
        let now = |(id, met): (&String, &Met)| {
            let chip = ChipBody { link_peers: self.peers(met), ..met.facts.chip.clone() };
            match seen.remove(id) {
                Some(sample) => healthy(chip, *sample),
                None => unseen(chip, failed.get(&met.index)),
            }
        };
        order.into_iter().map(now).collect()
    }

    /// A chip that never answered has no uuid, so it cannot be reported: said once, until somebody is met there.
    fn note_unmet(&mut self, failed: &BTreeMap<usize, Fault>) {
        let met: BTreeSet<usize> = self.known.values().map(|met| met.index).collect();
        let unmet: BTreeSet<usize> = failed.keys().copied().filter(|index| !met.contains(index)).collect();
        for index in unmet.difference(&self.unmet) {
            warn!(index, "a chip the driver counts cannot be told apart, so it is left out: {:?}", failed.get(index));
        }
        self.unmet = unmet;
    }

    /// How many indexes have a chip that was met there: a driver that cannot count leaves these.
    pub(crate) fn indexes(&self) -> usize {
        self.known.values().map(|met| met.index + 1).max().unwrap_or(0)
    }

    /// The chips linked to this one, straight or by a common switch.
    fn peers(&self, met: &Met) -> Vec<String> {
        let linked = |other: &&Met| {
            let straight =
                |from: &Met, to: &Met| to.facts.place.is_some_and(|at| from.facts.links.contains(&Link::Direct(at)));
            straight(met, other) || straight(other, met) || !switches(met).is_disjoint(&switches(other))
        };
        let others = self.known.values().filter(|other| other.facts.chip.id != met.facts.chip.id);
        others.filter(linked).map(|other| other.facts.chip.id.clone()).collect()
    }
}

fn switches(met: &Met) -> BTreeSet<Place> {
    let switch = |link: &Link| match link {
        Link::Switch(place) => Some(*place),
        Link::Direct(_) => None,
    };
    met.facts.links.iter().filter_map(switch).collect()
}

fn healthy(chip: ChipBody, sample: Sample) -> ChipNow {
    let health = match sample.ailment {
        Some(detail) => HealthBody::Unhealthy { detail },
        None => HealthBody::Healthy,
    };
    ChipNow { chip: ChipBody { health, ..chip }, reading: sample.reading, owners: sample.owners, signs: sample.signs }
}

fn unseen(chip: ChipBody, fault: Option<&Fault>) -> ChipNow {
    let health = match fault.cloned() {
        Some(Fault::Unreadable(detail)) => HealthBody::Unreadable { detail },
        Some(Fault::Unhealthy(detail)) => HealthBody::Unhealthy { detail },
        Some(Fault::Lost) => HealthBody::Unhealthy { detail: "chip lost: it has fallen off the bus".to_owned() },
        None => HealthBody::Unhealthy { detail: "chip lost: the driver no longer lists it".to_owned() },
    };
    let signs = Signs { lost: matches!(fault, None | Some(Fault::Lost)), ..Signs::default() };
    ChipNow { chip: ChipBody { health, ..chip }, reading: Reading::default(), owners: BTreeMap::new(), signs }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(id: &str, bus: u32, links: &[Link]) -> Look {
        let chip = crate::scripted::chip(id).chip;
        let facts = Facts { chip, place: Some((0, bus, 0)), links: links.iter().copied().collect() };
        let reading = Reading { processes: Some(vec![]), ..Reading::default() };
        Look::Answered(Ok(Box::new(Sample {
            facts,
            ailment: None,
            signs: Signs::default(),
            reading,
            owners: BTreeMap::new(),
        })))
    }

    fn told(chips: &[ChipNow]) -> Vec<String> {
        let health = |now: &ChipNow| match &now.chip.health {
            HealthBody::Healthy => "healthy".to_owned(),
            HealthBody::Unreadable { detail } | HealthBody::Unhealthy { detail } => detail.clone(),
        };
        chips.iter().map(|now| format!("{}: {}", now.chip.id, health(now))).collect()
    }

    #[test]
    fn a_vanished_chip_stays_as_lost_and_the_others_keep_their_own_readings() {
        let mut inventory = Inventory::default();
        inventory.merge(vec![sample("a", 1, &[]), sample("b", 2, &[]), sample("c", 3, &[])]);
        let after = inventory.merge(vec![sample("a", 1, &[]), sample("c", 3, &[])]);
        let lost = "b: chip lost: the driver no longer lists it";
        assert_eq!(told(&after), ["a: healthy", lost, "c: healthy"]);
        let later = inventory.merge(vec![sample("a", 1, &[]), Look::Late]);
        assert_eq!(told(&later)[2], "c: the driver does not answer in time", "known at its new index");
    }

    #[test]
    fn a_fault_is_about_the_chip_last_met_there() {
        let mut inventory = Inventory::default();
        inventory.merge(vec![sample("a", 1, &[]), sample("b", 2, &[])]);
        let gone = Look::Answered(Err(Fault::Unhealthy("chip lost".into())));
        let chips = inventory.merge(vec![sample("a", 1, &[]), gone]);
        assert_eq!(told(&chips), ["a: healthy", "b: chip lost"]);
        assert_eq!(chips[1].reading.processes, None);
        assert_eq!(inventory.indexes(), 2);
    }

    #[test]
    fn peers_are_linked_straight_or_by_a_common_switch() {
        let mut inventory = Inventory::default();
        let (to_b, switch) = (Link::Direct((0, 2, 0)), Link::Switch((0, 99, 0)));
        let chips = inventory.merge(vec![
            sample("a", 1, &[to_b]),
            sample("b", 2, &[]),
            sample("c", 3, &[switch]),
            sample("d", 4, &[switch]),
        ]);
        let peers: Vec<&[String]> = chips.iter().map(|now| now.chip.link_peers.as_slice()).collect();
        assert_eq!(peers, [&["b".to_owned()][..], &["a".to_owned()], &["d".to_owned()], &["c".to_owned()]]);
    }
}
