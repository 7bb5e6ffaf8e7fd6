//! The whole of it but the daemon: the agent's binary, its NVML code, a process that stands for a GPU job, and orders.

#[allow(dead_code, reason = "other tests use the rest")]
mod fake;
#[allow(dead_code, reason = "other tests use the rest")]
mod scripted;

use chiptide_api::node::{ReportBody, VacantBody};
use fake::{Scenario, agent, library};
use scripted::{Daemon, lease, vacate};
use serde_json::json;
use std::process::{Child, Command};
use uuid::Uuid;

struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn job(lease: Uuid) -> Ended {
    Ended(Command::new("sleep").arg("600").env("CHIPTIDE_LEASE_ID", lease.to_string()).spawn().expect("a job"))
}

#[tokio::test]
async fn a_chip_is_proven_vacant_soon_after_its_job_has_died_and_not_before() {
    let (mut daemon, scenario) = (Daemon::start("1h").await, Scenario::new(json!({"count": 2})));
    let mut command = agent();
    command.args(["--token", "t", "--node", "n1", "--daemon", &daemon.url, "--nvml-library"]).arg(library());
    // Nothing but the hurry of an order to vacate brings a second sample within this test.
    command.arg("--state-dir").arg(scenario.path().join("state"));
    command.args(["--sample-every", "1h"]).env("CHIPTIDE_FAKE_NVML", scenario.path());
    let (ended, sharer) = (Uuid::new_v4(), Uuid::new_v4());
    let (old, shared) = (job(ended), job(sharer));
    scenario.work(old.0.id(), 0, 1000);
    scenario.work(shared.0.id(), 0, 1000);
    let _agent = Ended(command.spawn().expect("it starts"));
    let chips = daemon.registered().await.chips;
    let (used, empty) = (&chips[0].id, &chips[1].id);

    let orders = vec![vacate(ended, used, 5), vacate(ended, empty, 8)];
    daemon.give("r1", vec![lease(sharer, used, 6)], orders);
    let report = daemon.reported(|report| !report.vacant.is_empty()).await;
    assert_eq!(report.vacant, [VacantBody { chip: empty.clone(), lease: ended, epoch: 8 }], "the other is in use");
    assert!(report.confirmed == [sharer]);

    drop(old);
    let report = daemon.reported(|report| report.vacant.len() == 2).await;
    let proof = report.vacant.iter().find(|proof| proof.chip == *used).expect("proven");
    assert_eq!((proof.lease, proof.epoch), (ended, 6), "its sharer works on");
}

#[tokio::test]
async fn memory_that_outlives_its_process_keeps_a_chip_from_being_proven() {
    let scenario = Scenario::new(json!({"count": 1, "defaults": {"linger_ms": 700}}));
    let mut daemon = Daemon::start("20ms").await;
    let mut command = agent();
    command.args(["--token", "t", "--node", "n1", "--daemon", &daemon.url, "--nvml-library"]).arg(library());
    command.arg("--state-dir").arg(scenario.path().join("state"));
    command.args(["--sample-every", "1h"]).env("CHIPTIDE_FAKE_NVML", scenario.path());
    let ended = Uuid::new_v4();
    let work = job(ended);
    scenario.work(work.0.id(), 0, 40_000);
    let _agent = Ended(command.spawn().expect("it starts"));
    let chip = daemon.registered().await.chips[0].id.clone();
    daemon.give("r1", vec![], vec![vacate(ended, &chip, 5)]);
    drop(work);
    let no_process = |report: &ReportBody| report.chips[0].reading.processes.as_ref().is_some_and(Vec::is_empty);
    let report = daemon.reported(no_process).await;
    assert_eq!((report.chips[0].reading.memory_used_mib, report.vacant.len()), (Some(40_001), 0));
    let report = daemon.reported(|report| !report.vacant.is_empty()).await;
    assert_eq!(report.chips[0].reading.memory_used_mib, Some(1));
}
