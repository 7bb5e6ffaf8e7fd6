//! The contract as the daemon serves it: for programs as JSON and YAML, for people as a page.

use super::reference;
use crate::app::App;
use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderName, header};
use axum::routing::get;
use utoipa::openapi::OpenApi;

/// The routes of the contract itself. They are not in it: they say nothing that it does not.
pub(super) fn router(openapi: &OpenApi) -> Router<App> {
    let json = serde_json::to_value(openapi).expect("a document of string keys is always JSON");
    let yaml = openapi.to_yaml().expect("a document of string keys is always YAML");
    let page = reference::page(&json);
    let json = json.to_string();
    Router::new()
        .merge(document("/v1/openapi.json", "application/json", json.clone()))
        .merge(document("/openapi.json", "application/json", json))
        .merge(document("/openapi.yaml", "application/yaml", yaml))
        .merge(document("/docs", "text/html; charset=utf-8", page))
}

fn document(path: &str, kind: &'static str, text: String) -> Router<App> {
    let bytes = Bytes::from(text);
    let headers: [(HeaderName, &str); 3] = [
        (header::CONTENT_TYPE, kind),
        (header::CACHE_CONTROL, "no-cache"),
        // The page has no script, and needs none.
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'; style-src 'unsafe-inline'"),
    ];
    Router::new().route(path, get(async move || (headers, bytes.clone())))
}
