//! A scheduler as the daemon sees one: it submits with idempotency keys, repeats a call that got no answer under the
//! same key, watches jobs by long poll, and remembers every job it was answered.

use chiptide_api::job::{DoneBody, DoneOutcome, JobBody, JobView};
use chiptide_api::lease::ReleaseBody;
use chiptide_api::{Client, ClientError};
use chiptide_model::{JobId, Millis};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout_at};
use uuid::Uuid;

/// How long a call that gets no answer is repeated.
const REPEAT_MAX: Duration = Duration::from_secs(60);
/// Pause between two tries.
const PAUSE: Duration = Duration::from_millis(50);
/// How long the daemon may hold a watch that has nothing new.
const WATCH_WAIT: Millis = Millis::from_secs(20);

/// One scheduler. Share it by reference; its calls may overlap.
#[derive(Debug)]
pub struct Scheduler {
    client: Client,
    run: String,
    calls: AtomicU64,
    acknowledged: Mutex<Vec<JobId>>,
}

/// The answer to a submit, and how long it took.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The job as answered.
    pub job: JobView,
    /// The key it was submitted under.
    pub key: String,
    /// From the first try to the answer.
    pub took: Duration,
}

impl Scheduler {
    /// A scheduler whose keys nobody has used before.
    pub fn new(client: Client) -> Scheduler {
        let run = format!("sim-{:016x}", rand::random::<u64>());
        Scheduler { client, run, calls: AtomicU64::new(0), acknowledged: Mutex::new(Vec::new()) }
    }

    /// The client it calls with.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Submits one job.
    pub async fn submit(&self, job: &JobBody) -> Result<Answer, ClientError> {
        let (key, start) = (self.next_key(), Instant::now());
        let job = repeat(|| self.client.create_job(job, Some(&key))).await?;
        self.acknowledge([&job]);
        Ok(Answer { job, key, took: start.elapsed() })
    }

    /// Submits up to 1,000 jobs in one call.
    pub async fn submit_many(&self, jobs: &[JobBody]) -> Result<Vec<JobView>, ClientError> {
        let key = self.next_key();
        let created = repeat(|| self.client.create_jobs(jobs, Some(&key))).await?;
        self.acknowledge(&created.jobs);
        Ok(created.jobs)
    }

    /// Submits `job` again under a key it was submitted under before.
    pub async fn submit_again(&self, job: &JobBody, key: &str) -> Result<JobView, ClientError> {
        repeat(|| self.client.create_job(job, Some(key))).await
    }

    /// Reports a job done. Done is done: a job that is over already is no error.
    pub async fn done(&self, job: Uuid) -> Result<(), ClientError> {
        let (key, body) = (self.next_key(), DoneBody { outcome: DoneOutcome::Succeeded, reason: None });
        settled(repeat(|| self.client.job_done(job, &body, Some(&key))).await)
    }

    /// Cancels a job. One that is over already is no error.
    pub async fn cancel(&self, job: Uuid) -> Result<(), ClientError> {
        let key = self.next_key();
        settled(repeat(|| self.client.cancel_job(job, Some(&key))).await)
    }

    /// Gives a lease that is being taken back before its grace is over, as a job does once its checkpoint is written.
    /// One that has ended meanwhile is no error.
    pub async fn release(&self, lease: Uuid) -> Result<(), ClientError> {
        let (key, body) = (self.next_key(), ReleaseBody { requeue: true });
        settled(repeat(|| self.client.release_lease(lease, &body, Some(&key))).await)
    }

    /// Watches a job until `reached` says so; `None` if that has not come by `deadline`, or the job is over without it.
    pub async fn watch(
        &self,
        mut job: JobView,
        deadline: Instant,
        reached: impl Fn(&JobView) -> bool,
    ) -> Result<Option<JobView>, ClientError> {
        while !reached(&job) {
            if job.is_ended() {
                return Ok(None);
            }
            let next = repeat(|| self.client.watch_job(job.id, job.revision, WATCH_WAIT));
            match timeout_at(deadline, next).await {
                Ok(next) => job = next?,
                Err(_) => return Ok(None),
            }
        }
        Ok(Some(job))
    }

    /// Every job of a list, page after page.
    pub async fn jobs_in(&self, state: &str) -> Result<Vec<JobView>, ClientError> {
        let (mut jobs, mut cursor) = (Vec::new(), None);
        loop {
            let mut filters = vec![("state", state.to_owned()), ("limit", "500".to_owned())];
            filters.extend(cursor.map(|cursor| ("cursor", cursor)));
            let page = repeat(|| self.client.jobs(&filters)).await?;
            jobs.extend(page.items);
            match page.next_cursor {
                Some(next) => cursor = Some(next),
                None => return Ok(jobs),
            }
        }
    }

    /// Every job it was answered, in the order of the answers.
    pub fn acknowledged(&self) -> Vec<JobId> {
        self.acknowledged.lock().map(|jobs| jobs.clone()).unwrap_or_default()
    }

    fn acknowledge<'a>(&self, jobs: impl IntoIterator<Item = &'a JobView>) {
        // Poisoning would need a panic while extending a list of ids.
        if let Ok(mut known) = self.acknowledged.lock() {
            known.extend(jobs.into_iter().map(|job| JobId(job.id)));
        }
    }

    fn next_key(&self) -> String {
        format!("{}-{}", self.run, self.calls.fetch_add(1, Ordering::Relaxed))
    }
}

/// Whether a job has its chips.
pub fn has_chips(job: &JobView) -> bool {
    matches!(job.state.as_str(), "leased" | "running")
}

/// Whether the daemon gave no verdict on the call: it may have taken effect or not, and can be repeated.
pub fn no_verdict(error: &ClientError) -> bool {
    match error {
        ClientError::Unreachable { .. } => true,
        ClientError::Unexpected { status, .. } => *status >= 500,
        ClientError::Refused(problem) => problem.status >= 500 || problem.status == 429,
    }
}

/// Repeats a call until there is a verdict, for a minute at most.
async fn repeat<T, F>(mut call: impl FnMut() -> F) -> Result<T, ClientError>
where
    F: Future<Output = Result<T, ClientError>>,
{
    let start = Instant::now();
    loop {
        match call().await {
            Err(error) if no_verdict(&error) && start.elapsed() < REPEAT_MAX => sleep(PAUSE).await,
            verdict => return verdict,
        }
    }
}

/// Turns "it is over already" and "it is not there any more" into success.
fn settled(answer: Result<JobView, ClientError>) -> Result<(), ClientError> {
    match answer {
        Ok(_) => Ok(()),
        Err(ClientError::Refused(problem)) if matches!(problem.status, 404 | 409 | 410) => Ok(()),
        Err(error) => Err(error),
    }
}
