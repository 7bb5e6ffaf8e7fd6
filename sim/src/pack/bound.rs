//! What no policy could exceed: a linear relaxation of the whole experiment, solved by `microlp`.
//!
//! Tasks of one shape may be placed in part and on any model they accept, as many as have arrived. For each model the
//! tasks' CPU must not exceed its nodes' CPU, nor their slots its slots, nor their chips its chips. What a share costs in chips is a dual-feasible
//! price: no chip full of shares costs more than one chip, so any real placement satisfies the relaxation. The prices
//! are the optimal dual of the cutting-stock problem of all shares in the list, found by cutting planes.

use super::trace::{Milli, Node, Task, Trace, WHOLE};
use anyhow::bail;
use microlp::{ComparisonOp, OptimizationDirection, Problem, Solution, SolveOutcome};
use std::collections::BTreeMap;

const CHIP: usize = WHOLE as usize;

/// Chips that each size of share costs, at least.
pub(super) struct Prices(BTreeMap<Milli, f64>);

impl Prices {
    pub(super) fn of(tasks: &[Task]) -> anyhow::Result<Prices> {
        let mut counts: BTreeMap<Milli, f64> = BTreeMap::new();
        tasks.iter().filter(|task| task.is_share()).for_each(|task| *counts.entry(task.milli).or_default() += 1.0);
        let sizes: Vec<(usize, f64)> = counts.iter().map(|(size, count)| (*size as usize, *count)).collect();
        let mut patterns: Vec<Vec<f64>> = (0..sizes.len())
            .map(|at| {
                (0..sizes.len()).map(|i| if i == at { (CHIP / sizes[at].0.max(1)) as f64 } else { 0.0 }).collect()
            })
            .collect();
        loop {
            let mut problem = Problem::new(OptimizationDirection::Maximize);
            let vars: Vec<_> = sizes.iter().map(|(_, count)| problem.add_var(*count, (0.0, 1.0))).collect();
            for pattern in &patterns {
                let terms: Vec<_> = vars.iter().zip(pattern).map(|(var, count)| (*var, *count)).collect();
                problem.add_constraint(&terms[..], ComparisonOp::Le, 1.0);
            }
            let solution = solve(&problem)?;
            let prices: Vec<f64> = vars.iter().map(|var| solution.var_value(*var)).collect();
            let (worth, pattern) = dearest(&sizes, &prices);
            if worth <= 1.0 + 1e-7 {
                // Scaled so that the dearest chip costs exactly one: feasible for certain.
                let scale = worth.max(1.0);
                return Ok(Prices(counts.keys().zip(prices).map(|(size, price)| (*size, price / scale)).collect()));
            }
            patterns.push(pattern);
        }
    }

    fn chips(&self, task: &Task) -> f64 {
        if task.is_share() { self.0.get(&task.milli).copied().unwrap_or(0.0) } else { task.chips as f64 }
    }

    /// Arrived GPU, in percent of the capacity, from which not even perfect packing of the chips holds all that has
    /// arrived, and the GPU idle then.
    pub(super) fn run_out(&self, trace: &Trace, arrivals: &[Task]) -> (f64, f64) {
        let capacity = trace.capacity() as f64;
        let (mut chips, mut total) = (0.0, 0.0);
        for task in arrivals {
            chips += self.chips(task);
            if chips > capacity / 1000.0 {
                break;
            }
            total += task.total() as f64;
        }
        (100.0 * total / capacity, (capacity - total) / 1000.0)
    }
}

/// The dearest filling of a chip, and how many of each size it takes.
fn dearest(sizes: &[(usize, f64)], prices: &[f64]) -> (f64, Vec<f64>) {
    let mut worth = [0.0f64; CHIP + 1];
    let mut last = [None; CHIP + 1];
    for gap in 1..=CHIP {
        worth[gap] = worth[gap - 1];
        for (at, (size, _)) in sizes.iter().enumerate().filter(|(_, (size, _))| *size > 0 && *size <= gap) {
            if worth[gap - size] + prices[at] > worth[gap] + 1e-10 {
                (worth[gap], last[gap]) = (worth[gap - size] + prices[at], Some(at));
            }
        }
    }
    let (mut pattern, mut gap) = (vec![0.0; sizes.len()], CHIP);
    while gap > 0 {
        match last[gap] {
            Some(at) => {
                let at: usize = at;
                pattern[at] += 1.0;
                gap -= sizes[at].0;
            }
            None => gap -= 1,
        }
    }
    (worth[CHIP], pattern)
}

/// The most GPU, in percent of the capacity, that could be allocated of the arrivals up to this level.
pub(super) fn bound(trace: &Trace, prices: &Prices, arrivals: &[Task], level: u64) -> anyhow::Result<f64> {
    let capacity = trace.capacity() as f64;
    // Arrivals are averaged over a whole percent; the last of them have seen half a percent more.
    let limit = capacity * (level as f64 + 0.5) / 100.0;
    let mut arrived: BTreeMap<Task, f64> = BTreeMap::new();
    let mut total = 0.0;
    for task in arrivals.iter().filter(|task| task.chips > 0) {
        total += task.total() as f64;
        if total > limit {
            break;
        }
        *arrived.entry(Task { memory: 0, ..task.clone() }).or_default() += 1.0;
    }
    let mut problem = Problem::new(OptimizationDirection::Maximize);
    let mut of_model: Vec<[Vec<_>; 3]> = vec![Default::default(); trace.models.len()];
    for (task, count) in &arrived {
        let mut parts = Vec::new();
        for (model, [cpu, chips, slots]) in of_model.iter_mut().enumerate().filter(|(model, _)| task.accepts(*model)) {
            if trace.nodes.iter().any(|node| node.model == model) {
                let var = problem.add_var(task.total() as f64 / 1000.0, (0.0, *count));
                cpu.push((var, task.cpu as f64 / 1000.0));
                chips.push((var, prices.chips(task)));
                slots.push((var, task.total() as f64 / 1000.0));
                parts.push((var, 1.0));
            }
        }
        problem.add_constraint(&parts[..], ComparisonOp::Le, *count);
    }
    for (model, [cpu, chips, slots]) in of_model.iter().enumerate() {
        let nodes = || trace.nodes.iter().filter(|node| node.model == model);
        let cores = nodes().map(|node| node.cpu as f64 / 1000.0).sum();
        problem.add_constraint(&cpu[..], ComparisonOp::Le, cores);
        let free = nodes().map(Node::free).sum::<Milli>() as f64 / 1000.0;
        problem.add_constraint(&chips[..], ComparisonOp::Le, free);
        problem.add_constraint(&slots[..], ComparisonOp::Le, free);
    }
    Ok(100.0 * solve(&problem)?.objective() * 1000.0 / capacity)
}

fn solve(problem: &Problem) -> anyhow::Result<Solution> {
    match problem.solve() {
        Ok(SolveOutcome::Solution(solution)) => Ok(solution),
        Ok(_) => bail!("the linear program was interrupted"),
        Err(error) => bail!("the linear program has no solution: {error}"),
    }
}
