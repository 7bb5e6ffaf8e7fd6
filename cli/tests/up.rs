//! `chiptide up` with stand-ins for the programs that it starts.

#[allow(dead_code)]
mod scripted;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use scripted::{Answer, Daemon};
use serde_json::json;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A daemon that becomes ready at once, as far as `up` can tell, and leaves a mark when it is asked to stop.
const CHIPTIDED: &str = r#"#!/bin/sh
[ "$1 $3 $5" = "--data-dir --listen --admin-token-file" ] || exit 9
trap 'echo daemon >> "$MARKS"; exit 0' TERM
echo s3cret > "$6"
echo "$FAKE_URL" > "$2/daemon.url"
while :; do sleep 0.05; done
"#;

const FLEET: &str = r#"#!/bin/sh
echo "$@" > "$MARKS.args"
trap 'echo fleet >> "$MARKS"; exit 0' TERM
while :; do sleep 0.05; done
"#;

struct Stage {
    dir: TempDir,
    _daemon: Daemon,
    url: String,
}

impl Stage {
    /// `chiptide` in a directory with the stand-ins beside it.
    fn new(chiptided: &str, fleet: &str) -> Stage {
        let daemon = Daemon::start(|seen| {
            let node = |name: &str| {
                json!({"id": name, "state": "up", "labels": {}, "agent_version": "1", "cpu_milli": 0, "cpu_milli_free": 0,
                       "memory_mib": 0, "memory_mib_free": 0, "chips": 3, "chips_free": 3, "device_classes": []})
            };
            let body = if seen.path == "/readyz" { json!({}) } else { json!({"items": [node("a"), node("b")]}) };
            Answer { status: 200, body }
        });
        let dir = tempfile::tempdir().expect("a directory");
        let program = dir.path().join("chiptide");
        let built = env!("CARGO_BIN_EXE_chiptide");
        fs::hard_link(built, &program).or_else(|_| fs::copy(built, &program).map(|_| ())).expect("placed");
        for (name, text) in [("chiptided", chiptided), ("chiptide-sim", fleet)] {
            fs::write(dir.path().join(name), text).expect("written");
            fs::set_permissions(dir.path().join(name), fs::Permissions::from_mode(0o755)).expect("mode");
        }
        let url = daemon.url().to_owned();
        Stage { dir, _daemon: daemon, url }
    }

    fn marks(&self) -> PathBuf {
        self.dir.path().join("marks")
    }

    fn up(&self) -> Child {
        let mut command = Command::new(self.dir.path().join("chiptide"));
        command.args(["up", "--listen", "127.0.0.1:0", "--nodes", "2", "--chips", "3", "--data-dir"]);
        command.arg(self.dir.path().join("data")).env("FAKE_URL", &self.url).env("MARKS", self.marks());
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it runs")
    }
}

fn wait_for(path: &Path) {
    let until = Instant::now() + Duration::from_secs(20);
    while !path.exists() {
        assert!(Instant::now() < until, "{} should be there", path.display());
        sleep(Duration::from_millis(20));
    }
}

fn end(child: Child) -> (Output, String, String) {
    let output = child.wait_with_output().expect("it ends");
    let (out, err) = (String::from_utf8_lossy(&output.stdout).into(), String::from_utf8_lossy(&output.stderr).into());
    (output, out, err)
}

#[test]
fn it_greets_and_stops_everything_in_order_when_asked() {
    let stage = Stage::new(CHIPTIDED, FLEET);
    let child = stage.up();
    wait_for(&stage.marks().with_extension("args"));
    sleep(Duration::from_millis(500));
    kill(Pid::from_raw(i32::try_from(child.id()).expect("a pid")), Signal::SIGTERM).expect("asked");
    let (output, out, err) = end(child);
    assert!(output.status.success(), "{err}");
    assert!(out.contains(&stage.url) && out.contains("s3cret") && out.contains("6 on 2 nodes"), "{out}");
    assert!(out.contains("CHIPTIDE_TOKEN_FILE=") && out.contains("job submit examples/train.yaml"), "{out}");
    assert_eq!(fs::read_to_string(stage.marks()).expect("marks"), "fleet\ndaemon\n", "the daemon stops last");
    let args = fs::read_to_string(stage.marks().with_extension("args")).expect("arguments");
    assert!(
        args.starts_with(&format!("fleet --url {} --nodes 2 --chips-per-node 3 --token-file ", stage.url)),
        "{args}"
    );
    assert!(stage.dir.path().join("data/admin-token").exists(), "the data stays");
}

#[test]
fn a_daemon_that_cannot_start_is_reported_with_its_words() {
    let stage = Stage::new("#!/bin/sh\necho 'there is no Postgres' >&2\nexit 1\n", FLEET);
    let (output, out, err) = end(stage.up());
    assert_eq!((output.status.code(), out.as_str()), (Some(1), ""));
    assert!(err.contains("chiptided ended") && err.contains("there is no Postgres"), "{err}");
}

#[test]
fn a_fleet_that_dies_takes_the_rest_down() {
    let stage = Stage::new(CHIPTIDED, "#!/bin/sh\nsleep 0.3\necho 'lost my chips'\nexit 7\n");
    let (output, _, err) = end(stage.up());
    assert_eq!(output.status.code(), Some(1));
    assert!(err.contains("chiptide-sim ended (exit status: 7)") && err.contains("lost my chips"), "{err}");
    assert_eq!(fs::read_to_string(stage.marks()).expect("marks"), "daemon\n");
}
