//! `/v1/usage`: who had how much chip time, and what became of it.

use super::extract::{Params, list_of};
use super::problem::Refused;
use crate::access::Who;
use crate::app::App;
use crate::store::usage::{self, Question, Row};
use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use chiptide_api::problem::Problem;
use chiptide_api::time::to_utc;
use chiptide_api::usage::{UsageRowView, UsageView};
use chrono::{DateTime, DurationRound, TimeDelta, Utc};
use serde::Deserialize;
use std::time::Duration;
use utoipa::IntoParams;

/// Most rows of an answer.
const ROWS_MAX: i64 = 10_000;
/// How long an answer waits for the accounts to be brought up to date.
const UP_TO_DATE_WAIT: Duration = Duration::from_secs(3);
/// Slot-milliseconds of a chip-second.
const CHIP_SECOND: f64 = 1e6;

/// What to tell apart, and of when.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct UsageParams {
    /// What to tell apart, comma-separated: `hour` or `day`, `queue`, `job`, `class`, and `label:KEY` for one label of jobs.
    /// Without it, one row for all.
    #[param(example = "queue,class")]
    by: Option<String>,
    /// From the hour of this moment on; default seven days before `to`.
    from: Option<DateTime<Utc>>,
    /// Up to the end of the hour of this moment; default now.
    to: Option<DateTime<Utc>>,
    /// Only this queue.
    queue: Option<String>,
    /// Only this device class.
    device_class: Option<String>,
}

/// Chip time by what you ask to be told apart, counted from the event log to the millisecond: granted, vacating, idle and out of
/// service add up to the time that the chips were there. With `Accept: text/csv`, the same as CSV.
#[utoipa::path(get, path = "/v1/usage", tag = "usage", operation_id = "getUsage", params(UsageParams),
    responses((status = 200, description = "The accounts.", content((UsageView = "application/json"), (String = "text/csv"))),
        (status = "4XX", description = "A parameter is not valid, or the answer would be too long.", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The accounts cannot be read now.", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn get(
    State(app): State<App>,
    who: Who,
    Params(params): Params<UsageParams>,
    headers: HeaderMap,
) -> Result<Response, Refused> {
    let now = to_utc(app.shared.now());
    let own = who.0.queues_in(&app.shared.cluster().policy);
    let question = Question { own, ..question(params, now)? };
    if app.shared.leads() {
        app.shared.usage.bring_up_to_date(UP_TO_DATE_WAIT).await;
    }
    let rows = app.tables(async |tables| usage::ask(tables, &question).await).await?;
    if rows.len() as i64 > ROWS_MAX {
        return Err(Refused::invalid_parameter(
            "by",
            format!("more than {ROWS_MAX} rows: tell less apart, or ask of less time"),
        ));
    }
    let as_of = app.tables(async |tables| usage::as_of(tables).await).await?.map(to_utc);
    let view =
        UsageView { from: question.from, to: question.to, as_of, items: rows.into_iter().map(row_view).collect() };
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    match accept.contains("text/csv") {
        true => Ok(([(header::CONTENT_TYPE, "text/csv; charset=utf-8")], csv(&view)).into_response()),
        false => Ok(Json(view).into_response()),
    }
}

fn question(params: UsageParams, now: DateTime<Utc>) -> Result<Question, Refused> {
    let hour = |name: &str, at: DateTime<Utc>| {
        at.duration_trunc(TimeDelta::hours(1)).map_err(|error| Refused::invalid_parameter(name, error.to_string()))
    };
    let to = hour("to", params.to.unwrap_or(now))?;
    let week_before = to.checked_sub_signed(TimeDelta::days(7)).unwrap_or(to);
    let from = hour("from", params.from.unwrap_or(week_before))?;
    let to = to.checked_add_signed(TimeDelta::hours(1)).unwrap_or(to);
    if from >= to {
        return Err(Refused::invalid_parameter("from", "is not before `to`"));
    }
    let has_nul = |text: &Option<String>| text.as_ref().is_some_and(|text| text.contains('\0'));
    if has_nul(&params.by) || has_nul(&params.queue) || has_nul(&params.device_class) {
        return Err(Refused::invalid_parameter("query", "holds a NUL character"));
    }
    let (queue, device_class) = (params.queue, params.device_class);
    let mut question = Question {
        from,
        to,
        unit: None,
        by_queue: false,
        by_job: false,
        by_class: false,
        label: None,
        queue,
        device_class,
        own: None,
        limit: ROWS_MAX + 1,
    };
    for by in list_of(params.by.as_deref()) {
        match by.as_str() {
            "hour" => question.unit = Some("hour"),
            "day" => question.unit = Some("day"),
            "queue" => question.by_queue = true,
            "job" => question.by_job = true,
            "class" => question.by_class = true,
            other => match other.strip_prefix("label:").filter(|key| !key.is_empty()) {
                Some(key) => question.label = Some(key.to_owned()),
                None => {
                    let detail = format!("{other:?} is not one of hour, day, queue, job, class, label:KEY");
                    return Err(Refused::invalid_parameter("by", detail));
                }
            },
        }
    }
    Ok(question)
}

fn row_view(row: Row) -> UsageRowView {
    let chip_seconds = |slot_ms: i64| slot_ms as f64 / CHIP_SECOND;
    let amounts = row.amounts;
    UsageRowView {
        time: row.time,
        queue: row.queue,
        device_class: row.device_class,
        label: row.label,
        job: row.job,
        granted: chip_seconds(amounts.granted),
        vacating: chip_seconds(amounts.vacating),
        idle: chip_seconds(amounts.idle),
        out_of_service: chip_seconds(amounts.out_of_service),
        total: chip_seconds(amounts.total()),
        busy: chip_seconds(amounts.busy),
        borrowed: chip_seconds(amounts.borrowed),
        lent: chip_seconds(amounts.lent),
        lost_to_preemption: chip_seconds(amounts.lost_to_preemption),
        lost_to_faults: chip_seconds(amounts.lost_to_faults),
    }
}

fn csv(view: &UsageView) -> String {
    let mut text = "time,queue,device_class,label,job,granted,vacating,idle,out_of_service,total,busy,borrowed,lent,\
                    lost_to_preemption,lost_to_faults\r\n"
        .to_owned();
    for row in &view.items {
        let words = [
            row.time.map(|time| time.to_rfc3339()),
            row.queue.clone(),
            row.device_class.clone(),
            row.label.clone(),
            row.job.map(|job| job.to_string()),
        ];
        let amounts = [
            row.granted,
            row.vacating,
            row.idle,
            row.out_of_service,
            row.total,
            row.busy,
            row.borrowed,
            row.lent,
            row.lost_to_preemption,
            row.lost_to_faults,
        ];
        let words = words.map(|word| quoted(&word.unwrap_or_default()));
        let fields: Vec<String> = words.into_iter().chain(amounts.map(|amount| amount.to_string())).collect();
        text.push_str(&fields.join(","));
        text.push_str("\r\n");
    }
    text
}

/// A field of CSV. One that a spreadsheet would take for a formula is kept from being one.
fn quoted(word: &str) -> String {
    let word = if word.starts_with(['=', '+', '-', '@']) { format!("'{word}") } else { word.to_owned() };
    match word.contains([',', '"', '\r', '\n']) {
        true => format!("\"{}\"", word.replace('"', "\"\"")),
        false => word,
    }
}
