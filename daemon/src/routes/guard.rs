//! The two layers that keep people to what they may do: who they are and what their role allows, before anything is passed
//! on; and, where the answer is made, whether the job, lease or node is theirs. A job or lease of a queue that is not
//! theirs is, for them, not there.

use super::audit;
use super::extract::Named;
use super::problem::Refused;
use super::rules::{About, Audited, Rule};
use super::standby;
use crate::access::{Identity, Right, Who, jwks, tokens};
use crate::app::App;
use crate::store::{jobs, leases};
use axum::Extension;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum_server::tls::TlsInfo;
use chiptide_api::access::Role;
use chiptide_model::{JobId, LeaseId};
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

/// The rule of a request.
pub(super) fn rule_of(app: &App, method: &Method, route: Option<&MatchedPath>) -> Rule {
    // Where there is no route there is nothing to guard but the answer that says so.
    let nowhere = Rule { right: Some(Right::BeKnown), about: About::All, audit: Audited::Nothing };
    route.map_or(nowhere, |route| app.rules.of(method, route.as_str()))
}

/// Lets nobody in who is not known, but for health, and nobody further than their role goes.
pub(super) async fn admit_known(
    State(app): State<App>,
    Extension(rule): Extension<Rule>,
    mut request: Request,
    next: Next,
) -> Response {
    let is_open = rule.right == Some(Right::ReadMetrics) && app.anonymous_metrics;
    let Some(right) = rule.right.filter(|_| !is_open) else { return next.run(request).await };
    let who = match known(&app, request.headers(), request.extensions().get::<Arc<TlsInfo>>().cloned()).await {
        Ok(who) => Who(who),
        Err(refused) => return refused.into_response(),
    };
    let mut response = if let Err(wait) = who.0.pace.take(app.rate, app.started.elapsed()) {
        crate::metrics::shed("token", "too fast");
        too_fast(wait)
    } else if !right.belongs_to(who.0.role) {
        Refused::forbidden(who.0.role, right).into_response()
    } else {
        request.extensions_mut().insert(who.clone());
        standby::answer(&app, request, next).await
    };
    response.extensions_mut().insert(who);
    response
}

/// Who sends a request: by its token, else by the certificate of its connection.
async fn known(app: &App, headers: &HeaderMap, tls: Option<Arc<TlsInfo>>) -> Result<Arc<Identity>, Refused> {
    if !app.tokens.are_loaded() {
        return Err(standby::not_yet(app));
    }
    let now = app.shared.now();
    let Some(token) = bearer(headers) else {
        let shown = tls.as_ref().and_then(|tls| tls.peer_certificates.first());
        return shown.and_then(|der| app.certificates.identity(der, now)).ok_or_else(Refused::unauthorized);
    };
    if let Some(known) = app.tokens.identity(token, now) {
        return Ok(known);
    }
    if tokens::parts(token).is_none()
        && let Some(oidc) = &app.oidc
    {
        let found = oidc.identity(token, now).await;
        let found = found.map_err(|jwks::Unavailable| Refused::unavailable("the issuer's keys cannot be had now"))?;
        return found.ok_or_else(Refused::unauthorized);
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

/// Keeps a scheduler to the jobs of its queues, and an agent to its node; and notes what is changed.
pub(super) async fn keep_to_own(
    State(app): State<App>,
    route: Option<MatchedPath>,
    Named(named): Named,
    request: Request,
    next: Next,
) -> Response {
    let rule = request.extensions().get::<Rule>().copied();
    let who = request.extensions().get::<Who>().cloned();
    let (Some(rule), Some(route)) = (rule, route) else { return next.run(request).await };
    // Who is not known here has come to what is open to all.
    let role = who.as_ref().map(|who| who.0.role);
    let is_bound = match rule.about {
        About::All => false,
        About::Job | About::Lease => role == Some(Role::Scheduler),
        About::Node => role == Some(Role::Agent),
    };
    let named = named.as_deref();
    if is_bound
        && let Some(Who(who)) = who
        && let Err(refused) = owns(&app, &who, rule.about, named.unwrap_or_default()).await
    {
        return refused.into_response();
    }
    match rule.audit {
        Audited::All => audit::note_change(&app, route.as_str(), named, request, next).await,
        Audited::Refused | Audited::Nothing => next.run(request).await,
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
