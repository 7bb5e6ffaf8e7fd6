//! `/v1/policy`: what is in force, its history, another one, back to an earlier one.

use super::extract::{Body, Mutation, Params, Raw, limit_of, plan_of};
use super::problem::{Answer, Refused};
use crate::app::App;
use crate::store::policies;
use crate::{policy_document, render};
use axum::Json;
use axum::extract::{FromRequestParts, Path, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use chiptide_allocator::{Command, PolicyChange};
use chiptide_api::page::Page;
use chiptide_api::policy::{PolicyAppliedView, PolicyVersionView, PolicyView, RollbackBody};
use chiptide_api::policy_document::PolicyDocument;
use chiptide_api::problem::{Invalid, Problem};
use chiptide_model::Policy;
use serde::Deserialize;
use utoipa::IntoParams;

/// Longest reason, bytes.
const REASON_MAX: usize = 1000;

/// A version number in the path.
pub(super) struct Version(u64);

impl<S: Send + Sync> FromRequestParts<S> for Version {
    type Rejection = Refused;
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Version, Refused> {
        let number = Path::<u64>::from_request_parts(parts, state).await;
        let Path(number) = number.map_err(|_| Refused::invalid_parameter("version", "is not a version number"))?;
        Ok(Version(number))
    }
}

/// The policy in force, with its version as the `ETag`.
#[utoipa::path(get, path = "/v1/policy", tag = "policy", operation_id = "getPolicy",
    responses((status = 200, description = "The policy in force.", body = PolicyView, headers(("etag" = String, description = "Its version; send it as If-Match with a change."))),
        (status = 503, description = "The database does not serve.", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn get(State(app): State<App>) -> Result<Response, Refused> {
    let policy = app.shared.cluster().policy.clone();
    let known = app.tables(async |tables| policies::get(tables, policy.version).await).await?;
    let version = known.ok_or_else(|| Refused::no_such_policy(policy.version))?;
    Ok(with_etag(version.policy.version, Json(render::policy_view(&version)).into_response()))
}

fn with_etag(version: u64, mut response: Response) -> Response {
    if let Ok(tag) = HeaderValue::from_str(&format!("\"{version}\"")) {
        response.headers_mut().insert(header::ETAG, tag);
    }
    response
}

/// Why the policy is changed.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct PutParams {
    /// Why, in your words, at most 1000 bytes; kept with the version.
    #[serde(default)]
    reason: String,
}

/// Puts another policy in force, whole and at once: JSON, or YAML as `application/yaml`. What it leaves out is as in a new
/// cluster. The answer comes after the commit and says what changed, from when each change counts, and what to beware of.
#[utoipa::path(put, path = "/v1/policy", tag = "policy", operation_id = "putPolicy",
    params(PutParams, ("If-Match" = String, Header, description = "The version this change was made from, or `*`."),
        ("Chiptide-Plan" = Option<String>, Header, description = "The plan of a dry run of this document: done exactly so, or refused (`plan_stale`)."),
        ("Idempotency-Key" = Option<String>, Header, description = "The same key replays the first answer.")),
    request_body(content((PolicyDocument = "application/json"), (PolicyDocument = "application/yaml"))),
    responses((status = 200, description = "In force.", body = PolicyAppliedView, headers(("etag" = String, description = "The new version."))),
        (status = 412, description = "Another policy came into force meanwhile.", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "The document contradicts itself; told by field and line.", body = Problem, content_type = "application/problem+json"),
        (status = 428, description = "If-Match is missing.", body = Problem, content_type = "application/problem+json"),
        (status = "4XX", description = "Refused; nothing changed.", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn put(
    State(app): State<App>,
    Params(params): Params<PutParams>,
    mutation: Mutation,
    headers: HeaderMap,
    Raw(raw): Raw,
) -> Result<Response, Refused> {
    let after = if_match(&headers)?.ok_or_else(Refused::if_match_required)?;
    let text = text_of(&headers, &raw)?;
    let policy = policy_document::parse(text).map_err(|faults| Refused::invalid_policy(&faults))?;
    let change = PolicyChange {
        policy,
        after: after.version(),
        author: mutation.principal().to_owned(),
        reason: reason_of(params.reason)?,
    };
    let answer = change_policy(&app, change, &mutation, &raw, plan_of(&headers)?).await?;
    Ok(tagged(answer, Some(text)))
}

/// Which version a change may follow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Seen {
    /// Whatever is in force.
    Any,
    /// This one.
    Version(u64),
}

impl Seen {
    fn version(self) -> Option<u64> {
        match self {
            Seen::Any => None,
            Seen::Version(version) => Some(version),
        }
    }
}

/// The version that the sender has seen, if they say so.
pub(super) fn if_match(headers: &HeaderMap) -> Result<Option<Seen>, Refused> {
    let Some(tag) = headers.get(header::IF_MATCH) else { return Ok(None) };
    let tag = tag.to_str().unwrap_or_default().trim();
    if tag == "*" {
        return Ok(Some(Seen::Any));
    }
    let number = tag.trim_start_matches("W/").trim_matches('"').parse();
    number
        .map(|version| Some(Seen::Version(version)))
        .map_err(|_| Refused::invalid_parameter("if-match", "the version you have read, as in the ETag: \"7\"; or *"))
}

/// The text of a body that says it is JSON or YAML.
pub(super) fn text_of<'a>(headers: &HeaderMap, raw: &'a [u8]) -> Result<&'a str, Refused> {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or("application/json");
    let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let known = ["application/json", "application/yaml", "application/x-yaml", "text/yaml", "text/plain"];
    if !known.contains(&kind.as_str()) && !kind.ends_with("+json") && !kind.ends_with("+yaml") {
        return Err(Refused::not_a_document());
    }
    std::str::from_utf8(raw).map_err(|_| Refused::unreadable_body("the body is not UTF-8"))
}

pub(super) fn reason_of(reason: String) -> Result<String, Refused> {
    let reason = reason.trim();
    if reason.len() > REASON_MAX || reason.contains(char::is_control) {
        let detail = format!("at most {REASON_MAX} bytes, without control characters");
        return Err(Refused::invalid(Invalid::new("invalid_field", "reason", detail)));
    }
    Ok(reason.to_owned())
}

async fn change_policy(
    app: &App,
    change: PolicyChange,
    mutation: &Mutation,
    raw: &[u8],
    plan: Option<String>,
) -> Result<Answer, Refused> {
    tracing::info!(author = change.author, reason = change.reason, "a policy is put in force");
    app.rounds.submit_as(Command::ChangePolicy(Box::new(change)), false, mutation.key(raw), plan).await
}

/// The answer to a change with the new version as its `ETag`, and the lines that its warnings are about.
fn tagged(mut answer: Answer, text: Option<&str>) -> Response {
    let view = serde_json::from_str::<PolicyAppliedView>(&answer.body).ok().filter(|_| answer.status == 200);
    let Some(mut view) = view else { return answer.into_response() };
    for warning in &mut view.warnings {
        warning.line = text.and_then(|text| policy_document::line_of(text, &warning.field));
    }
    answer.body = crate::store::json(&view);
    with_etag(view.version, answer.into_response())
}

/// A page of the history.
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

/// Every version there was, newest first, with what each changed of the one before.
#[utoipa::path(get, path = "/v1/policy/versions", tag = "policy", operation_id = "listPolicyVersions", params(ListParams),
    responses((status = 200, description = "A page of versions.", body = Page<PolicyVersionView>),
        (status = "4XX", description = "A parameter is not valid.", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn versions(
    State(app): State<App>,
    Params(params): Params<ListParams>,
) -> Result<Json<Page<PolicyVersionView>>, Refused> {
    let limit = limit_of(params.limit)?;
    let before = params.cursor.map(|cursor| cursor.parse::<u64>()).transpose();
    let before = before.map_err(|_| Refused::invalid_parameter("cursor", "is not a cursor of this list"))?;
    // One more than shown: the last one is shown against it.
    let found = app.tables(async |tables| policies::list(tables, before, limit as i64 + 1).await).await?;
    let shown = found.iter().take(limit).enumerate();
    let items = shown.map(|(at, version)| render::policy_version(version, found.get(at + 1).map(|v| &v.policy)));
    let items: Vec<PolicyVersionView> = items.collect();
    let next_cursor = (found.len() > limit).then(|| items.last().map(|last| last.version.to_string())).flatten();
    Ok(Json(Page { items, next_cursor }))
}

/// One version, whole.
#[utoipa::path(get, path = "/v1/policy/versions/{version}", tag = "policy", operation_id = "getPolicyVersion",
    params(("version" = u64, Path, description = "Its number.")),
    responses((status = 200, description = "The version.", body = PolicyView),
        (status = "4XX", description = "No such version.", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn version(State(app): State<App>, Version(number): Version) -> Result<Json<PolicyView>, Refused> {
    let known = app.tables(async |tables| policies::get(tables, number).await).await?;
    known.map(|version| Json(render::policy_view(&version))).ok_or_else(|| Refused::no_such_policy(number))
}

/// Puts an earlier version in force again, as a new version.
#[utoipa::path(post, path = "/v1/policy/versions/{version}/rollback", tag = "policy", operation_id = "rollBackPolicy",
    params(("version" = u64, Path, description = "The version to go back to."),
        ("If-Match" = Option<String>, Header, description = "The version in force, if nobody else's change is to be undone unseen."),
        ("Idempotency-Key" = Option<String>, Header, description = "The same key replays the first answer.")),
    request_body = RollbackBody,
    responses((status = 200, description = "In force again.", body = PolicyAppliedView, headers(("etag" = String, description = "The new version."))),
        (status = "4XX", description = "Refused; nothing changed.", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn rollback(
    State(app): State<App>,
    Version(number): Version,
    mutation: Mutation,
    headers: HeaderMap,
    body: Body<RollbackBody>,
) -> Result<Response, Refused> {
    let after = if_match(&headers)?.and_then(Seen::version);
    let known = app.tables(async |tables| policies::get(tables, number).await).await?;
    let policy: Policy = known.ok_or_else(|| Refused::no_such_policy(number))?.policy;
    let said = reason_of(body.value.reason)?;
    let reason = if said.is_empty() {
        format!("back to version {number}")
    } else {
        format!("{said} (back to version {number})")
    };
    let change = PolicyChange { policy, after, author: mutation.principal().to_owned(), reason };
    Ok(tagged(change_policy(&app, change, &mutation, &body.raw, None).await?, None))
}

/// The JSON Schema of the document, for editors.
#[utoipa::path(get, path = "/v1/policy/schema", tag = "policy", operation_id = "getPolicySchema",
    responses((status = 200, description = "A JSON Schema (2020-12).", body = Object)))]
pub(super) async fn schema() -> Json<serde_json::Value> {
    Json(chiptide_api::policy_document::json_schema())
}
