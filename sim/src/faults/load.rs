//! The load: clients that submit jobs of real processes of every manner, small and in gangs, urgent and not, and see each
//! of them to its end.

use super::canary::Manner;
use crate::scheduler::Scheduler;
use anyhow::Context;
use chiptide_api::ClientError;
use chiptide_api::job::{JobBody, JobView, KindBody, NodeLossActionBody, OnNodeLossBody, WorkloadBody};
use chiptide_api::workload::{OnFailureBody, RestartBody};
use chiptide_model::Millis;
use clap::ValueEnum;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

/// A queue with a limit, and that limit in chips.
pub(super) const LIMITED: &str = "limited";
/// The limit.
pub(super) const LIMIT: u32 = 2;
/// The shortest fence there is.
const FENCE: OnNodeLossBody = OnNodeLossBody { action: NodeLossActionBody::Fence, ttl: Some(Millis::from_secs(5)) };
/// How long a client sees to a job before it cancels it.
const PATIENCE: Duration = Duration::from_secs(30);

/// One job a client was answered.
#[derive(Clone, Debug)]
pub struct Answered {
    /// The job as submitted; its name is like no other's.
    pub body: JobBody,
    /// The key it was submitted under.
    pub key: String,
    /// As answered.
    pub job: JobView,
}

/// What every client needs.
#[derive(Debug)]
pub struct Clients<'a> {
    /// By whom they call.
    pub scheduler: &'a Scheduler,
    /// The words that start a canary, manner aside.
    pub canary: PathBuf,
    /// The folder of the run.
    pub root: &'a Path,
    /// The seed of the run.
    pub seed: u64,
}

impl Clients<'_> {
    /// One client: a job at a time, until told to stop.
    pub async fn one(&self, index: u64, stop: watch::Receiver<bool>) -> anyhow::Result<Vec<Answered>> {
        let mut rng = StdRng::seed_from_u64(self.seed ^ (index + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mut answered = Vec::new();
        while !*stop.borrow() {
            let (body, hold) = self.draw(&mut rng, format!("faults-{index}-{}", answered.len()));
            let answer = self.scheduler.submit(&body).await.context("submit a job")?;
            answered.push(Answered { body, key: answer.key, job: answer.job.clone() });
            self.see_to(answer.job, hold, rng.random_range(0..4)).await?;
        }
        Ok(answered)
    }

    /// Sees a job to its end: by itself, or told to end after `hold` in one of several ways.
    async fn see_to(&self, job: JobView, hold: Option<Duration>, way: u32) -> anyhow::Result<()> {
        let (id, deadline) = (job.id, Instant::now() + PATIENCE);
        let reached = |job: &JobView| job.is_ended() || (hold.is_some() && job.state == "running");
        let job = match self.scheduler.watch(job, deadline, reached).await {
            // Whether it may be gone is for the checker to say.
            Err(ClientError::Refused(problem)) if problem.code == "no_such_job" => return Ok(()),
            watched => watched.context("watch a job")?,
        };
        match (job, hold) {
            (Some(job), _) if job.is_ended() => return Ok(()),
            (Some(_), Some(hold)) => sleep(hold).await,
            // It did not get there in time; whoever waits for chips that long lets somebody else have them.
            _ => return self.scheduler.cancel(id).await.context("cancel a job"),
        }
        match way {
            0 => self.scheduler.cancel(id).await.context("cancel a job"),
            _ => self.scheduler.done(id).await.context("report a job done"),
        }
    }

    /// The next job, and for how long it is to hold its chips if it does not end by itself.
    fn draw(&self, rng: &mut StdRng, name: String) -> (JobBody, Option<Duration>) {
        let manner = match rng.random_range(0..100) {
            0..50 => Manner::Polite,
            50..66 => Manner::Stubborn,
            66..80 => Manner::Forks,
            80..92 => Manner::Escapes,
            92..98 => Manner::Fails,
            _ => Manner::Stuck,
        };
        // A canary that has left its parent outlives what the agent takes for the work: it must be told to end.
        let by_itself = manner == Manner::Fails || manner != Manner::Escapes && rng.random_bool(0.6);
        let ms = rng.random_range(100..1500);
        let (replicas, chips) = match rng.random_range(0..10) {
            0..5 => (1, 1),
            5..7 => (2, 1),
            7..9 => (1, 2),
            _ => (3, 1),
        };
        let (class, grace) = match rng.random_range(0..10) {
            0..5 => ("best-effort", rng.random_range(0..500)),
            5..8 => ("standard", rng.random_range(0..500)),
            _ => ("urgent", 0),
        };
        let name_of = manner.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default();
        let root = self.root.display().to_string();
        let mut command =
            vec![self.canary.display().to_string(), "canary".into(), "--root".into(), root, "--manner".into(), name_of];
        if by_itself {
            command.extend(["--run-for-ms".into(), ms.to_string()]);
        }
        let times = rng.random_range(1..4);
        let restart = (manner == Manner::Fails).then_some(RestartBody::OnFailure(OnFailureBody { times }));
        let workload = WorkloadBody { command, restart, ..WorkloadBody::default() };
        // Serving that is placed again when its node is cut off, and must not run twice.
        let (kind, on_node_loss) = match rng.random_bool(0.25) {
            true => (KindBody::Inference, Some(FENCE)),
            false => (KindBody::Training, None),
        };
        let job = crate::single_chip::gang(name, kind, class, Millis(grace), replicas, chips);
        let job = JobBody { on_node_loss, ..job };
        let queue = if rng.random_bool(0.2) && replicas * chips <= u64::from(LIMIT) { LIMITED } else { "default" };
        let job = JobBody { cpu_milli: 0, memory_mib: 0, queue: queue.into(), workload: Some(workload), ..job };
        (job, (!by_itself).then_some(Duration::from_millis(ms)))
    }
}
