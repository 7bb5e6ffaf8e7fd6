//! Who may do what: every route, every role, one's own things and those of others; and tokens, from made to revoked.

use crate::common::{Daemon, Node, SOON, job};
use chiptide_api::Client;
use chiptide_api::access::{Role, TokenBody};
use chiptide_model::Millis;
use serde_json::{Value, json};
use std::time::Duration;

/// What each role may do on each route: `A`dmin, `O`perator, `S`cheduler, `V`iewer, a`G`ent; `-` where it may not.
/// Lower case: only with what is its own, a job of its queues or its node.
#[rustfmt::skip]
const RIGHTS: &[(&str, &str)] = &[
    ("POST /v1/jobs",                       "A-s--"),
    ("GET /v1/jobs",                        "AOSV-"),
    ("GET /v1/jobs/{id}",                   "AOsV-"),
    ("GET /v1/jobs/{id}/explain",           "AOsV-"),
    ("POST /v1/jobs/{id}/cancel",           "A-s--"),
    ("POST /v1/jobs/{id}/done",             "A-s--"),
    ("GET /v1/jobs/{id}/logs",              "AOsV-"),
    ("GET /v1/queues",                      "AOSV-"),
    ("GET /v1/policy",                      "AOSV-"),
    ("PUT /v1/policy",                      "A----"),
    ("POST /v1/policy:dry-run",             "AOSV-"),
    ("POST /v1/jobs:dry-run",               "A-s--"),
    ("GET /v1/policy/schema",               "AOSV-"),
    ("GET /v1/policy/versions",             "AOSV-"),
    ("GET /v1/policy/versions/{version}",   "AOSV-"),
    ("POST /v1/policy/versions/{version}/rollback", "A----"),
    ("GET /v1/leases",                      "AOSV-"),
    ("GET /v1/leases/{id}",                 "AOsV-"),
    ("POST /v1/leases/{id}/renew",          "A-s--"),
    ("POST /v1/leases/{id}/checkpoint",     "A-s--"),
    ("POST /v1/leases/{id}/extension",      "A-s--"),
    ("POST /v1/leases/{id}/release",        "A-s--"),
    ("GET /v1/nodes",                       "AOSV-"),
    ("GET /v1/nodes/{id}",                  "AOSV-"),
    ("POST /v1/nodes/{id}/cordon",          "AO---"),
    ("POST /v1/nodes/{id}/drain",           "AO---"),
    ("POST /v1/nodes/{id}/uncordon",        "AO---"),
    ("POST /v1/nodes/{id}/declare-off",     "AO---"),
    ("POST /v1/nodes/{id}/register",        "A---g"),
    ("POST /v1/nodes/{id}/report",          "A---g"),
    ("GET /v1/nodes/{id}/orders",           "A---g"),
    ("POST /v1/nodes/{id}/logs",            "A---g"),
    ("GET /v1/chips",                       "AOSV-"),
    ("GET /v1/chips/{id}",                  "AOSV-"),
    ("POST /v1/chips/{id}/quarantine",      "AO---"),
    ("POST /v1/chips/{id}/release",         "AO---"),
    ("GET /v1/usage",                       "AOSV-"),
    ("GET /v1/events",                      "AOSV-"),
    ("GET /v1/whoami",                      "AOSVG"),
    ("POST /v1/tokens",                     "A----"),
    ("GET /v1/tokens",                      "A----"),
    ("DELETE /v1/tokens/{id}",              "A----"),
    ("POST /v1/join-tokens",                "A----"),
    ("POST /v1/nodes/{id}/credential",      "A---g"),
    ("GET /v1/audit",                       "AO---"),
    ("GET /metrics",                        "AO-V-"),
];
/// Routes that take no token.
const OPEN: [&str; 4] = ["GET /healthz", "GET /readyz", "GET /version", "POST /v1/join"];
const ROLES: [Role; 5] = [Role::Admin, Role::Operator, Role::Scheduler, Role::Viewer, Role::Agent];

const POLICY: &str = "queues: {default: {}, mine: {}, mine-a: {parent: mine}, theirs: {}}";

/// The ids of what belongs to the scheduler and the agent under test, or to others.
struct Things {
    queue: &'static str,
    job: String,
    lease: String,
    node: &'static str,
}

async fn things(daemon: &Daemon, queue: &'static str, node: &'static str) -> Things {
    let mut agent = Node::register(daemon, node, 1).await;
    agent.obey().await;
    let created = daemon.client.create_job(&job(json!({"queue": queue})), None).await.expect("accepted");
    let lease = created.lease.expect("there is a chip").id.to_string();
    Things { queue, job: created.id.to_string(), lease, node }
}

fn token_body(role: Role) -> TokenBody {
    let (queues, node) = match role {
        Role::Scheduler => (vec!["mine".to_owned()], None),
        Role::Agent => (Vec::new(), Some("n1".to_owned())),
        _ => (Vec::new(), None),
    };
    TokenBody { name: format!("test {role}"), role, queues, node, expires_in: None }
}

async fn token_of(daemon: &Daemon, role: Role) -> String {
    daemon.client.create_token(&token_body(role)).await.expect("made").token
}

/// Calls a route on these things, with a body that no route takes, and answers status and code.
async fn call(base: &str, token: Option<&str>, route: &str, on: &Things) -> (u16, String) {
    let (method, path) = route.split_once(' ').expect("a method and a path");
    let id = match path {
        _ if path.starts_with("/v1/jobs/") => &on.job,
        _ if path.starts_with("/v1/leases/") => &on.lease,
        _ => on.node,
    };
    let body = if ["POST /v1/jobs", "POST /v1/jobs:dry-run"].contains(&route) {
        json!({"kind": "training", "name": "x", "chips": 1, "queue": on.queue})
    } else {
        json!({"no such field": 1})
    };
    let mut request =
        reqwest::Client::new().request(method.parse().expect("a method"), base.to_owned() + &path.replace("{id}", id));
    // Events would go on and on.
    request = request.header("accept", "application/json");
    if method != "GET" {
        request = request.json(&body);
    }
    if let Some(token) = token {
        request = request.bearer_auth(token);
    }
    let answer = request.timeout(SOON).send().await.expect("an answer");
    let status = answer.status().as_u16();
    let body: Value = answer.json().await.unwrap_or_default();
    (status, body["code"].as_str().unwrap_or_default().to_owned())
}

/// Every route the daemon says it has.
async fn served(daemon: &Daemon) -> Vec<String> {
    let (_, contract) = daemon.send("GET", "/v1/openapi.json", "").await;
    let paths = contract["paths"].as_object().expect("paths").iter();
    let methods = ["get", "post", "put", "delete", "patch"];
    paths
        .flat_map(|(path, item)| {
            let there = methods.iter().filter(|method| item.get(**method).is_some());
            there.map(move |method| format!("{} {path}", method.to_uppercase()))
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_route_knows_every_role() {
    let daemon = Daemon::with_policy(POLICY).await;
    let (own, other) = (things(&daemon, "mine-a", "n1").await, things(&daemon, "theirs", "n2").await);
    let mut tokens = Vec::new();
    for role in ROLES {
        tokens.push((role, token_of(&daemon, role).await));
    }
    let mut wrong = Vec::new();
    for route in served(&daemon).await {
        if OPEN.contains(&route.as_str()) {
            assert_ne!(call(&daemon.base, None, &route, &own).await.0, 401, "{route} is open");
            continue;
        }
        assert_eq!(call(&daemon.base, None, &route, &own).await.0, 401, "{route} without a token");
        let known = RIGHTS.iter().find(|(known, _)| *known == route);
        let (_, rights) = known.unwrap_or_else(|| panic!("{route} is new: say in RIGHTS who may call it"));
        for ((role, token), right) in tokens.iter().zip(rights.chars()) {
            for (on, is_own) in [(&own, true), (&other, false)] {
                let wanted = match right {
                    '-' => "forbidden",
                    'a'..='z' if !is_own && (route.contains("/jobs/") || route.contains("/leases/")) => "not there",
                    'a'..='z' if !is_own => "forbidden",
                    _ => "allowed",
                };
                let (status, code) = call(&daemon.base, Some(token), &route, on).await;
                let got = match (status, code.as_str()) {
                    (403, "forbidden") => "forbidden",
                    (401 | 403, _) => "refused otherwise",
                    (404, "no_such_job" | "no_such_lease") => "not there",
                    _ => "allowed",
                };
                if got != wanted {
                    wrong.push(format!("{route} as {role}, own: {is_own}: {wanted}, not {got} ({status} {code})"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scheduler_sees_the_jobs_and_leases_of_its_queues_only() {
    let daemon = Daemon::with_policy(POLICY).await;
    let (own, other) = (things(&daemon, "mine-a", "n1").await, things(&daemon, "theirs", "n2").await);
    let scheduler = Client::new(&daemon.base, &token_of(&daemon, Role::Scheduler).await).expect("a client");
    let jobs = scheduler.jobs(&[]).await.expect("a page").items;
    assert_eq!(jobs.iter().map(|job| job.id.to_string()).collect::<Vec<_>>(), [own.job]);
    let leases = scheduler.leases(&[]).await.expect("a page").items;
    assert_eq!(leases.iter().map(|lease| lease.id.to_string()).collect::<Vec<_>>(), [own.lease]);
    assert_eq!(scheduler.jobs(&[("queue", "theirs".into())]).await.expect("a page").items, []);
    assert_eq!(scheduler.leases(&[("job", other.job)]).await.expect("a page").items, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_of_the_policy_says_who_may_submit_besides() {
    let daemon = Daemon::with_policy(POLICY).await;
    let made = daemon.client.create_token(&token_body(Role::Scheduler)).await.expect("made");
    let scheduler = Client::new(&daemon.base, &made.token).expect("a client");
    let body = job(json!({"queue": "theirs"}));
    let refused = scheduler.create_job(&body, None).await.expect_err("refused");
    assert_eq!(refused.code(), Some("forbidden"));
    let named = format!("queues: {{default: {{}}, mine: {{}}, theirs: {{submitters: [{}]}}}}", made.about.id);
    daemon.write_policy(&named);
    let daemon = daemon.restart().await;
    let scheduler = Client::new(&daemon.base, &made.token).expect("a client");
    let created = scheduler.create_job(&body, None).await.expect("allowed now");
    scheduler.cancel_job(created.id, None).await.expect("its own");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_shown_once_named_in_lists_and_void_when_revoked_or_over() {
    let daemon = Daemon::start().await;
    let body = TokenBody { expires_in: Some(Millis::from_secs(3600)), ..token_body(Role::Viewer) };
    let made = daemon.client.create_token(&body).await.expect("made");
    let viewer = Client::new(&daemon.base, &made.token).expect("a client");
    let me = viewer.whoami().await.expect("known");
    assert_eq!((me.id.as_str(), me.role, me.name.as_str()), (made.about.id.as_str(), Role::Viewer, "test viewer"));
    let (_, listed) = daemon.send("GET", "/v1/tokens", "").await;
    assert!(listed.to_string().contains(&made.about.id) && !listed.to_string().contains(&made.token[25..]));
    let short = TokenBody { expires_in: Some(Millis(1)), ..body };
    let void = daemon.client.create_token(&short).await.expect("made").token;
    tokio::time::sleep(Duration::from_millis(2)).await;
    let refused = Client::new(&daemon.base, &void).expect("a client").whoami().await.expect_err("void");
    assert_eq!(refused.code(), Some("unauthorized"));
    daemon.client.revoke_token(&made.about.id).await.expect("revoked");
    assert_eq!(viewer.whoami().await.expect_err("revoked").code(), Some("unauthorized"));
    let first = daemon.client.revoke_token(&made.about.id).await.expect("again").revoked_at;
    assert_eq!(daemon.client.revoke_token(&made.about.id).await.expect("again").revoked_at, first);
    let daemon = daemon.restart().await;
    let viewer = Client::new(&daemon.base, &made.token).expect("a client");
    assert_eq!(viewer.whoami().await.expect_err("revoked").code(), Some("unauthorized"));
}

/// The code of the answer to a look at the metrics, which the daemons of this process do not keep.
async fn metrics(client: &Client) -> String {
    let text = client.text("/metrics").await.expect("an answer");
    serde_json::from_str::<Value>(&text).expect("a problem")["code"].as_str().unwrap_or_default().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_revoked_at_one_daemon_is_void_at_the_other_within_the_bound() {
    let leader = Daemon::start().await;
    let standby = leader.another().await;
    let made = leader.client.create_token(&token_body(Role::Viewer)).await.expect("made");
    let there = Client::new(&standby.base, &made.token).expect("a client");
    // The standby answers this itself: it has the token in memory from here on.
    assert_eq!(metrics(&there).await, "unavailable");
    leader.client.revoke_token(&made.about.id).await.expect("revoked");
    let void = tokio::time::timeout(SOON, async {
        while metrics(&there).await != "unauthorized" {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    void.await.expect("void at the standby too");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_token_body_names_the_field_at_fault() {
    let daemon = Daemon::start().await;
    for (body, field) in [
        (json!({"name": "", "role": "viewer"}), "name"),
        (json!({"name": "x", "role": "king"}), "role"),
        (json!({"name": "x", "role": "viewer", "queues": ["default"]}), "queues"),
        (json!({"name": "x", "role": "scheduler", "queues": ["default", "nowhere"]}), "queues[1]"),
        (json!({"name": "x", "role": "agent"}), "node"),
        (json!({"name": "x", "role": "viewer", "node": "n1"}), "node"),
        (json!({"name": "x", "role": "viewer", "expires_in": "0s"}), "expires_in"),
    ] {
        let (status, problem) = daemon.send("POST", "/v1/tokens", body.to_string()).await;
        assert_eq!((status, problem["field"].as_str()), (422, Some(field)), "{body}: {problem}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_token_that_comes_too_fast_is_told_when_to_come_again_and_others_are_not_bothered() {
    let daemon = Daemon::with_config("[access]\nrequests_per_second = 1\nburst = 20").await;
    let viewer = Client::new(&daemon.base, &token_of(&daemon, Role::Viewer).await).expect("a client");
    let refused = loop {
        if let Err(refused) = viewer.whoami().await {
            break refused;
        }
    };
    assert_eq!((refused.code(), refused.retry_after()), (Some("rate_limited"), Some(Duration::from_secs(1))));
    daemon.client.whoami().await.expect("another token");
}
