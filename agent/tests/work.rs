//! Workloads as real processes: started under leases, warned, ended, and nothing of them left when a chip is proven vacant.

#[allow(dead_code, reason = "other tests use the rest")]
mod fake;
#[allow(dead_code, reason = "other tests use the rest")]
mod node;
#[allow(dead_code, reason = "other tests use the rest")]
mod scripted;

use chiptide_api::node::{ChipOrder, LeaseOrder};
use chiptide_api::work::{ReplicaOrder, StepBody, WorkBody};
use node::{Kept, Node, ends_in, runs, ways};
use scripted::vacate;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use uuid::Uuid;

fn has_ended(work: &WorkBody) -> bool {
    *work != WorkBody::Running
}

/// Ignores SIGTERM, forks away twice out of its session, and lists its processes in `pids`.
const STUBBORN: &str = r#"trap '' TERM
(setsid sh -c 'trap "" TERM; echo $$ >> pids; exec sleep 600' &)
echo $$ >> pids
while :; do sleep 600; done"#;

#[tokio::test]
async fn a_workload_is_told_where_it_is_and_its_end_is_reported() {
    for kept in ways() {
        let mut node = Node::start(kept).await;
        let id = Uuid::new_v4();
        let order = node.work(id, 7, "env > env; echo $GREETING; echo trouble >&2; exit 7");
        node.daemon.give("r1", vec![order.clone()], vec![]);
        let report = node.reported(id, has_ended).await;
        assert_eq!(report.work[0].work, WorkBody::Exited { code: 7 }, "{kept:?}");
        assert_eq!((report.work[0].rank, &report.confirmed), (1, &vec![id]), "it had begun");
        assert_eq!(
            (node.said(id, "stdout").await, node.said(id, "stderr").await),
            ("hello\n".into(), "trouble\n".into())
        );
        let env = node.said(id, "scratch/env").await;
        let notice = node.folder(id).join("notice.json");
        for (name, value) in [
            ("CUDA_VISIBLE_DEVICES", node.chips[0].as_str()),
            ("CHIPTIDE_JOB_ID", &order.job.to_string()),
            ("CHIPTIDE_LEASE_ID", &id.to_string()),
            ("CHIPTIDE_LEASE_EPOCH", "7"),
            ("CHIPTIDE_RANK", "1"),
            ("CHIPTIDE_WORLD_SIZE", "2"),
            ("CHIPTIDE_NODES", "n0,n1"),
            ("CHIPTIDE_LOCAL_RANK", "0"),
            ("MASTER_ADDR", "n0"),
            ("CHIPTIDE_NOTICE_FILE", notice.to_str().expect("a path")),
        ] {
            assert!(env.lines().any(|line| line == format!("{name}={value}")), "{name} is not {value} in\n{env}");
        }
    }
}

#[tokio::test]
async fn a_workload_that_heeds_its_notice_is_not_signalled() {
    let mut node = Node::start(ways()[0]).await;
    let id = Uuid::new_v4();
    let script = r#"trap 'exit 99' TERM
        until [ -e "$CHIPTIDE_NOTICE_FILE" ]; do sleep 0.01; done
        cat "$CHIPTIDE_NOTICE_FILE""#;
    let order = node.work(id, 7, script);
    node.daemon.give("r1", vec![order.clone()], vec![]);
    node.reported(id, |work| *work == WorkBody::Running).await;
    node.daemon.give("r2", vec![ends_in(order, "1h")], vec![]);
    let report = node.reported(id, has_ended).await;
    assert_eq!(report.work[0].work, WorkBody::Exited { code: 0 });
    let notice: serde_json::Value = serde_json::from_str(&node.said(id, "stdout").await).expect("JSON");
    assert_eq!((&notice["lease"], &notice["deadline"]), (&id.to_string().into(), &"2026-01-01T00:00:00+00:00".into()));
    assert!(notice["ends_in_ms"].as_u64().is_some_and(|left| left > 3_590_000), "{notice}");
}

#[tokio::test]
async fn at_its_deadline_a_workload_is_terminated_though_its_lease_still_stands() {
    let mut node = Node::start(ways()[0]).await;
    let id = Uuid::new_v4();
    let order = node.work(id, 7, "trap 'exit 42' TERM; echo ready; while :; do sleep 0.01; done");
    node.daemon.give("r1", vec![order.clone()], vec![]);
    node.said(id, "stdout").await;
    node.daemon.give("r2", vec![ends_in(order, "100ms")], vec![]);
    let report = node.reported(id, has_ended).await;
    assert_eq!(report.work[0].work, WorkBody::Exited { code: 42 });
}

#[tokio::test]
async fn nothing_is_left_of_a_workload_that_ignores_everything_when_its_chip_is_proven_vacant() {
    for kept in ways() {
        let mut node = Node::start(kept).await;
        let id = Uuid::new_v4();
        let order = node.work(id, 7, STUBBORN);
        node.daemon.give("r1", vec![order], vec![]);
        let pids = node.pids(id, "scratch/pids", 2).await;
        node.daemon.give("r2", vec![], vec![vacate(id, &node.chips[0], 7)]);
        node.daemon.reported(|report| !report.vacant.is_empty()).await;
        assert!(!pids.iter().any(|pid| runs(*pid)), "{kept:?}: {pids:?}");
        assert!(node.folder(id).starts_with(node.state().join("finished")), "{kept:?}");
    }
}

#[tokio::test]
async fn a_lease_that_shrinks_ends_the_replica_it_lost_and_no_other() {
    let mut node = Node::start(ways()[0]).await;
    let id = Uuid::new_v4();
    let mut both = node.work(id, 7, "echo $$ > /proc/self/cwd/pid; exec sleep 600");
    both.chips.push(ChipOrder { chip: node.chips[1].clone(), slots: 1000, epoch: 4 });
    let work = both.work.as_mut().expect("work");
    work.replicas.push(ReplicaOrder { rank: 2, chips: vec![node.chips[1].clone()], cpu_milli: 0, memory_mib: 0 });
    node.daemon.give("r1", vec![both.clone()], vec![]);
    let report = node.daemon.reported(|report| report.confirmed == [id]).await;
    assert_eq!(report.work.len(), 2);
    let kept = node.pids(id, "scratch/pid", 1).await[0];
    let mut one = both;
    one.chips.pop();
    one.work.as_mut().expect("work").replicas.pop();
    node.daemon.give("r2", vec![one], vec![vacate(id, &node.chips[1], 4)]);
    let report = node.daemon.reported(|report| !report.vacant.is_empty()).await;
    assert!(report.confirmed == [id] && runs(kept));
    assert!(node.state().join(format!("finished/{id}.2")).exists());
}

#[tokio::test]
async fn what_a_workload_leaves_behind_when_it_exits_is_ended_too() {
    for kept in ways() {
        let mut node = Node::start(kept).await;
        let id = Uuid::new_v4();
        let order = node.work(id, 7, "(setsid sh -c 'trap \"\" TERM; echo $$ >> pids; exec sleep 600' &); until [ -s pids ]; do sleep 0.01; done");
        node.daemon.give("r1", vec![order], vec![]);
        node.reported(id, |work| *work == WorkBody::Exited { code: 0 }).await;
        let pids = node.pids(id, "scratch/pids", 1).await;
        node.daemon.give("r2", vec![], vec![vacate(id, &node.chips[0], 7)]);
        node.daemon.reported(|report| !report.vacant.is_empty()).await;
        assert!(!runs(pids[0]), "{kept:?}");
    }
}

#[tokio::test]
async fn work_waits_until_nobody_else_is_on_its_chip() {
    let mut node = Node::start(ways()[0]).await;
    let (mut stranger, id) = (Command::new("sleep").arg("600").spawn().expect("a process"), Uuid::new_v4());
    node.scenario.work(stranger.id(), 0, 1000);
    let order = node.work(id, 7, "echo started");
    let witness = scripted::lease(Uuid::new_v4(), &node.chips[1], 3);
    node.daemon.give("r1", vec![order, witness.clone()], vec![]);
    let report = node.daemon.reported(|report| report.confirmed == [witness.lease]).await;
    assert!(report.work.is_empty() && !node.folder(id).exists());
    stranger.kill().expect("killed");
    stranger.wait().expect("reaped");
    node.reported(id, |work| *work == WorkBody::Exited { code: 0 }).await;
}

#[tokio::test]
async fn what_cannot_be_started_is_reported_with_the_reason_and_not_confirmed() {
    for kept in ways().into_iter().chain([Kept::Not]) {
        let mut node = Node::start(kept).await;
        let id = Uuid::new_v4();
        let mut order = node.work(id, 7, "");
        order.work.as_mut().expect("work").command = vec!["/no/such/program".into()];
        node.daemon.give("r1", vec![order], vec![]);
        let report = node.reported(id, has_ended).await;
        let WorkBody::Failed { reason } = &report.work[0].work else { panic!("{:?}", report.work) };
        let expected = if kept == Kept::Not { "process_groups is not set" } else { "/no/such/program" };
        assert!(reason.contains(expected) && report.confirmed.is_empty(), "{kept:?}: {reason}");
    }
}

#[tokio::test]
async fn an_agent_that_starts_again_finds_its_workload_and_can_still_end_it() {
    for kept in ways() {
        let mut node = Node::start(kept).await;
        let id = Uuid::new_v4();
        let order = node.work(id, 7, "echo $$ > pid; until [ -e go ]; do sleep 0.01; done; exit 5");
        node.daemon.give("r1", vec![order.clone()], vec![]);
        let pid = node.pids(id, "scratch/pid", 1).await[0];
        node.kill_agent();
        node.start_agent().await;
        let report = node.daemon.reported(|report| report.confirmed == [id]).await;
        assert!(report.work[0].work == WorkBody::Running && runs(pid), "{kept:?}: the same process");
        fs::write(node.folder(id).join("scratch/go"), "").expect("written");
        let report = node.reported(id, has_ended).await;
        assert_eq!(report.work[0].work, WorkBody::Exited { code: 5 }, "{kept:?}: its end is known all the same");
    }
}

#[tokio::test]
async fn a_start_that_was_cut_off_by_the_agents_death_is_made_up_for() {
    for kept in ways() {
        let mut node = Node::start(kept).await;
        let id = Uuid::new_v4();
        let order = node.work(id, 7, "echo once >> times; cat times");
        node.daemon.give("r1", vec![order], vec![]);
        node.reported(id, has_ended).await;
        node.kill_agent();
        // As it looks to the next agent when this one has died right after writing down what it would start.
        for file in ["started", "ended", "fenced", "guardian", "stdout", "scratch/times"] {
            let _ = fs::remove_file(node.folder(id).join(file));
        }
        node.start_agent().await;
        let report = node.reported(id, has_ended).await;
        assert_eq!(report.work[0].work, WorkBody::Exited { code: 0 }, "{kept:?}");
        assert_eq!(node.said(id, "stdout").await, "once\n");
    }
}

#[tokio::test]
async fn a_workload_runs_as_the_configured_user() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root can start work as somebody else");
        return;
    }
    let mut node = Node::prepare(ways()[0], serde_json::json!({"count": 1})).await;
    fs::set_permissions(node.scenario.path(), fs::Permissions::from_mode(0o755)).expect("opened");
    // On Debian in a group besides its own.
    node.user = "postgres";
    node.start_agent().await;
    let id = Uuid::new_v4();
    node.daemon.give("r1", vec![node.work(id, 7, "id -un; id -Gn; echo $USER; touch mine")], vec![]);
    let report = node.reported(id, has_ended).await;
    assert_eq!(report.work[0].work, WorkBody::Exited { code: 0 });
    let groups = Command::new("id").args(["-Gn", "postgres"]).output().expect("id runs").stdout;
    let groups = String::from_utf8(groups).expect("names");
    assert_eq!(node.said(id, "stdout").await, format!("postgres\n{groups}postgres\n"));
}

#[tokio::test]
async fn a_replica_that_failed_is_started_anew_with_what_it_had_said_and_done_and_the_count_outlives_the_agent() {
    for kept in ways() {
        let mut node = Node::start(kept).await;
        let id = Uuid::new_v4();
        let mut order = node.work(id, 7, "echo run $CHIPTIDE_RUN; echo x >> kept; wc -l < kept > lines; exit 3");
        node.daemon.give("r1", vec![order.clone()], vec![]);
        let report = node.reported(id, has_ended).await;
        assert_eq!((report.work[0].run, &report.work[0].work), (0, &WorkBody::Exited { code: 3 }), "{kept:?}");
        assert!(report.work[0].ended_ago.is_some());
        order.work.as_mut().expect("work").run = 1;
        node.daemon.give("r2", vec![order.clone()], vec![]);
        node.daemon.reported(|report| report.work.iter().any(|work| work.run == 1 && has_ended(&work.work))).await;
        node.kill_agent();
        node.start_agent().await;
        let report = node.reported(id, has_ended).await;
        assert_eq!(report.work[0].run, 1, "{kept:?}: nothing is run twice");
        order.work.as_mut().expect("work").run = 2;
        node.daemon.give("r3", vec![order.clone()], vec![]);
        node.daemon.reported(|report| report.work.iter().any(|work| work.run == 2 && has_ended(&work.work))).await;
        assert_eq!(node.said(id, "stdout").await, "run 0\nrun 1\nrun 2\n");
        assert_eq!(node.said(id, "scratch/lines").await.trim(), "3", "the working directory stays");
    }
}

#[tokio::test]
async fn a_replica_that_runs_is_ended_and_started_anew_when_another_of_its_gang_has_failed() {
    for kept in ways() {
        let node = Node::start(kept).await;
        let id = Uuid::new_v4();
        let mut order = node.work(id, 7, STUBBORN);
        node.daemon.give("r1", vec![order.clone()], vec![]);
        let before = node.pids(id, "scratch/pids", 2).await;
        order.work.as_mut().expect("work").run = 1;
        node.daemon.give("r2", vec![order], vec![]);
        let after = node.pids(id, "scratch/pids", 4).await;
        assert!(!before.iter().any(|pid| runs(*pid)), "{kept:?}: nothing is left of the first run");
        assert!(after[2..].iter().all(|pid| runs(*pid)), "{kept:?}");
    }
}

#[tokio::test]
async fn a_notice_comes_as_the_signal_that_the_job_asked_for() {
    let mut node = Node::start(ways()[0]).await;
    let id = Uuid::new_v4();
    let mut order = node.work(id, 7, "trap 'echo noticed; exit 0' USR1; echo ready; while :; do sleep 0.01; done");
    order.work.as_mut().expect("work").notice_signal = Some("SIGUSR1".into());
    node.daemon.give("r1", vec![order.clone()], vec![]);
    node.said(id, "stdout").await;
    node.daemon.give("r2", vec![ends_in(order, "1h")], vec![]);
    let report = node.reported(id, has_ended).await;
    assert_eq!(report.work[0].work, WorkBody::Exited { code: 0 });
    assert_eq!(node.said(id, "stdout").await, "ready\nnoticed\n");
}

#[tokio::test]
async fn every_step_down_the_ladder_is_told_and_a_deadline_that_is_put_off_is_heeded() {
    let mut node = Node::start(ways()[0]).await;
    let id = Uuid::new_v4();
    let order = node.work(id, 7, STUBBORN);
    node.daemon.give("r1", vec![order.clone()], vec![]);
    let pids = node.pids(id, "scratch/pids", 2).await;
    node.daemon.give("r2", vec![ends_in(order.clone(), "1500ms")], vec![]);
    node.said(id, "notice.json").await;
    let later = LeaseOrder { deadline: "2026-01-01T01:00:00Z".parse().ok(), ..ends_in(order.clone(), "1h") };
    node.daemon.give("r3", vec![later], vec![]);
    let left =
        |notice: String| serde_json::from_str::<serde_json::Value>(&notice).expect("JSON")["ends_in_ms"].as_u64();
    while left(node.said(id, "notice.json").await).is_none_or(|left| left < 3_500_000) {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    assert!(pids.iter().all(|pid| runs(*pid)));
    let vacated = vacate(id, &node.chips[0], 7);
    node.daemon.give("r4", vec![], vec![vacated]);
    let report = node.daemon.reported(|report| !report.ladders.is_empty()).await;
    let steps: Vec<StepBody> = report.ladders[0].steps.iter().map(|step| step.step).collect();
    assert_eq!(steps, [StepBody::Told, StepBody::Terminated, StepBody::Killed, StepBody::Empty]);
    let ago: Vec<u64> = report.ladders[0].steps.iter().map(|step| step.ago.0).collect();
    assert!(ago.is_sorted_by(|a, b| a >= b) && ago[1] - ago[2] >= 300, "kill_after lies between: {ago:?}");
    node.daemon.reported(|report| !report.vacant.is_empty() && !report.ladders.is_empty()).await;
}

#[tokio::test]
async fn a_job_may_name_a_user_that_the_node_allows_and_no_other() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root can start work as somebody else");
        return;
    }
    let mut node = Node::prepare(ways()[0], serde_json::json!({"count": 2})).await;
    fs::set_permissions(node.scenario.path(), fs::Permissions::from_mode(0o755)).expect("opened");
    node.users = "nobody";
    node.start_agent().await;
    for (epoch, user, expected) in [(7, "nobody", Some(WorkBody::Exited { code: 0 })), (8, "daemon", None)] {
        let id = Uuid::new_v4();
        let mut order = node.work(id, epoch, "[ $(id -un) = nobody ] && [ $(umask) = 0022 ]");
        order.work.as_mut().expect("work").user = Some(user.into());
        node.daemon.give(user, vec![order], vec![]);
        let report = node.reported(id, has_ended).await;
        let work = &report.work.iter().find(|work| work.lease == id).expect("told").work;
        match expected {
            Some(expected) => assert_eq!(*work, expected),
            None => {
                assert!(matches!(work, WorkBody::Failed { reason } if reason.contains("workload_users")), "{work:?}")
            }
        }
    }
}

#[tokio::test]
async fn an_agent_that_starts_again_ends_what_no_live_order_explains() {
    for kept in ways() {
        let mut node = Node::start(kept).await;
        let id = Uuid::new_v4();
        let order = node.work(id, 7, STUBBORN);
        node.daemon.give("r1", vec![order], vec![]);
        let pids = node.pids(id, "scratch/pids", 2).await;
        node.kill_agent();
        node.daemon.give("r2", vec![], vec![vacate(id, &node.chips[0], 7)]);
        assert!(pids.iter().all(|pid| runs(*pid)), "an agent's death ends no work");
        node.start_agent().await;
        node.daemon.reported(|report| !report.vacant.is_empty()).await;
        assert!(!pids.iter().any(|pid| runs(*pid)), "{kept:?}");
    }
}

#[tokio::test]
async fn what_nobody_wrote_down_is_ended_before_the_node_registers() {
    let Kept::Cgroups = ways()[0] else { return };
    let mut node = Node::prepare(Kept::Cgroups, serde_json::json!({"count": 1})).await;
    let stray = node.root.join(format!("{}.0", Uuid::new_v4()));
    fs::create_dir_all(&stray).expect("a cgroup");
    let script = format!("echo $$ > {}/cgroup.procs && echo in && exec sleep 600", stray.display());
    let mut process =
        Command::new("sh").args(["-c", &script]).stdout(std::process::Stdio::piped()).spawn().expect("a process");
    let mut said = [0; 3];
    std::io::Read::read_exact(process.stdout.as_mut().expect("piped"), &mut said).expect("it is in");
    node.start_agent().await;
    assert!(!runs(process.id()) && !stray.exists());
    process.wait().expect("reaped");
}
