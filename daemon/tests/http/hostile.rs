//! Hostile input over real HTTP: valid requests of every route, spoiled. Whatever comes, the answer is no fault of the
//! daemon's, says by a code what is wrong, and a refused request has changed nothing. At the end memory, tables and log agree.

mod requests;

use crate::common::{Daemon, Node, job};
use chiptide_daemon::store::{Store, events};
use chiptide_hostile::check;
use chiptide_model::Event;
use proptest::prelude::*;
use proptest::test_runner::TestCaseResult;
use requests::{Request, SEQ, Targets, requests};
use serde_json::{Value, json};
use std::cell::Cell;
use std::time::Duration;
use tokio::runtime::Runtime;

/// A long-poll whose wish to wait has come through whole is not waited for.
const PATIENCE: Duration = Duration::from_secs(3);

/// A daemon with a node, a lease under notice or not, a queue of jobs, and a way to count what has happened.
struct Target {
    runtime: Runtime,
    daemon: Daemon,
    store: Store,
    http: reqwest::Client,
    seq: Cell<u64>,
    read: Cell<u64>,
}

impl Target {
    fn new() -> (Target, Targets) {
        let runtime = Runtime::new().expect("a runtime");
        let (daemon, store, targets) = runtime.block_on(async {
            let daemon = Daemon::start().await;
            let mut node = Node::register(&daemon, "n1", 4).await;
            let workload = json!({"command": ["true"]});
            let submitted =
                daemon.client.create_job(&job(json!({"workload": workload})), None).await.expect("accepted");
            daemon.client.create_job(&job(json!({"chips": 2, "replicas": 3})), None).await.expect("accepted");
            node.obey().await;
            let store = Store::open(&daemon.database_url).await.expect("a store");
            let lease = submitted.lease.expect("a lease").id;
            let targets = Targets { job: submitted.id, lease, session: node.session, chip: node.chips[0].clone() };
            (daemon, store, targets)
        });
        let (seq, read) = (Cell::new(10), Cell::new(0));
        let target = Target { runtime, daemon, store, http: reqwest::Client::new(), seq, read };
        target.news();
        (target, targets)
    }

    /// Sends it; `None` where it waits.
    fn send(&self, request: &Request) -> Option<(u16, String, Vec<u8>)> {
        self.seq.set(self.seq.get() + 1);
        let url = format!("{}{}", self.daemon.base, request.path);
        let mut sent = self.http.request(request.method.clone(), url).timeout(PATIENCE).bearer_auth(&self.daemon.token);
        for (name, value) in &request.headers {
            sent = sent.header(*name, value.clone());
        }
        let body = replaced(&request.body, SEQ.to_string().as_bytes(), self.seq.get().to_string().as_bytes());
        self.runtime.block_on(async {
            let answer = match sent.body(body).send().await {
                Err(error) if error.is_timeout() => return None,
                answer => answer.expect("an answer"),
            };
            let kind = answer.headers().get("content-type").and_then(|kind| kind.to_str().ok()).unwrap_or_default();
            let (status, kind) = (answer.status().as_u16(), kind.to_owned());
            Some((status, kind, answer.bytes().await.expect("a body").to_vec()))
        })
    }

    /// What has been committed since this was last asked, without what the clock brings.
    fn news(&self) -> Vec<Event> {
        let news = self.runtime.block_on(events::read(&self.store.reader, self.read.get(), i64::MAX)).expect("a log");
        self.read.set(news.last().map_or(self.read.get(), |(seq, ..)| *seq));
        news.into_iter().map(|(_, _, event)| event).filter(|event| !is_of_the_clock(event)).collect()
    }

    fn answers(&self, request: &Request) -> TestCaseResult {
        let Some((status, kind, body)) = self.send(request) else {
            prop_assert!(request.path.contains("wait"), "no answer in time");
            return Ok(());
        };
        let news = self.news();
        let told = String::from_utf8_lossy(&body);
        prop_assert!(status < 500, "{status}: {told}");
        if status >= 400 {
            prop_assert_eq!(kind, "application/problem+json", "{}", told);
            let problem: Value = serde_json::from_slice(&body).unwrap_or_default();
            prop_assert!(problem["code"].as_str().is_some_and(|code| !code.is_empty()), "without a code: {told}");
            prop_assert!(news.is_empty(), "refused with {status}, and yet {news:?}");
        }
        Ok(())
    }

    /// What was made of all that came is one story in memory, in the tables and in the log.
    fn agrees(&self) {
        let (mut stored, mut folded) = self.runtime.block_on(self.daemon.stored_and_folded());
        // What was used of a class that no chip has any more is not read back from the tables.
        for told in [&mut stored, &mut folded] {
            told.past_use.retain(|past| past.class.as_str() == "nvidia-h20");
        }
        assert_eq!(stored, folded);
        let ready = self.runtime.block_on(self.daemon.send("GET", "/readyz", ""));
        assert_eq!(ready.0, 200, "{}", ready.1);
    }
}

/// What happens without a request: silence and bounds that run out, and what follows from it.
fn is_of_the_clock(event: &Event) -> bool {
    matches!(
        event,
        Event::NodeSilent { .. }
            | Event::ChipQuarantined { .. }
            | Event::ClaimMade { .. }
            | Event::ClaimDropped { .. }
            | Event::LeaseGranted { .. }
            | Event::LeaseRevoked { .. }
            | Event::LeaseEnded { .. }
            | Event::JobEnded { .. }
            | Event::ReservationMade { .. }
            | Event::ReservationOpened { .. }
            | Event::ReservationDropped { .. }
    )
}

fn replaced(bytes: &[u8], what: &[u8], by: &[u8]) -> Vec<u8> {
    match bytes.windows(what.len()).position(|window| window == what) {
        Some(at) => [&bytes[..at], by, &bytes[at + what.len()..]].concat(),
        None => bytes.to_vec(),
    }
}

#[test]
fn every_route_answers_spoiled_requests_and_a_refused_one_changes_nothing() {
    let (target, targets) = Target::new();
    check(1_200, requests(&targets), |request| target.answers(&request));
    target.agrees();
}

#[test]
fn every_body_may_be_spoiled() {
    let (target, targets) = Target::new();
    for (what, strategy) in requests::bodies(&targets) {
        // Unspoiled, each gets in: what is spoiled below is not refused for another reason.
        let (status, _, told) = target.send(&what).expect("an answer");
        assert!(status < 300, "{} {}: {status} {}", what.method, what.path, String::from_utf8_lossy(&told));
        target.news();
        check(60, strategy, |request| target.answers(&request));
    }
    target.agrees();
}
