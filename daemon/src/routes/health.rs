//! `/healthz`, `/readyz`, `/version`, `/metrics`, and the contract itself.

use super::problem::Refused;
use crate::app::App;
use crate::role::Part;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use chiptide_api::time::to_utc;
use chrono::{DateTime, Utc};
use metrics_exporter_prometheus::PrometheusHandle;
use serde::Serialize;
use utoipa::ToSchema;

/// Whether the process lives. Needs no token.
#[utoipa::path(get, path = "/healthz", tag = "health", operation_id = "health", security(()),
    responses((status = 200, description = "It lives.", body = String, content_type = "text/plain")))]
pub(super) async fn health() -> &'static str {
    "ok\n"
}

/// Whether the daemon serves, and what is wrong if it does not.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ReadyView {
    /// `ready`; `starting`: nothing is answered yet; `stale`: reads are answered from memory, writes are refused.
    status: &'static str,
    /// `ok`, `starting`, or what is wrong with the database: `unreachable`, `too_many_connections`, `disk_full`,
    /// `out_of_resources`, `slow`, `read_only`, `access_denied`, `no_database`, `too_old`, `schema_newer`, `schema_altered`,
    /// `migration_failed`, `conflict`, `inconsistent`, `refused`; or `no_leader`.
    reason: &'static str,
    /// The same for people.
    detail: String,
    /// Since when it has been so.
    since: DateTime<Utc>,
    /// How old an answer from memory may be, milliseconds; absent while memory is current.
    #[serde(skip_serializing_if = "Option::is_none")]
    stale_ms: Option<u64>,
    /// What an admin should know of the database although it serves.
    warnings: Vec<String>,
    /// `leader`; `standby`: another daemon leads, or none does. A standby passes on to the leader what only that may
    /// answer, and is `ready` while the leader answers; a load balancer may send to either.
    role: &'static str,
    /// The leader, as far as a standby knows it.
    #[serde(skip_serializing_if = "Option::is_none")]
    leader: Option<LeaderView>,
}

/// The daemon that leads.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct LeaderView {
    /// Where it can be reached.
    url: String,
    /// Its epoch: every takeover has a higher one.
    epoch: u64,
}

/// Whether the daemon serves. Needs no token, and asks nothing of the database.
#[utoipa::path(get, path = "/readyz", tag = "health", operation_id = "ready", security(()),
    responses((status = 200, description = "It serves.", body = ReadyView), (status = 503, description = "It does not serve yet, or not all.", body = ReadyView)))]
pub(super) async fn ready(State(app): State<App>) -> (StatusCode, Json<ReadyView>) {
    let (health, role) = (app.shared.health.report(), &app.shared.role);
    let (status, reason, detail) = match role.part() {
        Part::Standby(_) if role.stands_by() && app.shared.health.complaint().is_none() => {
            ("ready", "ok", "stands by, and passes on to the leader what only that may answer".to_owned())
        }
        Part::Standby(_) if role.stale_ms().is_some() && app.shared.health.complaint().is_none() => {
            ("stale", "no_leader", "stands by; no leader is known, or it does not answer".to_owned())
        }
        Part::Lapsed if health.status == "ready" => {
            ("stale", "no_leader", "has led, and could not renew its leadership in time".to_owned())
        }
        _ => (health.status, health.reason, health.detail),
    };
    let (part, leader) = match role.part() {
        Part::Leader | Part::Lapsed => ("leader", None),
        Part::Standby(leader) => ("standby", leader),
    };
    let view = ReadyView {
        status,
        reason,
        detail,
        since: to_utc(health.since),
        stale_ms: app.shared.health.stale_ms().max(role.stale_ms()),
        warnings: health.warnings,
        role: part,
        leader: leader.map(|leader| LeaderView { url: leader.url, epoch: leader.epoch }),
    };
    let code = if status == "ready" { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (code, Json(view))
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
    app.rounds.waiting().into_iter().for_each(|(lane, waiting)| crate::metrics::round_queue(lane, waiting));
    handle.run_upkeep();
    Ok(handle.render())
}
