//! Puts the id of a request into its problem answer, so that whoever reports a problem names what the log calls it.

use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::middleware::Next;
use axum::response::Response;
use tower_http::request_id::RequestId;

/// No problem is larger, bytes.
const PROBLEM_MAX: usize = 64 * 1024;

/// Adds `request_id` to an answer that is a problem. A problem passed on from the leader has it already, and keeps it.
pub(super) async fn name_problems(request: Request, next: Next) -> Response {
    let id = request.extensions().get::<RequestId>().and_then(|id| id.header_value().to_str().ok()).map(str::to_owned);
    let response = next.run(request).await;
    let is_problem = response.headers().get(CONTENT_TYPE).is_some_and(|kind| kind == "application/problem+json");
    let Some(id) = id.filter(|_| is_problem) else { return response };
    let (mut parts, body) = response.into_parts();
    let Ok(bytes) = to_bytes(body, PROBLEM_MAX).await else { return Response::from_parts(parts, Body::empty()) };
    let named = serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(&bytes).map(|mut problem| {
        problem.entry("request_id").or_insert_with(|| id.into());
        serde_json::Value::Object(problem).to_string()
    });
    match named {
        Ok(named) => {
            parts.headers.remove(CONTENT_LENGTH);
            Response::from_parts(parts, Body::from(named))
        }
        Err(_) => Response::from_parts(parts, Body::from(bytes)),
    }
}
