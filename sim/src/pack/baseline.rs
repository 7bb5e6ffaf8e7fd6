//! The published policies, to compare with. Each scores every node that fits, whole numbers from 0 to 100, the highest
//! wins; what is done with the many ties is said apart, for it decides as much as the policy does.

use super::fragmentation::Fragmentation;
use super::run::{Placer, Spot};
use super::trace::{Node, Task, Trace, WHOLE};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rustc_hash::FxHashMap;

/// What to do with nodes of equal score.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum Ties {
    /// The smallest name.
    Name,
    /// The least free GPU, then the least free CPU.
    Tight,
    /// Any.
    Random,
}

/// A published policy.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Rule {
    /// Fragmentation Gradient Descent.
    Fgd,
    /// Least free CPU and GPU after.
    BestFit,
    /// The first node that fits.
    FirstFit,
    /// Chips in use before free chips of nodes in use before idle nodes.
    Packing,
    /// Any node, any chip.
    Random,
}

/// The smaller the better: the score, then how tight. And the chip for a share.
type Score = ((i64, u64, u64), usize);

pub(super) struct Baseline {
    rule: Rule,
    ties: Ties,
    rng: StdRng,
    fragmentation: Fragmentation,
    /// By task shape and node: the version of the node that was scored, and its score if it fits.
    scores: FxHashMap<Task, Vec<(u32, Option<Score>)>>,
    versions: Vec<u32>,
}

impl Baseline {
    pub(super) fn of(rule: Rule, ties: Ties, trace: &Trace, seed: u64) -> Baseline {
        Baseline {
            rule,
            ties,
            rng: StdRng::seed_from_u64(seed ^ 0x5EED),
            fragmentation: Fragmentation::of(&trace.tasks),
            scores: FxHashMap::default(),
            versions: vec![1; trace.nodes.len()],
        }
    }

    fn pick(&mut self, nodes: &[Node], task: &Task) -> Option<(usize, usize)> {
        let Baseline { rule, ties, rng, fragmentation, scores, versions } = self;
        if !scores.contains_key(task) {
            scores.insert(task.clone(), vec![(0, None); nodes.len()]);
        }
        let scores = scores.get_mut(task)?;
        let is_random = *ties == Ties::Random || *rule == Rule::Random;
        let mut best: Option<(i64, (u64, u64), usize, usize)> = None;
        for (ix, node) in nodes.iter().enumerate() {
            if scores[ix].0 != versions[ix] {
                scores[ix] = (versions[ix], node.fits(task).then(|| score(*rule, fragmentation, node, task)));
            }
            let Some(((score, slots, cpu), chip)) = scores[ix].1 else { continue };
            let tie = match ties {
                _ if is_random => (rng.random::<u64>(), 0),
                Ties::Tight => (slots, cpu),
                _ => (0, 0),
            };
            if best.is_none_or(|(least, least_tie, ..)| (score, tie) < (least, least_tie)) {
                best = Some((score, tie, ix, chip));
            }
        }
        best.map(|(_, _, ix, chip)| (ix, chip))
    }
}

impl Placer for Baseline {
    fn place(&mut self, nodes: &[Node], task: &Task) -> anyhow::Result<Option<Spot>> {
        let Some((ix, chip)) = self.pick(nodes, task) else { return Ok(None) };
        self.versions[ix] += 1;
        let node = &nodes[ix];
        let mut fitting: Vec<usize> = (0..node.chips.len()).filter(|&at| node.chips[at] >= task.milli).collect();
        let chips = match (task.is_share(), self.rule) {
            (true, Rule::Random) => vec![fitting[self.rng.random_range(0..fitting.len())]],
            (true, _) => vec![chip],
            _ => {
                fitting.truncate(task.chips as usize);
                fitting
            }
        };
        Ok(Some(Spot { node: ix, chips }))
    }
}

/// The best chip of a node that fits, and the score with it.
fn score(rule: Rule, fragmentation: &mut Fragmentation, node: &Node, task: &Task) -> Score {
    let fitting: Vec<usize> = (0..node.chips.len()).filter(|&at| node.chips[at] >= task.milli).collect();
    let choices: Vec<Vec<usize>> = match task.is_share() {
        true => fitting.iter().map(|&chip| vec![chip]).collect(),
        false => vec![fitting.iter().copied().take(task.chips as usize).collect()],
    };
    let scored = choices.into_iter().map(|chips| {
        let tightness = if task.is_share() { node.chips[chips[0]] } else { 0 };
        let points = points(rule, fragmentation, node, task, &chips);
        let by_points = if rule == Rule::Fgd { 0 } else { tightness };
        (-points, by_points, chips.first().copied().unwrap_or(0))
    });
    let (points, _, chip) = scored.min().unwrap_or_default();
    ((points, node.free(), node.cpu), chip)
}

fn points(rule: Rule, fragmentation: &mut Fragmentation, node: &Node, task: &Task, chips: &[usize]) -> i64 {
    let mut after = node.clone();
    after.take(task, chips);
    match rule {
        Rule::Fgd => {
            let less = fragmentation.of_node(node) - fragmentation.of_node(&after);
            (100.0 / (1.0 + (-less / WHOLE as f64).exp())) as i64
        }
        Rule::BestFit => {
            let left = 0.5 * after.cpu as f64 / 128_000.0 + 0.5 * after.free() as f64 / 8_000.0;
            (100.0 * (1.0 - left)) as i64
        }
        Rule::Packing if task.chips > 0 => {
            let in_use = node.chips.iter().any(|free| *free < WHOLE);
            let shared = task.is_share() && chips.iter().any(|chip| node.chips[*chip] < WHOLE);
            50 * (i64::from(in_use) + i64::from(shared))
        }
        Rule::FirstFit | Rule::Packing | Rule::Random => 0,
    }
}
