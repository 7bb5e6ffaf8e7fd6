//! `/v1/leases`: look, renew, give back.

use super::extract::{Body, Id, Mutation, Params, Raw, limit_of, list_of};
use super::problem::{Answer, Refused};
use crate::app::App;
use crate::store::leases::{self, LeaseFilter};
use axum::Json;
use axum::extract::State;
use chiptide_allocator::Command;
use chiptide_api::job::JobView;
use chiptide_api::lease::{LeaseView, ReleaseBody};
use chiptide_api::page::Page;
use chiptide_api::problem::Problem;
use chiptide_model::LeaseId;
use chrono::{DateTime, Utc};
use serde::Deserialize;
use utoipa::IntoParams;
use uuid::Uuid;

/// One lease, live or ended.
#[utoipa::path(get, path = "/v1/leases/{id}", tag = "leases", operation_id = "getLease",
    params(("id" = Uuid, Path, description = "The lease.")),
    responses((status = 200, description = "The lease.", body = LeaseView),
        (status = "4XX", description = "No such lease.", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn get(State(app): State<App>, Id(id): Id<LeaseId>) -> Result<Json<LeaseView>, Refused> {
    if let Some(lease) = app.shared.cluster().lease(id) {
        return Ok(Json(LeaseView::of(lease)));
    }
    let lease =
        app.tables(async |tables| leases::get(tables, id).await).await?.ok_or_else(|| Refused::no_such_lease(id))?;
    Ok(Json(LeaseView::of(&lease)))
}

/// Which leases to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(super) struct ListParams {
    /// States (`active`, `revoking`, `ended`), comma-separated; default `active,revoking`.
    state: Option<String>,
    /// Leases of one job.
    job: Option<Uuid>,
    /// Items of a page, 1 to 500; default 100.
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
    Params(params): Params<ListParams>,
) -> Result<Json<Page<LeaseView>>, Refused> {
    let limit = limit_of(params.limit)?;
    let states = list_of(Some(params.state.as_deref().unwrap_or("active,revoking")));
    if let Some(unknown) = states.iter().find(|state| !["active", "revoking", "ended"].contains(&state.as_str())) {
        let detail = format!("{unknown:?} is not one of active, revoking, ended");
        return Err(Refused::invalid_parameter("state", detail));
    }
    let before = params.cursor.as_deref().map(cursor).transpose()?;
    let filter = LeaseFilter { states, job: params.job, before, limit: limit as i64 + 1 };
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
/// again is as good as saying it once.
#[utoipa::path(post, path = "/v1/leases/{id}/checkpoint", tag = "leases", operation_id = "reportCheckpoint",
    params(("id" = Uuid, Path, description = "The lease."),
        ("Idempotency-Key" = Option<String>, Header, description = "The same key replays the first answer.")),
    responses((status = 200, description = "The lease.", body = LeaseView),
        (status = "4XX", description = "No such lease, or it is over.", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn checkpoint(
    State(app): State<App>,
    Id(id): Id<LeaseId>,
    mutation: Mutation,
    Raw(raw): Raw,
) -> Result<Answer, Refused> {
    let answer = app.rounds.submit(Command::Checkpoint { lease: id }, false, mutation.key(&raw)).await?;
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
