//! The measurements: one chip goes round between jobs whose workloads are canaries.

use crate::faults::canary::{self, Manner, Says, Testimony};
use crate::faults::node::Ground;
use crate::latency::Latencies;
use crate::progress::Progress;
use crate::scheduler::{Scheduler, has_chips};
use crate::single_chip;
use anyhow::{Context, ensure};
use chiptide_api::job::{JobBody, JobView, KindBody, WorkloadBody};
use chiptide_model::Millis;
use clap::ValueEnum;
use std::cell::Cell;
use std::fs;
use std::time::Duration;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

/// How long anything may take before the run is given up.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long a workload that ends by itself runs.
const RUN_FOR_MS: u64 = 300;

/// Jobs and the ground they run on.
pub(super) struct Bench<'a> {
    scheduler: &'a Scheduler,
    ground: &'a Ground,
    jobs: Cell<u32>,
}

impl<'a> Bench<'a> {
    pub(super) fn new(scheduler: &'a Scheduler, ground: &'a Ground) -> Bench<'a> {
        Bench { scheduler, ground, jobs: Cell::new(0) }
    }

    /// Occupies chips with work that nobody takes.
    pub(super) async fn fill(&self, chips: u32) -> anyhow::Result<()> {
        for _ in 0..chips {
            let job = self.submit("urgent", Manner::Polite, 0, None).await?;
            self.running(job).await?;
        }
        Ok(())
    }

    /// A job is released while it runs, and the next one waits for its chip.
    pub(super) async fn releases(&self, samples: u32) -> anyhow::Result<Latencies> {
        let (mut latencies, progress) = (Latencies::default(), Progress::start("releases", samples.into()));
        let first = self.submit("standard", Manner::Polite, 0, None).await?;
        let mut holder = self.running(first).await?;
        for sample in 0..samples {
            let waiting = self.submit("standard", Manner::Polite, 0, None).await?;
            let begun = Instant::now();
            let (released, granted) = tokio::join!(self.scheduler.done(holder.id), self.granted(waiting));
            released.context("release")?;
            latencies.record(begun.elapsed());
            holder = self.running(granted?).await?;
            progress.at(u64::from(sample) + 1);
        }
        self.end(&holder).await?;
        Ok(latencies)
    }

    /// A workload ends by itself, and the next one waits for its chip. Counted from what the workload wrote last.
    pub(super) async fn exits(&self, samples: u32) -> anyhow::Result<Latencies> {
        let (mut latencies, progress) = (Latencies::default(), Progress::start("exits", samples.into()));
        let mut holder = self.submit("standard", Manner::Polite, 0, Some(RUN_FOR_MS)).await?;
        for sample in 0..samples {
            holder = self.granted(holder).await?;
            let lease = holder.lease.as_ref().context("a lease")?.id;
            let next = self.submit("standard", Manner::Polite, 0, Some(RUN_FOR_MS)).await?;
            holder = self.granted(next).await?;
            latencies.record(self.since_left(lease)?);
            progress.at(u64::from(sample) + 1);
        }
        self.end(&holder).await?;
        Ok(latencies)
    }

    /// A job of higher priority takes the chip of one that runs, gives it back, and the loser goes on.
    pub(super) async fn preemptions(&self, samples: u32, manner: Manner, grace_ms: u64) -> anyhow::Result<Latencies> {
        let (mut latencies, progress) = (Latencies::default(), Progress::start("preemptions", samples.into()));
        for sample in 0..samples {
            let victim = self.submit("best-effort", manner, grace_ms, None).await?;
            let victim = self.running(victim).await?;
            let begun = Instant::now();
            let preemptor = self.submit("urgent", Manner::Polite, 0, None).await?;
            let preemptor = self.granted(preemptor).await?;
            latencies.record(begun.elapsed());
            // The victim first, or it would be started once more in vain.
            self.end(&victim).await?;
            self.end(&preemptor).await?;
            progress.at(u64::from(sample) + 1);
        }
        Ok(latencies)
    }

    async fn submit(&self, class: &str, manner: Manner, grace_ms: u64, run: Option<u64>) -> anyhow::Result<JobView> {
        let number = self.jobs.replace(self.jobs.get() + 1);
        let manner = manner.to_possible_value().context("a manner with a name")?;
        let mut command = self.ground.canary(manner.get_name())?;
        command.extend(run.into_iter().flat_map(|ms| ["--run-for-ms".to_owned(), ms.to_string()]));
        let workload = WorkloadBody { command, env: Default::default(), ..WorkloadBody::default() };
        let job = single_chip::job(format!("handover-{number}"), KindBody::Training, class, Millis(grace_ms));
        let job = JobBody { cpu_milli: 0, memory_mib: 0, workload: Some(workload), ..job };
        Ok(self.scheduler.submit(&job).await.context("submit a job")?.job)
    }

    async fn granted(&self, job: JobView) -> anyhow::Result<JobView> {
        let name = job.spec.name.clone();
        let granted = self.scheduler.watch(job, Instant::now() + PATIENCE, has_chips).await.context("watch a job")?;
        granted.with_context(|| format!("{name} got no chips"))
    }

    /// The job, once its canary has its chip and says so.
    async fn running(&self, job: JobView) -> anyhow::Result<JobView> {
        let job = self.granted(job).await?;
        let lease = job.lease.as_ref().context("a lease")?.id;
        let begun = Instant::now();
        while self.testimony(lease)?.is_empty() {
            ensure!(begun.elapsed() < PATIENCE, "the workload of {} was not started", job.spec.name);
            sleep(Duration::from_millis(5)).await;
        }
        Ok(job)
    }

    async fn end(&self, job: &JobView) -> anyhow::Result<()> {
        self.scheduler.cancel(job.id).await.context("cancel a job")
    }

    fn since_left(&self, lease: Uuid) -> anyhow::Result<Duration> {
        let now = canary::boot_ns();
        let testimony = self.testimony(lease)?;
        let left = testimony.last().filter(|last| last.says == Says::Left).context("the canary wrote that it left")?;
        Ok(Duration::from_nanos(now.saturating_sub(left.at_ns)))
    }

    /// What the canaries of a lease wrote so far.
    fn testimony(&self, lease: Uuid) -> anyhow::Result<Vec<Testimony>> {
        let folder = fs::read_dir(self.ground.path().join("testimonies")).context("look for testimonies")?;
        let of_lease =
            folder.flatten().filter(|entry| entry.file_name().to_string_lossy().starts_with(&lease.to_string()));
        let texts = of_lease.map(|entry| fs::read_to_string(entry.path()).unwrap_or_default());
        let text: String = texts.collect();
        Ok(text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
    }
}
