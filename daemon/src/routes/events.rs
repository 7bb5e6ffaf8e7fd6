//! `/v1/events`: the log, as it grows (server-sent events) or page by page (JSON).

use super::extract::{Params, limit_of, list_of};
use super::problem::Refused;
use crate::access::Who;
use crate::app::App;
use crate::event_log::{Filter, Watching, read_page, stream};
use crate::store::events;
use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use chiptide_api::event::{EVENT_TYPES, EventView};
use chiptide_api::page::Page;
use chiptide_api::problem::Problem;
use chiptide_model::JobId;
use serde::Deserialize;
use utoipa::IntoParams;

/// Most entries of one list in a filter.
const LISTED_MAX: usize = 100;

/// Which events, and from where on.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct EventParams {
    /// Go on after this position; `0` starts with the first event. `Last-Event-ID` goes before it. Without either: what
    /// happens from now on; of a page, the first events.
    after: Option<u64>,
    /// Start so many positions before the end of the log instead.
    #[param(maximum = 100_000)]
    last: Option<u64>,
    /// Jobs, comma-separated.
    #[param(example = "0190f5c2-8f5e-7d30-9b1c-0a1b2c3d4e5f")]
    job: Option<String>,
    /// Queues, comma-separated.
    queue: Option<String>,
    /// Nodes, comma-separated; a lease counts for every node it spans.
    node: Option<String>,
    /// Types of events, comma-separated, such as `lease_granted,lease_revoked,lease_ended`.
    #[serde(rename = "type")]
    kind: Option<String>,
    /// Of a page: at most so many events, 1 to 500; default 100.
    #[param(minimum = 1, maximum = 500)]
    limit: Option<u32>,
}

/// What happened: every event once, in the order of the log. As server-sent events it goes on for as long as the client reads:
/// `id` is the event's position, `event` its type, `data` the event. A client that was cut off, or whose daemon restarted,
/// goes on with `Last-Event-ID`, and loses nothing. With `Accept: application/json`, one page of the log instead: `next_cursor`
/// is the `after` of the next.
#[utoipa::path(get, path = "/v1/events", tag = "events", operation_id = "watchEvents",
    params(EventParams,
        ("Last-Event-ID" = Option<u64>, Header, description = "The position of the last event seen.")),
    responses((status = 200, description = "The events.", content(
            (EventView = "text/event-stream"),
            (Page<EventView> = "application/json"))),
        (status = "4XX", description = "A parameter is not valid, or too many watch (429).", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The log cannot be read now.", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn watch(
    State(app): State<App>,
    who: Who,
    Params(params): Params<EventParams>,
    headers: HeaderMap,
) -> Result<Response, Refused> {
    let filter = Filter { own: who.0.queues_in(&app.shared.cluster().policy), ..filter(&params)? };
    let limit = limit_of(params.limit)?;
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    let wants_page = accept.contains("application/json") && !accept.contains("text/event-stream");
    let head = app.shared.tail.head().ok_or_else(|| super::standby::not_yet(&app))?;
    let default = if wants_page { 0 } else { head };
    let position = match (asked_position(&params, &headers)?, params.last) {
        (Some(position), _) => position,
        (None, Some(last)) => head.saturating_sub(last),
        (None, None) => default,
    };
    if position > head {
        // Another daemon may be ahead of this one; the table knows.
        let end = app.tables(async |tables| events::end(tables).await).await?;
        if position > end {
            return Err(Refused::invalid_parameter("after", format!("the log ends at position {end}")));
        }
    }
    if wants_page {
        let read = app.tables(async |tables| read_page(tables, &app.shared, position, limit, &filter).await).await?;
        return Ok(
            Json(Page { items: read.events, next_cursor: read.next.map(|next| next.to_string()) }).into_response()
        );
    }
    let place = app.shared.watch_places.clone().try_acquire_owned();
    let place = place.map_err(|_| {
        crate::metrics::shed("watch", "too many at once");
        Refused::overloaded("too many watch events; try again later, or ask another daemon")
    })?;
    let watching = Watching::new(app, filter, position, place);
    let headers = [
        (header::CONTENT_TYPE, "text/event-stream"),
        (header::CACHE_CONTROL, "no-store"),
        // Proxies are to pass it on as it comes.
        (header::HeaderName::from_static("x-accel-buffering"), "no"),
    ];
    Ok((headers, Body::from_stream(stream(watching))).into_response())
}

fn asked_position(params: &EventParams, headers: &HeaderMap) -> Result<Option<u64>, Refused> {
    let Some(header) = headers.get("last-event-id") else { return Ok(params.after) };
    let position = header.to_str().ok().and_then(|text| text.trim().parse().ok());
    position.map(Some).ok_or_else(|| Refused::invalid_parameter("last-event-id", "is not a position of the log"))
}

fn filter(params: &EventParams) -> Result<Filter, Refused> {
    let list = |name: &str, text: &Option<String>| {
        let list = list_of(text.as_deref());
        if list.len() > LISTED_MAX {
            return Err(Refused::invalid_parameter(name, format!("at most {LISTED_MAX} at once")));
        }
        Ok(list)
    };
    let job = |text: String| text.parse::<JobId>().map_err(|e| Refused::invalid_parameter("job", e.to_string()));
    let event_type = |name: String| {
        let unknown = || format!("{name:?} is not one of {}", EVENT_TYPES.join(", "));
        Filter::event_type(&name).ok_or_else(|| Refused::invalid_parameter("type", unknown()))
    };
    Ok(Filter {
        jobs: list("job", &params.job)?.into_iter().map(job).collect::<Result<_, _>>()?,
        queues: list("queue", &params.queue)?,
        nodes: list("node", &params.node)?,
        types: list("type", &params.kind)?.into_iter().map(event_type).collect::<Result<_, _>>()?,
        own: None,
    })
}
