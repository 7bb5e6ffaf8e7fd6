//! `/v1/queues`: what each queue may hold, is owed, holds and borrows.

use crate::app::App;
use crate::render;
use axum::Json;
use axum::extract::State;
use chiptide_api::queue::QueuesView;

/// Every queue, in order of name: what it is guaranteed, its limit, what it uses, borrows and lends, its share, and how
/// many jobs wait in it. The numbers of a queue include those of the queues below it.
#[utoipa::path(get, path = "/v1/queues", tag = "queues", operation_id = "listQueues",
    responses((status = 200, description = "The queues.", body = QueuesView)))]
pub(super) async fn list(State(app): State<App>) -> Json<QueuesView> {
    let now = app.shared.now();
    Json(render::queues(&app.shared.cluster(), now))
}
