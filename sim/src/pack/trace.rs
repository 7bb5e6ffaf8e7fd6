//! The nodes and tasks of a placement experiment, as the openb files have them.

use anyhow::{Context, ensure};
use flate2::read::GzDecoder;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use serde::Deserialize;
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// Thousandths of a chip.
pub(super) type Milli = u64;
/// A whole chip.
pub(super) const WHOLE: Milli = 1000;

#[derive(Deserialize)]
struct NodeRow {
    sn: String,
    cpu_milli: u64,
    memory_mib: u64,
    gpu: usize,
    model: String,
}

#[derive(Deserialize)]
struct TaskRow {
    cpu_milli: f64,
    memory_mib: f64,
    num_gpu: u64,
    gpu_milli: f64,
    #[serde(default)]
    gpu_spec: String,
}

/// A node and what is free on it.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Node {
    pub name: String,
    pub cpu: u64,
    pub memory: u64,
    /// Free part of each chip.
    pub chips: Vec<Milli>,
    /// Index of its model.
    pub model: usize,
}

/// What one task asks for.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub(super) struct Task {
    pub cpu: u64,
    pub memory: u64,
    pub chips: u64,
    /// Of each chip; below [`WHOLE`] only with one chip.
    pub milli: Milli,
    /// Indices of the models it accepts; empty means any.
    pub models: Vec<usize>,
}

impl Task {
    pub(super) fn total(&self) -> Milli {
        self.chips * self.milli
    }

    pub(super) fn is_share(&self) -> bool {
        self.chips == 1 && self.milli < WHOLE
    }

    pub(super) fn accepts(&self, model: usize) -> bool {
        self.models.is_empty() || self.models.contains(&model)
    }
}

impl Node {
    pub(super) fn free(&self) -> Milli {
        self.chips.iter().sum()
    }

    /// Chips with room for what the task asks of each.
    pub(super) fn chips_for(&self, task: &Task) -> u64 {
        self.chips.iter().filter(|free| **free >= task.milli).count() as u64
    }

    pub(super) fn fits(&self, task: &Task) -> bool {
        let chips = task.chips == 0 || (task.accepts(self.model) && self.chips_for(task) >= task.chips);
        self.cpu >= task.cpu && self.memory >= task.memory && chips
    }

    pub(super) fn take(&mut self, task: &Task, chips: &[usize]) {
        (self.cpu, self.memory) = (self.cpu - task.cpu, self.memory - task.memory);
        chips.iter().for_each(|chip| self.chips[*chip] -= task.milli);
    }
}

/// A fleet and a list of tasks.
pub(super) struct Trace {
    /// In order of their names, so that a node's index breaks ties by name.
    pub nodes: Vec<Node>,
    pub tasks: Vec<Task>,
    pub models: Vec<String>,
}

impl Trace {
    pub(super) fn read(nodes: &Path, tasks: &Path) -> anyhow::Result<Trace> {
        let mut models: Vec<String> = Vec::new();
        let mut rows = csv::Reader::from_reader(open(nodes)?);
        let mut fleet = Vec::new();
        for row in rows.deserialize::<NodeRow>() {
            let row = row.with_context(|| format!("read {}", nodes.display()))?;
            let model = index_of(&mut models, &row.model);
            let chips = vec![WHOLE; row.gpu];
            fleet.push(Node { name: row.sn, cpu: row.cpu_milli, memory: row.memory_mib, chips, model });
        }
        fleet.sort_by(|a, b| a.name.cmp(&b.name));
        let mut rows = csv::Reader::from_reader(open(tasks)?);
        let mut list = Vec::new();
        for row in rows.deserialize::<TaskRow>() {
            let row = row.with_context(|| format!("read {}", tasks.display()))?;
            let named = row.gpu_spec.split('|').filter(|model| !model.is_empty());
            let milli = match row.num_gpu {
                0 => 0,
                1 => row.gpu_milli as Milli,
                _ => WHOLE,
            };
            ensure!(milli <= WHOLE, "a task of {} asks for {milli} thousandths of a chip", tasks.display());
            let models = named.map(|model| index_of(&mut models, model)).collect();
            let (cpu, memory) = (row.cpu_milli as u64, row.memory_mib as u64);
            list.push(Task { cpu, memory, chips: row.num_gpu, milli, models });
        }
        ensure!(!fleet.is_empty() && !list.is_empty(), "no nodes or no tasks");
        Ok(Trace { nodes: fleet, tasks: list, models })
    }

    pub(super) fn capacity(&self) -> Milli {
        self.nodes.iter().map(Node::free).sum()
    }

    /// The list shuffled by the seed, then tasks drawn from it with replacement until the next would exceed `ratio`
    /// times the capacity.
    pub(super) fn arrivals(&self, seed: u64, ratio: f64) -> Vec<Task> {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut arrivals = self.tasks.clone();
        arrivals.shuffle(&mut rng);
        let limit = (self.capacity() as f64 * ratio) as Milli;
        let mut total: Milli = arrivals.iter().map(Task::total).sum();
        // A list without chips would never reach the limit.
        while total > 0 {
            let task = &self.tasks[rng.random_range(0..self.tasks.len())];
            total += task.total();
            if total > limit {
                break;
            }
            arrivals.push(task.clone());
        }
        arrivals
    }
}

fn index_of(models: &mut Vec<String>, model: &str) -> usize {
    models.iter().position(|known| known == model).unwrap_or_else(|| {
        models.push(model.to_owned());
        models.len() - 1
    })
}

fn open(path: &Path) -> anyhow::Result<Box<dyn Read>> {
    let file = File::open(path).with_context(|| format!("open {}", path.display()))?;
    let is_packed = path.extension().is_some_and(|end| end == "gz");
    Ok(if is_packed { Box::new(GzDecoder::new(file)) } else { Box::new(file) })
}
