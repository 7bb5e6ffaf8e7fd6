//! The HTTP API: one file a resource. A handler has four stops: extract, parse, one call, reply.

mod audit;
mod chips;
mod contract;
mod cordon;
mod dry_run;
mod events;
mod explain;
mod extract;
mod guard;
mod health;
mod jobs;
mod joining;
mod leases;
mod logs;
mod nodes;
mod policy;
pub mod problem;
mod queues;
mod reference;
mod registration;
mod request_id;
pub mod rules;
mod standby;
mod tokens;
mod usage;

use crate::admission::Kind;
use crate::app::App;
use axum::Router;
use axum::body::HttpBody;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use metrics_exporter_prometheus::PrometheusHandle;
use problem::Refused;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::compression::CompressionLayer;
use tower_http::compression::predicate::{DefaultPredicate, Predicate, SizeAbove};
use tower_http::request_id::{MakeRequestUuid, PropagateRequestIdLayer, SetRequestIdLayer};
use utoipa::OpenApi;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// Largest body of any request, bytes: a list of 1,000 jobs with room to spare.
pub const BODY_MAX: usize = 4 * 1024 * 1024;

#[derive(OpenApi)]
#[openapi(
    info(title = "Chiptide", description = "Leases accelerator chips between training jobs and real-time inference. Errors are RFC 9457 problems with a stable `code`; times are RFC 3339 in UTC; durations are strings such as \"90s\".", license(name = "Apache-2.0", identifier = "Apache-2.0")),
    modifiers(&Bearer),
    security(("bearer" = [])),
    tags(
        (name = "jobs", description = "Submit work and follow it."),
        (name = "queues", description = "Who may hold how much."),
        (name = "policy", description = "What an admin decides, version by version."),
        (name = "leases", description = "The right to use chips."),
        (name = "nodes", description = "Machines with chips."),
        (name = "chips", description = "Who holds what."),
        (name = "agents", description = "What a node's agent calls."),
        (name = "events", description = "What happened, as it happens."),
        (name = "access", description = "Who may do what."),
        (name = "usage", description = "Who had how much, and what became of it."),
        (name = "health", description = "Whether the daemon lives and serves.")
    )
)]
struct Contract;

struct Bearer;

impl utoipa::Modify for Bearer {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        let components = openapi.components.get_or_insert_default();
        components.add_security_scheme("bearer", SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer)));
    }
}

/// Every route with its description: what is served and what `api.yaml` says cannot differ.
fn routes() -> (Router<App>, utoipa::openapi::OpenApi) {
    OpenApiRouter::with_openapi(Contract::openapi())
        .routes(routes!(jobs::create, jobs::list))
        .routes(routes!(jobs::get))
        .routes(routes!(explain::get))
        .routes(routes!(jobs::cancel))
        .routes(routes!(jobs::done))
        .routes(routes!(logs::of_job))
        .routes(routes!(queues::list))
        .routes(routes!(policy::get, policy::put))
        .routes(routes!(dry_run::policy))
        .routes(routes!(dry_run::jobs))
        .routes(routes!(policy::schema))
        .routes(routes!(policy::versions))
        .routes(routes!(policy::version))
        .routes(routes!(policy::rollback))
        .routes(routes!(leases::list))
        .routes(routes!(leases::get))
        .routes(routes!(leases::renew))
        .routes(routes!(leases::checkpoint))
        .routes(routes!(leases::extension))
        .routes(routes!(leases::release))
        .routes(routes!(nodes::list))
        .routes(routes!(nodes::get))
        .routes(routes!(nodes::register))
        .routes(routes!(nodes::declare_off))
        .routes(routes!(cordon::cordon))
        .routes(routes!(cordon::drain))
        .routes(routes!(cordon::uncordon))
        .routes(routes!(nodes::report_in))
        .routes(routes!(nodes::get_orders))
        .routes(routes!(logs::bring))
        .routes(routes!(chips::list))
        .routes(routes!(chips::get))
        .routes(routes!(chips::quarantine))
        .routes(routes!(chips::release))
        .routes(routes!(events::watch))
        .routes(routes!(usage::get))
        .routes(routes!(tokens::whoami))
        .routes(routes!(tokens::create, tokens::list))
        .routes(routes!(tokens::revoke))
        .routes(routes!(audit::list))
        .routes(routes!(joining::create))
        .routes(routes!(joining::join))
        .routes(routes!(joining::renew))
        .routes(routes!(health::health))
        .routes(routes!(health::ready))
        .routes(routes!(health::version))
        .routes(routes!(health::metrics))
        .split_for_parts()
}

/// The contract as YAML: the text of `api.yaml`.
pub fn api_yaml() -> String {
    routes().1.to_yaml().expect("a document of string keys is always YAML")
}

/// The whole service.
pub fn router(app: App, metrics: Option<PrometheusHandle>) -> Router {
    let (router, openapi) = routes();
    let router = router
        .merge(contract::router(&openapi))
        .fallback(async |request: Request| Refused::no_such_route(request.uri().path()))
        .method_not_allowed_fallback(async || Refused::method_not_allowed())
        .layer(from_fn_with_state(app.clone(), guard::keep_to_own))
        .layer(from_fn_with_state(app.clone(), guard::admit_known))
        .layer(from_fn_with_state(app.clone(), audit::keep))
        .layer(from_fn_with_state(app.clone(), admit))
        .layer(from_fn(count));
    let router = match metrics {
        Some(handle) => router.layer(axum::Extension(handle)),
        None => router,
    };
    router
        .layer(CatchPanicLayer::custom(|_: Box<dyn std::any::Any + Send>| {
            tracing::error!("a handler panicked");
            Refused::internal("the request hit a bug; it is logged").into_response()
        }))
        .layer(from_fn(request_id::name_problems))
        // Not events, which come one by one, and not what is small.
        .layer(CompressionLayer::new().gzip(true).compress_when(DefaultPredicate::new().and(SizeAbove::new(1024))))
        .layer(PropagateRequestIdLayer::x_request_id())
        .layer(SetRequestIdLayer::x_request_id(MakeRequestUuid))
        .with_state(app)
}

/// Lets in as many of each kind as there are places, before anything else is looked at.
async fn admit(State(app): State<App>, route: Option<MatchedPath>, mut request: Request, next: Next) -> Response {
    let route = route.as_ref().map_or("none", MatchedPath::as_str);
    request.extensions_mut().insert(extract::BodyLimit(app.body_limit));
    let kind = Kind::of(request.method(), route, request.uri().query());
    match app.admission.admit(kind, body_max(&request)) {
        Ok(_place) => next.run(request).await,
        Err(reason) => {
            let mut response =
                Refused::overloaded(format!("requests of kind {}: {reason}", kind.as_str())).into_response();
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(kind.retry_after_s()));
            response
        }
    }
}

/// How many bytes the body may have: what it says, and where it says nothing, the most.
fn body_max(request: &Request) -> usize {
    request
        .body()
        .size_hint()
        .upper()
        .map_or(BODY_MAX, |bytes| usize::try_from(bytes).unwrap_or(BODY_MAX))
        .min(BODY_MAX)
}

/// Counts answers by route.
async fn count(route: Option<MatchedPath>, request: Request, next: Next) -> Response {
    let method = match request.method().as_str() {
        known @ ("GET" | "POST" | "PUT" | "DELETE" | "PATCH" | "HEAD" | "OPTIONS") => known.to_owned(),
        _ => "other".to_owned(),
    };
    let response = next.run(request).await;
    let route = route.as_ref().map_or("none", MatchedPath::as_str);
    crate::metrics::answered(route, &method, response.status().as_u16());
    if response.status() == StatusCode::INTERNAL_SERVER_ERROR {
        tracing::error!(route, method, "answered 500");
    }
    response
}

/// A cursor over an indexed list: the index to go on from.
fn index_cursor(cursor: Option<&str>) -> Result<usize, Refused> {
    cursor.map_or(Ok(0), str::parse).map_err(|_| Refused::invalid_parameter("cursor", "is not a cursor of this list"))
}
