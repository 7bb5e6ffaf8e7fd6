//! The program itself against a scripted daemon: what goes to stdout, what to stderr, and the exit code.

mod scripted;

use scripted::{Answer, Daemon};
use serde_json::{Value, json};
use std::io::Write;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

const JOB: &str = "0190c2f0-0000-7000-8000-000000000001";
const TRAIN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/train.yaml");

fn job(state: &str, revision: u64) -> Value {
    json!({
        "id": JOB, "state": state, "attempt": 0, "preemptions": 0, "priority": 500, "revision": revision,
        "submitted_at": "2026-11-24T11:58:00Z", "changed_at": "2026-11-24T11:59:30Z",
        "reasons": [{"code": "insufficient_chips", "message": "needs 4 chips, 1 is free"}],
        "spec": {"kind": "training", "name": "llm", "queue": "training", "replicas": 1, "chips": 4}
    })
}

fn problem(status: u16, code: &str) -> Answer {
    let body =
        json!({"type": format!("/problems/{code}"), "title": "No", "status": status, "code": code, "detail": "d"});
    Answer { status, body }
}

fn ok(body: Value) -> Answer {
    Answer { status: 200, body }
}

fn chiptide(url: &str, args: &[&str], stdin: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_chiptide"));
    command.args(args).env("CHIPTIDE_URL", url).env("CHIPTIDE_TOKEN", "secret").env("NO_COLOR", "1");
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it runs");
    child.stdin.take().expect("piped").write_all(stdin.as_bytes()).expect("written");
    child.wait_with_output().expect("it ends")
}

fn words(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn a_submit_waits_says_why_and_prints_the_job() {
    let daemon = Daemon::start(|seen| match (seen.method.as_str(), seen.path.as_str()) {
        ("POST", "/v1/jobs") => ok(job("pending", 1)),
        ("GET", path) if path.contains("after=1") => ok(job("leased", 2)),
        _ => problem(404, "not_found"),
    });
    let output = chiptide(daemon.url(), &["job", "submit", TRAIN, "--idempotency-key", "k1", "-o", "json"], "");
    assert_eq!(output.status.code(), Some(0), "{}", words(&output.stderr));
    let printed: Value = serde_json::from_slice(&output.stdout).expect("JSON and nothing else on stdout");
    assert_eq!(printed["state"], "leased");
    assert!(words(&output.stderr).contains("llm pending: needs 4 chips, 1 is free"), "{}", words(&output.stderr));
    let seen = daemon.seen();
    assert!(seen[0].head.contains("idempotency-key: k1") && seen[0].head.contains("authorization: Bearer secret"));
    assert!(seen[0].body.contains("\"grace\":\"30s\""), "{}", seen[0].body);
}

#[test]
fn a_submit_can_leave_at_once_with_the_id_alone() {
    let daemon = Daemon::start(|seen| match seen.body.starts_with('[') {
        true => ok(json!({"jobs": [job("pending", 1), job("pending", 1)]})),
        false => ok(job("pending", 1)),
    });
    let output = chiptide(daemon.url(), &["job", "submit", TRAIN, "--no-wait", "--parsable"], "");
    assert_eq!((output.status.code(), words(&output.stdout)), (Some(0), format!("{JOB}\n")));
    let two = "kind: training\nname: a\nchips: 1\n---\nkind: training\nname: b\nchips: 1\n";
    let output = chiptide(daemon.url(), &["job", "submit", "-", "--no-wait", "--parsable"], two);
    assert_eq!(words(&output.stdout), format!("{JOB}\n{JOB}\n"));
    let keys = daemon.keys();
    assert_ne!(keys[0], keys[1], "every invocation is a submit of its own");
}

#[test]
fn a_submit_whose_answer_is_lost_is_repeated_with_its_key() {
    let calls = AtomicU32::new(0);
    let daemon = Daemon::start(move |_| match calls.fetch_add(1, Ordering::Relaxed) {
        0 => problem(503, "no_leader"),
        _ => ok(job("pending", 1)),
    });
    let output = chiptide(daemon.url(), &["job", "submit", TRAIN, "--no-wait", "--parsable"], "");
    assert_eq!((output.status.code(), words(&output.stdout)), (Some(0), format!("{JOB}\n")));
    let keys = daemon.keys();
    assert!(keys.len() == 2 && keys[0] == keys[1], "{keys:?}");
}

#[test]
fn a_wait_that_is_over_says_why_the_job_still_waits() {
    let daemon = Daemon::start(|_| ok(job("pending", 1)));
    let output = chiptide(daemon.url(), &["job", "submit", TRAIN, "--timeout", "200ms"], "");
    assert_eq!(output.status.code(), Some(1));
    let talk = words(&output.stderr);
    assert!(talk.contains("is still pending after 200ms: needs 4 chips, 1 is free"), "{talk}");
    assert!(words(&output.stdout).contains(JOB), "the job is accepted all the same");
}

#[test]
fn a_watch_is_a_line_a_change_and_ends_with_the_job() {
    let daemon = Daemon::start(|seen| match seen.path.split("after=").nth(1) {
        None => ok(job("pending", 1)),
        Some(after) if after.starts_with('1') => ok(job("running", 2)),
        Some(_) => ok(job("failed", 3)),
    });
    let output = chiptide(daemon.url(), &["job", "watch", JOB], "");
    assert_eq!(output.status.code(), Some(1), "a failed job is a failed watch");
    let states: Vec<String> =
        words(&output.stdout).lines().map(|line| line.split(' ').nth(2).unwrap_or("").into()).collect();
    assert_eq!(states, ["pending:", "running:", "failed:"]);
}

#[test]
fn exit_codes_tell_what_kind_of_no_it_was() {
    let daemon = Daemon::start(|seen| match seen.path.as_str() {
        "/v1/nodes/n1" => problem(404, "unknown_node"),
        "/v1/chips?limit=100" => problem(403, "forbidden"),
        _ => problem(503, "no_leader"),
    });
    let run = |args: &[&str], stdin| {
        let output = chiptide(daemon.url(), args, stdin);
        let talk = words(&output.stderr);
        assert!(output.stdout.is_empty() && talk.starts_with("error: ") && talk.lines().count() == 1, "{talk}");
        (output.status.code(), talk)
    };
    assert_eq!(run(&["node", "get", "n1"], "").0, Some(3));
    assert_eq!(run(&["chip", "list"], "").0, Some(4));
    let (code, talk) = run(&["lease", "list"], "");
    assert!(code == Some(1) && talk.contains("(no_leader)"), "{talk}");
    let (code, talk) = run(&["job", "submit", "-"], "kind: training\nname: a\nchip: 1\n");
    assert!(code == Some(2) && talk.contains("chip: unknown field"), "{talk}");
    assert_eq!(daemon.seen().len(), 3, "a bad file is never sent");
    assert_eq!(chiptide(daemon.url(), &["job", "get", "not-an-id"], "").status.code(), Some(2));
    let nobody = chiptide("http://127.0.0.1:1", &["node", "list"], "");
    let talk = words(&nobody.stderr);
    assert!(
        nobody.status.code() == Some(1) && talk.contains("Connection refused") && talk.contains("chiptide up"),
        "{talk}"
    );
}

#[test]
fn a_reader_that_leaves_is_no_failure() {
    let daemon = Daemon::start(|_| ok(json!({"items": [job("running", 1)]})));
    let script = format!("{} job list | true; exit ${{PIPESTATUS[0]}}", env!("CARGO_BIN_EXE_chiptide"));
    let output = Command::new("bash").args(["-c", &script]).env("CHIPTIDE_URL", daemon.url()).output().expect("bash");
    assert_eq!((output.status.code(), words(&output.stderr)), (Some(0), String::new()));
}

#[test]
fn completions_and_version_need_no_daemon() {
    let output = chiptide("http://127.0.0.1:1", &["completions", "bash"], "");
    assert!(output.status.success() && words(&output.stdout).contains("_chiptide()"));
    assert!(words(&chiptide("http://127.0.0.1:1", &["version"], "").stdout).starts_with("chiptide "));
}

#[test]
fn an_explanation_is_told_to_people_and_to_programs() {
    let told = json!({
        "job": JOB, "name": "llm", "queue": "training", "priority": 500, "state": "pending",
        "message": "it waits: 4 chips are needed, 1 is free",
        "blockers": [{"code": "insufficient_chips", "message": "4 chips are needed, 1 is free"}]
    });
    let answer = told.clone();
    let daemon = Daemon::start(move |seen| match seen.path.as_str() {
        path if path == format!("/v1/jobs/{JOB}/explain") => ok(answer.clone()),
        _ => problem(404, "no_such_job"),
    });
    let people = chiptide(daemon.url(), &["explain", JOB], "");
    assert_eq!(people.status.code(), Some(0), "{}", words(&people.stderr));
    assert!(words(&people.stdout).contains("In the way: 4 chips are needed, 1 is free (insufficient_chips)"));
    let programs = chiptide(daemon.url(), &["explain", JOB, "--output", "json"], "");
    assert_eq!(serde_json::from_slice::<Value>(&programs.stdout).expect("JSON"), told);
    let nobody = chiptide(daemon.url(), &["explain", "0190c2f0-0000-7000-8000-000000000009"], "");
    assert_eq!(nobody.status.code(), Some(3));
}

#[test]
fn a_policy_follows_the_version_that_was_read_and_nobody_is_asked_where_nobody_is() {
    let in_force = json!({"version": 3, "author": "a", "reason": "", "applied_at": "2026-11-24T12:00:00Z", "policy": {"queues": {"ads": {}}}});
    let applied = json!({"version": 4, "author": "a", "reason": "more", "changes": [], "warnings": []});
    let dry = json!({"plan": "0", "policy_version": 3, "evictions_total": 0, "evictions": [], "starts_total": 0, "starts": [],
        "queues": [], "changes": [{"path": "queues.lab", "after": {}, "takes_effect": "now", "effect": "at once"}]});
    let daemon = Daemon::start(move |seen| match (seen.method.as_str(), seen.path.as_str()) {
        ("GET", "/v1/policy") => ok(in_force.clone()),
        ("POST", "/v1/policy:dry-run") => ok(dry.clone()),
        ("PUT", path) if path.starts_with("/v1/policy?reason=more") => ok(applied.clone()),
        _ => problem(404, "not_found"),
    });
    let text = "queues: {ads: {}, lab: {}}";
    let unasked = chiptide(daemon.url(), &["policy", "apply", "-", "--reason", "more"], text);
    assert_eq!(unasked.status.code(), Some(2), "{}", words(&unasked.stderr));
    assert!(words(&unasked.stderr).contains("+ queues.lab: {}") && words(&unasked.stderr).contains("--yes"));
    assert!(daemon.seen().iter().all(|seen| seen.method != "PUT"), "nothing was changed");
    let made = chiptide(daemon.url(), &["policy", "apply", "-", "--reason", "more", "--yes"], text);
    assert_eq!(made.status.code(), Some(0), "{}", words(&made.stderr));
    assert!(words(&made.stdout).contains("version 4 is in force"));
    let put = daemon.seen().into_iter().find(|seen| seen.method == "PUT").expect("a change");
    assert!(put.head.contains("if-match: \"3\"") && put.body == text, "{}", put.head);
    let diff = chiptide(daemon.url(), &["policy", "diff", "-"], text);
    assert_eq!(words(&diff.stdout).trim(), "+ queues.lab: {\"weight\":1}");
}
