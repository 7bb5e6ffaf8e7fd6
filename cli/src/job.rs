//! `chiptide job …`.

use crate::args::{Job, JobList, Submit};
use crate::failure::Failure;
use crate::list::{follow, given};
use crate::output::{Out, line};
use crate::wait::{Patience, insist, wait_until};
use crate::{job_file, show};
use chiptide_api::Client;
use chiptide_api::job::{DoneBody, DoneOutcome, JobView};
use chrono::Utc;
use uuid::Uuid;

/// Submits, lists, shows, ends and follows jobs.
pub(crate) async fn run(command: Job, client: &Client, out: Out) -> Result<(), Failure> {
    let key = Uuid::new_v4().to_string();
    let job = match command {
        Job::Submit(submit) => return submit_and_wait(&submit, client, out).await,
        Job::List(list) => return print_list(list, client, out).await,
        Job::Logs(logs) => return crate::logs::print(&logs, client).await,
        Job::Watch { id } => return watch(id, client, out).await,
        Job::Get { id } => client.job(id).await?,
        Job::Cancel { id } => client.cancel_job(id, Some(&key)).await?,
        Job::Done { id, failed } => {
            let outcome = if failed.is_some() { DoneOutcome::Failed } else { DoneOutcome::Succeeded };
            client.job_done(id, &DoneBody { outcome, reason: failed }, Some(&key)).await?
        }
    };
    out.print(&job, |job| show::job(job, Utc::now()))
}

/// Accepted means in Postgres; the wait after it only watches.
async fn submit_and_wait(submit: &Submit, client: &Client, out: Out) -> Result<(), Failure> {
    let bodies = job_file::read(&submit.file)?;
    if submit.dry_run {
        return out.print(&client.dry_run_jobs(&bodies).await?, show::dry_run);
    }
    let key = submit.idempotency_key.clone().unwrap_or_else(|| Uuid::new_v4().to_string());
    let mut jobs = match bodies.as_slice() {
        [one] => vec![insist(&key, async || client.create_job(one, Some(&key)).await).await?],
        many => insist(&key, async || client.create_jobs(many, Some(&key)).await).await?.jobs,
    };
    let mut outcome = Ok(());
    if !submit.no_wait {
        let patience = Patience::of(submit.timeout);
        for job in &mut jobs {
            if let Err(failure) = wait_until(client, job, &patience, |job| job.state != "pending").await {
                outcome = Err(failure);
                break;
            }
        }
    }
    if submit.parsable {
        for job in &jobs {
            line(&job.id.to_string())?;
        }
    } else if let [job] = jobs.as_slice() {
        out.print(job, |job| show::job(job, Utc::now()))?;
    } else {
        out.print(jobs.as_slice(), |jobs| show::jobs(jobs, Utc::now()))?;
    }
    outcome.and_then(|()| jobs.iter().try_for_each(|job| if submit.no_wait { Ok(()) } else { judge(job) }))
}

async fn print_list(list: JobList, client: &Client, out: Out) -> Result<(), Failure> {
    let JobList { state, queue, kind, name, label, pages } = list;
    let filters = given([("state", state), ("queue", queue), ("kind", kind), ("name", name), ("label", label)]);
    let jobs = follow(filters, pages.max(), async |query| client.jobs(&query).await).await?;
    out.print(jobs.as_slice(), |jobs| show::jobs(jobs, Utc::now()))
}

async fn watch(id: Uuid, client: &Client, out: Out) -> Result<(), Failure> {
    let mut job = client.job(id).await?;
    loop {
        out.stream(&job, |job| show::job_line(job, Utc::now()))?;
        if job.is_ended() {
            return judge(&job);
        }
        let seen = job.revision;
        wait_until(client, &mut job, &Patience::endless(), |job| job.revision > seen).await?;
    }
}

/// A job that failed or was cancelled makes the command fail too.
fn judge(job: &JobView) -> Result<(), Failure> {
    match job.state.as_str() {
        "failed" | "cancelled" => {
            let reason = job.reason.as_deref().map_or(String::new(), |reason| format!(": {reason}"));
            Err(Failure::Unmet(format!("job {} {}{reason}", job.id, job.state)))
        }
        _ => Ok(()),
    }
}
