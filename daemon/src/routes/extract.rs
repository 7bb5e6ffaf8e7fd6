//! What handlers parse out of a request. Every failure is a problem answer that names the field.

use super::BODY_MAX;
use super::problem::Refused;
use crate::access::Who;
use crate::store::idempotency_keys::Key;
use axum::body::{BodyDataStream, Bytes};
use axum::extract::{FromRequest, FromRequestParts, Path, Query, RawPathParams, Request};
use axum::http::header::CONTENT_TYPE;
use axum::http::request::Parts;
use axum::http::{Method, Uri};
use chiptide_api::dry_run::PLAN_HEADER;
use chiptide_api::problem::read_json;
use chiptide_model::Millis;
use futures_util::StreamExt;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};
use std::convert::Infallible;
use std::str::FromStr;
use std::time::Duration;

/// Longest a long-poll waits; longer wishes are shortened.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// A body over the limit is read on to here and thrown away, so that its sender gets to read the answer; past this the
/// connection is cut.
const DISCARD_MAX: usize = 8 * BODY_MAX;

/// How long a client may take to send a body, where nothing else is said.
const BODY_LIMIT: Duration = Duration::from_secs(10);

/// How long the client of this request may take to send its body.
#[derive(Clone, Copy, Debug)]
pub(super) struct BodyLimit(pub(super) Duration);

/// The raw bytes of a body of at most [`BODY_MAX`].
#[derive(Debug)]
pub(super) struct Raw(pub(super) Bytes);

impl<S: Send + Sync> FromRequest<S> for Raw {
    type Rejection = Refused;
    async fn from_request(request: Request, _: &S) -> Result<Raw, Refused> {
        let limit = request.extensions().get::<BodyLimit>().map_or(BODY_LIMIT, |limit| limit.0);
        let deadline = tokio::time::Instant::now() + limit;
        let mut stream = request.into_body().into_data_stream();
        let (mut kept, mut length) = (Vec::new(), 0usize);
        let next = async |stream: &mut BodyDataStream| {
            tokio::time::timeout_at(deadline, stream.next()).await.map_err(|_| Refused::body_too_slow(limit))
        };
        while let Some(chunk) = next(&mut stream).await? {
            let chunk = chunk.map_err(|error| Refused::unreadable_body(error.to_string()))?;
            length = length.saturating_add(chunk.len());
            if length <= BODY_MAX {
                kept.extend_from_slice(&chunk);
            } else if length > DISCARD_MAX {
                break;
            }
        }
        if length <= BODY_MAX { Ok(Raw(kept.into())) } else { Err(Refused::too_large(BODY_MAX)) }
    }
}

/// A JSON body.
#[derive(Debug)]
pub(super) struct Body<T> {
    /// The parsed value.
    pub(super) value: T,
    /// The bytes it was parsed from.
    pub(super) raw: Bytes,
}

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = Refused;
    async fn from_request(request: Request, state: &S) -> Result<Body<T>, Refused> {
        let raw = json_bytes(request, state).await?;
        Ok(Body { value: read_json(&raw).map_err(Refused::invalid)?, raw })
    }
}

/// The bytes of a body that says it is JSON.
pub(super) async fn json_bytes<S: Send + Sync>(request: Request, state: &S) -> Result<Bytes, Refused> {
    let kind = request.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or("application/json");
    let kind = kind.split(';').next().unwrap_or_default().trim();
    if !(kind.eq_ignore_ascii_case("application/json") || kind.ends_with("+json")) {
        return Err(Refused::not_json());
    }
    Ok(Raw::from_request(request, state).await?.0)
}

/// Query parameters.
#[derive(Debug)]
pub(super) struct Params<T>(pub(super) T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Params<T> {
    type Rejection = Refused;
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Params<T>, Refused> {
        let parsed = Query::<T>::try_from_uri(&parts.uri);
        parsed
            .map(|Query(value)| Params(value))
            .map_err(|rejection| Refused::invalid_parameter("query", rejection.body_text()))
    }
}

/// The id at the end of a path, or in the middle of it.
#[derive(Debug)]
pub(super) struct Id<T>(pub(super) T);

impl<T: FromStr, S: Send + Sync> FromRequestParts<S> for Id<T>
where
    T::Err: std::fmt::Display,
{
    type Rejection = Refused;
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Id<T>, Refused> {
        let invalid = |detail: String| Refused::invalid_parameter("id", detail);
        let Path(text) = Path::<String>::from_request_parts(parts, state).await.map_err(|e| invalid(e.body_text()))?;
        text.parse().map(Id).map_err(|error: T::Err| invalid(error.to_string()))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Who {
    type Rejection = Refused;
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Who, Refused> {
        // Every route but those open to all is behind the layer that puts it there.
        parts.extensions.get::<Who>().cloned().ok_or_else(Refused::unauthorized)
    }
}

/// What the path names, if it names something: its first parameter, as it is.
#[derive(Debug)]
pub(super) struct Named(pub(super) Option<String>);

impl<S: Send + Sync> FromRequestParts<S> for Named {
    type Rejection = Infallible;
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Named, Infallible> {
        let params = RawPathParams::from_request_parts(parts, state).await.ok();
        Ok(Named(params.and_then(|params| params.iter().next().map(|(_, value)| value.to_owned()))))
    }
}

/// What makes a mutating request repeatable.
#[derive(Debug)]
pub(super) struct Mutation {
    principal: String,
    key: Option<String>,
    method: Method,
    uri: Uri,
}

impl<S: Send + Sync> FromRequestParts<S> for Mutation {
    type Rejection = Refused;
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Mutation, Refused> {
        let invalid = || Refused::invalid_parameter("idempotency-key", "1 to 255 visible ASCII characters");
        let key = match parts.headers.get("idempotency-key") {
            None => None,
            Some(key) => {
                let key = key.to_str().map_err(|_| invalid())?;
                if key.is_empty() || key.len() > 255 {
                    return Err(invalid());
                }
                Some(key.to_owned())
            }
        };
        let principal = parts.extensions.get::<Who>().map(|who| who.0.id.clone()).unwrap_or_default();
        Ok(Mutation { principal, key, method: parts.method.clone(), uri: parts.uri.clone() })
    }
}

impl Mutation {
    /// Who asks: the public part of their token.
    pub(super) fn principal(&self) -> &str {
        &self.principal
    }

    /// The key, bound to this very request.
    pub(super) fn key(&self, body: &[u8]) -> Option<Key> {
        let key = self.key.clone()?;
        let mut hash = Sha256::new();
        hash.update(self.method.as_str());
        hash.update(b" ");
        hash.update(self.uri.path());
        hash.update(b"\n");
        hash.update(body);
        Some(Key { principal: self.principal.clone(), key, request_hash: hash.finalize().to_vec() })
    }
}

/// How long a request wants to wait for a change.
pub(super) fn wait_of(wait: Option<&str>) -> Result<Duration, Refused> {
    let Some(wait) = wait else { return Ok(Duration::ZERO) };
    let span: Millis = wait
        .parse()
        .map_err(|error: chiptide_model::InvalidDuration| Refused::invalid_parameter("wait", error.to_string()))?;
    Ok(Duration::from_millis(span.0).min(WAIT_MAX))
}

/// How many items a page wants.
pub(super) fn limit_of(limit: Option<u32>) -> Result<usize, Refused> {
    let limit = limit.unwrap_or(chiptide_api::page::PAGE_DEFAULT);
    if (1..=chiptide_api::page::PAGE_MAX).contains(&limit) {
        Ok(limit as usize)
    } else {
        let detail = format!("between 1 and {}", chiptide_api::page::PAGE_MAX);
        Err(Refused::invalid_parameter("limit", detail))
    }
}

/// Splits a comma-separated parameter; empty when absent.
pub(super) fn list_of(text: Option<&str>) -> Vec<String> {
    text.into_iter().flat_map(|text| text.split(',')).filter(|part| !part.is_empty()).map(str::to_owned).collect()
}

/// The plan of a dry run that a change is to follow.
pub(super) fn plan_of(headers: &axum::http::HeaderMap) -> Result<Option<String>, Refused> {
    let Some(plan) = headers.get(PLAN_HEADER) else { return Ok(None) };
    let plan = plan.to_str().unwrap_or_default();
    let is_plan = plan.len() == 32 && plan.bytes().all(|byte| byte.is_ascii_hexdigit());
    let invalid = || Refused::invalid_parameter(PLAN_HEADER, "the `plan` of a dry run: 32 hexadecimal digits");
    is_plan.then(|| Some(plan.to_owned())).ok_or_else(invalid)
}
