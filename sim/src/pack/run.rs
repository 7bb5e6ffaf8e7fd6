//! One run of the experiment: tasks arrive one by one, nothing leaves, what does not fit is dropped.

use super::fragmentation::Fragmentation;
use super::trace::{Milli, Node, Task, Trace};
use anyhow::ensure;
use std::collections::BTreeMap;

/// Arrived GPU, in percent of the capacity, at which figures are taken.
pub(super) const LEVELS: [u64; 6] = [80, 90, 95, 100, 110, 130];

/// Where a task goes.
pub(super) struct Spot {
    pub node: usize,
    pub chips: Vec<usize>,
}

/// Something that places tasks.
pub(super) trait Placer {
    /// Where the task goes; the nodes are as earlier tasks left them.
    fn place(&mut self, nodes: &[Node], task: &Task) -> anyhow::Result<Option<Spot>>;

    /// Decisions per second, where that is measured.
    fn rate(&self) -> Option<f64> {
        None
    }
}

/// What came of a run.
pub(super) struct Outcome {
    /// Allocated GPU in percent of the capacity, by level reached; the mean over the arrivals at that level.
    pub allocated: BTreeMap<u64, f64>,
    /// Useless free GPU in percent of the capacity, by level.
    pub fragmented: BTreeMap<u64, f64>,
    pub idle_gpus: f64,
    pub placed: u64,
    pub dropped: u64,
    pub rate: Option<f64>,
}

pub(super) fn run(trace: &Trace, arrivals: &[Task], placer: &mut dyn Placer) -> anyhow::Result<Outcome> {
    let mut nodes = trace.nodes.clone();
    let capacity = trace.capacity() as f64;
    let mut fragmentation = Fragmentation::of(&trace.tasks);
    let (mut arrived, mut allocated): (Milli, Milli) = (0, 0);
    let mut sums: BTreeMap<u64, (f64, f64)> = BTreeMap::new();
    let mut fragmented = BTreeMap::new();
    let (mut placed, mut dropped) = (0, 0);
    for task in arrivals {
        arrived += task.total();
        match placer.place(&nodes, task)? {
            Some(spot) => {
                let node = &mut nodes[spot.node];
                let fits = spot.chips.iter().all(|chip| node.chips.get(*chip).is_some_and(|free| *free >= task.milli));
                let is_whole = spot.chips.len() as u64 == task.chips;
                ensure!(node.fits(task) && fits && is_whole, "{task:?} was put where it does not fit: {node:?}");
                node.take(task, &spot.chips);
                allocated += task.total();
                placed += 1;
            }
            None => dropped += 1,
        }
        let level = (100.0 * arrived as f64 / capacity).round() as u64;
        let (sum, count) = sums.entry(level).or_default();
        (*sum, *count) = (*sum + 100.0 * allocated as f64 / capacity, *count + 1.0);
        if LEVELS.contains(&level) && !fragmented.contains_key(&level) {
            let useless: f64 = nodes.iter().map(|node| fragmentation.of_node(node)).sum();
            fragmented.insert(level, 100.0 * useless / capacity);
        }
    }
    let mean = |level: &u64| sums.get(level).map(|(sum, count)| (*level, sum / count));
    Ok(Outcome {
        allocated: LEVELS.iter().filter_map(mean).collect(),
        fragmented,
        idle_gpus: (capacity - allocated as f64) / 1000.0,
        placed,
        dropped,
        rate: placer.rate(),
    })
}
