//! Those whose chips are taken: the schedulers of training jobs, who notice and act. Every second one has written its
//! checkpoint in time and releases its lease early; the others use all of their grace.

use crate::scheduler::Scheduler;
use anyhow::Context;
use futures_util::{StreamExt, TryStreamExt, stream};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::sleep;
use uuid::Uuid;

/// How often they look for notices. Far below the grace, so that none is missed.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Leases released in calls that overlap.
const RELEASES_AT_ONCE: usize = 16;

/// One job whose chips were taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Victim {
    /// The attempt that was cut short.
    pub(super) attempt: u32,
    /// Whether it released its lease early.
    pub(super) released: bool,
}

/// Everyone who looks out for notices.
#[derive(Debug)]
pub(super) struct Victims {
    stop: watch::Sender<bool>,
    looking: JoinHandle<anyhow::Result<BTreeMap<Uuid, Victim>>>,
}

impl Victims {
    /// Begins to look.
    pub(super) fn look_out(scheduler: &Arc<Scheduler>) -> Victims {
        let stop = watch::Sender::new(false);
        let looking = tokio::spawn(look(Arc::clone(scheduler), stop.subscribe()));
        Victims { stop, looking }
    }

    /// Stops looking; answers who was preempted.
    pub(super) async fn stop(self) -> anyhow::Result<BTreeMap<Uuid, Victim>> {
        self.stop.send_replace(true);
        self.looking.await.context("join the victims' look-out")?
    }
}

async fn look(scheduler: Arc<Scheduler>, stop: watch::Receiver<bool>) -> anyhow::Result<BTreeMap<Uuid, Victim>> {
    let mut victims: BTreeMap<Uuid, Victim> = BTreeMap::new();
    while !*stop.borrow() {
        let noticed = scheduler.jobs_in("preempting").await.context("look for notices")?;
        let mut releases = Vec::new();
        for job in noticed {
            let known = victims.get(&job.id).is_some_and(|victim| victim.attempt >= job.attempt);
            let Some(lease) = job.lease.filter(|_| !known) else { continue };
            let released = victims.len().is_multiple_of(2);
            victims.insert(job.id, Victim { attempt: job.attempt, released });
            releases.extend(released.then_some(lease.id));
        }
        let releases = stream::iter(releases).map(|lease| scheduler.release(lease)).buffer_unordered(RELEASES_AT_ONCE);
        releases.try_collect::<Vec<()>>().await.context("release leases after a checkpoint")?;
        sleep(LOOK_EVERY).await;
    }
    Ok(victims)
}
