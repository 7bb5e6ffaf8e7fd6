//! Passing a request on to the leader, and its answer back. A request is passed on once: the next daemon answers it or
//! refuses.

use crate::role::{Leader, Role};
use anyhow::Context;
use axum::body::{Body, Bytes};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::response::Response;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Says that a request was passed on, and by whom.
pub const FORWARDED_BY: HeaderName = HeaderName::from_static("chiptide-forwarded-by");

/// A leader is near; one that takes longer to accept a connection is not there.
const CONNECT_MAX: Duration = Duration::from_secs(1);
/// Longest for the whole answer: a long-poll waits for up to a minute.
const ANSWER_MAX: Duration = Duration::from_secs(90);
/// How often a standby asks whether its leader answers, and for how long it waits.
const PROBE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(1));

/// What belongs to one connection and is not passed on.
const OF_ONE_HOP: [HeaderName; 9] = [
    header::HOST,
    header::CONTENT_LENGTH,
    header::CONNECTION,
    header::TRANSFER_ENCODING,
    header::TE,
    header::TRAILER,
    header::UPGRADE,
    header::PROXY_AUTHORIZATION,
    header::EXPECT,
];

/// Why there is no answer from the leader.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Failed {
    /// It was not reached: nothing was done.
    Unsent,
    /// The connection broke, or the leader changed, after the request was sent: it may have been done.
    Unknown,
}

/// Passes requests on.
#[derive(Clone, Debug)]
pub struct Forwarder {
    http: reqwest::Client,
    by: HeaderValue,
}

impl Forwarder {
    /// A forwarder that names this daemon, and takes other daemons' certificates by the authority in `ca`, if that is given.
    pub fn new(instance: Uuid, ca: &Path) -> anyhow::Result<Forwarder> {
        let http = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT_MAX)
            .tcp_nodelay(true);
        let http = match ca.as_os_str().is_empty() {
            true => http,
            false => {
                let pem = std::fs::read(ca).with_context(|| format!("tls.ca: read {}", ca.display()))?;
                http.tls_certs_merge(reqwest::Certificate::from_pem_bundle(&pem).context("tls.ca")?)
            }
        };
        let by = HeaderValue::from_str(&instance.to_string()).context("name this daemon in a header")?;
        Ok(Forwarder { http: http.build().context("make the client that asks the leader")?, by })
    }

    /// Sends a request to the leader and answers its answer. Ends as soon as the leader is another: one that hangs would
    /// be waited for in vain.
    pub async fn pass_on(
        &self,
        role: &Role,
        leader: &Leader,
        request: &Parts,
        body: Bytes,
    ) -> Result<Response, Failed> {
        let path = request.uri.path_and_query().map_or("/", |path| path.as_str());
        let mut headers = end_to_end(&request.headers);
        headers.insert(FORWARDED_BY, self.by.clone());
        let url = format!("{}{path}", leader.url.trim_end_matches('/'));
        let sending =
            self.http.request(request.method.clone(), url).headers(headers).timeout(ANSWER_MAX).body(body).send();
        let answer = tokio::select! {
            answer = sending => answer,
            () = role.gone(leader) => return Err(Failed::Unknown),
        };
        match answer {
            Ok(answer) => {
                let (mut parts, body) = axum::http::Response::from(answer).into_parts();
                parts.headers = end_to_end(&parts.headers);
                Ok(Response::from_parts(parts, Body::new(body)))
            }
            Err(error) if error.is_connect() || error.is_builder() => Err(Failed::Unsent),
            Err(error) => {
                tracing::warn!(%error, leader = leader.url, "pass a request on");
                Err(Failed::Unknown)
            }
        }
    }

    /// Asks again and again whether the leader answers, until `stop` is cancelled.
    pub async fn probe(self, role: Arc<Role>, stop: CancellationToken) {
        let probe = async {
            let mut changes = role.changes();
            loop {
                changes.mark_unchanged();
                if let Some(leader) = role.leader() {
                    let url = format!("{}/healthz", leader.url.trim_end_matches('/'));
                    let answer = self.http.get(url).timeout(PROBE.1).send().await;
                    role.heard(&leader, answer.is_ok_and(|answer| answer.status().is_success()));
                }
                // A new leader is asked at once.
                let _ = tokio::time::timeout(PROBE.0, changes.changed()).await;
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = probe => {}
        }
    }
}

fn end_to_end(headers: &HeaderMap) -> HeaderMap {
    headers
        .iter()
        .filter(|(name, _)| !OF_ONE_HOP.contains(name) && *name != "keep-alive" && *name != FORWARDED_BY)
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_belongs_to_one_connection_stays_there() {
        let mut headers = HeaderMap::new();
        for name in ["host", "connection", "keep-alive", "content-length", "authorization", "idempotency-key"] {
            headers.insert(HeaderName::from_static(name), HeaderValue::from_static("x"));
        }
        headers.append("accept", HeaderValue::from_static("a"));
        headers.append("accept", HeaderValue::from_static("b"));
        let passed = end_to_end(&headers);
        let mut names: Vec<&str> = passed.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["accept", "authorization", "idempotency-key"]);
        assert_eq!(passed.get_all("accept").iter().count(), 2);
    }
}
