//! `/v1/jobs`: submit, look, wait, cancel, report done.

use super::extract::{Body, Id, Mutation, Params, Raw, json_bytes, limit_of, list_of, plan_of, wait_of};
use super::problem::{Answer, Refused};
use crate::access::Who;
use crate::app::App;
use crate::render;
use crate::store::jobs::{self, JobFilter};
use crate::store::{eviction_steps, work_ends};
use crate::watchers::Topic;
use axum::Json;
use axum::extract::{Request, State};
use chiptide_allocator::explain::Explainer;
use chiptide_allocator::{Command, NewJob};
use chiptide_api::job::{CreateBody, CreatedView, DoneBody, DoneOutcome, JOBS_PER_CALL_MAX, JobBody, JobView};
use chiptide_api::page::Page;
use chiptide_api::problem::{Invalid, Problem, read_json};
use chiptide_api::work::RunView;
use chiptide_model::{JobId, Outcome, Policy};
use serde::Deserialize;
use std::sync::Arc;
use std::time::Duration;
use utoipa::IntoParams;
use uuid::Uuid;

/// Submits one job, or up to 1,000 in one call (accepted all or none). The answer comes after the commit: 201 when every
/// job already has its lease, 202 when one waits, with the reasons.
#[utoipa::path(post, path = "/v1/jobs", tag = "jobs", operation_id = "createJobs",
    params(("Idempotency-Key" = Option<String>, Header, description = "The same key replays the first answer; with another body it is refused."),
        ("Chiptide-Plan" = Option<String>, Header, description = "The plan of a dry run of these jobs: done exactly so, or refused (`plan_stale`).")),
    request_body = CreateBody,
    responses(
        (status = 201, description = "Every job was accepted and holds a lease.", content((JobView = "application/json"), (CreatedView = "application/json"))),
        (status = 202, description = "Every job was accepted; at least one waits.", content((JobView = "application/json"), (CreatedView = "application/json"))),
        (status = "4XX", description = "Nothing was accepted.", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "Cannot be served now; try again with the same key.", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn create(
    State(app): State<App>,
    who: Who,
    mutation: Mutation,
    request: Request,
) -> Result<Answer, Refused> {
    let plan = plan_of(request.headers())?;
    let raw = json_bytes(request, &app).await?;
    let (jobs, many) = parse(&app, &who, &raw)?;
    app.rounds.submit_as(Command::Submit(jobs), many, mutation.key(&raw), plan).await
}

/// The jobs of a body, which are a list or one, if the caller may submit them.
pub(super) fn parse(app: &App, who: &Who, raw: &[u8]) -> Result<(Vec<NewJob>, bool), Refused> {
    let many = raw.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'[');
    let bodies: Vec<JobBody> =
        if many { read_json(raw).map_err(Refused::invalid)? } else { vec![read_json(raw).map_err(Refused::invalid)?] };
    if bodies.is_empty() || bodies.len() > JOBS_PER_CALL_MAX {
        let detail = format!("between 1 and {JOBS_PER_CALL_MAX} jobs in one call");
        return Err(Refused::invalid(Invalid::new("out_of_range", ".", detail)));
    }
    let policy = app.shared.cluster().policy.clone();
    let jobs = bodies.into_iter().enumerate().map(|(index, body)| new_job(body, &policy, many.then_some(index)));
    let jobs: Vec<NewJob> = jobs.collect::<Result<_, _>>()?;
    keep_to_queues(who, &policy, &jobs, many)?;
    Ok((jobs, many))
}

fn new_job(body: JobBody, policy: &Policy, index: Option<usize>) -> Result<NewJob, Refused> {
    let spec = body.into_spec(policy).map_err(|invalid| {
        Refused::invalid(match index {
            Some(index) => invalid.under(&format!("[{index}]")),
            None => invalid,
        })
    })?;
    Ok(NewJob { id: JobId(Uuid::now_v7()), spec: Arc::new(spec) })
}

/// Refuses jobs of a queue that is not the caller's.
fn keep_to_queues(who: &Who, policy: &Policy, jobs: &[NewJob], many: bool) -> Result<(), Refused> {
    let foreign = jobs.iter().position(|job| !who.0.has_queue(policy, &job.spec.queue));
    foreign.map_or(Ok(()), |index| {
        let field = if many { format!("[{index}].queue") } else { "queue".to_owned() };
        Err(Refused::not_its_queue(&jobs[index].spec.queue, field))
    })
}

/// How to wait for a job.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct GetParams {
    /// Wait so long for a change (`30s`, at most `60s`).
    wait: Option<String>,
    /// The revision already seen: answers at once when the job is past it. Without it, waits for the next change.
    after: Option<u64>,
}

/// One job. With `wait`, a long-poll until its state changes.
#[utoipa::path(get, path = "/v1/jobs/{id}", tag = "jobs", operation_id = "getJob",
    params(("id" = Uuid, Path, description = "The job."), GetParams),
    responses((status = 200, description = "The job.", body = JobView),
        (status = "4XX", description = "No such job.", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn get(
    State(app): State<App>,
    Id(id): Id<JobId>,
    Params(params): Params<GetParams>,
) -> Result<Json<JobView>, Refused> {
    let wait = wait_of(params.wait.as_deref())?;
    let deadline = tokio::time::Instant::now() + wait;
    let watch = app.shared.watchers.watch(Topic::Job(id));
    let mut seen = params.after;
    loop {
        let changed = watch.changed();
        let mut view = find(&app, id).await?;
        let is_news = view.revision > *seen.get_or_insert(view.revision);
        if is_news || view.is_ended() || wait.is_zero() || app.shared.stopping.is_cancelled() {
            complete(&app, id, &mut view).await;
            return Ok(Json(view));
        }
        tokio::select! {
            () = changed => {}
            () = app.shared.stopping.cancelled() => {}
            () = tokio::time::sleep_until(deadline) => {
                complete(&app, id, &mut view).await;
                return Ok(Json(view));
            }
        }
    }
}

/// Adds what is only told of one job at a time. A database that is away takes its history with it, and no more.
async fn complete(app: &App, id: JobId, view: &mut JobView) {
    view.runs = runs(app, id, view).await;
    let was_taken = view.preemptions > 0 || view.deadline.is_some() || view.reason.as_deref() == Some("max_duration");
    if was_taken {
        let last = app.tables(async |tables| eviction_steps::last_of_job(tables, id).await).await;
        view.eviction = last.ok().flatten().as_ref().map(render::eviction);
    }
}

/// How the replicas of a job are and were that the agents run; nothing of a job that has never had a lease.
async fn runs(app: &App, id: JobId, view: &JobView) -> Vec<RunView> {
    if view.spec.workload.is_none() || view.attempt == 0 {
        return Vec::new();
    }
    let ended = app.tables(async |tables| work_ends::of_job(tables, id).await).await.unwrap_or_default();
    let cluster = app.shared.cluster();
    let now = cluster.job(id).and_then(|job| render::run_now(&cluster, job, &app.shared.telemetry));
    now.into_iter().chain(ended.iter().map(render::run_ended)).collect()
}

/// A job from memory while it is live, else from the table.
async fn find(app: &App, id: JobId) -> Result<JobView, Refused> {
    {
        let cluster = app.shared.cluster();
        if let Some(job) = cluster.job(id) {
            return Ok(render::job(&mut Explainer::of(&cluster), job));
        }
    }
    let job = app.tables(async |tables| jobs::get(tables, id).await).await?.ok_or_else(|| Refused::no_such_job(id))?;
    let cluster = app.shared.cluster();
    // It may have come to life between the two looks; memory is then newer.
    Ok(render::job(&mut Explainer::of(&cluster), cluster.job(id).unwrap_or(&job)))
}

/// Which jobs to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ListParams {
    /// States, comma-separated.
    state: Option<String>,
    /// The queue.
    queue: Option<String>,
    /// `training` or `inference`.
    kind: Option<String>,
    /// The name.
    name: Option<String>,
    /// Labels as `key=value`, comma-separated; all must match.
    label: Option<String>,
    /// Items of a page, 1 to 500; default 100.
    #[param(minimum = 1, maximum = 500)]
    limit: Option<u32>,
    /// From `next_cursor` of the page before.
    cursor: Option<String>,
}

const STATES: [&str; 7] = ["pending", "leased", "running", "preempting", "succeeded", "failed", "cancelled"];

/// Jobs, newest first.
#[utoipa::path(get, path = "/v1/jobs", tag = "jobs", operation_id = "listJobs", params(ListParams),
    responses((status = 200, description = "A page of jobs.", body = Page<JobView>),
        (status = "4XX", description = "A parameter is not valid.", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn list(
    State(app): State<App>,
    who: Who,
    Params(params): Params<ListParams>,
) -> Result<Json<Page<JobView>>, Refused> {
    let limit = limit_of(params.limit)?;
    let filter = JobFilter { queues: who.0.queues_in(&app.shared.cluster().policy), ..filter(params, limit)? };
    let mut found = app.tables(async |tables| jobs::list(tables, &filter).await).await?;
    let more = found.len() > limit;
    found.truncate(limit);
    let next_cursor = found.last().filter(|_| more).map(|job| job.place.to_string());
    let cluster = app.shared.cluster();
    let mut explainer = Explainer::of(&cluster);
    let items = found.iter().map(|job| render::job(&mut explainer, job)).collect();
    Ok(Json(Page { items, next_cursor }))
}

fn filter(params: ListParams, limit: usize) -> Result<JobFilter, Refused> {
    let states = list_of(params.state.as_deref());
    if let Some(unknown) = states.iter().find(|state| !STATES.contains(&state.as_str())) {
        let detail = format!("{unknown:?} is not one of {}", STATES.join(", "));
        return Err(Refused::invalid_parameter("state", detail));
    }
    let mut labels = Vec::new();
    for label in list_of(params.label.as_deref()) {
        let (key, value) =
            label.split_once('=').ok_or_else(|| Refused::invalid_parameter("label", "labels are written key=value"))?;
        labels.push((key.to_owned(), value.to_owned()));
    }
    let before = params.cursor.map(|cursor| cursor.parse::<i64>()).transpose();
    let has_nul = |text: &Option<String>| text.as_ref().is_some_and(|text| text.contains('\0'));
    if has_nul(&params.queue) || has_nul(&params.kind) || has_nul(&params.name) || has_nul(&params.label) {
        return Err(Refused::invalid_parameter("query", "holds a NUL character"));
    }
    Ok(JobFilter {
        states,
        queue: params.queue,
        queues: None,
        kind: params.kind,
        name: params.name,
        labels,
        before: before.map_err(|_| Refused::invalid_parameter("cursor", "is not a cursor of this list"))?,
        limit: limit as i64 + 1,
    })
}

/// Cancels a job, whatever it holds.
#[utoipa::path(post, path = "/v1/jobs/{id}/cancel", tag = "jobs", operation_id = "cancelJob",
    params(("id" = Uuid, Path, description = "The job."),
        ("Idempotency-Key" = Option<String>, Header, description = "The same key replays the first answer.")),
    responses((status = 200, description = "The job, cancelled.", body = JobView),
        (status = "4XX", description = "No such job, or it is over.", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn cancel(
    State(app): State<App>,
    Id(id): Id<JobId>,
    mutation: Mutation,
    Raw(raw): Raw,
) -> Result<Answer, Refused> {
    let answer = app.rounds.submit(Command::Cancel(id), false, mutation.key(&raw)).await?;
    told_apart(&app, id, answer).await
}

/// Reports that a job is over.
#[utoipa::path(post, path = "/v1/jobs/{id}/done", tag = "jobs", operation_id = "reportJobDone",
    params(("id" = Uuid, Path, description = "The job."),
        ("Idempotency-Key" = Option<String>, Header, description = "The same key replays the first answer.")),
    request_body = DoneBody,
    responses((status = 200, description = "The job, over.", body = JobView),
        (status = "4XX", description = "No such job, or it is over already.", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn done(
    State(app): State<App>,
    Id(id): Id<JobId>,
    mutation: Mutation,
    body: Body<DoneBody>,
) -> Result<Answer, Refused> {
    let reason = body.value.reason.unwrap_or_default().chars().filter(|c| *c != '\0').take(1000).collect();
    let outcome = match body.value.outcome {
        DoneOutcome::Succeeded => Outcome::Succeeded,
        DoneOutcome::Failed => Outcome::Failed { reason },
    };
    let answer = app.rounds.submit(Command::Done(id, outcome), false, mutation.key(&body.raw)).await?;
    told_apart(&app, id, answer).await
}

/// A round knows live jobs only. Tells a job that is over from one that never was.
async fn told_apart(app: &App, id: JobId, answer: Answer) -> Result<Answer, Refused> {
    if answer.status != 404 {
        return Ok(answer);
    }
    match app.tables(async |tables| jobs::get(tables, id).await).await? {
        Some(job) => Err(Refused::job_over(id, job.state.as_str())),
        None => Ok(answer),
    }
}

/// How often a waiting handler looks again by itself, should a wake-up be lost.
pub(super) const LOOK_AGAIN: Duration = Duration::from_secs(10);
