//! What is replayed: the inference demand of each service, step by step, and the training jobs as they were submitted.

use anyhow::{Context, bail, ensure};
use chiptide_model::{Millis, Timestamp};
use flate2::read::GzDecoder;
use serde::Deserialize;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

/// Chips of one replica of each service of the trace.
const SERVICES: [(&str, u16); 3] = [("m-large", 4), ("m-mid", 2), ("m-small", 1)];

/// The inference side: what every service needs, step by step.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Demand {
    /// Chips of one replica of each service.
    pub replica_chips: Vec<u16>,
    /// Steps in order of time.
    pub steps: Vec<Step>,
}

/// From `at` on, each service wants this many replicas.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Step {
    pub at: Timestamp,
    pub replicas: Vec<u64>,
}

impl Demand {
    /// When the demand begins and ends: the last step lasts as long as the one before it.
    pub(super) fn span(&self) -> (Timestamp, Timestamp) {
        let from = self.steps.first().map_or(Timestamp(0), |step| step.at);
        let last = self.steps.last().map_or(from, |step| step.at);
        let length = match self.steps.as_slice() {
            [.., before, last] => last.at.since(before.at),
            _ => Millis::from_secs(600),
        };
        (from, last + length)
    }
}

/// One training job.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct TrainingJob {
    pub submitted_at: Timestamp,
    /// How long it runs if nobody disturbs it.
    pub work: Millis,
    pub chips: u32,
}

/// Reads the demand of the services: a column `t` in seconds, and one column of GPUs for each service.
pub(super) fn read_demand(path: &Path) -> anyhow::Result<Demand> {
    let mut reader = csv::Reader::from_reader(open(path)?);
    let mut columns = Vec::new();
    for name in reader.headers().context("read the header")?.iter().skip(1) {
        let Some((_, chips)) = SERVICES.iter().find(|(known, _)| *known == name) else {
            bail!("{}: no service is called {name:?}: m-large, m-mid, m-small", path.display());
        };
        columns.push(*chips);
    }
    let mut steps = Vec::new();
    for row in reader.deserialize() {
        let row: Vec<f64> = row.with_context(|| format!("read {}", path.display()))?;
        ensure!(row.len() == columns.len() + 1, "{}: a row of {} columns", path.display(), row.len());
        ensure!(row.iter().all(|value| (0.0..1e9).contains(value)), "{}: {row:?} out of range", path.display());
        let replicas = row[1..].iter().zip(&columns).map(|(gpus, chips)| (gpus / f64::from(*chips)).ceil() as u64);
        steps.push(Step { at: Timestamp((row[0] * 1000.0) as i64), replicas: replicas.collect() });
    }
    ensure!(!steps.is_empty(), "{}: no steps", path.display());
    steps.sort_by_key(|step| step.at);
    Ok(Demand { replica_chips: columns, steps })
}

#[derive(Deserialize)]
struct TrainingRow {
    sec: f64,
    dur: f64,
    num_gpus: u32,
}

/// Reads the training jobs: when each was submitted, how long it runs (both in seconds), and on how many GPUs.
pub(super) fn read_training(path: &Path) -> anyhow::Result<Vec<TrainingJob>> {
    let mut jobs = Vec::new();
    for row in csv::Reader::from_reader(open(path)?).deserialize() {
        let row: TrainingRow = row.with_context(|| format!("read {}", path.display()))?;
        let sane =
            (0.0..1e9).contains(&row.sec) && (0.0..1e9).contains(&row.dur) && (1..=65_536).contains(&row.num_gpus);
        ensure!(sane, "{}: a job of {} s on {} GPUs at {} s", path.display(), row.dur, row.num_gpus, row.sec);
        jobs.push(TrainingJob {
            submitted_at: Timestamp((row.sec * 1000.0) as i64),
            work: Millis((row.dur * 1000.0) as u64),
            chips: row.num_gpus,
        });
    }
    jobs.sort_by_key(|job| job.submitted_at);
    Ok(jobs)
}

fn open(path: &Path) -> anyhow::Result<Box<dyn Read>> {
    let file = BufReader::new(File::open(path).with_context(|| format!("open {}", path.display()))?);
    let zipped = path.extension().is_some_and(|extension| extension == "gz");
    Ok(if zipped { Box::new(GzDecoder::new(file)) } else { Box::new(file) })
}
