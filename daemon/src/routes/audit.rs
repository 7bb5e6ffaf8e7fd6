//! `/v1/audit`, and the layer that keeps it: every call that changes something, or was to. Of what agents and holders say
//! all the time only refusals are kept; what they change is in the log of events.

use super::extract::{Named, Params, limit_of};
use super::guard::rule_of;
use super::problem::{Code, Refused};
use super::rules::Audited;
use crate::access::Who;
use crate::app::App;
use crate::audit::{Entry, Outcome};
use crate::store::audit::{self, AuditFilter};
use axum::Json;
use axum::body::{Body, HttpBody, to_bytes};
use axum::extract::{ConnectInfo, MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use chiptide_api::access::AuditView;
use chiptide_api::page::Page;
use chiptide_api::problem::Problem;
use chiptide_model::{ChipId, JobId, LeaseId, NodeId};
use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::net::SocketAddr;
use utoipa::IntoParams;
use uuid::Uuid;

/// Answers up to here are looked into for what they say; of longer ones only the length is kept.
const READ_MAX: usize = 64 * 1024;
/// Most items of a list that are named.
const ITEMS_MAX: usize = 20;
/// What is kept of an answer. Never a secret.
const FIELDS: [&str; 13] = [
    "id",
    "name",
    "role",
    "queues",
    "node",
    "expires_at",
    "revoked_at",
    "state",
    "revision",
    "version",
    "deadline",
    "session",
    "code",
];

/// What a call changed; the inner layer tells the outer one.
#[derive(Clone, Debug, Default)]
pub(super) struct Change {
    before: Option<Value>,
    after: Option<Value>,
}

/// The answer is another daemon's, which keeps it in the audit itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct PassedOn;

/// Keeps what is called in the audit, whoever refuses it.
pub(super) async fn keep(
    State(app): State<App>,
    route: Option<MatchedPath>,
    Named(named): Named,
    mut request: Request,
    next: Next,
) -> Response {
    let rule = rule_of(&app, request.method(), route.as_ref());
    request.extensions_mut().insert(rule);
    // Before anybody is known nothing can be written down either.
    if rule.audit == Audited::Nothing || !app.tokens.are_loaded() {
        return next.run(request).await;
    }
    let place = match rule.audit {
        Audited::All => match app.audit.place() {
            Some(place) => Some(place),
            None => return Refused::audit_full().into_response(),
        },
        _ => None,
    };
    let action = format!("{} {}", request.method(), route.as_ref().map_or("", MatchedPath::as_str));
    let target = named.map(|named| named.chars().filter(|c| *c != '\0').take(200).collect());
    let address = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|ConnectInfo(address)| address.ip());
    let request_id = request.headers().get("x-request-id").and_then(|id| id.to_str().ok());
    let request_id = request_id.unwrap_or_default().chars().take(200).collect();
    let response = next.run(request).await;
    let outcome = Outcome::of(response.status().as_u16());
    let extensions = response.extensions();
    if extensions.get::<PassedOn>().is_some() || (rule.audit == Audited::Refused && outcome != Outcome::Refused) {
        return response;
    }
    let who = extensions.get::<Who>().map(|who| who.0.clone());
    let change = extensions.get::<Change>().cloned().unwrap_or_default();
    let told = change.after.as_ref().and_then(|after| after["code"].as_str()).map(str::to_owned);
    let code = extensions.get::<Code>().map(|code| code.0.to_owned()).or(told);
    let entry = Entry {
        at: app.shared.now(),
        who: who.as_ref().map_or_else(String::new, |who| who.id.clone()),
        name: who.as_ref().map_or_else(String::new, |who| who.name.clone()),
        role: who.as_ref().map(|who| who.role),
        action,
        target,
        address: address.map_or_else(String::new, |address| address.to_string()),
        request_id,
        outcome,
        status: response.status().as_u16(),
        code,
        before: change.before,
        after: change.after.filter(|_| outcome == Outcome::Allowed),
    };
    match place {
        Some(place) if !entry.who.is_empty() => place.keep(entry),
        _ => app.audit.tell(entry),
    }
    response
}

/// Notes how the target stands before, and what the answer says of it after.
pub(super) async fn note_change(app: &App, route: &str, named: Option<&str>, request: Request, next: Next) -> Response {
    let before = named.and_then(|named| standing(app, route, named));
    let response = next.run(request).await;
    let exact = response.body().size_hint().exact();
    if exact.is_none_or(|length| length > READ_MAX as u64) {
        let mut response = response;
        let after = exact.map(|length| json!({"bytes": length}));
        response.extensions_mut().insert(Change { before, after });
        return response;
    }
    let (mut parts, body) = response.into_parts();
    let Ok(bytes) = to_bytes(body, READ_MAX).await else {
        return Refused::internal("an answer could not be read").into_response();
    };
    let after = serde_json::from_slice(&bytes).ok().and_then(picked);
    parts.extensions.insert(Change { before, after });
    Response::from_parts(parts, Body::from(bytes))
}

/// How a target stands in memory.
fn standing(app: &App, route: &str, named: &str) -> Option<Value> {
    let cluster = app.shared.cluster();
    let id = || named.parse::<Uuid>().ok();
    match route.split('/').nth(2)? {
        "jobs" => {
            let job = cluster.job(JobId(id()?))?;
            Some(json!({"state": job.state.as_str(), "queue": job.spec.queue, "revision": job.revision}))
        }
        "leases" => {
            let lease = cluster.lease(LeaseId(id()?))?;
            Some(json!({"state": if lease.is_active() { "active" } else { "revoking" }, "job": lease.job.0}))
        }
        "chips" => {
            let chip = cluster.chip(&ChipId::new(named).ok()?)?;
            Some(json!({"state": chip.state(&cluster.fleet.nodes[chip.node]).to_string()}))
        }
        "nodes" => {
            let node = cluster.node(&NodeId::new(named).ok()?)?;
            Some(json!({"state": if node.unknown_since.is_some() { "unknown" } else { "up" }}))
        }
        _ => None,
    }
}

/// The fields of an answer that are kept, or those of its items.
fn picked(answer: Value) -> Option<Value> {
    let Value::Object(mut answer) = answer else { return None };
    if let Some(Value::Array(items)) = answer.remove("items") {
        let count = items.len();
        let items: Vec<Value> = items.into_iter().take(ITEMS_MAX).filter_map(picked).collect();
        return Some(json!({"count": count, "items": items}));
    }
    let kept: Map<String, Value> =
        FIELDS.into_iter().filter_map(|field| Some((field.to_owned(), answer.remove(field)?))).collect();
    (!kept.is_empty()).then_some(Value::Object(kept))
}

/// Which entries to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(super) struct ListParams {
    /// The caller's id.
    who: Option<String>,
    /// Method and route, e.g. `POST /v1/jobs/{id}/cancel`.
    action: Option<String>,
    /// What the path names.
    target: Option<String>,
    /// `allowed`, `refused` or `failed`.
    outcome: Option<String>,
    /// At this moment or later.
    from: Option<DateTime<Utc>>,
    /// Before this moment.
    to: Option<DateTime<Utc>>,
    /// Items of a page, 1 to 500; default 100.
    limit: Option<u32>,
    /// From `next_cursor` of the page before.
    cursor: Option<String>,
}

/// Who did what, or was refused, newest first: every call that changes something. Of agents' reports, renewals and
/// checkpoints only refusals are here; what they change is in the events. Nothing here can be changed.
#[utoipa::path(get, path = "/v1/audit", tag = "access", operation_id = "listAudit", params(ListParams),
    responses((status = 200, description = "A page of the audit.", body = Page<AuditView>),
        (status = "4XX", description = "A parameter is not valid.", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn list(
    State(app): State<App>,
    Params(params): Params<ListParams>,
) -> Result<Json<Page<AuditView>>, Refused> {
    let limit = limit_of(params.limit)?;
    if let Some(outcome) = params.outcome.as_ref().filter(|it| !["allowed", "refused", "failed"].contains(&it.as_str()))
    {
        let detail = format!("{outcome:?} is not one of allowed, refused, failed");
        return Err(Refused::invalid_parameter("outcome", detail));
    }
    let texts = [&params.who, &params.action, &params.target];
    if texts.into_iter().flatten().any(|text| text.contains('\0')) {
        return Err(Refused::invalid_parameter("query", "holds a NUL character"));
    }
    let before = params.cursor.map(|cursor| cursor.parse::<i64>()).transpose();
    let filter = AuditFilter {
        who: params.who,
        action: params.action,
        target: params.target,
        outcome: params.outcome,
        from: params.from,
        to: params.to,
        before: before.map_err(|_| Refused::invalid_parameter("cursor", "is not a cursor of this list"))?,
        limit: limit as i64 + 1,
    };
    let mut items = app.tables(async |tables| audit::list(tables, &filter).await).await?;
    let more = items.len() > limit;
    items.truncate(limit);
    let next_cursor = items.last().filter(|_| more).map(|entry| entry.seq.to_string());
    Ok(Json(Page { items, next_cursor }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_secret_is_kept_of_an_answer() {
        let answer = json!({"token": "chiptide_a_secret", "id": "a", "role": "viewer", "name": "x"});
        assert_eq!(picked(answer), Some(json!({"id": "a", "role": "viewer", "name": "x"})));
    }

    #[test]
    fn a_list_is_named_by_its_first_items() {
        let items: Vec<Value> = (0..30).map(|id| json!({"id": id, "spec": {}})).collect();
        let kept = picked(json!({"items": items})).expect("something");
        assert_eq!((kept["count"].as_u64(), kept["items"].as_array().map(Vec::len)), (Some(30), Some(20)));
        assert_eq!(kept["items"][1], json!({"id": 1}));
    }
}
