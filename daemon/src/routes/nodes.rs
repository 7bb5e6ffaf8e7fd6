//! `/v1/nodes`: agents register, report and fetch their orders; people look.

use super::extract::{Body, Id, Mutation, Params, limit_of, wait_of};
use super::problem::{Answer, Refused};
use super::registration::{self, Registration};
use crate::app::App;
use crate::telemetry::Taken;
use crate::{metrics, orders, render, renewals, workloads};
use axum::Json;
use axum::extract::State;
use chiptide_allocator::{Command, RefusedGrant, Report, report};
use chiptide_api::node::{DeclareOffBody, NodeView, OrdersView, RegisterBody, RegisterView, ReportBody, ReportView};
use chiptide_api::page::Page;
use chiptide_api::problem::{Invalid, Problem};
use chiptide_api::work::LadderStepBody;
use chiptide_model::{ChipId, LadderStep, LeaseId, NodeId, SessionId, Timestamp};
use serde::Deserialize;
use std::time::Instant;
use utoipa::IntoParams;
use uuid::Uuid;

/// Most faults told in one report.
const FAULTS_MAX: usize = 1024;
/// Steps there are.
const LADDER_MAX: usize = 5;

/// Registers an agent and everything its node has; answers the session it reports under. A new boot id ends the leases
/// that ran on the node; the same boot id means that only the agent restarted.
#[utoipa::path(post, path = "/v1/nodes/{id}/register", tag = "agents", operation_id = "registerNode",
    params(("id" = String, Path, description = "The node's name."),
        ("Idempotency-Key" = Option<String>, Header, description = "The same key replays the first answer.")),
    request_body = RegisterBody,
    responses((status = 200, description = "Registered.", body = RegisterView),
        (status = "4XX", description = "Not registered; nothing changed.", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn register(
    State(app): State<App>,
    Id(node): Id<NodeId>,
    mutation: Mutation,
    body: Body<RegisterBody>,
) -> Result<Answer, Refused> {
    let session = SessionId(Uuid::new_v4());
    let Registration { facts, chips, boot_id, seen } = registration::parse(body.value).map_err(Refused::invalid)?;
    let command = Command::Register { node: node.clone(), session, boot_id, facts, chips, seen };
    app.shared.telemetry.registering(&node, Instant::now());
    let answer = app.rounds.submit(command, false, mutation.key(&body.raw)).await;
    match &answer {
        Ok(answer) if answer.status == 200 && !answer.replayed => {
            app.shared.telemetry.registered(&node, session, app.shared.now(), Instant::now());
        }
        _ => app.shared.telemetry.not_registered(&node),
    }
    answer
}

/// Takes a report in. Readings go to the latest-value table; only what changes a decision waits for a commit. The answer
/// carries the node's orders when they are newer than `orders_seen`.
#[utoipa::path(post, path = "/v1/nodes/{id}/report", tag = "agents", operation_id = "reportNode",
    params(("id" = String, Path, description = "The node's name."),
        ("Idempotency-Key" = Option<String>, Header, description = "Reports are repeatable by session and sequence number; a key adds a check that the body is the same.")),
    request_body = ReportBody,
    responses((status = 200, description = "Taken in, or ignored as old.", body = ReportView),
        (status = "4XX", description = "Refused; nothing changed.", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn report_in(
    State(app): State<App>,
    Id(node): Id<NodeId>,
    mutation: Mutation,
    body: Body<ReportBody>,
) -> Result<Answer, Refused> {
    let key = mutation.key(&body.raw);
    let report = body.value;
    let mut parsed = parse_report(&node, &report).map_err(Refused::invalid)?;
    check_session(&app, &node, &report)?;
    let Taken { accepted, declared_silent } =
        app.shared.telemetry.accept(&node, &report, app.shared.now(), Instant::now());
    if !accepted {
        metrics::report_ignored();
    }
    parsed.ladders = ladders(&app, &node, &report);
    let told = parsed.ladders.clone();
    let (news, fenced) = {
        let cluster = app.shared.cluster();
        let fenced = accepted && cluster.node(&node).is_some_and(|node| renewals::is_fenced(&cluster, node));
        match accepted {
            true if declared_silent && fenced => (Some(parsed), fenced),
            true => (report::news(&cluster, parsed), fenced),
            false => (None, fenced),
        }
    };
    // A round is committed by the leader only, and after the report has come: it says as much as a look at who leads.
    let mut renewed = false;
    let command = match (news, &key) {
        (Some(news), _) => Some(Command::Report(news)),
        (None, Some(_)) => Some(Command::Nothing),
        (None, None) => None,
    };
    if let Some(command) = command {
        let answer = app.rounds.submit(command, false, key).await;
        if answer.as_ref().map_or(true, |answer| answer.status >= 500) {
            app.shared.telemetry.may_repeat(&node, &report);
        }
        let answer = answer?;
        if answer.status != 200 {
            return Ok(answer);
        }
        renewed = fenced && !answer.replayed;
    } else if fenced {
        renewed = app.renewals.confirm().await;
    }
    if accepted {
        app.shared.telemetry.note_ladders(&node, &told, &report);
        heed_ends(&app, &report).await;
    }
    let cluster = app.shared.cluster();
    let state = cluster.node(&node).ok_or_else(|| Refused::not_registered(node.as_str()))?;
    let is_news =
        report.orders_seen.as_ref().is_none_or(|seen| *seen != orders::revision(&cluster, state, &app.shared.logs));
    Ok(Answer::json(
        200,
        &ReportView {
            accepted,
            renewed,
            orders: is_news.then(|| orders::of(&cluster, state, &app.shared.logs, app.shared.now())),
        },
    ))
}

/// Steps that the log does not have yet, with their times.
fn ladders(app: &App, node: &NodeId, report: &ReportBody) -> Vec<(LeaseId, Vec<LadderStep>)> {
    let now = app.shared.now();
    let at = |step: &LadderStepBody| {
        let ago = i64::try_from(step.ago.0).unwrap_or(i64::MAX);
        LadderStep { step: step.step.step(), at: Timestamp(now.0.saturating_sub(ago).max(0)) }
    };
    let news = report.ladders.iter().filter(|ladder| app.shared.telemetry.is_news(node, ladder));
    news.map(|ladder| (LeaseId(ladder.lease), ladder.steps.iter().take(LADDER_MAX).map(at).collect())).collect()
}

/// Draws what follows from workloads that the report says have ended. A refusal means that something else has settled it.
async fn heed_ends(app: &App, report: &ReportBody) {
    for lease in workloads::ended(&report.work) {
        let verdict = {
            let cluster = app.shared.cluster();
            let lease = cluster.lease(lease);
            let job = lease.and_then(|lease| cluster.job(lease.job)).filter(|job| job.spec.workload.is_some());
            lease.zip(job).and_then(|(lease, job)| workloads::verdict(lease, job, &app.shared.telemetry))
        };
        if let Some(command) = verdict {
            // The agent says it again until its lease is gone, so a full queue costs a moment.
            let _ = app.rounds.submit(command, false, None).await;
        }
    }
}

fn check_session(app: &App, node: &NodeId, report: &ReportBody) -> Result<(), Refused> {
    let cluster = app.shared.cluster();
    let known = cluster.node(node).ok_or_else(|| Refused::not_registered(node.as_str()))?;
    // A session that was withdrawn matches nobody.
    if known.session.0 != report.session || report.session.is_nil() || known.boot_id != report.boot_id {
        return Err(Refused::stale_session(node.as_str()));
    }
    let foreign = report.chips.iter().position(|chip| {
        let owner = cluster.chip(&match ChipId::new(&chip.id) {
            Ok(id) => id,
            Err(_) => return true,
        });
        owner.is_none_or(|owner| cluster.fleet.nodes[owner.node].id != *node)
    });
    match foreign {
        None => Ok(()),
        Some(index) => {
            let detail = "the chip was not registered by this node";
            Err(Refused::invalid(Invalid::new("unknown_chip", format!("chips[{index}].id"), detail)))
        }
    }
}

fn parse_report(node: &NodeId, body: &ReportBody) -> Result<Report, Invalid> {
    let chip_id = |field: String, id: &str| {
        ChipId::new(id).map_err(|error| Invalid::new("invalid_field", field, error.to_string()))
    };
    let mut health = Vec::with_capacity(body.chips.len());
    for (index, chip) in body.chips.iter().enumerate() {
        let id = chip_id(format!("chips[{index}].id"), &chip.id)?;
        if health.iter().any(|(known, _)| *known == id) {
            return Err(Invalid::new("duplicate_chip", format!("chips[{index}].id"), "the chip is listed twice"));
        }
        health.push((id, registration::health(&chip.health)));
    }
    let vacant = body.vacant.iter().enumerate().map(|(index, vacant)| {
        let id = chip_id(format!("vacant[{index}].chip"), &vacant.chip)?;
        Ok((id, LeaseId(vacant.lease), vacant.epoch))
    });
    if body.faults.len() > FAULTS_MAX {
        return Err(Invalid::new("out_of_range", "faults", format!("at most {FAULTS_MAX} faults a report")));
    }
    let faults = body.faults.iter().enumerate().map(|(index, fault)| fault.parse(&format!("faults[{index}]")));
    let refused = body.refused.iter().enumerate().map(|(index, refused)| {
        Ok(RefusedGrant {
            lease: LeaseId(refused.lease),
            chip: chip_id(format!("refused[{index}].chip"), &refused.chip)?,
            epoch: refused.epoch,
            seen: registration::epoch(format!("refused[{index}].seen"), refused.seen)?,
            seen_lease: refused.seen_lease.map(LeaseId),
        })
    });
    Ok(Report {
        node: node.clone(),
        session: SessionId(body.session),
        health,
        ladders: Vec::new(),
        confirmed: body.confirmed.iter().map(|lease| LeaseId(*lease)).collect(),
        vacant: vacant.collect::<Result<_, Invalid>>()?,
        faults: faults.collect::<Result<_, Invalid>>()?,
        refused: refused.collect::<Result<_, Invalid>>()?,
        fenced: body.fenced.iter().map(|lease| LeaseId(*lease)).collect(),
    })
}

/// How to wait for orders.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct OrdersParams {
    /// The session from registration.
    session: Uuid,
    /// The revision already seen; waits until the orders differ from it.
    after: Option<String>,
    /// Wait so long for a change (`30s`, at most `60s`).
    wait: Option<String>,
}

/// Everything wanted of a node now. With `wait` and `after`, a long-poll until it differs.
#[utoipa::path(get, path = "/v1/nodes/{id}/orders", tag = "agents", operation_id = "getNodeOrders",
    params(("id" = String, Path, description = "The node's name."), OrdersParams),
    responses((status = 200, description = "The orders.", body = OrdersView),
        (status = "4XX", description = "Unknown node or session.", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn get_orders(
    State(app): State<App>,
    Id(node): Id<NodeId>,
    Params(params): Params<OrdersParams>,
) -> Result<Json<OrdersView>, Refused> {
    let deadline = tokio::time::Instant::now() + wait_of(params.wait.as_deref())?;
    let watch = app.shared.watchers.watch(crate::watchers::Topic::Node(node.clone()));
    loop {
        let changed = watch.changed();
        {
            let cluster = app.shared.cluster();
            let known = cluster.node(&node).ok_or_else(|| Refused::not_registered(node.as_str()))?;
            if known.session.0 != params.session || params.session.is_nil() {
                return Err(Refused::stale_session(node.as_str()));
            }
            let same = params
                .after
                .as_ref()
                .is_some_and(|after| *after == orders::revision(&cluster, known, &app.shared.logs));
            if !same || app.shared.stopping.is_cancelled() || tokio::time::Instant::now() >= deadline {
                return Ok(Json(orders::of(&cluster, known, &app.shared.logs, app.shared.now())));
            }
        }
        let look_again = tokio::time::Instant::now() + super::jobs::LOOK_AGAIN;
        tokio::select! {
            () = changed => {}
            () = app.shared.stopping.cancelled() => {}
            () = tokio::time::sleep_until(deadline.min(look_again)) => {}
        }
    }
}

/// One node.
#[utoipa::path(get, path = "/v1/nodes/{id}", tag = "nodes", operation_id = "getNode",
    params(("id" = String, Path, description = "The node's name.")),
    responses((status = 200, description = "The node.", body = NodeView),
        (status = "4XX", description = "No such node.", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn get(State(app): State<App>, Id(node): Id<NodeId>) -> Result<Json<NodeView>, Refused> {
    let cluster = app.shared.cluster();
    let known = cluster.node(&node).ok_or_else(|| Refused::not_registered(node.as_str()))?;
    Ok(Json(render::node(&cluster, known, &app.shared.telemetry)))
}

/// Declares that a machine is off: every lease there is over and its jobs wait again, also those that wait for their node.
/// Only for a node that is not heard, and only when nothing can run there any more: what was promised to hold without clocks
/// holds by this word alone. Its chips are granted again once the node has come back and proven them vacant.
#[utoipa::path(post, path = "/v1/nodes/{id}/declare-off", tag = "nodes", operation_id = "declareNodeOff",
    params(("id" = String, Path, description = "The node's name."),
        ("Idempotency-Key" = Option<String>, Header, description = "The same key replays the first answer.")),
    request_body = DeclareOffBody,
    responses((status = 200, description = "Declared; the log says by whom and why.", body = Object),
        (status = "4XX", description = "No such node, or it reports.", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn declare_off(
    State(app): State<App>,
    Id(node): Id<NodeId>,
    mutation: Mutation,
    body: Body<DeclareOffBody>,
) -> Result<Answer, Refused> {
    let reason = registration::reason(&body.value.reason).map_err(Refused::invalid)?;
    let (by, key) = (mutation.principal().to_owned(), mutation.key(&body.raw));
    tracing::warn!(node = %node, by, reason, "the machine is declared off");
    app.rounds.submit(Command::DeclareOff { node, by, reason }, false, key).await
}

/// Which nodes to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ListParams {
    /// `up` or `unknown`.
    state: Option<String>,
    /// Items of a page, 1 to 500; default 100.
    #[param(minimum = 1, maximum = 500)]
    limit: Option<u32>,
    /// From `next_cursor` of the page before.
    cursor: Option<String>,
}

/// Nodes, in the order they first registered.
#[utoipa::path(get, path = "/v1/nodes", tag = "nodes", operation_id = "listNodes", params(ListParams),
    responses((status = 200, description = "A page of nodes.", body = Page<NodeView>),
        (status = "4XX", description = "A parameter is not valid.", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn list(
    State(app): State<App>,
    Params(params): Params<ListParams>,
) -> Result<Json<Page<NodeView>>, Refused> {
    let limit = limit_of(params.limit)?;
    let from = super::index_cursor(params.cursor.as_deref())?;
    let cluster = app.shared.cluster();
    let known = |node: &chiptide_allocator::fleet::Node| if node.unknown_since.is_none() { "up" } else { "unknown" };
    let wanted =
        |node: &chiptide_allocator::fleet::Node| params.state.as_ref().is_none_or(|state| known(node) == state);
    let mut found = cluster.fleet.nodes.iter().enumerate().skip(from).filter(|(_, node)| wanted(node));
    let items =
        found.by_ref().take(limit).map(|(_, node)| render::node(&cluster, node, &app.shared.telemetry)).collect();
    let next_cursor = found.next().map(|(ix, _)| ix.to_string());
    Ok(Json(Page { items, next_cursor }))
}
