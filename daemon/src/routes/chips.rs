//! `/v1/chips`: who holds what.

use super::extract::{Params, limit_of};
use super::problem::Refused;
use crate::app::App;
use crate::render;
use axum::Json;
use axum::extract::State;
use chiptide_api::chip::ChipView;
use chiptide_api::page::Page;
use chiptide_api::problem::Problem;
use serde::Deserialize;
use utoipa::IntoParams;

/// Which chips to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(super) struct ListParams {
    /// Chips of one node.
    node: Option<String>,
    /// Chips of one device class.
    device_class: Option<String>,
    /// `free`, `held`, `reclaiming`, `quarantined` or `unknown`.
    state: Option<String>,
    /// Items of a page, 1 to 500; default 100.
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
