//! How much free GPU a node's state makes useless, as Fragmentation Gradient Descent defines it (Q. Weng et al., USENIX
//! ATC 2023): the mean over task shapes of what is free and could not serve one more task of the shape.

use super::trace::{Milli, Node, Task};
use rustc_hash::FxHashMap;
use std::cmp::Reverse;
use std::collections::BTreeMap;

/// Task shapes are taken in falling frequency until they cover so much of the list.
const COVER: f64 = 0.95;

/// CPU, model and the free parts of the chips, sorted: what the fragment of a node depends on.
type State = (u64, usize, Vec<Milli>);

/// The target mix, with what has been worked out so far.
pub(super) struct Fragmentation {
    shapes: Vec<(Task, f64)>,
    known: FxHashMap<State, f64>,
}

impl Fragmentation {
    pub(super) fn of(tasks: &[Task]) -> Fragmentation {
        let mut counts: BTreeMap<Task, usize> = BTreeMap::new();
        for task in tasks {
            *counts.entry(Task { memory: 0, ..task.clone() }).or_default() += 1;
        }
        let mut counts: Vec<(Task, usize)> = counts.into_iter().collect();
        counts.sort_by_key(|(_, count)| Reverse(*count));
        let (mut shapes, mut covered) = (Vec::new(), 0);
        for (task, count) in counts {
            shapes.push((task, count as f64));
            covered += count;
            if covered as f64 >= COVER * tasks.len() as f64 {
                break;
            }
        }
        shapes.iter_mut().for_each(|(_, part)| *part /= covered as f64);
        Fragmentation { shapes, known: FxHashMap::default() }
    }

    /// Useless free GPU of a node, in thousandths of a chip.
    pub(super) fn of_node(&mut self, node: &Node) -> f64 {
        let mut chips = node.chips.clone();
        chips.sort_unstable();
        let state = (node.cpu, node.model, chips);
        if let Some(&known) = self.known.get(&state) {
            return known;
        }
        let free = node.free() as f64;
        let useless = |task: &Task| {
            let serves = task.chips > 0
                && task.accepts(node.model)
                && node.cpu >= task.cpu
                && node.chips_for(task) >= task.chips;
            let too_small = node.chips.iter().filter(|chip| **chip < task.milli);
            if serves { too_small.sum::<Milli>() as f64 } else { free }
        };
        let fragment = self.shapes.iter().map(|(task, part)| part * useless(task)).sum();
        self.known.insert(state, fragment);
        fragment
    }
}
