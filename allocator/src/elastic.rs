//! Elastic jobs: those that start with `replicas_min` replicas and grow to `replicas` with what nobody else wants.
//!
//! The base lease covers the gang, all or nothing. Every further replica is a lease of its own, granted last and taken
//! first, so that holds, epochs, notice, grace and proofs work as for any lease. Jobs grow evenly: within a priority
//! the one goes first that holds the smallest part of what it could. Growing never takes anything from anyone.

use crate::cluster::Cluster;
use crate::draft::Draft;
use crate::fleet::NodeIx;
use crate::place::{Scope, class_scopes, find_within};
use crate::queue::Shape;
use crate::reserve;
use crate::room::Room;
use crate::serve::within_quota;
use chiptide_model::{DeviceClass, Job, JobId, JobState, Kind, Lease, Placement, Same, SameLevel};
use rustc_hash::FxHashMap;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

/// What one more replica asks for: jobs that want the same are tried once, not each.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Want {
    /// One replica.
    shape: Shape,
    /// A node of the base lease, where the job's replicas want to be near each other.
    near: Option<(SameLevel, NodeIx)>,
}

/// The order within a line: the smallest part of its size first, then by place.
type Turn = (u64, u64, JobId);

#[derive(Clone, Debug)]
struct Line {
    want: Want,
    jobs: BTreeSet<Turn>,
    /// The supply at which it last failed.
    failed_at: Option<u64>,
}

/// The elastic jobs that could use another replica.
#[derive(Clone, Debug, Default)]
pub struct Growth {
    lines: Vec<Line>,
    by_want: FxHashMap<Want, usize>,
    spare: Vec<usize>,
    turns: BTreeMap<JobId, (usize, Turn)>,
}

impl PartialEq for Growth {
    /// The same jobs want to grow, in the same order; what was tried before does not count.
    fn eq(&self, other: &Growth) -> bool {
        let turns = |growth: &Growth| -> Vec<Turn> { growth.turns.values().map(|(_, turn)| *turn).collect() };
        turns(self) == turns(other)
    }
}

impl Growth {
    /// Says whether a job wants to grow, and in which turn.
    fn set(&mut self, id: JobId, wanted: Option<(Want, Turn)>) {
        if let Some((at, turn)) = self.turns.remove(&id) {
            self.lines[at].jobs.remove(&turn);
            if self.lines[at].jobs.is_empty() && wanted.as_ref().is_none_or(|(want, _)| *want != self.lines[at].want) {
                self.by_want.remove(&self.lines[at].want);
                self.spare.push(at);
            }
        }
        if let Some((want, turn)) = wanted {
            let at = self.by_want.get(&want).copied().unwrap_or_else(|| self.new_line(want));
            self.lines[at].jobs.insert(turn);
            self.turns.insert(id, (at, turn));
        }
    }

    /// A job that is over wants nothing.
    pub(crate) fn forget(&mut self, id: JobId) {
        self.set(id, None);
    }

    fn new_line(&mut self, want: Want) -> usize {
        let line = Line { want: want.clone(), jobs: BTreeSet::new(), failed_at: None };
        let at = match self.spare.pop() {
            Some(at) => {
                self.lines[at] = line;
                at
            }
            None => {
                self.lines.push(line);
                self.lines.len() - 1
            }
        };
        self.by_want.insert(want, at);
        at
    }

    /// The next job to grow among those not tried in vain at this supply: by priority, then by turn.
    fn next(&self, supply: u64) -> Option<(usize, JobId)> {
        let lines = self.lines.iter().enumerate().filter(|(_, line)| line.failed_at != Some(supply));
        let heads = lines.filter_map(|(at, line)| Some((Reverse(line.want.shape.priority), *line.jobs.first()?, at)));
        heads.min().map(|(_, (_, _, job), at)| (at, job))
    }
}

impl Cluster {
    /// Whether a job wants to grow now, and what taking its base lease costs, after its size changed.
    pub(crate) fn resize(&mut self, id: JobId) {
        let Some(job) = self.jobs.get(&id).filter(|job| job.spec.is_elastic()) else { return };
        let base = job.state.lease();
        let wanted = self.wanted_by(job);
        self.growth.set(id, wanted);
        if let Some(base) = base {
            self.reprice_base(base);
        }
    }

    fn wanted_by(&self, job: &Job) -> Option<(Want, Turn)> {
        let (JobState::Leased { lease } | JobState::Running { lease }) = job.state else { return None };
        let held = job.replicas_held();
        if held.saturating_add(job.given_back) >= job.spec.replicas {
            return None;
        }
        let base = self.leases.get(&lease)?;
        // An extra replica may always be taken, whatever its job is.
        let mut shape = Shape { replicas: 1, same: None, preemptible: true, ..Shape::of(&job.spec) };
        if job.spec.kind == Kind::Training {
            shape.device_classes = vec![self.class_of(base)?];
        }
        let node = base.placements.first().and_then(|placement| self.nodes_by_id.get(&placement.node));
        let near = job.spec.same.filter(|same: &Same| same.required).map(|same| same.level).zip(node.copied());
        let part = (u64::from(held) << 32) / u64::from(job.spec.replicas.max(1));
        Some((Want { shape, near }, (part, job.place, job.id)))
    }

    fn class_of(&self, lease: &Lease) -> Option<DeviceClass> {
        let hold = lease.placements.first()?.holds.first()?;
        self.chip(&hold.chip).map(|chip| chip.facts.class.clone())
    }

    /// The smallest replica index that an elastic job does not use.
    fn next_replica(&self, job: &Job) -> u32 {
        let extras = job.extras.iter().filter_map(|extra| self.leases.get(extra));
        let used: BTreeSet<u32> = extras.flat_map(|lease| &lease.placements).map(|p| p.replica).collect();
        (job.spec.gang()..).find(|replica| !used.contains(replica)).unwrap_or(u32::MAX)
    }

    /// Room for one replica more, within the quota of its queue, outside what is reserved and beside the reserve.
    fn room_for(&self, want: &Want) -> Option<Vec<Placement>> {
        within_quota(self, &want.shape)?;
        let nodes = want.near.map(|(level, node)| self.nodes_near(level, node));
        let found = class_scopes(self, &want.shape).into_iter().find_map(|scope| {
            let scope = Scope { nodes: nodes.clone(), ..scope };
            find_within(&Room::of(self), &want.shape, &scope)
        });
        found.filter(|placements| reserve::against(self, &want.shape, placements).is_none())
    }

    fn nodes_near(&self, level: SameLevel, node: NodeIx) -> BTreeSet<NodeIx> {
        let rack = |node: NodeIx| self.fleet.nodes[node].facts.rack.as_deref();
        match level {
            SameLevel::Rack if rack(node).is_some() => {
                (0..self.fleet.nodes.len()).filter(|&other| rack(other) == rack(node)).collect()
            }
            _ => [node].into(),
        }
    }
}

/// Gives what is left over to elastic jobs, one replica at a time.
pub(crate) fn grow(draft: &mut Draft<'_>) {
    let supply = draft.cluster.queue.supply();
    while let Some((line, id)) = draft.cluster.growth.next(supply) {
        let before = draft.cluster.growth.turns.get(&id).copied();
        let found = draft.cluster.room_for(&draft.cluster.growth.lines[line].want);
        if let Some(mut placements) = found
            && let Some(job) = draft.cluster.jobs.get(&id)
        {
            let replica = draft.cluster.next_replica(job);
            placements.iter_mut().for_each(|placement| placement.replica = replica);
            draft.grant_extra(id, placements);
        }
        // A job that did not grow would be tried for ever.
        if draft.cluster.growth.turns.get(&id).copied() == before {
            draft.cluster.growth.lines[line].failed_at = Some(supply);
        }
    }
}
