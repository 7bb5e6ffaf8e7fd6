//! `/healthz`, `/readyz`, `/version`, `/metrics`, and the contract itself.

use super::problem::Refused;
use crate::app::App;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use metrics_exporter_prometheus::PrometheusHandle;
use serde::Serialize;
use utoipa::ToSchema;

/// Whether the process lives. Needs no token.
#[utoipa::path(get, path = "/healthz", tag = "health", operation_id = "health", security(()),
    responses((status = 200, description = "It lives.", body = String, content_type = "text/plain")))]
pub(super) async fn health() -> &'static str {
    "ok\n"
}

/// Whether the daemon serves.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ReadyView {
    /// It leads, its memory is whole, and the database answers.
    ready: bool,
    /// It leads and its memory is whole.
    leading: bool,
    /// The database answers.
    database: bool,
}

/// Whether the daemon serves. Needs no token.
#[utoipa::path(get, path = "/readyz", tag = "health", operation_id = "ready", security(()),
    responses((status = 200, description = "It serves.", body = ReadyView), (status = 503, description = "It does not serve yet, or not now.", body = ReadyView)))]
pub(super) async fn ready(State(app): State<App>) -> (StatusCode, Json<ReadyView>) {
    let (leading, database) = (app.shared.is_ready(), app.store.answers().await);
    let ready = leading && database;
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(ReadyView { ready, leading, database }))
}

/// What is running.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct VersionView {
    /// Version of the daemon.
    version: &'static str,
    /// Version of the API.
    api: &'static str,
}

/// What is running.
#[utoipa::path(get, path = "/version", tag = "health", operation_id = "version",
    responses((status = 200, description = "The versions.", body = VersionView)))]
pub(super) async fn version() -> Json<VersionView> {
    Json(VersionView { version: env!("CARGO_PKG_VERSION"), api: "v1" })
}

/// Prometheus metrics.
#[utoipa::path(get, path = "/metrics", tag = "health", operation_id = "metrics",
    responses((status = 200, description = "The metrics.", body = String, content_type = "text/plain")))]
pub(super) async fn metrics(
    State(app): State<App>,
    handle: Option<axum::Extension<PrometheusHandle>>,
) -> Result<String, Refused> {
    let axum::Extension(handle) = handle.ok_or_else(|| Refused::unavailable("no metrics are kept"))?;
    crate::metrics::observe(&app.shared.cluster());
    handle.run_upkeep();
    Ok(handle.render())
}
