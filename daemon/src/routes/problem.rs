//! The one place where HTTP codes are chosen.

use crate::access::Right;
use crate::store::trouble::Trouble;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use chiptide_allocator::Refusal;
use chiptide_api::access::Role;
use chiptide_api::problem::{Invalid, Problem};
use serde::Serialize;

/// An answer ready to be sent, and to be recorded under an idempotency key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// JSON body.
    pub body: String,
    /// Whether it was given before and is being repeated.
    pub replayed: bool,
}

impl Answer {
    /// An answer with a JSON body.
    pub fn json(status: u16, body: &impl Serialize) -> Answer {
        Answer { status, body: crate::store::json(body), replayed: false }
    }
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let kind = if status.is_success() { "application/json" } else { "application/problem+json" };
        let mut response = (status, [(header::CONTENT_TYPE, kind)], self.body).into_response();
        if self.replayed {
            response.headers_mut().insert("idempotency-replayed", HeaderValue::from_static("true"));
        }
        if matches!(status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS) {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        if status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

/// A request that is not done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refused {
    status: u16,
    code: &'static str,
    title: &'static str,
    detail: String,
    field: Option<String>,
}

impl Refused {
    fn new(status: u16, code: &'static str, title: &'static str, detail: impl Into<String>) -> Refused {
        Refused { status, code, title, detail: detail.into(), field: None }
    }

    fn at(mut self, field: impl Into<String>) -> Refused {
        self.field = Some(field.into());
        self
    }

    /// The answer that says so.
    pub fn answer(&self) -> Answer {
        let problem = Problem {
            kind: format!("/problems/{}", self.code),
            title: self.title.into(),
            status: self.status,
            code: self.code.into(),
            detail: self.detail.clone(),
            field: self.field.clone(),
            request_id: None,
            retry_after: None,
        };
        Answer::json(self.status, &problem)
    }

    /// The refusal of a command by the allocator.
    pub fn of(refusal: &Refusal, many: bool) -> Refused {
        match refusal {
            Refusal::NoSuchJob(id) => Refused::no_such_job(id),
            Refusal::NoSuchLease(id) => Refused::no_such_lease(id),
            Refusal::LeaseRevoked(id, cause) => {
                let detail = format!("lease {id} is being taken ({}) and cannot be renewed", cause.as_str());
                Refused::new(409, "lease_revoked", "The lease is being taken", detail)
            }
            Refusal::NotRevoked(id) => {
                let detail = format!("lease {id} is not being taken, so there is nothing to extend");
                Refused::new(409, "lease_not_revoked", "The lease is not being taken", detail)
            }
            Refusal::ExtensionUsed(id) => {
                let detail = format!("lease {id} has had the one extension that a notice allows");
                Refused::new(409, "extension_used", "The extension is used up", detail)
            }
            Refusal::NoExtension => {
                let detail = "the policy allows no extensions (bounds.extension_max is 0s), or none was asked for";
                Refused::new(409, "no_extension", "There are no extensions", detail)
            }
            Refusal::DuplicateJob(id) => {
                Refused::new(409, "duplicate_job", "The job exists", format!("job {id} exists"))
            }
            Refusal::PolicyChanged { in_force } => Refused::stale_policy(*in_force),
            Refusal::NeverFits { index, detail } => {
                let field = if many { format!("[{index}].replicas") } else { "replicas".into() };
                Refused::new(422, "never_fits", "The fleet could never hold this job", detail.clone()).at(field)
            }
            Refusal::ChipElsewhere { chip, node } => {
                let detail = format!("chip {chip} is registered on node {node}");
                Refused::new(409, "chip_elsewhere", "A chip belongs to another node", detail).at("chips")
            }
            Refusal::NoSuchChip(chip) => Refused::no_such_chip(chip.as_str()),
            Refusal::NotQuarantined(chip) => {
                Refused::new(409, "chip_in_service", "The chip is in service", format!("chip {chip} is in service"))
            }
            Refusal::NotVacated { chip, lease } => {
                let detail = format!(
                    "chip {chip} is not proven vacant of ended lease {lease}; only its node's proof brings it back"
                );
                Refused::new(409, "not_vacated", "The chip is not proven vacant", detail)
            }
            Refusal::HeldByNodeFault { chip, other } => {
                let detail = format!("chip {chip} is out of service for a fault of chip {other}: release that one");
                Refused::new(409, "node_fault", "Another chip of its node has the fault", detail)
            }
            Refusal::NotCordoned(node) => {
                Refused::new(409, "not_cordoned", "The node is not cordoned", format!("node {node} takes work"))
            }
            Refusal::NodeReports(node) => {
                let detail = format!("node {node} reports to this daemon, so it is not off");
                Refused::new(409, "node_reports", "The node reports", detail)
            }
            Refusal::StaleSession(node) => Refused::stale_session(node.as_str()),
            Refusal::NotRegistered(node) => Refused::not_registered(node.as_str()),
        }
    }

    /// No job with this id.
    pub fn no_such_job(id: impl std::fmt::Display) -> Refused {
        Refused::new(404, "no_such_job", "No such job", format!("there is no job {id} that could be changed or shown"))
    }

    /// Another policy came into force meanwhile.
    pub fn stale_policy(in_force: u64) -> Refused {
        let detail = format!("version {in_force} is in force; read it, and send If-Match: \"{in_force}\"");
        Refused::new(412, "stale_policy", "Another policy came into force meanwhile", detail).at("if-match")
    }

    /// A change of the policy that does not say which version it has seen.
    pub fn if_match_required() -> Refused {
        let detail = "send the version you have read as If-Match: \"<version>\", or If-Match: * to replace any";
        Refused::new(428, "if_match_required", "If-Match is needed", detail).at("if-match")
    }

    /// What a dry run has told is not what would be decided now.
    pub fn plan_stale() -> Refused {
        let detail = "the cluster has moved since the dry run, so another plan would be made; nothing was done";
        Refused::new(409, "plan_stale", "The plan is out of date", detail).at(chiptide_api::dry_run::PLAN_HEADER)
    }

    /// No version of the policy with this number.
    pub fn no_such_policy(version: u64) -> Refused {
        Refused::new(404, "no_such_policy_version", "No such version", format!("there is no version {version}"))
    }

    /// A policy document that contradicts itself or cannot be read.
    pub fn invalid_policy(faults: &[crate::policy_document::Fault]) -> Refused {
        let told: Vec<String> = faults.iter().map(ToString::to_string).collect();
        let refused = Refused::new(422, "invalid_policy", "The policy is not sound", told.join("; "));
        refused.at(faults.first().map_or(".", |fault| fault.field.as_str()))
    }

    /// The job is over.
    pub fn job_over(id: impl std::fmt::Display, state: &str) -> Refused {
        Refused::new(409, "job_over", "The job is over", format!("job {id} is {state} and cannot change any more"))
    }

    /// No chip with this id.
    pub fn no_such_chip(id: &str) -> Refused {
        Refused::new(404, "no_such_chip", "No such chip", format!("there is no chip {id:?}"))
    }

    /// No lease with this id.
    pub fn no_such_lease(id: impl std::fmt::Display) -> Refused {
        Refused::new(404, "no_such_lease", "No such lease", format!("there is no lease {id}"))
    }

    /// The lease is over.
    pub fn lease_over(id: impl std::fmt::Display) -> Refused {
        Refused::new(409, "lease_over", "The lease is over", format!("lease {id} has ended"))
    }

    /// No node with this name.
    pub fn not_registered(node: &str) -> Refused {
        let detail = format!("node {node:?} has not registered");
        Refused::new(404, "node_not_registered", "The node has not registered", detail)
    }

    /// The report is not of the node's current session.
    pub fn stale_session(node: &str) -> Refused {
        let detail = format!("the session or boot id is not the current one of node {node:?}; register again");
        Refused::new(409, "stale_session", "The session is over", detail).at("session")
    }

    /// The same idempotency key came with another request.
    pub fn key_reused() -> Refused {
        let detail = "this idempotency key was used with another request";
        Refused::new(409, "idempotency_key_reused", "The idempotency key was used before", detail).at("idempotency-key")
    }

    /// A body that does not fit.
    pub fn invalid(invalid: Invalid) -> Refused {
        let (status, title) = match invalid.code {
            "malformed_json" => (400, "The body is not JSON"),
            _ => (422, "A field is not valid"),
        };
        Refused::new(status, invalid.code, title, invalid.detail).at(invalid.field)
    }

    /// A parameter of the path or query that does not fit.
    pub fn invalid_parameter(name: &str, detail: impl Into<String>) -> Refused {
        Refused::new(400, "invalid_parameter", "A parameter is not valid", detail).at(name)
    }

    /// No usable token.
    pub fn unauthorized() -> Refused {
        let detail = "send a valid token as \"Authorization: Bearer …\"";
        Refused::new(401, "unauthorized", "A valid token is needed", detail)
    }

    /// The caller's role does not go so far.
    pub fn forbidden(role: Role, right: Right) -> Refused {
        let (right, roles) = (right.as_str(), right.roles());
        let detail = format!("the role {role} may not {right}; that takes one of: {roles}");
        Refused::new(403, "forbidden", "The role does not allow this", detail)
    }

    /// The queue is not one of the caller's.
    pub fn not_its_queue(queue: &str, field: String) -> Refused {
        let detail = format!("this token may not use queue {queue:?}; an admin can give it a token that does");
        Refused::new(403, "forbidden", "The queue is not yours", detail).at(field)
    }

    /// The node is not the caller's.
    pub fn not_its_node(own: &str) -> Refused {
        let detail = format!("this credential is that of node {own:?} and acts for no other");
        Refused::new(403, "forbidden", "The node is not yours", detail).at("id")
    }

    /// The caller sends more than its share.
    pub fn too_fast() -> Refused {
        let detail = "this token sends more requests than one may; slow down";
        Refused::new(429, "rate_limited", "Too many requests", detail)
    }

    /// The join token opens nothing.
    pub fn not_let_in() -> Refused {
        let detail = "the join token is used, void, not of this node, or none; an admin can make another";
        Refused::new(401, "join_refused", "Not let in", detail).at("join_token")
    }

    /// The node has a credential already.
    pub fn node_taken(node: &str) -> Refused {
        let detail = format!("node {node:?} has a credential; a join token that names the node takes its place");
        Refused::new(409, "node_taken", "The node has a credential", detail).at("node")
    }

    /// What is done could not be written down.
    pub fn audit_full() -> Refused {
        let detail = "the audit waits for the database and takes nothing more in; nothing was done, try again";
        Refused::new(503, "audit_full", "The audit is full", detail)
    }

    /// No token with this id.
    pub fn no_such_token(id: &str) -> Refused {
        Refused::new(404, "no_such_token", "No such token", format!("there is no token {id:?}"))
    }

    /// A body over the limit.
    pub fn too_large(limit: usize) -> Refused {
        Refused::new(413, "body_too_large", "The body is too large", format!("at most {limit} bytes"))
    }

    /// A body that was not sent in time.
    pub fn body_too_slow(limit: std::time::Duration) -> Refused {
        Refused::new(408, "body_too_slow", "The body was not sent in time", format!("send it within {limit:?}"))
    }

    /// A body that could not be read to its end.
    pub fn unreadable_body(detail: impl Into<String>) -> Refused {
        Refused::new(400, "unreadable_body", "The body could not be read", detail)
    }

    /// A body that is not JSON by its own word.
    pub fn not_json() -> Refused {
        let detail = "send the body as application/json";
        Refused::new(415, "unsupported_media_type", "The body must be JSON", detail).at("content-type")
    }

    /// A policy that is neither JSON nor YAML by its own word.
    pub fn not_a_document() -> Refused {
        let detail = "send the policy as application/json or application/yaml";
        Refused::new(415, "unsupported_media_type", "The body must be JSON or YAML", detail).at("content-type")
    }

    /// Too much at once: of this kind nothing more is taken in now.
    pub fn overloaded(detail: impl Into<String>) -> Refused {
        Refused::new(429, "overloaded", "Too much at once", detail)
    }

    /// The database does not serve: nothing was done.
    pub fn store_unavailable(trouble: Trouble) -> Refused {
        let detail = format!("the database is in trouble ({trouble}); nothing was done, try again");
        Refused::new(503, "store_unavailable", "The database does not serve", detail)
    }

    /// The database went away between the commit and its answer: it may have been done.
    pub fn outcome_unknown() -> Refused {
        let detail = "it may have been done or not; ask again with the same idempotency key, which tells";
        Refused::new(503, "outcome_unknown", "The outcome is unknown", detail)
    }

    /// The job's owner runs its work, so there is nothing to read here.
    pub fn no_workload(id: impl std::fmt::Display) -> Refused {
        let detail = format!("job {id} has no workload: its owner runs the work and keeps what it writes");
        Refused::new(409, "no_workload", "The job has no workload", detail)
    }

    /// The job has had no lease yet.
    pub fn not_started(id: impl std::fmt::Display, state: &str) -> Refused {
        let detail = format!("job {id} is {state} and has written nothing yet");
        Refused::new(409, "not_started", "The job has not been started", detail)
    }

    /// The job has no such replica.
    pub fn no_such_replica(id: impl std::fmt::Display, rank: u32) -> Refused {
        let detail = format!("job {id} has had no replica {rank} in such an attempt");
        Refused::new(404, "no_such_replica", "No such replica", detail).at("rank")
    }

    /// The node has nothing of the replica.
    pub fn no_output(rank: u32, node: &str) -> Refused {
        let detail = format!(
            "node {node:?} has nothing of replica {rank}: it has not been started, or its output has been removed"
        );
        Refused::new(404, "no_output", "There is no output", detail)
    }

    /// The node does not answer.
    pub fn node_silent(node: &str) -> Refused {
        let detail = format!("node {node:?}, which keeps the output, does not answer");
        Refused::new(503, "node_silent", "The node does not answer", detail)
    }

    /// The node is not known any more.
    pub fn node_gone(node: &str) -> Refused {
        let detail = format!("node {node:?}, which kept the output, is not registered any more");
        Refused::new(404, "no_output", "There is no output", detail)
    }

    /// Too many read output at the same time.
    pub fn too_many_readers() -> Refused {
        let detail = "too many read output at the same time; try again in a moment";
        Refused::new(503, "too_many_readers", "Too many readers", detail)
    }

    /// No daemon is known to lead, or the one that does cannot be reached: nothing was done.
    pub fn no_leader() -> Refused {
        let detail = "no daemon leads at this moment, or it cannot be reached; nothing was done, try again";
        Refused::new(503, "no_leader", "Nobody leads", detail)
    }

    /// The daemon cannot serve now.
    pub fn unavailable(detail: impl Into<String>) -> Refused {
        Refused::new(503, "unavailable", "The daemon cannot serve this now", detail)
    }

    /// A bug of ours.
    pub fn internal(detail: impl Into<String>) -> Refused {
        Refused::new(500, "internal", "Something is wrong with the daemon", detail)
    }

    /// No such route.
    pub fn no_such_route(path: &str) -> Refused {
        Refused::new(404, "no_such_route", "No such route", format!("there is nothing at {path}"))
    }

    /// The route does not take this method.
    pub fn method_not_allowed() -> Refused {
        Refused::new(405, "method_not_allowed", "The route does not take this method", "see /v1/openapi.json")
    }
}

/// The stable code of a refusal, in its response's extensions.
#[derive(Clone, Copy, Debug)]
pub(super) struct Code(pub(super) &'static str);

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let mut response = self.answer().into_response();
        response.extensions_mut().insert(Code(self.code));
        response
    }
}

impl From<crate::store::StoreError> for Refused {
    fn from(error: crate::store::StoreError) -> Refused {
        tracing::debug!(%error, "read the database for a request");
        Refused::store_unavailable(Trouble::of(&error))
    }
}
