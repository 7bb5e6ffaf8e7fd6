//! `/v1/jobs/{id}/logs`: what a job's replicas have written. The node keeps it; a reader's wish goes out with the node's
//! orders, and the agent brings the bytes to `/v1/nodes/{id}/logs`.

use super::extract::{Id, Params, Raw, wait_of};
use super::problem::{Answer, Refused};
use crate::app::App;
use crate::store::jobs;
use crate::store::leases::{self, LeaseFilter};
use crate::watchers::Topic;
use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use chiptide_api::logs::{
    ATTEMPT_HEADER, CHUNK_MAX, LogAnswer, LogOrder, LogStream, NEXT_HEADER, OFFSET_HEADER, OVER_HEADER,
};
use chiptide_api::problem::Problem;
use chiptide_model::{Job, JobId, Lease, Millis, NodeId};
use serde::Deserialize;
use std::time::Duration;
use tokio::time::Instant;
use utoipa::IntoParams;
use uuid::Uuid;

/// Most lines of a `tail`.
const TAIL_MAX: u32 = 100_000;
/// Leases of a job that are looked through for a replica, newest first.
const LEASES_MAX: i64 = 1000;
/// How long an agent that has bytes may take to bring them.
const BRING_LIMIT: Duration = Duration::from_secs(10);

/// Which output, and from where on.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct LogParams {
    /// The replica; default 0.
    #[serde(default)]
    rank: u32,
    /// `stdout` or `stderr`; default `stdout`.
    #[serde(default)]
    #[param(inline)]
    stream: LogStream,
    /// Bytes from here on; default 0. Go on from the answer's `chiptide-log-next`.
    offset: Option<u64>,
    /// Instead of an offset: the last so many lines, at most 256 KiB.
    tail: Option<u32>,
    /// Which attempt of the job, from 1; default the newest that has the replica.
    attempt: Option<u32>,
    /// Wait so long for bytes where there are none yet (`30s`, at most `60s`).
    wait: Option<String>,
}

/// A part of what a replica has written, as it wrote it, at most 256 KiB. The node keeps the newest output of each stream,
/// up to a limit, and that of replicas that have ended until it needs the room. With `wait`, a long-poll until there is
/// something past `offset`, or nothing will follow. Headers: `chiptide-log-offset` (where the bytes start; later than asked
/// for where older ones are gone), `chiptide-log-next`, `chiptide-log-over` (`true` when nothing will follow), and
/// `chiptide-log-attempt`.
#[utoipa::path(get, path = "/v1/jobs/{id}/logs", tag = "jobs", operation_id = "getJobLogs",
    params(("id" = Uuid, Path, description = "The job."), LogParams),
    responses((status = 200, description = "The bytes.", body = Vec<u8>, content_type = "application/octet-stream"),
        (status = "4XX", description = "No such job or replica, or nothing of it.", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "Its node does not answer.", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn of_job(
    State(app): State<App>,
    Id(id): Id<JobId>,
    Params(params): Params<LogParams>,
) -> Result<Response, Refused> {
    let wait = wait_of(params.wait.as_deref())?;
    if params.tail.is_some() && params.offset.is_some() {
        return Err(Refused::invalid_parameter("tail", "give tail or offset, not both"));
    }
    if params.tail.is_some_and(|lines| lines > TAIL_MAX) {
        return Err(Refused::invalid_parameter("tail", format!("at most {TAIL_MAX} lines")));
    }
    let until = Instant::now() + wait;
    let (lease, node, attempt) = find_waiting(&app, id, &params, until).await?;
    let wait = Millis(until.saturating_duration_since(Instant::now()).as_millis() as u64);
    let (stream, offset) = (params.stream, params.offset.unwrap_or(0));
    let order = LogOrder { request: 0, lease, rank: params.rank, stream, offset, tail: params.tail, wait };
    let (told, bytes) = ask(&app, &node, order, until + BRING_LIMIT).await?;
    if !told.found {
        return Err(Refused::no_output(params.rank, node.as_str()));
    }
    let next = told.offset.saturating_add(bytes.len() as u64);
    let number = |number: u64| HeaderValue::from(number);
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream")),
        (header::HeaderName::from_static(OFFSET_HEADER), number(told.offset)),
        (header::HeaderName::from_static(NEXT_HEADER), number(next)),
        (
            header::HeaderName::from_static(OVER_HEADER),
            HeaderValue::from_static(if told.over { "true" } else { "false" }),
        ),
        (header::HeaderName::from_static(ATTEMPT_HEADER), number(attempt.into())),
    ];
    Ok((headers, bytes).into_response())
}

/// Has the node's agent bring the bytes.
async fn ask(app: &App, node: &NodeId, order: LogOrder, until: Instant) -> Result<(LogAnswer, Vec<u8>), Refused> {
    {
        let cluster = app.shared.cluster();
        let known = cluster.node(node).ok_or_else(|| Refused::node_gone(node.as_str()))?;
        if known.unknown_since.is_some() {
            return Err(Refused::node_silent(node.as_str()));
        }
    }
    let mut place = app.shared.logs.ask(node, order).map_err(|crate::log_desk::Full| Refused::too_many_readers())?;
    app.shared.watchers.wake_node(node);
    tokio::select! {
        brought = place.brought() => brought.ok_or_else(|| Refused::node_silent(node.as_str())),
        () = tokio::time::sleep_until(until) => Err(Refused::node_silent(node.as_str())),
        () = app.shared.stopping.cancelled() => Err(Refused::unavailable("the daemon is stopping")),
    }
}

/// Where the replica runs or ran; waits for a job that has no lease yet.
async fn find_waiting(
    app: &App,
    id: JobId,
    params: &LogParams,
    until: Instant,
) -> Result<(Uuid, NodeId, u32), Refused> {
    let watch = app.shared.watchers.watch(Topic::Job(id));
    loop {
        let changed = watch.changed();
        let refused = match find(app, id, params).await? {
            Ok(found) => return Ok(found),
            Err(refused) => refused,
        };
        tokio::select! {
            () = changed => {}
            () = app.shared.stopping.cancelled() => return Err(refused),
            () = tokio::time::sleep_until(until) => return Err(refused),
        }
    }
}

/// The lease and node of the replica. The inner refusal may pass with time: the job has had no lease yet.
async fn find(app: &App, id: JobId, params: &LogParams) -> Result<Result<(Uuid, NodeId, u32), Refused>, Refused> {
    let live = app.shared.cluster().job(id).cloned();
    let job: Job = match live {
        Some(job) => job,
        None => {
            app.tables(async |tables| jobs::get(tables, id).await).await?.ok_or_else(|| Refused::no_such_job(id))?
        }
    };
    if job.spec.workload.is_none() {
        return Err(Refused::no_workload(id));
    }
    let on = |lease: &Lease| {
        let placement = lease.placements.iter().find(|placement| placement.replica == params.rank)?;
        Some((lease.id.0, placement.node.clone(), lease.attempt))
    };
    let of_attempt = |lease: &Lease| params.attempt.is_none_or(|attempt| lease.attempt == attempt);
    {
        let cluster = app.shared.cluster();
        let live = job.state.lease().into_iter().chain(job.extras.iter().copied());
        let found = live.filter_map(|lease| cluster.lease(lease)).filter(|lease| of_attempt(lease)).find_map(on);
        if let Some(found) = found {
            return Ok(Ok(found));
        }
    }
    let states = ["active", "revoking", "ended"].map(str::to_owned).to_vec();
    let filter = LeaseFilter { states, job: Some(id.0), queues: None, before: None, limit: LEASES_MAX };
    let known = app.tables(async |tables| leases::list(tables, &filter).await).await?;
    match known.iter().filter(|lease| of_attempt(lease)).find_map(on) {
        Some(found) => Ok(Ok(found)),
        None if job.attempt < params.attempt.unwrap_or(1) && job.spec.replicas > params.rank => {
            Ok(Err(Refused::not_started(id, job.state.as_str())))
        }
        None => Err(Refused::no_such_replica(id, params.rank)),
    }
}

/// Takes the bytes that an agent brings for a reader. The body has them as they are.
#[utoipa::path(post, path = "/v1/nodes/{id}/logs", tag = "agents", operation_id = "bringNodeLogs",
    params(("id" = String, Path, description = "The node's name."),
        ("session" = Uuid, Query, description = "The session from registration."),
        ("request" = u64, Query, description = "The request it answers, from the node's orders."),
        ("found" = bool, Query, description = "Whether the node has anything of the replica."),
        ("offset" = u64, Query, description = "Where the bytes start."),
        ("over" = bool, Query, description = "Whether nothing will follow them."),
        ("Idempotency-Key" = Option<String>, Header, description = "Ignored: a request is answered once.")),
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses((status = 200, description = "Taken, or nobody waits for it any more."),
        (status = "4XX", description = "Refused.", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn bring(
    State(app): State<App>,
    Id(node): Id<NodeId>,
    Params(told): Params<LogAnswer>,
    Raw(bytes): Raw,
) -> Result<Answer, Refused> {
    let session = app.shared.cluster().node(&node).map(|node| node.session.0);
    match session {
        None => return Err(Refused::not_registered(node.as_str())),
        Some(session) if session != told.session => return Err(Refused::stale_session(node.as_str())),
        Some(_) => {}
    }
    if bytes.len() > CHUNK_MAX {
        return Err(Refused::too_large(CHUNK_MAX));
    }
    app.shared.logs.bring(&node, (told, bytes.to_vec()));
    Ok(Answer { status: 200, body: "{}".into(), replayed: false })
}
