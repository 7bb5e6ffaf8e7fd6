//! Runs: what one canary process says of its chips, from its first word to its last. A process that was killed had them
//! at least until its last heartbeat.

use super::findings::{Findings, Invariant};
use crate::faults::canary::{Says, Testimony};
use std::collections::BTreeMap;

/// One process that had chips.
#[derive(Clone, Debug)]
pub(super) struct Run {
    pub(super) lease: String,
    pub(super) rank: u32,
    pub(super) node: String,
    pub(super) chips: Vec<String>,
    pub(super) pid: u32,
    /// Whether the driver lists it on its first chip for a while after its end.
    pub(super) is_stuck: bool,
    pub(super) from_ns: u64,
    to_ns: u64,
    /// The same by the wall clock, milliseconds since 1970.
    pub(super) from_ms: i64,
    pub(super) to_ms: i64,
}

impl Run {
    /// The run of one process. A chip that it was refused was somebody else's at that moment: a violation by itself.
    pub(super) fn of(lines: &[Testimony], findings: &mut Findings) -> Option<Run> {
        let (first, last) = (lines.first()?, lines.last()?);
        let ms = |line: &Testimony| i64::try_from(line.wall_ms).unwrap_or(i64::MAX);
        for line in lines.iter().filter(|line| line.says == Says::Refused) {
            let detail = format!("lease {} was started while another process had one of {:?}", line.lease, line.chips);
            findings.add(Invariant::I1, (ms(line), ms(line)), detail);
        }
        (first.says != Says::Refused).then(|| Run {
            lease: first.lease.clone(),
            rank: first.rank,
            node: first.node.clone(),
            chips: first.chips.clone(),
            pid: first.pid,
            is_stuck: lines.iter().any(|line| line.says == Says::Stuck),
            from_ns: first.at_ns,
            to_ns: last.at_ns,
            from_ms: ms(first),
            to_ms: ms(last),
        })
    }

    pub(super) fn window(&self) -> (i64, i64) {
        (self.from_ms, self.to_ms)
    }
}

/// On every chip one run is over before the next begins, whatever their leases. Answers how often a chip changed hands.
pub(super) fn never_overlap(runs: &[Run], findings: &mut Findings) -> u64 {
    let mut by_chip: BTreeMap<&str, Vec<&Run>> = BTreeMap::new();
    for run in runs {
        run.chips.iter().for_each(|chip| by_chip.entry(chip).or_default().push(run));
    }
    let mut handovers = 0;
    for (chip, mut on_chip) in by_chip {
        on_chip.sort_by_key(|run| run.from_ns);
        let mut latest: Option<&Run> = None;
        for run in on_chip {
            if let Some(before) = latest {
                handovers += u64::from(before.lease != run.lease);
                if run.from_ns <= before.to_ns {
                    let window = (run.from_ms, before.to_ms.min(run.to_ms));
                    let detail = format!(
                        "chip {chip}: lease {} (pid {}) had it while lease {} (pid {}) still did",
                        run.lease, run.pid, before.lease, before.pid
                    );
                    findings.add(Invariant::I1, window, detail);
                }
            }
            latest = latest.filter(|before| before.to_ns > run.to_ns).or(Some(run));
        }
    }
    handovers
}
