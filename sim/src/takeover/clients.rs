//! Clients with a short patience: whoever does not answer within a second is left for the other daemon, and asked again
//! under the same key.

use super::TakeoverReport;
use crate::single_chip;
use anyhow::{Context, bail};
use chiptide_api::job::{DoneBody, DoneOutcome, JobBody, JobView, KindBody};
use chiptide_api::{Client, ClientError};
use chiptide_model::Millis;
use futures_util::{StreamExt, stream};
use std::sync::Mutex;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use uuid::Uuid;

/// How long a call may take.
const PATIENCE: Duration = Duration::from_secs(1);
/// Pause between two jobs of a client, and between two tries of a call.
const PAUSE: Duration = Duration::from_millis(20);
/// How long a call is repeated, and an acknowledgement waited for.
const LONGEST: Duration = Duration::from_secs(60);
/// Keys asked again at once in the end.
const CHECKS: usize = 16;

/// A job that was answered.
#[derive(Clone, Debug)]
pub(super) struct Acknowledged {
    pub(super) id: Uuid,
    key: String,
    body: JobBody,
}

/// When writes were acknowledged, by whomever.
#[derive(Debug, Default)]
pub(super) struct Load {
    times: Mutex<Vec<Instant>>,
}

impl Load {
    /// One client: job after job, until told to stop. Answers what it was acknowledged.
    pub(super) async fn run(
        &self,
        client: Client,
        index: usize,
        stop: watch::Receiver<bool>,
    ) -> anyhow::Result<Vec<Acknowledged>> {
        let run = format!("{:08x}", rand::random::<u32>());
        let mut acknowledged = Vec::new();
        while !*stop.borrow() {
            let name = format!("takeover-{index}-{}", acknowledged.len());
            let key = format!("{run}-{name}");
            let body = single_chip::job(name, KindBody::Training, "standard", Millis::from_secs(30));
            let job = repeat(&client, || client.create_job(&body, Some(&key))).await.context("submit a job")?;
            self.note();
            acknowledged.push(Acknowledged { id: job.id, key: key.clone(), body });
            let done = DoneBody { outcome: DoneOutcome::Succeeded, reason: None };
            let done_key = format!("{key}-done");
            let ended = repeat(&client, || client.job_done(job.id, &done, Some(&done_key))).await;
            ended.context("report a job done")?;
            self.note();
            sleep(PAUSE).await;
        }
        Ok(acknowledged)
    }

    fn note(&self) {
        self.times.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(Instant::now());
    }

    fn times(&self) -> Vec<Instant> {
        self.times.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    /// Waits until a write has been acknowledged after this moment.
    pub(super) async fn wait_acknowledged_after(&self, moment: Instant) -> anyhow::Result<()> {
        while self.times().last().is_none_or(|last| *last <= moment) {
            if moment.elapsed() > LONGEST {
                bail!("no write was acknowledged for {LONGEST:?}");
            }
            sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }

    /// The longest time between two acknowledgements, of those that ended after this moment.
    pub(super) fn longest_silence_after(&self, moment: Instant) -> Option<Duration> {
        let times = self.times();
        let pairs = times.windows(2).filter(|pair| pair[1] > moment);
        pairs.map(|pair| pair[1].duration_since(pair[0])).max()
    }
}

/// Asks every key again: it must be answered with the same job, and the job be there.
pub(super) async fn check(
    client: &Client,
    acknowledged: &[Acknowledged],
    report: &mut TakeoverReport,
) -> anyhow::Result<()> {
    let ask = async |answer: &Acknowledged| {
        let again = repeat(client, || client.create_job(&answer.body, Some(&answer.key))).await?;
        let found = repeat(client, || client.job(answer.id)).await;
        anyhow::Ok((again.id != answer.id, found.is_err()))
    };
    let mut asked = stream::iter(acknowledged).map(ask).buffer_unordered(CHECKS);
    while let Some(told) = asked.next().await {
        let (changed, missing) = told.context("ask for a job again")?;
        report.acknowledged += 1;
        report.changed += u64::from(changed);
        report.missing += u64::from(missing);
    }
    Ok(())
}

/// Repeats a call until a daemon gives a verdict.
async fn repeat<F>(client: &Client, mut call: impl FnMut() -> F) -> Result<JobView, ClientError>
where
    F: Future<Output = Result<JobView, ClientError>>,
{
    let begun = Instant::now();
    loop {
        match timeout(PATIENCE, call()).await {
            Ok(Err(error)) if crate::scheduler::no_verdict(&error) && begun.elapsed() < LONGEST => {}
            Ok(verdict) => return verdict,
            Err(_) => client.move_on(),
        }
        sleep(PAUSE).await;
    }
}
