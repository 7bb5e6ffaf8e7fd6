//! A thin typed client. It adds a bearer token, reads problem answers, and never repeats a call that may have been heard.
//! Given several daemons, it stays with one for as long as that answers.

use crate::access::{
    AuditView, JoinBody, JoinTokenBody, JoinTokenView, NewTokenView, TokenBody, TokenView, WhoamiView,
};
use crate::chip::{ChipView, ServiceBody};
use crate::dry_run::{DryRunView, PLAN_HEADER};
use crate::event::EventView;
use crate::event_stream::EventStream;
use crate::explain::ExplainView;
use crate::job::{CreatedView, DoneBody, JobBody, JobView};
use crate::lease::{ExtensionBody, LeaseView, ReleaseBody};
use crate::logs::{ATTEMPT_HEADER, LogAnswer, LogChunk, LogQuery, OFFSET_HEADER, OVER_HEADER};
use crate::node::{
    CordonBody, DeclareOffBody, DrainBody, NodeView, OrdersView, RegisterBody, RegisterView, ReportBody, ReportView,
};
use crate::page::Page;
use crate::policy::{PolicyAppliedView, PolicyVersionView, PolicyView, RollbackBody};
use crate::problem::Problem;
use crate::queue::QueuesView;
use crate::usage::UsageView;
use chiptide_model::Millis;
use reqwest::{Method, Request, RequestBuilder, Response, StatusCode, Url};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use uuid::Uuid;

/// A stream goes on for as long as it is read.
const STREAM_MAX: Duration = Duration::from_secs(365 * 24 * 3600);

/// What can go wrong with a call.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The daemon refused, and says why.
    #[error("{0}")]
    Refused(Box<Problem>),
    /// No answer: the daemon is not there, or the connection broke. Whether a mutating call took effect is unknown;
    /// repeat it with the same idempotency key.
    #[error("no answer from {url}: {source}")]
    Unreachable {
        /// Where the call went.
        url: String,
        /// What broke.
        #[source]
        source: reqwest::Error,
    },
    /// An answer that is neither the expected body nor a problem.
    #[error("unexpected answer ({status}): {detail}")]
    Unexpected {
        /// HTTP status.
        status: u16,
        /// Start of the body, or what is wrong with it.
        detail: String,
    },
}

impl ClientError {
    /// When to try again, if the daemon said so.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            ClientError::Refused(problem) => problem.retry_after,
            _ => None,
        }
    }

    /// The stable code of a refusal.
    pub fn code(&self) -> Option<&str> {
        match self {
            ClientError::Refused(problem) => Some(&problem.code),
            _ => None,
        }
    }
}

/// A connection to a daemon, or to one of several on the same database. Cheap to clone; clones move on together.
#[derive(Clone, Debug)]
pub struct Client {
    http: reqwest::Client,
    bases: Arc<[String]>,
    current: Arc<AtomicUsize>,
    token: Arc<RwLock<String>>,
}

/// What a client needs for a daemon with TLS, beyond what the system trusts.
#[derive(Clone, Debug, Default)]
pub struct ClientTls {
    /// Authorities that are trusted besides the system's, PEM.
    pub ca: Option<Vec<u8>>,
    /// A client certificate with its key, PEM.
    pub identity: Option<Vec<u8>>,
}

impl Client {
    /// A client of the daemon at `base` (`http://127.0.0.1:7070`), with its bearer token. `base` may name several,
    /// separated by commas: one that cannot be reached, or has no leader to ask, is followed by the next.
    pub fn new(base: &str, token: &str) -> Result<Client, ClientError> {
        Client::with_tls(base, token, ClientTls::default())
    }

    /// The same, for daemons with TLS. Refuses certificates that cannot be read.
    pub fn with_tls(base: &str, token: &str, tls: ClientTls) -> Result<Client, ClientError> {
        let failed = |source| ClientError::Unreachable { url: base.into(), source };
        let mut builder = reqwest::Client::builder().connect_timeout(Duration::from_secs(5)).tcp_nodelay(true);
        if let Some(pem) = tls.ca {
            builder = builder.tls_certs_merge(reqwest::Certificate::from_pem_bundle(&pem).map_err(failed)?);
        }
        if let Some(pem) = tls.identity {
            builder = builder.identity(reqwest::Identity::from_pem(&pem).map_err(failed)?);
        }
        let http = builder.build().map_err(failed)?;
        let bases = base.split(',').map(|base| base.trim().trim_end_matches('/').to_owned()).collect();
        Ok(Client { http, bases, current: Arc::default(), token: Arc::new(RwLock::new(token.to_owned())) })
    }

    /// Calls from now on, those of clones included, go with this token.
    pub fn set_token(&self, token: &str) {
        // A poisoned lock still holds a whole text: nothing can panic while it is written.
        token.clone_into(&mut self.token.write().unwrap_or_else(PoisonError::into_inner));
    }

    /// Turns to the next daemon, for the calls to come: this one does not answer as it should. Only a caller knows when it
    /// has waited for long enough; what the client sees for itself it heeds by itself.
    pub fn move_on(&self) {
        self.move_on_from(self.index());
    }

    fn index(&self) -> usize {
        self.current.load(Ordering::Relaxed) % self.bases.len()
    }

    fn base(&self) -> &str {
        &self.bases[self.index()]
    }

    /// Of many calls that fail at once, one moves on.
    fn move_on_from(&self, index: usize) {
        let next = (index + 1) % self.bases.len();
        let _ = self.current.compare_exchange(index, next, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Submits one job.
    pub async fn create_job(&self, job: &JobBody, key: Option<&str>) -> Result<JobView, ClientError> {
        self.send(keyed(self.request(Method::POST, "/v1/jobs").json(job), key)).await
    }

    /// Submits up to 1,000 jobs, accepted all or none.
    pub async fn create_jobs(&self, jobs: &[JobBody], key: Option<&str>) -> Result<CreatedView, ClientError> {
        self.send(keyed(self.request(Method::POST, "/v1/jobs").json(jobs), key)).await
    }

    /// One job.
    pub async fn job(&self, id: Uuid) -> Result<JobView, ClientError> {
        self.get(&format!("/v1/jobs/{id}"), &()).await
    }

    /// One job, once its revision is past `after` or `wait` is over.
    pub async fn watch_job(&self, id: Uuid, after: u64, wait: Millis) -> Result<JobView, ClientError> {
        self.get(&format!("/v1/jobs/{id}"), &[("after", after.to_string()), ("wait", wait.to_string())]).await
    }

    /// One page of jobs; `filters` are the query parameters of the list.
    pub async fn jobs(&self, filters: &[(&str, String)]) -> Result<Page<JobView>, ClientError> {
        self.get("/v1/jobs", filters).await
    }

    /// Why a job waits, or how safe its chips are, and why it was evicted.
    pub async fn explain_job(&self, id: Uuid) -> Result<ExplainView, ClientError> {
        self.get(&format!("/v1/jobs/{id}/explain"), &()).await
    }

    /// One chip.
    pub async fn chip(&self, id: &str) -> Result<ChipView, ClientError> {
        self.get(&format!("/v1/chips/{id}"), &()).await
    }

    /// Takes a chip out of service.
    pub async fn quarantine_chip(&self, id: &str, reason: &str) -> Result<ChipView, ClientError> {
        let body = ServiceBody { reason: reason.to_owned() };
        self.send(self.request(Method::POST, &format!("/v1/chips/{id}/quarantine")).json(&body)).await
    }

    /// Brings a chip back into service.
    pub async fn release_chip(&self, id: &str, reason: &str) -> Result<ChipView, ClientError> {
        let body = ServiceBody { reason: reason.to_owned() };
        self.send(self.request(Method::POST, &format!("/v1/chips/{id}/release")).json(&body)).await
    }

    /// What jobs would meet if they were submitted now.
    pub async fn dry_run_jobs(&self, jobs: &[JobBody]) -> Result<DryRunView, ClientError> {
        self.send(self.request(Method::POST, "/v1/jobs:dry-run").json(jobs)).await
    }

    /// The policy in force.
    pub async fn policy(&self) -> Result<PolicyView, ClientError> {
        self.get("/v1/policy", &()).await
    }

    /// One version of the policy.
    pub async fn policy_version(&self, version: u64) -> Result<PolicyView, ClientError> {
        self.get(&format!("/v1/policy/versions/{version}"), &()).await
    }

    /// One page of the policy's history, newest first.
    pub async fn policy_versions(&self, filters: &[(&str, String)]) -> Result<Page<PolicyVersionView>, ClientError> {
        self.get("/v1/policy/versions", filters).await
    }

    /// What a policy (YAML or JSON) would do if it were put in force now.
    pub async fn dry_run_policy(&self, document: &str) -> Result<DryRunView, ClientError> {
        let request = self.request(Method::POST, "/v1/policy:dry-run").header("content-type", "application/yaml");
        self.send(request.body(document.to_owned())).await
    }

    /// Puts a policy (YAML or JSON) in force after the version that was seen; with the plan of a dry run, exactly so.
    pub async fn put_policy(
        &self,
        document: &str,
        seen: u64,
        reason: &str,
        plan: Option<&str>,
    ) -> Result<PolicyAppliedView, ClientError> {
        let request = self.request(Method::PUT, "/v1/policy").query(&[("reason", reason)]);
        let request = request.header("content-type", "application/yaml").header("if-match", format!("\"{seen}\""));
        let request = match plan {
            Some(plan) => request.header(PLAN_HEADER, plan),
            None => request,
        };
        self.send(request.body(document.to_owned())).await
    }

    /// Puts an earlier version of the policy in force again.
    pub async fn roll_back_policy(&self, version: u64, reason: &str) -> Result<PolicyAppliedView, ClientError> {
        let body = RollbackBody { reason: reason.to_owned() };
        self.send(self.request(Method::POST, &format!("/v1/policy/versions/{version}/rollback")).json(&body)).await
    }

    /// Every queue with what it may hold and holds.
    pub async fn queues(&self) -> Result<QueuesView, ClientError> {
        self.get("/v1/queues", &()).await
    }

    /// Cancels a job.
    pub async fn cancel_job(&self, id: Uuid, key: Option<&str>) -> Result<JobView, ClientError> {
        self.send(keyed(self.request(Method::POST, &format!("/v1/jobs/{id}/cancel")), key)).await
    }

    /// Reports a job done.
    pub async fn job_done(&self, id: Uuid, body: &DoneBody, key: Option<&str>) -> Result<JobView, ClientError> {
        self.send(keyed(self.request(Method::POST, &format!("/v1/jobs/{id}/done")).json(body), key)).await
    }

    /// A part of what a replica has written. With `wait`, a long-poll until there is something, or nothing will follow.
    pub async fn job_logs(&self, id: Uuid, query: &LogQuery) -> Result<LogChunk, ClientError> {
        let mut given = vec![("rank", query.rank.to_string()), ("stream", query.stream.as_str().to_owned())];
        match query.tail {
            Some(lines) => given.push(("tail", lines.to_string())),
            None => given.push(("offset", query.offset.to_string())),
        }
        given.extend(query.attempt.map(|attempt| ("attempt", attempt.to_string())));
        given.push(("wait", query.wait.to_string()));
        let request = self.request(Method::GET, &format!("/v1/jobs/{id}/logs")).query(&given);
        let answer = self.answer_to(request).await?;
        let (status, headers) = (answer.status(), answer.headers().clone());
        let bytes = answer.bytes().await.map_err(|source| self.unreachable(source))?;
        if !status.is_success() {
            return Err(refusal(status, &bytes, None));
        }
        let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let number = |name: &str| {
            let missing = || ClientError::Unexpected { status: status.as_u16(), detail: format!("no {name}") };
            header(name).and_then(|value| value.parse::<u64>().ok()).ok_or_else(missing)
        };
        Ok(LogChunk {
            offset: number(OFFSET_HEADER)?,
            bytes: bytes.to_vec(),
            over: header(OVER_HEADER) == Some("true"),
            attempt: u32::try_from(number(ATTEMPT_HEADER)?).unwrap_or(u32::MAX),
        })
    }

    /// One lease.
    pub async fn lease(&self, id: Uuid) -> Result<LeaseView, ClientError> {
        self.get(&format!("/v1/leases/{id}"), &()).await
    }

    /// One page of leases.
    pub async fn leases(&self, filters: &[(&str, String)]) -> Result<Page<LeaseView>, ClientError> {
        self.get("/v1/leases", filters).await
    }

    /// Renews a lease.
    pub async fn renew_lease(&self, id: Uuid, key: Option<&str>) -> Result<LeaseView, ClientError> {
        self.send(keyed(self.request(Method::POST, &format!("/v1/leases/{id}/renew")), key)).await
    }

    /// Says that the job of a lease has made a checkpoint just now.
    pub async fn checkpoint_lease(&self, id: Uuid, key: Option<&str>) -> Result<LeaseView, ClientError> {
        self.send(keyed(self.request(Method::POST, &format!("/v1/leases/{id}/checkpoint")), key)).await
    }

    /// Asks for more time for a lease under notice.
    pub async fn extend_lease(
        &self,
        id: Uuid,
        body: &ExtensionBody,
        key: Option<&str>,
    ) -> Result<LeaseView, ClientError> {
        self.send(keyed(self.request(Method::POST, &format!("/v1/leases/{id}/extension")).json(body), key)).await
    }

    /// Gives a lease back.
    pub async fn release_lease(&self, id: Uuid, body: &ReleaseBody, key: Option<&str>) -> Result<JobView, ClientError> {
        self.send(keyed(self.request(Method::POST, &format!("/v1/leases/{id}/release")).json(body), key)).await
    }

    /// One node.
    pub async fn node(&self, id: &str) -> Result<NodeView, ClientError> {
        self.get(&format!("/v1/nodes/{id}"), &()).await
    }

    /// One page of nodes.
    pub async fn nodes(&self, filters: &[(&str, String)]) -> Result<Page<NodeView>, ClientError> {
        self.get("/v1/nodes", filters).await
    }

    /// Lets nothing more be granted on a node.
    pub async fn cordon(&self, node: &str, reason: &str) -> Result<NodeView, ClientError> {
        let body = CordonBody { reason: reason.to_owned() };
        self.send(self.request(Method::POST, &format!("/v1/nodes/{node}/cordon")).json(&body)).await
    }

    /// Gives a node back to work.
    pub async fn uncordon(&self, node: &str, reason: &str) -> Result<NodeView, ClientError> {
        let body = CordonBody { reason: reason.to_owned() };
        self.send(self.request(Method::POST, &format!("/v1/nodes/{node}/uncordon")).json(&body)).await
    }

    /// Empties a node.
    pub async fn drain(&self, node: &str, body: &DrainBody) -> Result<NodeView, ClientError> {
        self.send(self.request(Method::POST, &format!("/v1/nodes/{node}/drain")).json(body)).await
    }

    /// Declares that a node's machine is off.
    pub async fn declare_off(&self, node: &str, body: &DeclareOffBody, key: Option<&str>) -> Result<(), ClientError> {
        let request = self.request(Method::POST, &format!("/v1/nodes/{node}/declare-off")).json(body);
        self.send::<serde_json::Value>(keyed(request, key)).await.map(drop)
    }

    /// One page of chips.
    pub async fn chips(&self, filters: &[(&str, String)]) -> Result<Page<ChipView>, ClientError> {
        self.get("/v1/chips", filters).await
    }

    /// Registers a node's agent.
    pub async fn register(&self, node: &str, body: &RegisterBody) -> Result<RegisterView, ClientError> {
        self.send(self.request(Method::POST, &format!("/v1/nodes/{node}/register")).json(body)).await
    }

    /// Sends a report.
    pub async fn report(&self, node: &str, body: &ReportBody) -> Result<ReportView, ClientError> {
        self.send(self.request(Method::POST, &format!("/v1/nodes/{node}/report")).json(body)).await
    }

    /// Answers a wish for output with these bytes.
    pub async fn answer_logs(&self, node: &str, told: &LogAnswer, bytes: Vec<u8>) -> Result<(), ClientError> {
        let request = self.request(Method::POST, &format!("/v1/nodes/{node}/logs")).query(told);
        let request = request.header("content-type", "application/octet-stream").body(bytes);
        self.send::<serde_json::Value>(request).await.map(drop)
    }

    /// The node's orders, once they differ from revision `after` or `wait` is over.
    pub async fn orders(
        &self,
        node: &str,
        session: Uuid,
        after: Option<&str>,
        wait: Millis,
    ) -> Result<OrdersView, ClientError> {
        let mut query = vec![("session", session.to_string()), ("wait", wait.to_string())];
        query.extend(after.map(|after| ("after", after.to_owned())));
        self.get(&format!("/v1/nodes/{node}/orders"), &query).await
    }

    /// Who had how much; `filters` are the query parameters of `GET /v1/usage`.
    pub async fn usage(&self, filters: &[(&str, String)]) -> Result<UsageView, ClientError> {
        self.get("/v1/usage", filters).await
    }

    /// One page of the event log: what follows position `after`. `filters` are the query parameters of the list.
    pub async fn events(&self, filters: &[(&str, String)]) -> Result<Page<EventView>, ClientError> {
        self.send(self.request(Method::GET, "/v1/events").query(filters).header("accept", "application/json")).await
    }

    /// The events after a position, or from now on, as they happen; taken up again by itself when it breaks off.
    pub fn watch_events(&self, filters: Vec<(String, String)>, after: Option<u64>) -> EventStream {
        EventStream::new(self.clone(), filters, after)
    }

    /// Opens the stream of events.
    pub(crate) async fn open_events(
        &self,
        filters: &[(String, String)],
        after: Option<u64>,
    ) -> Result<Response, ClientError> {
        let mut request = self.request(Method::GET, "/v1/events").query(filters).timeout(STREAM_MAX);
        request = request.header("accept", "text/event-stream");
        if let Some(after) = after {
            request = request.header("last-event-id", after.to_string());
        }
        let answer = self.answer_to(request).await?;
        let (status, retry_after) = (answer.status(), retry_after(answer.headers()));
        if status.is_success() {
            return Ok(answer);
        }
        let bytes = answer.bytes().await.map_err(|source| self.unreachable(source))?;
        Err(refusal(status, &bytes, retry_after))
    }

    /// Who this client is to the daemon.
    pub async fn whoami(&self) -> Result<WhoamiView, ClientError> {
        self.get("/v1/whoami", &()).await
    }

    /// Makes a token. Its secret is in the answer and nowhere else.
    pub async fn create_token(&self, body: &TokenBody) -> Result<NewTokenView, ClientError> {
        self.send(self.request(Method::POST, "/v1/tokens").json(body)).await
    }

    /// One page of tokens.
    pub async fn tokens(&self, filters: &[(&str, String)]) -> Result<Page<TokenView>, ClientError> {
        self.get("/v1/tokens", filters).await
    }

    /// Revokes a token.
    pub async fn revoke_token(&self, id: &str) -> Result<TokenView, ClientError> {
        self.send(self.request(Method::DELETE, &format!("/v1/tokens/{id}"))).await
    }

    /// Makes a join token.
    pub async fn create_join_token(&self, body: &JoinTokenBody) -> Result<JoinTokenView, ClientError> {
        self.send(self.request(Method::POST, "/v1/join-tokens").json(body)).await
    }

    /// Gives a join token for a credential of the node.
    pub async fn join(&self, node: &str, join_token: &str) -> Result<NewTokenView, ClientError> {
        let body = JoinBody { join_token: join_token.to_owned(), node: node.to_owned() };
        self.send(self.request(Method::POST, "/v1/join").json(&body)).await
    }

    /// Makes a new credential of the node in place of the one that asks.
    pub async fn renew_credential(&self, node: &str) -> Result<NewTokenView, ClientError> {
        self.send(self.request(Method::POST, &format!("/v1/nodes/{node}/credential"))).await
    }

    /// One page of the audit, newest first.
    pub async fn audit(&self, filters: &[(&str, String)]) -> Result<Page<AuditView>, ClientError> {
        self.get("/v1/audit", filters).await
    }

    /// Whether the daemon is ready to serve.
    pub async fn ready(&self) -> bool {
        let answer = self.http.get(format!("{}/readyz", self.base())).timeout(Duration::from_secs(2)).send().await;
        answer.is_ok_and(|answer| answer.status() == StatusCode::OK)
    }

    /// The body of a plain-text page such as `/metrics`.
    pub async fn text(&self, path: &str) -> Result<String, ClientError> {
        let answer = self.answer_to(self.request(Method::GET, path)).await?;
        answer.text().await.map_err(|source| self.unreachable(source))
    }

    async fn get<T: DeserializeOwned>(&self, path: &str, query: &(impl Serialize + ?Sized)) -> Result<T, ClientError> {
        self.send(self.request(Method::GET, path).query(query)).await
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        // Long-polls wait for up to a minute; anything slower is a dead connection.
        let request = self.http.request(method, format!("{}{path}", self.base())).timeout(Duration::from_secs(90));
        let token = self.token.read().unwrap_or_else(PoisonError::into_inner);
        // Without one, a client certificate says who it is.
        if token.is_empty() { request } else { request.bearer_auth(&*token) }
    }

    async fn send<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<T, ClientError> {
        let index = self.index();
        let answer = self.answer_to(request).await?;
        let (status, retry_after) = (answer.status(), retry_after(answer.headers()));
        let bytes = answer.bytes().await.map_err(|source| self.unreachable(source))?;
        if status.is_success() {
            return serde_json::from_slice(&bytes)
                .map_err(|error| ClientError::Unexpected { status: status.as_u16(), detail: error.to_string() });
        }
        let refused = refusal(status, &bytes, retry_after);
        if refused.code() == Some("no_leader") {
            self.move_on_from(index);
        }
        Err(refused)
    }

    /// Sends a request. A daemon that cannot be reached has not heard it, so the next is asked, each once; of one that may
    /// have heard it the failure is told, and the next call goes elsewhere.
    async fn answer_to(&self, request: RequestBuilder) -> Result<Response, ClientError> {
        let mut request = request.build().map_err(|source| self.unreachable(source))?;
        let mut left = self.bases.len();
        loop {
            let index = self.index();
            let again = request.try_clone();
            let failed = match self.http.execute(request).await {
                Ok(answer) => return Ok(answer),
                Err(failed) => failed,
            };
            self.move_on_from(index);
            left -= 1;
            match again.and_then(|again| rebased(again, &self.bases[index], self.base())) {
                Some(next) if failed.is_connect() && left > 0 => request = next,
                _ => return Err(ClientError::Unreachable { url: self.bases[index].clone(), source: failed }),
            }
        }
    }

    fn unreachable(&self, source: reqwest::Error) -> ClientError {
        ClientError::Unreachable { url: self.base().to_owned(), source }
    }
}

/// The same request to another daemon.
fn rebased(mut request: Request, from: &str, to: &str) -> Option<Request> {
    let from = Url::parse(from).ok()?;
    let rest = request.url().as_str().strip_prefix(from.as_str().trim_end_matches('/'))?;
    *request.url_mut() = Url::parse(&format!("{to}{rest}")).ok()?;
    Some(request)
}

/// When to try again, where the answer says so in seconds.
fn retry_after(headers: &reqwest::header::HeaderMap) -> Option<Duration> {
    let seconds = headers.get(reqwest::header::RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

fn refusal(status: StatusCode, bytes: &[u8], retry_after: Option<Duration>) -> ClientError {
    match serde_json::from_slice::<Problem>(bytes) {
        Ok(problem) => ClientError::Refused(Box::new(Problem { retry_after, ..problem })),
        Err(_) => {
            let detail = String::from_utf8_lossy(bytes).chars().take(200).collect();
            ClientError::Unexpected { status: status.as_u16(), detail }
        }
    }
}

fn keyed(request: RequestBuilder, key: Option<&str>) -> RequestBuilder {
    match key {
        Some(key) => request.header("idempotency-key", key),
        None => request,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_moves_to_another_daemon_with_its_path_and_query() {
        let request = |url: &str| reqwest::Client::new().get(url).build().expect("a request");
        let moved = rebased(request("http://a:80/v1/jobs?limit=3"), "http://a:80", "https://b/under").expect("moved");
        assert_eq!(moved.url().as_str(), "https://b/under/v1/jobs?limit=3");
        assert!(rebased(request("http://c/v1/jobs"), "http://a", "http://b").is_none());
    }

    #[test]
    fn of_many_failures_at_once_one_moves_on() {
        let client = Client::new("http://a/, http://b", "").expect("a client");
        client.move_on_from(0);
        client.clone().move_on_from(0);
        assert_eq!(client.base(), "http://b");
        client.move_on();
        assert_eq!(client.base(), "http://a");
    }
}
