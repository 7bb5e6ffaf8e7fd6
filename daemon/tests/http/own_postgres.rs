//! The daemon's own Postgres dies: the daemon, a real process, lives on and starts it again.

use crate::common::{SOON, job};
use chiptide_api::Client;
use serde_json::json;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        Command::new("kill").arg(self.0.id().to_string()).status().ok();
        self.0.wait().ok();
    }
}

async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let found = tokio::time::timeout(SOON * 3, async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    found.await.unwrap_or_else(|_| panic!("never: {what}"))
}

fn read(dir: &Path, name: &str) -> Option<String> {
    Some(std::fs::read_to_string(dir.join(name)).ok()?.trim().to_owned()).filter(|text| !text.is_empty())
}

/// The process id of the daemon's Postgres.
fn server(dir: &Path) -> Option<String> {
    Some(read(dir, "postgres/pgdata/postmaster.pid")?.lines().next()?.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_postgres_that_is_killed_is_started_again_under_the_running_daemon() {
    let dir = tempfile::tempdir().expect("a directory");
    // The account that Postgres runs under must be able to pass.
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o711)).expect("opened");
    let mut chiptided = Command::new(env!("CARGO_BIN_EXE_chiptided"));
    chiptided.arg("--data-dir").arg(dir.path()).args(["--listen", "127.0.0.1:0", "--admin-token-file"]);
    chiptided.arg(dir.path().join("token")).stdout(Stdio::null()).stderr(Stdio::null());
    let mut daemon = Process(chiptided.spawn().expect("started"));
    let base = until("it serves", async || read(dir.path(), "daemon.url")).await;
    let client = Client::new(&base, &read(dir.path(), "token").expect("a token")).expect("a client");
    let before = client.create_job(&job(json!({"name": "before"})), None).await.expect("accepted");

    assert!(client.ready().await);
    for signal in ["-QUIT", "-KILL"] {
        let server = until("Postgres runs", async || server(dir.path())).await;
        Command::new("kill").args([signal, &server]).status().expect("kill");
        until("another is started", async || self::server(dir.path()).filter(|now| *now != server)).await;
        until("writes resume", async || client.create_job(&job(json!({"name": "after"})), None).await.ok()).await;
        assert_eq!(client.job(before.id).await.expect("kept").id, before.id);
    }
    assert!(daemon.0.try_wait().expect("watched").is_none(), "the daemon itself never ended");
}
