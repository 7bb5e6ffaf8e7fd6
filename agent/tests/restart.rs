//! What an agent remembers of the one before it, and that there is never more than one.

#[allow(dead_code, reason = "other tests use the rest")]
mod fake;
#[allow(dead_code, reason = "other tests use the rest")]
mod scripted;

use chiptide_agent::{Agent, StateDir};
use chiptide_api::node::RefusedBody;
use fake::{Scenario, agent, library};
use scripted::{Daemon, World, chip, lease};
use serde_json::json;
use std::path::Path;
use uuid::Uuid;

const HOUR: &str = "1h";

fn remembering(state: &Path) -> impl FnOnce(Agent) -> Agent {
    let state = StateDir::open(state).expect("no other agent");
    move |agent| agent.remembering(state).expect("a readable state")
}

#[tokio::test]
async fn an_order_older_than_what_the_last_agent_saw_is_refused_and_answered() {
    let state = tempfile::tempdir().expect("a folder");
    let (first, late) = (Uuid::new_v4(), Uuid::new_v4());
    let daemon = Daemon::start(HOUR).await;
    let mut world = World::with(daemon, vec![chip("c0", &[])], remembering(state.path()));
    world.order("r1", vec![lease(first, "c0", 7)], vec![]).await;
    world.reported(|report| report.confirmed == [first]).await;
    let mut world = World::with(world.kill().await, vec![chip("c0", &[])], remembering(state.path()));
    let report = world.reported(|report| report.orders_seen.as_deref() == Some("r1")).await;
    assert_eq!(report.confirmed, [first], "still live, and carried on");

    world.order("r2", vec![lease(late, "c0", 6)], vec![]).await;
    let report = world.reported(|report| !report.refused.is_empty()).await;
    assert_eq!(
        report.refused,
        [RefusedBody { lease: late, chip: "c0".into(), epoch: 6, seen: 7, seen_lease: Some(first) }]
    );
    assert!(report.confirmed.is_empty());
}

#[tokio::test]
async fn orders_that_cannot_be_remembered_are_not_carried_out() {
    let state = tempfile::tempdir().expect("a folder");
    // A folder where the next version of the file would be written: no permission is needed to be in the way of root.
    let in_the_way = state.path().join("epochs.new");
    std::fs::create_dir(&in_the_way).expect("made");
    let held = Uuid::new_v4();
    let daemon = Daemon::start("50ms").await;
    let mut world = World::with(daemon, vec![chip("c0", &[])], remembering(state.path()));
    world.give("r1", vec![lease(held, "c0", 7)], vec![]);
    for _ in 0..5 {
        let report = world.reported(|_| true).await;
        assert!(report.confirmed.is_empty() && report.orders_seen.as_deref() != Some("r1"));
    }
    std::fs::remove_dir(&in_the_way).expect("removed");
    world.reported(|report| report.confirmed == [held]).await;
}

#[test]
fn a_second_agent_and_an_agent_with_a_damaged_state_refuse_to_start() {
    let scenario = Scenario::new(json!({"count": 1}));
    let state = scenario.path().join("state");
    let refusal = || {
        let mut command = agent();
        command.args(["--token", "t", "--node", "n1", "--daemon", "http://127.0.0.1:1", "--nvml-library"]);
        command.arg(library()).arg("--state-dir").arg(&state).env("CHIPTIDE_FAKE_NVML", scenario.path());
        let output = command.output().expect("it ends");
        assert!(!output.status.success());
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let first = StateDir::open(&state).expect("free");
    let said = refusal();
    let holder = format!("another agent (pid {}) serves this node", std::process::id());
    assert!(said.contains(&holder), "{said}");
    drop(first);
    std::fs::write(state.join("epochs"), "chiptide-agent-state-1 0123").expect("written");
    let said = refusal();
    assert!(said.contains("is cut or altered") && said.contains("epochs"), "{said}");
}
