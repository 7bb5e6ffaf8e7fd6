//! Clients: they submit jobs, end some of them, and keep what they were told. They ask again until they are answered.

use super::letter::{Body, Letter, Place};
use super::recount::{Recount, Standing};
use super::step::Dice;
use crate::virtual_cluster::job;
use chiptide_allocator::NewJob;
use chiptide_model::{ChipDemand, JobId, JobSpec, Kind, Millis, Workload};
use std::collections::BTreeMap;
use std::sync::Arc;
use uuid::Uuid;

/// How long to wait for an answer, in milliseconds.
const PATIENCE: u64 = 4_000;
/// Most jobs of a story.
const JOBS_MAX: usize = 12;

#[derive(Clone, Debug)]
struct Asked {
    submit: NewJob,
    accepted: bool,
    /// What else is wanted of it, and whether that is done.
    end: Option<(bool, bool)>,
    asked_at: u64,
}

/// How long owners let work go on once all is quiet, in milliseconds: most of it ends by itself within a minute.
const WORK_MAX: u64 = 120_000;

#[derive(Clone, Debug, Default)]
pub(super) struct Clients {
    jobs: BTreeMap<JobId, Asked>,
    /// Since when no fault is made any more.
    calm_since: Option<u64>,
}

impl Clients {
    /// Asks for something new.
    pub(super) fn ask(
        &mut self,
        chips: usize,
        daemon: usize,
        now: u64,
        calls: &mut u64,
        dice: &mut Dice,
        out: &mut Vec<Letter>,
    ) {
        let ends = dice.percent(30);
        if ends || self.jobs.len() >= JOBS_MAX {
            let at = dice.below(self.jobs.len());
            if let Some((id, asked)) = self.jobs.iter_mut().nth(at).filter(|(_, asked)| asked.accepted) {
                let cancels = asked.submit.spec.workload.is_some() || dice.percent(30);
                asked.end.get_or_insert((cancels, false));
                asked.asked_at = now;
                out.push(letter(daemon, calls, if cancels { Body::Cancel(*id) } else { Body::Done(*id) }));
            }
            return;
        }
        let id = JobId(Uuid::from_u128(self.jobs.len() as u128 + 1));
        let submit = NewJob { id, spec: Arc::new(spec(chips, dice)) };
        self.jobs.insert(id, Asked { submit: submit.clone(), accepted: false, end: None, asked_at: now });
        out.push(letter(daemon, calls, Body::Submit(submit)));
    }

    /// Repeats what has not been answered in time, to whichever daemon.
    pub(super) fn ask_again(&mut self, now: u64, calls: &mut u64, out: &mut Vec<Letter>) {
        for (id, asked) in self.jobs.iter_mut().filter(|(_, asked)| now >= asked.asked_at + PATIENCE) {
            let body = match (asked.accepted, asked.end) {
                (false, _) => Body::Submit(asked.submit.clone()),
                (true, Some((true, false))) => Body::Cancel(*id),
                (true, Some((false, false))) => Body::Done(*id),
                (true, _) => continue,
            };
            asked.asked_at = now;
            let daemon = (now / PATIENCE % 2) as usize;
            out.push(letter(daemon, calls, body));
        }
    }

    pub(super) fn receive(&mut self, letter: &Letter) {
        match letter.body {
            Body::Accepted(id) => self.jobs.entry(id).and_modify(|asked| asked.accepted = true),
            Body::Over(id) => self.jobs.entry(id).and_modify(|asked| {
                asked.end = asked.end.map(|(cancels, _)| (cancels, true));
            }),
            _ => return,
        };
    }

    pub(super) fn calm(&mut self, now: u64) {
        self.calm_since = Some(now);
    }

    /// At the end: jobs that no agent runs are over when their owner says so, and work that has not ended by itself in good
    /// time is cancelled.
    pub(super) fn finish(&mut self, recount: &Recount, now: u64, calls: &mut u64, out: &mut Vec<Letter>) {
        let Some(since) = self.calm_since else { return };
        for (id, asked) in self.jobs.iter_mut().filter(|(_, asked)| asked.accepted && asked.end.is_none()) {
            let leased = matches!(recount.standing(*id), Some(Standing::Leased(_)));
            let cancels = asked.submit.spec.workload.is_some();
            if leased && (!cancels || now > since + WORK_MAX) {
                (asked.end, asked.asked_at) = (Some((cancels, false)), now);
                let body = if cancels { Body::Cancel(*id) } else { Body::Done(*id) };
                out.push(letter((now / PATIENCE % 2) as usize, calls, body));
            }
        }
    }

    /// Whether everybody has been answered, and every job accepted is over.
    pub(super) fn is_finished(&self, recount: &Recount) -> bool {
        self.jobs.iter().all(|(id, asked)| asked.accepted && recount.standing(*id).is_none_or(|s| s == Standing::Ended))
    }

    /// Jobs whose acceptance a client was told.
    pub(super) fn acknowledged(&self) -> impl Iterator<Item = JobId> {
        self.jobs.iter().filter(|(_, asked)| asked.accepted).map(|(id, _)| *id)
    }

    pub(super) fn count(&self) -> u64 {
        self.jobs.len() as u64
    }
}

fn letter(daemon: usize, calls: &mut u64, body: Body) -> Letter {
    *calls += 1;
    Letter { from: Place::Clients, to: Place::Daemon(daemon), call: *calls, body }
}

/// A job that the fleet can hold: one replica, a gang, or a share; most are run by agents.
fn spec(chips: usize, dice: &mut Dice) -> JobSpec {
    let kind = if dice.percent(50) { Kind::Training } else { Kind::Inference };
    let priority = if kind == Kind::Training { 100 } else { 100 + 100 * dice.below(5) as i32 };
    let replicas = 1 + dice.below(2.min(chips)) as u32;
    let mut spec = job(kind, priority, replicas, 1);
    if dice.percent(30) {
        spec.demand = ChipDemand::ShareSlots(500);
    }
    spec.grace = Millis(dice.below(4) as u64 * 1_000);
    if dice.percent(75) {
        spec.workload = Some(Workload { command: vec!["work".into()], ..workload() });
    }
    spec
}

fn workload() -> Workload {
    Workload {
        command: Vec::new(),
        env: BTreeMap::new(),
        directory: None,
        restart: Default::default(),
        notice_signal: None,
        user: None,
    }
}
