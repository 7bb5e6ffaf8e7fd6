//! Every route with a request that is valid, and how it is spoiled: in its path, its query, its headers, its body.

use crate::common::registration;
use chiptide_hostile::{bytes_near, json_near};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use reqwest::Method;
use reqwest::header::HeaderValue;
use serde_json::{Value, json};
use std::fmt::Write;
use uuid::Uuid;

/// Stands for a number that no report of the session has had.
pub(super) const SEQ: u64 = 777_000_777;

/// What is there to be asked for.
#[derive(Clone, Debug)]
pub(super) struct Targets {
    pub(super) job: Uuid,
    pub(super) lease: Uuid,
    pub(super) session: Uuid,
    pub(super) chip: String,
}

#[derive(Clone, Debug)]
pub(super) struct Request {
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) headers: Vec<(&'static str, HeaderValue)>,
    pub(super) body: Vec<u8>,
}

/// A route: its path with what stands for the id, what its query may have, and its bodies.
struct Route {
    method: Method,
    path: &'static str,
    id: String,
    query: &'static [(&'static str, &'static str)],
    bodies: Vec<Value>,
}

fn routes(of: &Targets) -> Vec<Route> {
    let (job, lease) = (of.job.to_string(), of.lease.to_string());
    let get = |path, id: &str, query| Route { method: Method::GET, path, id: id.to_owned(), query, bodies: Vec::new() };
    let post = |path, id: &str, bodies| Route { method: Method::POST, path, id: id.to_owned(), query: &[], bodies };
    vec![
        post("/v1/jobs", "", jobs()),
        post("/v1/nodes/{id}/register", "n2", vec![register()]),
        post("/v1/nodes/{id}/report", "n1", vec![report(of)]),
        post("/v1/leases/{id}/checkpoint", &lease, vec![json!({"step": 5})]),
        post("/v1/leases/{id}/extension", &lease, vec![json!({"by": "10s"})]),
        post("/v1/leases/{id}/renew", &lease, vec![json!({})]),
        post("/v1/leases/{id}/release", &lease, vec![json!({"reason": "over"})]),
        post("/v1/jobs/{id}/cancel", &job, vec![json!({})]),
        post("/v1/jobs/{id}/done", &job, vec![json!({"outcome": "failed", "reason": "over"})]),
        post("/v1/nodes/{id}/declare-off", "n9", vec![json!({"reason": "burnt"})]),
        post("/v1/chips/{id}/quarantine", &of.chip, vec![json!({"reason": "smells"})]),
        post("/v1/chips/{id}/release", &of.chip, vec![json!({"reason": "aired"})]),
        post("/v1/tokens", "", tokens()),
        post("/v1/jobs:dry-run", "", jobs()),
        post("/v1/policy:dry-run", "", vec![policy()]),
        post("/v1/policy/versions/{id}/rollback", "9", vec![json!({"reason": "too early"})]),
        get("/v1/policy", "", &[]),
        get("/v1/policy/versions", "", &[("limit", "2"), ("cursor", "1")]),
        get("/v1/policy/versions/{id}", "1", &[]),
        get(
            "/v1/jobs",
            "",
            &[("state", "pending,leased"), ("label", "a=b"), ("limit", "3"), ("cursor", "3.7"), ("name", "x")],
        ),
        get("/v1/jobs/{id}", &job, &[("after", "0"), ("wait", "0s")]),
        get("/v1/jobs/{id}/explain", &job, &[]),
        get(
            "/v1/jobs/{id}/logs",
            &job,
            &[("rank", "0"), ("stream", "stderr"), ("offset", "7"), ("tail", "3"), ("attempt", "1")],
        ),
        get("/v1/queues", "", &[]),
        get(
            "/v1/leases",
            "",
            &[("state", "active"), ("job", "00000000-0000-0000-0000-000000000000"), ("limit", "9"), ("cursor", "1")],
        ),
        get("/v1/leases/{id}", &lease, &[]),
        get("/v1/nodes", "", &[("state", "up"), ("limit", "9"), ("cursor", "1")]),
        get("/v1/nodes/{id}", "n1", &[]),
        get(
            "/v1/nodes/{id}/orders",
            "n1",
            &[("session", "00000000-0000-0000-0000-000000000000"), ("after", "1.2"), ("wait", "0s")],
        ),
        get(
            "/v1/chips",
            "",
            &[("node", "n1"), ("device_class", "nvidia-h20"), ("state", "free"), ("limit", "1"), ("cursor", "1")],
        ),
        get("/v1/chips/{id}", &of.chip, &[]),
        get("/v1/tokens", "", &[("limit", "3"), ("cursor", "x")]),
        get("/v1/whoami", "", &[]),
        get("/v1/{id}", "openapi.json", &[]),
    ]
}

fn jobs() -> Vec<Value> {
    let full = json!({
        "kind": "training", "name": "train", "queue": "default", "priority_class": "standard", "replicas": 2, "chips": 2,
        "device_classes": ["nvidia-h20", {"class": "nvidia-h200", "speed": 1.5}], "cpu_milli": 1000, "memory_mib": 64,
        "grace": "30s", "max_duration": "2h", "lease_ttl": "60s", "labels": {"team": "a"}, "unfit": "wait",
        "workload": {"command": ["sh", "-c", "true"], "env": {"A": "b"}, "directory": "/tmp", "restart": {"on_failure": {"times": 2}}, "notice_signal": "SIGUSR1"},
        "on_node_loss": {"action": "fence", "ttl": "30s"},
    });
    let elastic = json!({"kind": "training", "name": "e", "chips": 1, "replicas_min": 1, "replicas_max": 3});
    let shared = json!({"kind": "inference", "name": "s", "share": {"fraction": 0.5}, "preemptible": false});
    vec![full.clone(), elastic, shared.clone(), json!([shared, full])]
}

fn register() -> Value {
    let mut body = serde_json::to_value(registration("n2", 2)).expect("JSON");
    body["rack"] = json!("r1");
    body["link_domain"] = json!("d1");
    body["driver_version"] = json!("580.95.05");
    body["labels"] = json!({"zone": "a"});
    body["seen"] = json!([{"chip": "n2-gpu0", "lease": Uuid::from_u128(7), "epoch": 3}]);
    body["chips"][0]["link_peers"] = json!(["n2-gpu1"]);
    body
}

fn report(of: &Targets) -> Value {
    let fault = json!({"chip": of.chip, "dimension": "xid", "code": 31, "class": "ignore", "detail": "x", "since": "2026-01-01T00:00:00Z"});
    json!({
        "session": of.session, "boot_id": "boot-1", "seq": SEQ, "orders_seen": "1.2",
        "chips": [{"id": of.chip, "health": {"state": "healthy"}, "reading": {}}, {"id": "n1-gpu1", "health": {"state": "unreadable", "detail": "x"}}],
        "confirmed": [of.lease], "vacant": [{"chip": of.chip, "lease": Uuid::from_u128(9), "epoch": 1}],
        "refused": [{"lease": Uuid::from_u128(9), "chip": of.chip, "epoch": 1, "seen": 2}], "fenced": [Uuid::from_u128(9)],
        "work": [{"lease": of.lease, "rank": 0, "work": {"state": "running"}}], "faults": [fault],
        "ladders": [{"lease": of.lease, "steps": [{"step": "terminated", "ago": "1s"}]}],
    })
}

fn policy() -> Value {
    json!({
        "queues": {"default": {"weight": 2}, "team": {"parent": "default", "guaranteed": {"nvidia-h20": 2}, "limit": {"nvidia-h20": 4}}},
        "priority_classes": {"standard": {"value": 500, "preemptible": true, "min_runtime": "10m"}},
        "bounds": {"claim": "90s", "vacate": "60s", "start": "5m", "grace_max": "1h"},
        "node_loss": {"inference": "fence", "ttl": "30s", "drift_ppm": 500}, "fair_share": {"half_life": "24h"},
    })
}

fn tokens() -> Vec<Value> {
    vec![
        json!({"name": "t", "role": "scheduler", "queues": ["default"], "expires_in": "90d"}),
        json!({"name": "a", "role": "agent", "node": "n1"}),
    ]
}

/// Percent-encodes all but what a path or a query may have as it is.
fn encoded(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => text.push(char::from(*byte)),
            _ => write!(text, "%{byte:02X}").expect("a string"),
        }
        text
    })
}

fn path(route: &Route, id: &[u8]) -> String {
    route.path.replace("{id}", &encoded(id))
}

/// Ids, numbers and times near a value of this parameter.
fn value_near(value: &str) -> impl Strategy<Value = Vec<u8>> + use<> {
    let odd = ["", "0", "-1", "18446744073709551616", "4294967296", "1e3", "%00", "9.9", "NaN"];
    let documents = odd.iter().map(|odd| odd.as_bytes().to_vec()).chain([vec![b'9'; 400]]);
    let documents = documents.chain([value.as_bytes().to_vec(), value.as_bytes().to_vec()]);
    bytes_near(documents.collect())
}

fn headers() -> impl Strategy<Value = Vec<(&'static str, HeaderValue)>> {
    let names = vec![
        "idempotency-key",
        "x-request-id",
        "content-type",
        "accept",
        "traceparent",
        "last-event-id",
        "content-encoding",
    ];
    let known = vec![
        b"application/json".to_vec(),
        b"application/json; charset=latin1".to_vec(),
        b"key-1".to_vec(),
        vec![b'k'; 256],
        b"gzip".to_vec(),
        b"7".to_vec(),
    ];
    let header = (select(names), bytes_near(known))
        .prop_map(|(name, value)| Some((name, HeaderValue::from_bytes(&value).ok()?)));
    vec(header, 0..3).prop_map(|headers| headers.into_iter().flatten().collect())
}

fn one(route: Route) -> BoxedStrategy<Request> {
    let value = |(name, value): &(&'static str, &'static str)| {
        let name = *name;
        prop::option::of(value_near(value)).prop_map(move |value| Some((name, value?)))
    };
    let query: Vec<_> = route.query.iter().map(value).collect();
    let id = prop_oneof![3 => Just(route.id.clone().into_bytes()), 1 => value_near(&route.id)];
    let body = match route.bodies.is_empty() {
        true => Just(Vec::new()).boxed(),
        false => json_near(route.bodies.clone()).boxed(),
    };
    let spoiled = (id, query, headers(), body).prop_map(move |(id, query, headers, body)| {
        let query: Vec<String> =
            query.into_iter().flatten().map(|(name, value)| format!("{name}={}", encoded(&value))).collect();
        let path = format!("{}?{}", path(&route, &id), query.join("&"));
        Request { method: route.method.clone(), path, headers, body }
    });
    spoiled.boxed()
}

/// Requests near those that are valid, of any route.
pub(super) fn requests(of: &Targets) -> impl Strategy<Value = Request> {
    prop::strategy::Union::new(routes(of).into_iter().map(one).collect::<Vec<_>>())
}

/// The routes that read a body and can be asked again and again: a valid request, and those near it in the body alone.
pub(super) fn bodies(of: &Targets) -> Vec<(Request, impl Strategy<Value = Request> + use<>)> {
    let again = ["/v1/jobs", "/v1/nodes/{id}/register", "/v1/nodes/{id}/report", "/v1/tokens"];
    let routes = routes(of).into_iter().filter(|route| again.contains(&route.path) && !route.bodies.is_empty());
    let each = routes.flat_map(|route| {
        let (method, path) = (route.method.clone(), path(&route, route.id.as_bytes()));
        route.bodies.into_iter().map(move |body| {
            let request = Request {
                method: method.clone(),
                path: path.clone(),
                headers: vec![("content-type", HeaderValue::from_static("application/json"))],
                body: body.to_string().into_bytes(),
            };
            let near = request.clone();
            (request, json_near(vec![body]).prop_map(move |body| Request { body, ..near.clone() }))
        })
    });
    each.collect()
}
