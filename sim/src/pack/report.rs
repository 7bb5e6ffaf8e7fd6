//! The figures of the experiment: a table for people, JSON for programs.

use super::run::{LEVELS, Outcome};
use comfy_table::{Table, presets};
use serde::Serialize;
use std::collections::BTreeMap;

const METHOD: &str = "linear relaxation per model (CPU, and chips at dual-feasible cutting-stock prices of the shares), \
                      microlp; run-out: the arrivals from which perfect packing of chips alone cannot hold all";

/// A mean and its standard deviation over the seeds.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub(super) struct Figure {
    mean: f64,
    sd: f64,
}

impl Figure {
    pub(super) fn of(values: &[f64]) -> Figure {
        let n = values.len().max(1) as f64;
        let mean = values.iter().sum::<f64>() / n;
        let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        Figure { mean, sd: if values.len() > 1 { (squares / (n - 1.0)).sqrt() } else { 0.0 } }
    }

    fn text(&self) -> String {
        format!("{:.2} ±{:.2}", self.mean, self.sd)
    }
}

/// What no policy could exceed.
#[derive(Serialize)]
pub(super) struct BoundReport {
    pub method: &'static str,
    pub allocated_pct: BTreeMap<u64, Figure>,
    pub run_out_pct: Figure,
    pub idle_gpus_at_run_out: Figure,
}

/// One experiment.
#[derive(Serialize)]
pub(super) struct PackReport {
    pub policy: String,
    pub ties: String,
    pub nodes: usize,
    pub gpus: f64,
    pub tasks: usize,
    pub ratio: f64,
    pub seeds: Vec<u64>,
    pub allocated_pct: BTreeMap<u64, Figure>,
    pub fragmented_pct: BTreeMap<u64, Figure>,
    pub idle_gpus: Figure,
    pub placed: Figure,
    pub dropped: Figure,
    /// Whole rounds (submit to grant) per second on one core; only of the production allocator.
    pub rounds_per_s: Option<Figure>,
    pub bound: Option<BoundReport>,
}

pub(super) fn by_level(outcomes: &[Outcome], of: impl Fn(&Outcome) -> &BTreeMap<u64, f64>) -> BTreeMap<u64, Figure> {
    let at = |level: &u64| outcomes.iter().filter_map(|outcome| of(outcome).get(level).copied()).collect::<Vec<f64>>();
    LEVELS
        .iter()
        .map(|level| (*level, at(level)))
        .filter(|(_, v)| !v.is_empty())
        .map(|(l, v)| (l, Figure::of(&v)))
        .collect()
}

impl BoundReport {
    pub(super) fn of(levels: BTreeMap<u64, Vec<f64>>, run_out: &[(f64, f64)]) -> BoundReport {
        let (at, idle): (Vec<f64>, Vec<f64>) = run_out.iter().copied().unzip();
        BoundReport {
            method: METHOD,
            allocated_pct: levels.into_iter().map(|(level, values)| (level, Figure::of(&values))).collect(),
            run_out_pct: Figure::of(&at),
            idle_gpus_at_run_out: Figure::of(&idle),
        }
    }
}

impl PackReport {
    pub(super) fn print(&self) {
        let mut table = Table::new();
        table.load_style(presets::UTF8_FULL_CONDENSED);
        let mut head = vec!["arrived %".to_owned()];
        head.extend(LEVELS.iter().map(ToString::to_string));
        table.set_header(head);
        let mut row = |name: &str, figures: &BTreeMap<u64, Figure>| {
            let text = |level: &u64| figures.get(level).map(Figure::text).unwrap_or_default();
            table.add_row([name.to_owned()].into_iter().chain(LEVELS.iter().map(text)));
        };
        row("allocated %", &self.allocated_pct);
        if let Some(bound) = &self.bound {
            row("bound %", &bound.allocated_pct);
        }
        row("fragmented %", &self.fragmented_pct);
        println!(
            "{} (ties: {}), {} nodes, {} GPUs, seeds {:?}",
            self.policy, self.ties, self.nodes, self.gpus, self.seeds
        );
        println!("{table}");
        println!(
            "idle GPUs at the end: {}; placed {:.0}, dropped {:.0}",
            self.idle_gpus.text(),
            self.placed.mean,
            self.dropped.mean
        );
        if let Some(bound) = &self.bound {
            let (at, idle) = (bound.run_out_pct.text(), bound.idle_gpus_at_run_out.text());
            println!("perfect packing of chips runs out at {at} % arrived, with {idle} GPUs idle in pieces");
        }
        if let Some(rate) = &self.rounds_per_s {
            println!("rounds (submit to grant) per second, one core: {:.0}", rate.mean);
        }
    }
}
