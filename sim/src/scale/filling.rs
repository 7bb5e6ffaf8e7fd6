//! A fleet filled from empty to full with single replicas of mixed sizes.

use super::ScaleArgs;
use super::durations::{DurationSummary, Durations};
use crate::virtual_cluster::{VirtualCluster, job, new_job};
use chiptide_allocator::Command;
use chiptide_model::{JobSpec, Kind};
use serde::Serialize;
use std::sync::Arc;

/// Jobs to a round where many are submitted at once.
pub(super) const MANY: u64 = 1000;

/// Chips of the jobs, over and over: half of them small, as in the traces.
pub(super) const SIZES: [u16; 8] = [1, 2, 1, 4, 1, 8, 2, 1];

/// How a fleet was filled.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct FillingFigures {
    /// Jobs submitted to a round.
    pub jobs_a_round: u64,
    /// Jobs placed.
    pub placed: u64,
    /// Jobs placed a second of deciding: accepting, placing, and changing the cluster.
    pub placements_per_s: f64,
    /// A round.
    pub round: DurationSummary,
}

/// The jobs a fleet is filled with, each by its number: as many as fill it to the last chip, or nearly.
pub(super) struct Jobs {
    specs: Vec<Arc<JobSpec>>,
    pub count: u64,
}

impl Jobs {
    /// Jobs for so many nodes of `chips` chips each. What is larger than a node is left out.
    pub(super) fn filling(nodes: usize, chips: u16, priority: i32, change: impl Fn(&mut JobSpec)) -> Jobs {
        let sizes: Vec<u16> = SIZES.into_iter().filter(|size| *size <= chips).collect();
        let spec = |size: &u16| {
            let mut spec = job(Kind::Training, priority, 1, *size);
            change(&mut spec);
            Arc::new(spec)
        };
        let (mut left, mut count) = (nodes as u64 * u64::from(chips), 0);
        while let Some(rest) = left.checked_sub(u64::from(sizes[count as usize % sizes.len()])) {
            (left, count) = (rest, count + 1);
        }
        Jobs { specs: sizes.iter().map(spec).collect(), count }
    }

    pub(super) fn spec(&self, number: u64) -> &Arc<JobSpec> {
        &self.specs[number as usize % self.specs.len()]
    }

    /// Submits all of them, so many to a round. Answers how long each round took.
    pub(super) fn submit(&self, world: &mut VirtualCluster, a_round: u64) -> anyhow::Result<Durations> {
        let mut rounds = Durations::default();
        let mut next = 0;
        while next < self.count {
            let until = self.count.min(next + a_round);
            let jobs = (next..until).map(|number| new_job(number, self.spec(number))).collect();
            world.round(vec![Command::Submit(jobs)])?;
            rounds.record(world.deciding());
            next = until;
        }
        Ok(rounds)
    }
}

pub(super) fn measure(args: &ScaleArgs, a_round: u64) -> anyhow::Result<FillingFigures> {
    let mut world = VirtualCluster::uniform(args.nodes, args.chips_per_node, None, |_| ())?;
    let jobs = Jobs::filling(args.nodes, args.chips_per_node, 500, |_| ());
    let rounds = jobs.submit(&mut world, a_round)?;
    let placed = world.cluster().leases().count() as u64;
    Ok(FillingFigures {
        jobs_a_round: a_round,
        placed,
        placements_per_s: placed as f64 / rounds.total().as_secs_f64().max(f64::EPSILON),
        round: rounds.summary(),
    })
}
