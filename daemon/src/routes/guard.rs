//! The two layers that keep people to what they may do: who they are and what their role allows, before anything is passed
//! on; and, where the answer is made, whether the job, lease or node is theirs. A job or lease of a queue that is not
//! theirs is, for them, not there.

use super::problem::Refused;
use super::rules::{About, Audited, Rule};
use super::standby;
use crate::access::{Identity, Who};
use crate::app::App;
use crate::store::{jobs, leases};
use axum::extract::{FromRequestParts, MatchedPath, RawPathParams, Request, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use chiptide_api::access::Role;
use chiptide_model::{JobId, LeaseId};
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

/// Lets nobody in who is not known, but for health, and nobody further than their role goes.
pub(super) async fn admit_known(
    State(app): State<App>,
    route: Option<MatchedPath>,
    mut request: Request,
    next: Next,
) -> Response {
    // Where there is no route there is nothing to guard but the answer that says so.
    let nowhere = Rule { right: Some(crate::access::Right::BeKnown), about: About::All, audit: Audited::Nothing };
    let rule = route.map_or(nowhere, |route| app.rules.of(request.method(), route.as_str()));
    request.extensions_mut().insert(rule);
    let is_open = rule.right == Some(crate::access::Right::ReadMetrics) && app.anonymous_metrics;
    let Some(right) = rule.right.filter(|_| !is_open) else { return next.run(request).await };
    let who = match known(&app, request.headers()).await {
        Ok(who) => who,
        Err(refused) => return refused.into_response(),
    };
    if let Err(wait) = who.pace.take(app.rate, app.started.elapsed()) {
        crate::metrics::shed("token", "too fast");
        return too_fast(wait);
    }
    if !right.belongs_to(who.role) {
        return Refused::forbidden(who.role, right).into_response();
    }
    request.extensions_mut().insert(Who(who));
    standby::answer(&app, request, next).await
}

/// Who sends a request with these headers.
async fn known(app: &App, headers: &HeaderMap) -> Result<Arc<Identity>, Refused> {
    if !app.tokens.are_loaded() {
        return Err(standby::not_yet(app));
    }
    let token = bearer(headers).ok_or_else(Refused::unauthorized)?;
    let now = app.shared.now();
    if let Some(known) = app.tokens.identity(token, now) {
        return Ok(known);
    }
    let found = app.tables(async |pool| app.tokens.find(pool, token, now).await).await?;
    found.ok_or_else(Refused::unauthorized)
}

/// The bearer token of these headers.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let header = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = header.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

fn too_fast(wait: Duration) -> Response {
    let mut response = Refused::too_fast().into_response();
    let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds.max(1)));
    response
}

/// Keeps a scheduler to the jobs of its queues, and an agent to its node.
pub(super) async fn keep_to_own(State(app): State<App>, request: Request, next: Next) -> Response {
    let rule = request.extensions().get::<Rule>().copied();
    let who = request.extensions().get::<Who>().cloned();
    // What has no rule or nobody known has come here as open to all.
    let (Some(rule), Some(Who(who))) = (rule, who) else { return next.run(request).await };
    let is_bound = match rule.about {
        About::All => false,
        About::Job | About::Lease => who.role == Role::Scheduler,
        About::Node => who.role == Role::Agent,
    };
    if !is_bound {
        return next.run(request).await;
    }
    let (mut parts, body) = request.into_parts();
    let named = match RawPathParams::from_request_parts(&mut parts, &app).await {
        Ok(params) => params.iter().next().map(|(_, value)| value.to_owned()).unwrap_or_default(),
        // A path that cannot be read names nothing of theirs.
        Err(_) => String::new(),
    };
    match owns(&app, &who, rule.about, &named).await {
        Ok(()) => next.run(Request::from_parts(parts, body)).await,
        Err(refused) => refused.into_response(),
    }
}

/// Whether what a path names belongs to somebody; what cannot be anybody's is left to the handler, which says so.
async fn owns(app: &App, who: &Identity, about: About, named: &str) -> Result<(), Refused> {
    match about {
        About::All => Ok(()),
        About::Node if who.node.as_ref().is_some_and(|node| node.as_str() == named) => Ok(()),
        About::Node => Err(Refused::not_its_node(who.node.as_ref().map_or("", |node| node.as_str()))),
        About::Job => match named.parse::<Uuid>() {
            Ok(id) if !owns_job(app, who, JobId(id)).await? => Err(Refused::no_such_job(JobId(id))),
            _ => Ok(()),
        },
        About::Lease => match named.parse::<Uuid>() {
            Ok(id) if !owns_lease(app, who, LeaseId(id)).await? => Err(Refused::no_such_lease(LeaseId(id))),
            _ => Ok(()),
        },
    }
}

async fn owns_job(app: &App, who: &Identity, id: JobId) -> Result<bool, Refused> {
    {
        let cluster = app.shared.cluster();
        if let Some(job) = cluster.job(id) {
            return Ok(who.has_queue(&cluster.policy, &job.spec.queue));
        }
    }
    let job = app.tables(async |tables| jobs::get(tables, id).await).await?;
    let cluster = app.shared.cluster();
    Ok(job.is_some_and(|job| who.has_queue(&cluster.policy, &job.spec.queue)))
}

async fn owns_lease(app: &App, who: &Identity, id: LeaseId) -> Result<bool, Refused> {
    let live = app.shared.cluster().lease(id).map(|lease| lease.job);
    let job = match live {
        Some(job) => Some(job),
        None => app.tables(async |tables| leases::get(tables, id).await).await?.map(|lease| lease.job),
    };
    match job {
        Some(job) => owns_job(app, who, job).await,
        None => Ok(false),
    }
}
