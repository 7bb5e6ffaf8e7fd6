//! What has to hold when a replica was promoted: nothing is granted before every session is withdrawn, and whatever ran at a
//! forgotten epoch, the next run on its chip has a higher one. What a synchronous replica lacks is not forgiven: had any of it been
//! acknowledged or acted on, that would be found missing like anything else.

use super::History;
use super::findings::{Findings, Invariant};
use super::ledger::Ledger;
use super::runs::Run;
use crate::faults::promotion::Promotion;
use chiptide_model::{Event, JobId};
use std::collections::{BTreeMap, BTreeSet};

/// Jobs whose submit a promoted replica had forgotten.
pub(super) fn forgotten_jobs(history: &History) -> BTreeSet<JobId> {
    let events = history.promotions.iter().flat_map(Promotion::lost);
    let submitted = events.filter_map(|entry| match &entry.event {
        Event::JobSubmitted { job, .. } => Some(*job),
        _ => None,
    });
    let in_log = |job: &JobId| {
        let is_it = |event: &Event| matches!(event, Event::JobSubmitted { job: known, .. } if known == job);
        history.log.iter().any(|entry| is_it(&entry.event))
    };
    submitted.filter(|job| !in_log(job)).collect()
}

/// Looks at every promotion.
pub(super) fn judge(history: &History, findings: &mut Findings) {
    for promotion in &history.promotions {
        let after = history.log.iter().filter(|entry| entry.seq > promotion.last_seq);
        let first = after
            .into_iter()
            .find(|entry| matches!(entry.event, Event::DatabaseReplaced { .. } | Event::LeaseGranted { .. }));
        if let Some(entry) = first.filter(|entry| matches!(entry.event, Event::LeaseGranted { .. })) {
            let detail =
                format!("event {} grants before the sessions of a replaced database were withdrawn", entry.seq);
            findings.add(Invariant::I3, (entry.at_ms, entry.at_ms), detail);
        }
    }
}

/// By what ran, forgotten grants included: on every chip the epoch grows from one lease to the next.
pub(super) fn epochs_of_runs_grow(runs: &[Run], ledger: &Ledger, findings: &mut Findings) {
    let mut by_chip: BTreeMap<&str, Vec<&Run>> = BTreeMap::new();
    for run in runs {
        run.chips.iter().for_each(|chip| by_chip.entry(chip).or_default().push(run));
    }
    for (chip, mut on_chip) in by_chip {
        on_chip.sort_by_key(|run| run.from_ns);
        for pair in on_chip.windows(2).filter(|pair| pair[0].lease != pair[1].lease) {
            let [before, after] = [pair[0], pair[1]].map(|run| ledger.epoch_of(&run.lease, chip));
            if let (Some(before), Some(after)) = (before, after)
                && after <= before
            {
                let detail = format!("chip {chip}: lease {} ran at epoch {after} after {before}", pair[1].lease);
                findings.add(Invariant::I3, pair[1].window(), detail);
            }
        }
    }
}
