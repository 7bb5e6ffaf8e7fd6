//! How agents come in: an admin makes a join token, a new agent gives it for a credential of its node, and renews that.

use super::extract::{Body, Id};
use super::problem::Refused;
use crate::access::tokens::{hash, is_id, mint};
use crate::access::{Identity, Who};
use crate::app::App;
use crate::store::column;
use crate::store::join_tokens::{self, Joined};
use crate::store::tokens::{self, TokenRow};
use axum::http::StatusCode;
use axum::{Extension, Json, extract::State};
use chiptide_api::access::{JoinBody, JoinTokenBody, JoinTokenView, NewTokenView, Role, TokenView};
use chiptide_api::problem::{Invalid, Problem};
use chiptide_model::{Millis, NodeId, Timestamp};
use std::sync::Arc;

/// What a join token begins with: nobody takes it for a bearer token.
const PREFIX: &str = "chiptidejoin_";
/// How long a join token is good when nothing is said, and at most.
const SPAN: (Millis, Millis) = (Millis::from_secs(600), Millis::from_secs(24 * 3600));
/// How long a credential stays good after another was made in its place, seconds: its agent may not have got the answer.
const GRACE_S: i32 = 600;

/// Makes a join token: the means by which one new agent comes in, once. The answer is not repeated for an idempotency key.
#[utoipa::path(post, path = "/v1/join-tokens", tag = "access", operation_id = "createJoinToken",
    params(("Idempotency-Key" = Option<String>, Header, description = "Ignored: a secret is told once.")),
    request_body = JoinTokenBody,
    responses((status = 201, description = "The join token.", body = JoinTokenView),
        (status = "4XX", description = "Nothing was made.", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn create(
    State(app): State<App>,
    who: Who,
    body: Body<JoinTokenBody>,
) -> Result<(StatusCode, Json<JoinTokenView>), Refused> {
    let node = body.value.node.as_deref().map(node_of).transpose().map_err(Refused::invalid)?;
    let span = body.value.expires_in.unwrap_or(SPAN.0);
    if span.0 == 0 || span.0 > SPAN.1.0 {
        return Err(Refused::invalid(Invalid::new(
            "out_of_range",
            "expires_in",
            format!("more than 0s, at most {}", SPAN.1),
        )));
    }
    let expires_at = column(Timestamp(app.shared.now().0.saturating_add(span.0 as i64)));
    let minted = mint();
    let name = node.as_ref().map(NodeId::as_str);
    app.tables(async |pool| join_tokens::insert(pool, &minted, name, &who.0.id, expires_at).await).await?;
    let secret = minted.token.strip_prefix("chiptide_").unwrap_or_default();
    let view = JoinTokenView {
        join_token: format!("{PREFIX}{secret}"),
        id: minted.id.clone(),
        node: name.map(str::to_owned),
        expires_at,
    };
    Ok((StatusCode::CREATED, Json(view)))
}

/// Gives a join token for a credential of the node: a token of role `agent` that acts for this node and no other. Needs no
/// other token. A join token that names its node takes the place of the credentials that node had; one that names none is
/// refused where there is one.
#[utoipa::path(post, path = "/v1/join", tag = "agents", operation_id = "join", security(()),
    params(("Idempotency-Key" = Option<String>, Header, description = "Ignored: a join token is good once.")),
    request_body = JoinBody,
    responses((status = 201, description = "The node's credential.", body = NewTokenView),
        (status = "4XX", description = "Not let in.", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn join(
    State(app): State<App>,
    body: Body<JoinBody>,
) -> Result<(StatusCode, Extension<Who>, Json<NewTokenView>), Refused> {
    if app.joining.0.take(app.joining.1, app.started.elapsed()).is_err() {
        return Err(Refused::too_fast());
    }
    let node = node_of(&body.value.node).map_err(Refused::invalid)?;
    let parts = body.value.join_token.strip_prefix(PREFIX).and_then(|rest| rest.split_once('_'));
    let (id, secret) = parts.filter(|(id, _)| is_id(id)).ok_or_else(Refused::not_let_in)?;
    let minted = mint();
    let joined = app.tables(async |pool| join_tokens::join(pool, id, &hash(secret), node.as_str(), &minted).await);
    let (row, revoked) = match joined.await? {
        Joined::Credential { row, revoked } => (*row, revoked),
        Joined::NotTaken => return Err(Refused::not_let_in()),
        Joined::NodeTaken => return Err(Refused::node_taken(node.as_str())),
    };
    revoked.iter().for_each(|old| app.tokens.forget(old));
    // For the audit: whoever had the join token.
    let joiner = Identity {
        id: format!("join:{id}"),
        name: "a join token".into(),
        role: Role::Agent,
        queues: Vec::new(),
        node: Some(node),
        expires_at: None,
        pace: Default::default(),
    };
    let about = take_in(&app, row).await?;
    Ok((StatusCode::CREATED, Extension(Who(Arc::new(joiner))), Json(NewTokenView { token: minted.token, about })))
}

/// Makes a new credential for the node in place of the one that asks, which stays good for ten minutes more.
#[utoipa::path(post, path = "/v1/nodes/{id}/credential", tag = "agents", operation_id = "renewCredential",
    params(("id" = String, Path, description = "The node's name."),
        ("Idempotency-Key" = Option<String>, Header, description = "Ignored: a secret is told once.")),
    responses((status = 201, description = "The new credential.", body = NewTokenView),
        (status = "4XX", description = "Refused.", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn renew(
    State(app): State<App>,
    who: Who,
    Id(node): Id<NodeId>,
) -> Result<(StatusCode, Json<NewTokenView>), Refused> {
    let minted = mint();
    let row = join_tokens::credential(&minted, node.as_str(), &who.0.id);
    let rotated =
        app.tables(async |pool| join_tokens::rotate(&mut *pool.acquire().await?, &row, &who.0.id, GRACE_S).await);
    rotated.await?;
    let about = take_in(&app, row).await?;
    Ok((StatusCode::CREATED, Json(NewTokenView { token: minted.token, about })))
}

/// A credential that was just written down, in force here and as it is told.
async fn take_in(app: &App, row: TokenRow) -> Result<TokenView, Refused> {
    let about = app.tables(async |pool| tokens::get(&mut *pool.acquire().await?, &row.id).await).await?;
    app.tokens.take_in(row);
    about.ok_or_else(|| Refused::internal("a token that was just made is gone"))
}

fn node_of(name: &str) -> Result<NodeId, Invalid> {
    NodeId::new(name).map_err(|error| Invalid::new("invalid_field", "node", error.to_string()))
}
