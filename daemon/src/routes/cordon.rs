//! `/v1/nodes/{id}/cordon`, `drain`, `uncordon`: nodes out of service at an operator's word, and back.

use super::extract::{Body, Id, Mutation};
use super::problem::{Answer, Refused};
use super::registration;
use crate::app::App;
use axum::extract::State;
use chiptide_allocator::Command;
use chiptide_api::node::{CordonBody, DrainBody, NodeView};
use chiptide_api::problem::Problem;
use chiptide_model::NodeId;

/// Lets nothing more be granted on a node; who is there may finish. What is promised there is given up.
#[utoipa::path(post, path = "/v1/nodes/{id}/cordon", tag = "nodes", operation_id = "cordonNode",
    params(("id" = String, Path, description = "The node's name."),
        ("Idempotency-Key" = Option<String>, Header, description = "The same key replays the first answer.")),
    request_body = CordonBody,
    responses((status = 200, description = "The node, cordoned.", body = NodeView),
        (status = "4XX", description = "No such node.", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn cordon(
    State(app): State<App>,
    Id(node): Id<NodeId>,
    mutation: Mutation,
    body: Body<CordonBody>,
) -> Result<Answer, Refused> {
    let reason = registration::reason(&body.value.reason).map_err(Refused::invalid)?;
    let (who, key) = (mutation.principal().to_owned(), mutation.key(&body.raw));
    app.rounds.submit(Command::Cordon { node, who, reason }, false, key).await
}

/// Empties a node: cordons it and gives notice to every lease with a replica there, preemptible or not. Each leaves by its
/// own grace, or, with `within`, by then if that is later, and its job waits again. The answer says when the node is empty
/// at the latest.
#[utoipa::path(post, path = "/v1/nodes/{id}/drain", tag = "nodes", operation_id = "drainNode",
    params(("id" = String, Path, description = "The node's name."),
        ("Idempotency-Key" = Option<String>, Header, description = "The same key replays the first answer.")),
    request_body = DrainBody,
    responses((status = 200, description = "The node, being emptied.", body = NodeView),
        (status = "4XX", description = "No such node.", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn drain(
    State(app): State<App>,
    Id(node): Id<NodeId>,
    mutation: Mutation,
    body: Body<DrainBody>,
) -> Result<Answer, Refused> {
    let reason = registration::reason(&body.value.reason).map_err(Refused::invalid)?;
    let (who, key) = (mutation.principal().to_owned(), mutation.key(&body.raw));
    let by = body.value.within.map(|span| app.shared.now() + span);
    tracing::warn!(node = %node, who, reason, "the node is drained");
    app.rounds.submit(Command::Drain { node, who, reason, by }, false, key).await
}

/// Gives a node back to work. Notices that a drain has given stand.
#[utoipa::path(post, path = "/v1/nodes/{id}/uncordon", tag = "nodes", operation_id = "uncordonNode",
    params(("id" = String, Path, description = "The node's name."),
        ("Idempotency-Key" = Option<String>, Header, description = "The same key replays the first answer.")),
    request_body = CordonBody,
    responses((status = 200, description = "The node.", body = NodeView),
        (status = "4XX", description = "No such node, or it is not cordoned.", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn uncordon(
    State(app): State<App>,
    Id(node): Id<NodeId>,
    mutation: Mutation,
    body: Body<CordonBody>,
) -> Result<Answer, Refused> {
    let reason = registration::reason(&body.value.reason).map_err(Refused::invalid)?;
    let (who, key) = (mutation.principal().to_owned(), mutation.key(&body.raw));
    app.rounds.submit(Command::Uncordon { node, who, reason }, false, key).await
}
