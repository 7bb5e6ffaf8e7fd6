//! Who answers a request: this daemon, when it leads; else the leader, to whom it is passed on. A read that the leader does
//! not answer is answered from our copy, with its age.

use super::audit::PassedOn;
use super::extract::Raw;
use super::problem::Refused;
use crate::app::App;
use crate::forwarding::{FORWARDED_BY, Failed};
use crate::metrics;
use crate::role::{Leader, Part};
use axum::body::{Body, Bytes};
use axum::extract::{FromRequest, Request};
use axum::http::request::Parts;
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

/// How old an answer from memory may be, in milliseconds, while it may be older than what is committed.
const STALE: HeaderName = HeaderName::from_static("chiptide-stale-ms");

/// Answers a request whose sender is known.
pub(super) async fn answer(app: &App, request: Request, next: Next) -> Response {
    let path = request.uri().path();
    if !path.starts_with("/v1/") || path == "/v1/openapi.json" {
        return next.run(request).await;
    }
    if path == "/v1/events" {
        // Its log is the leader's: whoever follows it can tell.
        return next.run(request).await;
    }
    let kind = Kind::of(request.method(), path);
    if app.shared.leads() {
        let response = next.run(request).await;
        // It may have lost the lead over the answer. What was committed is committed; but what a node is to do, only the
        // leader may say.
        return match kind {
            Kind::OfAgent if !app.shared.leads() => Refused::no_leader().into_response(),
            _ => with_age(app, response),
        };
    }
    match (app.shared.role.part(), request.headers().contains_key(FORWARDED_BY)) {
        (_, true) => {
            metrics::forwarded("loop");
            Refused::no_leader().into_response()
        }
        // A certificate belongs to its connection: the leader would see ours. Its owner asks the leader itself.
        (Part::Standby(_), false) if !request.headers().contains_key(header::AUTHORIZATION) => {
            Refused::no_leader().into_response()
        }
        (Part::Standby(Some(leader)), false) => ask(app, &leader, kind, request, next).await,
        _ => by_ourselves(app, kind, request, next).await,
    }
}

/// What a request is, for who may answer it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    /// It changes nothing and is no agent's.
    Read,
    /// An agent's: what it is answered is an order.
    OfAgent,
    /// It may change something.
    Write,
}

impl Kind {
    fn of(method: &Method, path: &str) -> Kind {
        let is_orders = path.starts_with("/v1/nodes/") && path.ends_with("/orders");
        let is_told = path.starts_with("/v1/nodes/") && (path.ends_with("/report") || path.ends_with("/register"));
        match *method == Method::GET {
            _ if is_orders || is_told => Kind::OfAgent,
            true => Kind::Read,
            false => Kind::Write,
        }
    }
}

/// Asks the leader; what it does not answer is answered by ourselves if that may be.
async fn ask(app: &App, leader: &Leader, kind: Kind, request: Request, next: Next) -> Response {
    let (parts, body) = match whole(request).await {
        Ok(whole) => whole,
        Err(refused) => return refused.into_response(),
    };
    match app.forwarder.pass_on(&app.shared.role, leader, &parts, body.clone()).await {
        Ok(response) => {
            metrics::forwarded("answered");
            let mut response = response;
            response.extensions_mut().insert(PassedOn);
            response
        }
        Err(failed) => {
            metrics::forwarded(if failed == Failed::Unsent { "unreachable" } else { "unknown" });
            match (kind, failed) {
                (Kind::Read, _) => by_ourselves(app, kind, Request::from_parts(parts, Body::from(body)), next).await,
                (_, Failed::Unsent) => Refused::no_leader().into_response(),
                (_, Failed::Unknown) => Refused::outcome_unknown().into_response(),
            }
        }
    }
}

/// The request with its body in memory: it may be needed twice.
async fn whole(request: Request) -> Result<(Parts, Bytes), Refused> {
    let (parts, body) = request.into_parts();
    // With its extensions, which say how long the body may take.
    let Raw(bytes) = Raw::from_request(Request::from_parts(parts.clone(), body), &()).await?;
    Ok((parts, bytes))
}

/// Answers a read from memory, if there is something in it; refuses the rest.
async fn by_ourselves(app: &App, kind: Kind, request: Request, next: Next) -> Response {
    let has_copy = app.shared.leads() || app.shared.role.stale_ms().is_some();
    match kind {
        Kind::Read if has_copy => match next.run(request).await {
            // What a copy lacks may have been made a moment ago.
            lacks if lacks.status() == StatusCode::NOT_FOUND && !app.shared.leads() => not_yet(app).into_response(),
            found => with_age(app, found),
        },
        _ => not_yet(app).into_response(),
    }
}

fn with_age(app: &App, mut response: Response) -> Response {
    if let Some(age) = app.shared.health.stale_ms().max(app.shared.role.stale_ms()) {
        response.headers_mut().insert(STALE, HeaderValue::from(age));
    }
    response
}

/// The refusal of a daemon that does not lead and has nobody to ask.
pub(super) fn not_yet(app: &App) -> Refused {
    match app.shared.health.complaint() {
        Some(known) => Refused::store_unavailable(known.trouble),
        None if app.shared.role.part() == Part::Leader => {
            Refused::unavailable("the daemon is reading the cluster; try again in a moment")
        }
        None => Refused::no_leader(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_are_the_leaders_and_reads_are_anyones() {
        for (method, path, kind) in [
            (Method::GET, "/v1/jobs", Kind::Read),
            (Method::GET, "/v1/nodes/n1", Kind::Read),
            (Method::POST, "/v1/jobs", Kind::Write),
            (Method::GET, "/v1/nodes/n1/orders", Kind::OfAgent),
            (Method::POST, "/v1/nodes/n1/report", Kind::OfAgent),
            (Method::POST, "/v1/nodes/n1/register", Kind::OfAgent),
        ] {
            assert_eq!(Kind::of(&method, path), kind, "{method} {path}");
        }
    }
}
