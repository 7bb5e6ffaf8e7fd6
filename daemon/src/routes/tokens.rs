//! `/v1/tokens`: make, see and revoke bearer tokens; `/v1/whoami`.

use super::extract::{Body, Id, Params, limit_of};
use super::problem::Refused;
use crate::access::Who;
use crate::access::tokens::{Minted, is_id, mint};
use crate::app::App;
use crate::store::tokens::{self, TokenRow};
use crate::store::{Result as Stored, column};
use axum::http::StatusCode;
use axum::{Json, extract::State};
use chiptide_api::access::{NewTokenView, Role, TokenBody, TokenView, WhoamiView};
use chiptide_api::page::Page;
use chiptide_api::problem::{Invalid, Problem};
use chiptide_model::{NodeId, Policy, Timestamp};
use chrono::{DateTime, Utc};
use serde::Deserialize;
use sqlx::Connection;
use utoipa::IntoParams;

/// Longest name of a token, bytes.
const NAME_MAX: usize = 100;
/// Most queues of a token.
const QUEUES_MAX: usize = 100;

/// Who the caller is, and what they may do.
#[utoipa::path(get, path = "/v1/whoami", tag = "access", operation_id = "whoami",
    responses((status = 200, description = "The caller.", body = WhoamiView)))]
pub(super) async fn whoami(who: Who) -> Json<WhoamiView> {
    Json(who.0.view())
}

/// Makes a token. Its secret is in this answer and nowhere else, so the answer is not repeated for an idempotency key: one
/// that got lost is revoked, and another made.
#[utoipa::path(post, path = "/v1/tokens", tag = "access", operation_id = "createToken",
    params(("Idempotency-Key" = Option<String>, Header, description = "Ignored: a secret is told once.")),
    request_body = TokenBody,
    responses((status = 201, description = "The token, with its secret.", body = NewTokenView),
        (status = "4XX", description = "Nothing was made.", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn create(
    State(app): State<App>,
    who: Who,
    body: Body<TokenBody>,
) -> Result<(StatusCode, Json<NewTokenView>), Refused> {
    let policy = app.shared.cluster().policy.clone();
    let minted = mint();
    let row = row_of(body.value, &minted, &policy, &who, app.shared.now()).map_err(Refused::invalid)?;
    let about = app.tables(async |pool| {
        let mut connection = pool.acquire().await?;
        tokens::insert(&mut connection, &row).await?;
        tokens::get(&mut connection, &row.id).await
    });
    let about = about.await?.ok_or_else(|| Refused::internal("a token that was just made is gone"))?;
    app.tokens.take_in(row);
    Ok((StatusCode::CREATED, Json(NewTokenView { token: minted.token, about })))
}

fn row_of(body: TokenBody, minted: &Minted, policy: &Policy, who: &Who, now: Timestamp) -> Result<TokenRow, Invalid> {
    let name = body.name.trim();
    if name.is_empty() || name.len() > NAME_MAX || name.contains(char::is_control) {
        let detail = format!("1 to {NAME_MAX} bytes, without control characters");
        return Err(Invalid::new("invalid_field", "name", detail));
    }
    if !body.queues.is_empty() && body.role != Role::Scheduler {
        return Err(Invalid::new("invalid_field", "queues", "only a scheduler is bound to queues"));
    }
    if body.queues.len() > QUEUES_MAX {
        return Err(Invalid::new("out_of_range", "queues", format!("at most {QUEUES_MAX} queues")));
    }
    for (index, queue) in body.queues.iter().enumerate() {
        if !policy.queues.contains_key(queue) {
            let detail = format!("there is no queue {queue:?}");
            return Err(Invalid::new("unknown_queue", format!("queues[{index}]"), detail));
        }
    }
    let node = match (body.role, body.node) {
        (Role::Agent, Some(node)) => {
            let node = NodeId::new(&node).map_err(|error| Invalid::new("invalid_field", "node", error.to_string()))?;
            Some(node.as_str().to_owned())
        }
        (Role::Agent, None) => return Err(Invalid::new("missing_field", "node", "an agent's token names its node")),
        (_, Some(_)) => return Err(Invalid::new("invalid_field", "node", "only an agent is bound to a node")),
        (_, None) => None,
    };
    let expires_at = match body.expires_in {
        None => None,
        Some(span) if span.0 == 0 => return Err(Invalid::new("out_of_range", "expires_in", "must be more than 0s")),
        Some(span) => Some(after(now, span.0)?),
    };
    Ok(TokenRow {
        name: name.to_owned(),
        queues: body.queues,
        node,
        created_by: Some(who.0.id.clone()),
        expires_at,
        ..TokenRow::of(minted, body.role)
    })
}

/// That much later, if the calendar goes so far.
fn after(now: Timestamp, span_ms: u64) -> Result<DateTime<Utc>, Invalid> {
    /// A hundred years, milliseconds.
    const SPAN_MAX: u64 = 100 * 366 * 24 * 3_600_000;
    match i64::try_from(span_ms) {
        Ok(span) if span_ms <= SPAN_MAX => Ok(column(Timestamp(now.0 + span))),
        _ => Err(Invalid::new("out_of_range", "expires_in", "at most a hundred years")),
    }
}

/// Which tokens to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ListParams {
    /// Items of a page, 1 to 500; default 100.
    #[param(minimum = 1, maximum = 500)]
    limit: Option<u32>,
    /// From `next_cursor` of the page before.
    cursor: Option<String>,
}

/// Tokens, newest first, without their secrets; revoked and expired ones too.
#[utoipa::path(get, path = "/v1/tokens", tag = "access", operation_id = "listTokens", params(ListParams),
    responses((status = 200, description = "A page of tokens.", body = Page<TokenView>),
        (status = "4XX", description = "A parameter is not valid.", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn list(
    State(app): State<App>,
    Params(params): Params<ListParams>,
) -> Result<Json<Page<TokenView>>, Refused> {
    let limit = limit_of(params.limit)?;
    let before = params.cursor.as_deref().map(cursor).transpose()?;
    let mut items = app.tables(async |pool| tokens::list(pool, before.clone(), limit as i64 + 1).await).await?;
    let more = items.len() > limit;
    items.truncate(limit);
    let last = items.last().filter(|_| more);
    let next_cursor = last.map(|token| format!("{}.{}", token.created_at.timestamp_micros(), token.id));
    Ok(Json(Page { items, next_cursor }))
}

fn cursor(text: &str) -> Result<(DateTime<Utc>, String), Refused> {
    let parsed = text.split_once('.').and_then(|(at, id)| {
        Some((DateTime::from_timestamp_micros(at.parse().ok()?)?, Some(id.to_owned()).filter(|id| is_id(id))?))
    });
    parsed.ok_or_else(|| Refused::invalid_parameter("cursor", "is not a cursor of this list"))
}

/// Revokes a token. This daemon refuses it from now on, others within two seconds. Revoking it again changes nothing.
#[utoipa::path(delete, path = "/v1/tokens/{id}", tag = "access", operation_id = "revokeToken",
    params(("id" = String, Path, description = "The token's public part.")),
    responses((status = 200, description = "The token, revoked.", body = TokenView),
        (status = "4XX", description = "No such token.", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn revoke(State(app): State<App>, Id(id): Id<String>) -> Result<Json<TokenView>, Refused> {
    if !is_id(&id) {
        return Err(Refused::no_such_token(&id));
    }
    let revoke = async |pool: &sqlx::PgPool| -> Stored<Option<TokenView>> {
        let mut connection = pool.acquire().await?;
        let mut tx = connection.begin().await?;
        tokens::revoke(&mut tx, &id).await?;
        let view = tokens::get(&mut tx, &id).await?;
        tx.commit().await?;
        Ok(view)
    };
    let view = app.tables(revoke).await?.ok_or_else(|| Refused::no_such_token(&id))?;
    app.tokens.forget(&id);
    Ok(Json(view))
}
