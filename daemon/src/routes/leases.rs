//! `/v1/leases`: look, renew, give back.

use super::extract::{Body, Id, Mutation, Params, Raw, limit_of, list_of};
use super::problem::{Answer, Refused};
use crate::access::Who;
use crate::app::App;
use crate::render;
use crate::store::eviction_steps;
use crate::store::leases::{self, LeaseFilter};
use axum::Json;
use axum::extract::State;
use chiptide_allocator::Command;
use chiptide_api::job::JobView;
use chiptide_api::lease::{CheckpointBody, ExtensionBody, LeaseView, ReleaseBody};
use chiptide_api::page::Page;
use chiptide_api::problem::{Problem, read_json};
use chiptide_model::LeaseId;
use chrono::{DateTime, Utc};
use serde::Deserialize;
use utoipa::IntoParams;
use uuid::Uuid;

/// How much of a holder's reason is kept.
const REASON_MAX: usize = 200;

/// One lease, live or ended.
#[utoipa::path(get, path = "/v1/leases/{id}", tag = "leases", operation_id = "getLease",
    params(("id" = Uuid, Path, description = "The lease.")),
    responses((status = 200, description = "The lease.", body = LeaseView),
        (status = "4XX", description = "No such lease.", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn get(State(app): State<App>, Id(id): Id<LeaseId>) -> Result<Json<LeaseView>, Refused> {
    let known = app.shared.cluster().lease(id).cloned();
    let lease = match known {
        Some(lease) => lease,
        None => {
            let found = app.tables(async |tables| leases::get(tables, id).await).await?;
            found.ok_or_else(|| Refused::no_such_lease(id))?
        }
    };
    let mut view = LeaseView::of(&lease);
    if !lease.is_active() {
        // What memory knows is told without the tables too.
        let steps = app.tables(async |tables| eviction_steps::of_lease(tables, id).await).await;
        view.steps = render::steps(&steps.unwrap_or_default());
    }
    Ok(Json(view))
}

/// Which leases to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ListParams {
    /// States (`active`, `revoking`, `ended`), comma-separated; default `active,revoking`.
    state: Option<String>,
    /// Leases of one job.
    job: Option<Uuid>,
    /// Items of a page, 1 to 500; default 100.
    #[param(minimum = 1, maximum = 500)]
    limit: Option<u32>,
    /// From `next_cursor` of the page before.
    cursor: Option<String>,
}

/// Leases, newest first.
#[utoipa::path(get, path = "/v1/leases", tag = "leases", operation_id = "listLeases", params(ListParams),
    responses((status = 200, description = "A page of leases.", body = Page<LeaseView>),
        (status = "4XX", description = "A parameter is not valid.", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn list(
    State(app): State<App>,
    who: Who,
    Params(params): Params<ListParams>,
) -> Result<Json<Page<LeaseView>>, Refused> {
    let limit = limit_of(params.limit)?;
    let states = list_of(Some(params.state.as_deref().unwrap_or("active,revoking")));
    if let Some(unknown) = states.iter().find(|state| !["active", "revoking", "ended"].contains(&state.as_str())) {
        let detail = format!("{unknown:?} is not one of active, revoking, ended");
        return Err(Refused::invalid_parameter("state", detail));
    }
    let before = params.cursor.as_deref().map(cursor).transpose()?;
    let queues = who.0.queues_in(&app.shared.cluster().policy);
    let filter = LeaseFilter { states, job: params.job, queues, before, limit: limit as i64 + 1 };
    let mut found = app.tables(async |tables| leases::list(tables, &filter).await).await?;
    let more = found.len() > limit;
    found.truncate(limit);
    let next_cursor = found.last().filter(|_| more).map(|lease| format!("{}.{}", lease.granted_at.0, lease.id));
    Ok(Json(Page { items: found.iter().map(LeaseView::of).collect(), next_cursor }))
}

fn cursor(text: &str) -> Result<(DateTime<Utc>, Uuid), Refused> {
    let parsed = text
        .split_once('.')
        .and_then(|(at, id)| Some((DateTime::from_timestamp_millis(at.parse().ok()?)?, id.parse().ok()?)));
    parsed.ok_or_else(|| Refused::invalid_parameter("cursor", "is not a cursor of this list"))
}

/// Extends a lease by the `lease_ttl` of its job. Without one the lease does not lapse and is answered as it is.
#[utoipa::path(post, path = "/v1/leases/{id}/renew", tag = "leases", operation_id = "renewLease",
    params(("id" = Uuid, Path, description = "The lease."),
        ("Idempotency-Key" = Option<String>, Header, description = "The same key replays the first answer.")),
    responses((status = 200, description = "The lease, renewed.", body = LeaseView),
        (status = "4XX", description = "No such lease, or it is being taken or over.", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn renew(
    State(app): State<App>,
    Id(id): Id<LeaseId>,
    mutation: Mutation,
    Raw(raw): Raw,
) -> Result<Answer, Refused> {
    let answer = app.rounds.submit(Command::Renew(id), false, mutation.key(&raw)).await?;
    told_apart(&app, id, answer).await
}

/// Says that the job of a lease has made a checkpoint: an eviction from now on loses only what comes after. Saying it
/// again is as good as saying it once. With `leave`, a lease under notice ends now; the answer is its job then.
#[utoipa::path(post, path = "/v1/leases/{id}/checkpoint", tag = "leases", operation_id = "reportCheckpoint",
    params(("id" = Uuid, Path, description = "The lease."),
        ("Idempotency-Key" = Option<String>, Header, description = "The same key replays the first answer.")),
    request_body(content = CheckpointBody, description = "May be left out."),
    responses((status = 200, description = "The lease, or the job that has left it.", content((LeaseView = "application/json"), (JobView = "application/json"))),
        (status = "4XX", description = "No such lease, or it is over.", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn checkpoint(
    State(app): State<App>,
    Id(id): Id<LeaseId>,
    mutation: Mutation,
    Raw(raw): Raw,
) -> Result<Answer, Refused> {
    let CheckpointBody { step, leave } = match raw.is_empty() {
        true => CheckpointBody::default(),
        false => read_json(&raw).map_err(Refused::invalid)?,
    };
    let answer = app.rounds.submit(Command::Checkpoint { lease: id, step, leave }, false, mutation.key(&raw)).await?;
    told_apart(&app, id, answer).await
}

/// Asks for more time for a lease under notice: once, and at most as much as the policy's `bounds.extension_max`. The
/// answer has the new deadline; the promises on its chips wait as much longer.
#[utoipa::path(post, path = "/v1/leases/{id}/extension", tag = "leases", operation_id = "extendLease",
    params(("id" = Uuid, Path, description = "The lease."),
        ("Idempotency-Key" = Option<String>, Header, description = "The same key replays the first answer.")),
    request_body = ExtensionBody,
    responses((status = 200, description = "The lease, with its new deadline.", body = LeaseView),
        (status = "4XX", description = "No such lease, it is over, it is not being taken, or it has had its extension.", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn extension(
    State(app): State<App>,
    Id(id): Id<LeaseId>,
    mutation: Mutation,
    body: Body<ExtensionBody>,
) -> Result<Answer, Refused> {
    let said = body.value.reason.unwrap_or_default();
    let reason = said.chars().filter(|c| !c.is_control()).take(REASON_MAX).collect();
    let command = Command::Extend { lease: id, by: body.value.by, reason };
    let answer = app.rounds.submit(command, false, mutation.key(&body.raw)).await?;
    told_apart(&app, id, answer).await
}

/// Gives a lease back. A lease being preempted puts its job back to pending; otherwise the job succeeds, or goes back
/// to pending with `requeue`. The chips are free once their nodes prove them vacant.
#[utoipa::path(post, path = "/v1/leases/{id}/release", tag = "leases", operation_id = "releaseLease",
    params(("id" = Uuid, Path, description = "The lease."),
        ("Idempotency-Key" = Option<String>, Header, description = "The same key replays the first answer.")),
    request_body = ReleaseBody,
    responses((status = 200, description = "The job, without the lease.", body = JobView),
        (status = "4XX", description = "No such lease, or it is over.", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn release(
    State(app): State<App>,
    Id(id): Id<LeaseId>,
    mutation: Mutation,
    body: Body<ReleaseBody>,
) -> Result<Answer, Refused> {
    let command = Command::Release { lease: id, requeue: body.value.requeue };
    let answer = app.rounds.submit(command, false, mutation.key(&body.raw)).await?;
    told_apart(&app, id, answer).await
}

/// A round knows live leases only. Tells a lease that is over from one that never was.
async fn told_apart(app: &App, id: LeaseId, answer: Answer) -> Result<Answer, Refused> {
    if answer.status != 404 {
        return Ok(answer);
    }
    match app.tables(async |tables| leases::get(tables, id).await).await? {
        Some(_) => Err(Refused::lease_over(id)),
        None => Ok(answer),
    }
}
