//! `/v1/policy:dry-run` and `/v1/jobs:dry-run`: the allocator's own code on a copy of the live cluster, off the rounds'
//! thread, nothing committed.

use super::extract::{Raw, json_bytes};
use super::policy::text_of;
use super::problem::Refused;
use crate::access::Who;
use crate::app::App;
use crate::{policy_document, render};
use axum::Json;
use axum::extract::{Request, State};
use axum::http::HeaderMap;
use chiptide_allocator::rehearsal::{self, Rehearsal};
use chiptide_allocator::{Command, PolicyChange, Refusal, Round};
use chiptide_api::dry_run::DryRunView;
use chiptide_api::job::CreateBody;
use chiptide_api::policy_document::PolicyDocument;
use chiptide_api::problem::Problem;
use chiptide_model::{JobId, Policy};
use std::time::Duration;

/// How long a request waits for its turn before it is told to come back.
const TURN: Duration = Duration::from_secs(5);

/// What a policy would do if it were put in force now: who would be evicted with what lost, who would start, how queues
/// would stand. Nothing is done. The plan it names can be asked for with the change itself.
#[utoipa::path(post, path = "/v1/policy:dry-run", tag = "policy", operation_id = "dryRunPolicy",
    request_body(content((PolicyDocument = "application/json"), (PolicyDocument = "application/yaml"))),
    responses((status = 200, description = "What would happen.", body = DryRunView),
        (status = 422, description = "The document contradicts itself; told by field and line.", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "Another dry run is under way; try again.", body = Problem, content_type = "application/problem+json"),
        (status = "4XX", description = "Refused.", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn policy(
    State(app): State<App>,
    headers: HeaderMap,
    Raw(raw): Raw,
) -> Result<Json<DryRunView>, Refused> {
    let text = text_of(&headers, &raw)?;
    let policy = policy_document::parse(text).map_err(|faults| Refused::invalid_policy(&faults))?;
    let change = PolicyChange { policy, after: None, author: String::new(), reason: String::new() };
    let (mut view, _) = rehearse(&app, Command::ChangePolicy(Box::new(change))).await?;
    for warning in &mut view.warnings {
        warning.line = policy_document::line_of(text, &warning.field);
    }
    Ok(Json(view))
}

/// What jobs would meet if they were submitted now: where they would run, whom they would evict, or why they would wait.
/// Nothing is done.
#[utoipa::path(post, path = "/v1/jobs:dry-run", tag = "jobs", operation_id = "dryRunJobs", request_body = CreateBody,
    responses((status = 200, description = "What would happen.", body = DryRunView),
        (status = 429, description = "Another dry run is under way; try again.", body = Problem, content_type = "application/problem+json"),
        (status = "4XX", description = "The jobs would be refused.", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn jobs(State(app): State<App>, who: Who, request: Request) -> Result<Json<DryRunView>, Refused> {
    let raw = json_bytes(request, &app).await?;
    let (jobs, many) = super::jobs::parse(&app, &who, &raw)?;
    let (view, refusal) = rehearse(&app, Command::Submit(jobs)).await?;
    refusal.map_or(Ok(Json(view)), |refusal| Err(Refused::of(&refusal, many)))
}

/// Rehearses a command on a copy of what is committed, one at a time: a copy takes memory, and the rounds wait while it is
/// made.
async fn rehearse(app: &App, command: Command) -> Result<(DryRunView, Option<Refusal>), Refused> {
    let turn = tokio::time::timeout(TURN, app.shared.rehearsing.acquire()).await;
    let _turn = turn.ok().and_then(Result::ok).ok_or_else(|| Refused::overloaded("another dry run is under way"))?;
    let (shared, round) = (app.shared.clone(), Round { now: app.shared.now(), seed: rand::random() });
    let rehearsing = tokio::task::spawn_blocking(move || {
        let copy = shared.cluster().clone();
        let before: Policy = copy.policy.clone();
        let commands = vec![command];
        let new_jobs: Vec<JobId> = rehearsal::new_jobs(&commands);
        let told: Rehearsal = rehearsal::rehearse(copy, commands, round);
        let refusal = told.answers.iter().find_map(|answer| answer.as_ref().err().cloned());
        (render::dry_run(&told, &before, &new_jobs), refusal)
    });
    rehearsing.await.map_err(|_| Refused::internal("a dry run hit a bug; it is logged"))
}
