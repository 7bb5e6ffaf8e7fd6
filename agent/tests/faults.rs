//! XIDs on the way from the driver and the kernel's log to the reports, through the real NVML code on the fake library.

#[allow(dead_code, reason = "the tests of readings use the rest")]
mod fake;

use chiptide_api::fault::FaultBody;
use chiptide_api::node::{OrdersView, RegisterView, ReportBody, ReportView};
use fake::{Scenario, agent, library};
use serde_json::json;
use std::io::Write;
use std::path::Path;
use std::process::Child;
use std::time::Duration;
use tokio::sync::mpsc;

/// How long anything may take: a bound on failure, never a pause.
const BOUND: Duration = Duration::from_secs(60);

/// A daemon that takes every report in and hands it to the test.
async fn daemon() -> (String, mpsc::UnboundedReceiver<ReportBody>) {
    let (sender, reports) = mpsc::unbounded_channel();
    let registered = async || {
        let (report_every, silent_after) = ("100ms".parse().expect("a span"), "10s".parse().expect("a span"));
        axum::Json(RegisterView { session: uuid::Uuid::from_u128(1), report_every, silent_after })
    };
    let take = async move |axum::Json(report): axum::Json<ReportBody>| {
        let _ = sender.send(report);
        axum::Json(ReportView { accepted: true, orders: None, renewed: Default::default() })
    };
    let orders = async || {
        tokio::time::sleep(Duration::from_secs(5)).await;
        axum::Json(OrdersView { revision: "1".into(), ..OrdersView::default() })
    };
    let router = axum::Router::new()
        .route("/v1/nodes/{id}/register", axum::routing::post(registered))
        .route("/v1/nodes/{id}/report", axum::routing::post(take))
        .route("/v1/nodes/{id}/orders", axum::routing::get(orders));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move { axum::serve(listener, router).await });
    (format!("http://{address}"), reports)
}

/// The first told fault that is wanted.
async fn told(reports: &mut mpsc::UnboundedReceiver<ReportBody>, wanted: impl Fn(&FaultBody) -> bool) -> FaultBody {
    let search = async {
        loop {
            let report = reports.recv().await.expect("the agent lives");
            if let Some(fault) = report.faults.into_iter().find(&wanted) {
                return fault;
            }
        }
    };
    tokio::time::timeout(BOUND, search).await.expect("told in time")
}

/// The agent's binary on a scenario, ended with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(scenario: &Scenario, daemon: &str, log: &Path) -> Running {
    let mut agent = agent();
    agent.env("CHIPTIDE_FAKE_NVML", scenario.path()).arg("--nvml-library").arg(library());
    agent.arg("--kmsg").arg(log).arg("--state-dir").arg(scenario.path().join("state"));
    agent.args(["--daemon", daemon, "--token", "token", "--sample-every", "100ms", "--read-deadline", "20s"]);
    Running(agent.args(["--clean", "unknown=3/100ms"]).spawn().expect("it starts"))
}

#[tokio::test(flavor = "multi_thread")]
async fn xids_of_the_driver_and_of_the_kernels_log_are_told_with_their_class_and_end_by_evidence() {
    let scenario = Scenario::new(json!({"count": 2}));
    let log = scenario.path().join("kmsg");
    std::fs::write(&log, "6,1,1,-;NVRM: Xid (PCI:0000:10:00): 79, an old one\n").expect("written");
    let (url, mut reports) = daemon().await;
    let _agent = start(&scenario, &url, &log);
    reports.recv().await.expect("a report");

    // The threads that listen may come later than a line or an event; both are repeated until they are heard.
    let mut xids = Vec::new();
    let heard = async {
        loop {
            xids.push(48);
            scenario.set(json!({"count": 2, "chips": [{}, {"xids": xids}]}));
            let mut file = std::fs::File::options().append(true).open(&log).expect("the log");
            writeln!(file, "6,2,2,-;NVRM: Xid (PCI:0000:10:00): 4242, pid=7, odd\x01").expect("written");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    let both = async {
        let driver = told(&mut reports, |fault| fault.code == 48).await;
        let kernel = told(&mut reports, |fault| fault.code == 4242).await;
        (driver, kernel)
    };
    let (driver, kernel) = tokio::select! { both = both => both, () = heard => unreachable!("it goes on for ever") };
    assert_eq!((driver.dimension.as_str(), driver.class.as_str()), ("xid", "reset"));
    assert_eq!((kernel.class.as_str(), kernel.detail.as_str()), ("unknown", "not in the table of XIDs: pid=7, odd "));
    assert_ne!(driver.chip, kernel.chip);
    let over = told(&mut reports, |fault| fault.code == 4242 && fault.ended.is_some()).await;
    assert!(over.ended.expect("over").contains("clean readings in a row"));
}
