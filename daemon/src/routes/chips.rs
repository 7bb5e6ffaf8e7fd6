//! `/v1/chips`: who holds what.

use super::extract::{Body, Id, Mutation, Params, limit_of};
use super::problem::{Answer, Refused};
use crate::app::App;
use crate::render;
use axum::Json;
use axum::extract::State;
use chiptide_allocator::Command;
use chiptide_api::chip::{ChipView, ServiceBody};
use chiptide_api::page::Page;
use chiptide_api::problem::{Invalid, Problem};
use chiptide_model::ChipId;
use serde::Deserialize;
use utoipa::IntoParams;

/// Longest reason, bytes.
const REASON_MAX: usize = 400;

/// Which chips to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ListParams {
    /// Chips of one node.
    node: Option<String>,
    /// Chips of one device class.
    device_class: Option<String>,
    /// `free`, `held`, `reclaiming`, `quarantined` or `unknown`.
    state: Option<String>,
    /// Items of a page, 1 to 500; default 100.
    #[param(minimum = 1, maximum = 500)]
    limit: Option<u32>,
    /// From `next_cursor` of the page before.
    cursor: Option<String>,
}

/// Chips with their holders and newest readings, in the order they registered.
#[utoipa::path(get, path = "/v1/chips", tag = "chips", operation_id = "listChips", params(ListParams),
    responses((status = 200, description = "A page of chips.", body = Page<ChipView>),
        (status = "4XX", description = "A parameter is not valid.", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn list(
    State(app): State<App>,
    Params(params): Params<ListParams>,
) -> Result<Json<Page<ChipView>>, Refused> {
    let limit = limit_of(params.limit)?;
    let from = super::index_cursor(params.cursor.as_deref())?;
    let cluster = app.shared.cluster();
    let wanted = |chip: &&chiptide_allocator::fleet::Chip| {
        let node = &cluster.fleet.nodes[chip.node];
        params.node.as_ref().is_none_or(|wanted| node.id.as_str() == wanted)
            && params.device_class.as_ref().is_none_or(|wanted| chip.facts.class.as_str() == wanted)
            && params.state.as_ref().is_none_or(|wanted| chip.state(node).to_string() == *wanted)
    };
    let mut found = cluster.fleet.chips.iter().enumerate().skip(from).filter(|(_, chip)| wanted(chip));
    let page: Vec<_> = found.by_ref().take(limit).collect();
    let next_cursor = found.next().map(|(ix, _)| ix.to_string());
    let view = |(_, chip): &(usize, &chiptide_allocator::fleet::Chip)| {
        render::chip(&cluster.fleet.nodes[chip.node], chip, &app.shared.telemetry)
    };
    Ok(Json(Page { items: page.iter().map(view).collect(), next_cursor }))
}

/// One chip: what it is, who holds it, what is wrong with it.
#[utoipa::path(get, path = "/v1/chips/{id}", tag = "chips", operation_id = "getChip",
    params(("id" = String, Path, description = "The chip.")),
    responses((status = 200, description = "The chip.", body = ChipView),
        (status = "4XX", description = "No such chip.", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn get(State(app): State<App>, Id(id): Id<ChipId>) -> Result<Json<ChipView>, Refused> {
    let cluster = app.shared.cluster();
    let chip = cluster.chip(&id).ok_or_else(|| Refused::no_such_chip(id.as_str()))?;
    Ok(Json(render::chip(&cluster.fleet.nodes[chip.node], chip, &app.shared.telemetry)))
}

/// Takes a chip out of service: nothing more is granted on it until an admin releases it. Who has it may finish.
#[utoipa::path(post, path = "/v1/chips/{id}/quarantine", tag = "chips", operation_id = "quarantineChip",
    params(("id" = String, Path, description = "The chip."),
        ("Idempotency-Key" = Option<String>, Header, description = "The same key replays the first answer.")),
    request_body = ServiceBody,
    responses((status = 200, description = "The chip, out of service.", body = ChipView),
        (status = "4XX", description = "No such chip.", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn quarantine(
    State(app): State<App>,
    Id(chip): Id<ChipId>,
    mutation: Mutation,
    body: Body<ServiceBody>,
) -> Result<Answer, Refused> {
    let reason = reason_of(&body.value)?;
    let command = Command::Quarantine { chip, who: mutation.principal().to_owned(), reason };
    app.rounds.submit(command, false, mutation.key(&body.raw)).await
}

/// Brings a chip back into service: its faults count as over. Refused while a proof of vacancy is owed, which nobody's word
/// replaces.
#[utoipa::path(post, path = "/v1/chips/{id}/release", tag = "chips", operation_id = "releaseChip",
    params(("id" = String, Path, description = "The chip."),
        ("Idempotency-Key" = Option<String>, Header, description = "The same key replays the first answer.")),
    request_body = ServiceBody,
    responses((status = 200, description = "The chip.", body = ChipView),
        (status = "4XX", description = "No such chip, or it cannot be released.", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn release(
    State(app): State<App>,
    Id(chip): Id<ChipId>,
    mutation: Mutation,
    body: Body<ServiceBody>,
) -> Result<Answer, Refused> {
    let reason = reason_of(&body.value)?;
    let command = Command::ReleaseChip { chip, who: mutation.principal().to_owned(), reason };
    app.rounds.submit(command, false, mutation.key(&body.raw)).await
}

fn reason_of(body: &ServiceBody) -> Result<String, Refused> {
    let reason = body.reason.trim();
    if reason.is_empty() || reason.len() > REASON_MAX || reason.contains(char::is_control) {
        let detail = format!("1 to {REASON_MAX} bytes, without control characters");
        return Err(Refused::invalid(Invalid::new("invalid_field", "reason", detail)));
    }
    Ok(reason.to_owned())
}
