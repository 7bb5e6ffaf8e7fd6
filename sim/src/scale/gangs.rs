//! Gangs of 64 chips that preempt across a full fleet, one after the other.

use super::ScaleArgs;
use super::durations::{DurationSummary, Durations};
use super::filling::Jobs;
use crate::virtual_cluster::{VirtualCluster, job, job_id, new_job};
use anyhow::ensure;
use chiptide_allocator::Command;
use chiptide_model::{Kind, Millis};
use serde::Serialize;
use std::sync::Arc;

/// Replicas of a gang, each a whole node of eight.
const REPLICAS: u32 = 8;
/// Time between gangs: long enough that the last one's victims run again, and odd to any checkpoint.
const BETWEEN: Millis = Millis(97_013);

/// What the gangs cost.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct GangFigures {
    /// Chips of a gang.
    pub chips: u64,
    /// Leases taken for all of them.
    pub victims: u64,
    /// The round that finds the victims, revokes their leases and promises their chips.
    pub preempting_round: DurationSummary,
}

pub(super) fn measure(args: &ScaleArgs) -> anyhow::Result<GangFigures> {
    let mut world = VirtualCluster::uniform(args.nodes, args.chips_per_node, None, |_| ())?;
    let low = Jobs::filling(args.nodes, args.chips_per_node, 100, |spec| {
        spec.checkpoint_every = Some(Millis::from_secs(3600));
    });
    fill_over_time(&mut world, &low)?;
    let gang = Arc::new(job(Kind::Inference, 900, REPLICAS, args.chips_per_node));
    let mut figures = GangFigures {
        chips: u64::from(REPLICAS) * u64::from(args.chips_per_node),
        victims: 0,
        preempting_round: DurationSummary::default(),
    };
    let mut rounds = Durations::default();
    for number in low.count..low.count + args.gangs {
        let events = world.round(vec![Command::Submit(vec![new_job(number, &gang)])])?;
        rounds.record(world.deciding());
        figures.victims += events.iter().filter(|event| event.kind() == "lease_revoked").count() as u64;
        // The victims' notice runs out, the gang gets its chips, ends, and they start again where they were.
        world.advance_to(world.now() + Millis::from_secs(30));
        world.settle(Vec::new())?;
        let got = world.cluster().job(job_id(number)).and_then(|job| job.state.lease());
        ensure!(got.is_some(), "gang {number} found no room on a fleet full of jobs it may preempt");
        let done = world.done(job_id(number));
        world.settle(done)?;
        world.advance_to(world.now() + BETWEEN);
    }
    figures.preempting_round = rounds.summary();
    Ok(figures)
}

/// Fills the fleet over two hours, so that no two jobs have lost the same when they are taken.
fn fill_over_time(world: &mut VirtualCluster, jobs: &Jobs) -> anyhow::Result<()> {
    let together = jobs.count.div_ceil(720).max(1);
    for first in (0..jobs.count).step_by(together as usize) {
        let until = jobs.count.min(first + together);
        let submits = (first..until).map(|number| new_job(number, jobs.spec(number))).collect();
        world.round(vec![Command::Submit(submits)])?;
        world.advance_to(world.now() + Millis::from_secs(10));
    }
    Ok(())
}
