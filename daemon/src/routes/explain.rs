//! `/v1/jobs/{id}/explain`: why a job waits, how safe its chips are, why it was evicted.

use super::extract::Id;
use super::problem::Refused;
use crate::app::App;
use crate::render;
use crate::store::{evictions, jobs};
use axum::Json;
use axum::extract::State;
use chiptide_allocator::explain;
use chiptide_api::explain::ExplainView;
use chiptide_api::problem::Problem;
use chiptide_model::JobId;
use std::time::Duration;

/// How long a request waits for its turn before it is told to come back.
const TURN: Duration = Duration::from_secs(5);

/// Why a job waits: everything in its way with numbers, who holds what it lacks, what would help, and when it may start;
/// of a job that holds chips, how safe they are; and of any job, live or over, why it was evicted.
#[utoipa::path(get, path = "/v1/jobs/{id}/explain", tag = "jobs", operation_id = "explainJob",
    params(("id" = Uuid, Path, description = "The job.")),
    responses((status = 200, description = "The explanation.", body = ExplainView),
        (status = 429, description = "Too many explanations at once; try again.", body = Problem, content_type = "application/problem+json"),
        (status = "4XX", description = "No such job.", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn get(State(app): State<App>, Id(id): Id<JobId>) -> Result<Json<ExplainView>, Refused> {
    let told = app.tables(async |tables| evictions::of_job(tables, id).await).await?;
    if app.shared.cluster().job(id).is_some() {
        let turn = tokio::time::timeout(TURN, app.shared.explaining.acquire()).await;
        let _turn =
            turn.ok().and_then(Result::ok).ok_or_else(|| Refused::overloaded("too many explanations at once"))?;
        let (shared, now) = (app.shared.clone(), app.shared.now());
        let explaining = tokio::task::spawn_blocking(move || {
            let cluster = shared.cluster();
            let job = cluster.job(id)?;
            Some(render::explanation(job, cluster.claim(id), Some(explain::job(&cluster, job, now)), &told))
        });
        let view = explaining.await.map_err(|_| Refused::internal("an explanation hit a bug; it is logged"))?;
        if let Some(view) = view {
            return Ok(Json(view));
        }
    }
    over(&app, id).await
}

/// A job that is over, perhaps since a moment ago.
async fn over(app: &App, id: JobId) -> Result<Json<ExplainView>, Refused> {
    let job = app.tables(async |tables| jobs::get(tables, id).await).await?.ok_or_else(|| Refused::no_such_job(id))?;
    let told = app.tables(async |tables| evictions::of_job(tables, id).await).await?;
    Ok(Json(render::explanation(&job, None, None, &told)))
}
