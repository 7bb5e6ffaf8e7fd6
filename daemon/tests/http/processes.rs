//! Two daemons as processes, so that one can be killed or stopped in the middle of what it does.

use crate::common::{SOON, job};
use chiptide_api::Client;
use chiptide_daemon::store::Store;
use serde_json::json;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

struct Process {
    child: Child,
    url: String,
}

impl Process {
    async fn start(database_url: &str, dir: &Path, name: &str) -> Process {
        let own = dir.join(name);
        std::fs::create_dir(&own).expect("a directory");
        let child = Command::new(env!("CARGO_BIN_EXE_chiptided"))
            .args(["--listen", "127.0.0.1:0", "--database-url", database_url])
            .arg("--data-dir")
            .arg(&own)
            .arg("--admin-token-file")
            .arg(dir.join("admin-token"))
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(own.join("log")).expect("a log"))
            .spawn()
            .expect("started");
        let mut process = Process { child, url: String::new() };
        let file = own.join("daemon.url");
        let waited = tokio::time::timeout(SOON, async {
            while process.url.is_empty() {
                process.url = std::fs::read_to_string(&file).unwrap_or_default().trim().to_owned();
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        });
        waited.await.unwrap_or_else(|_| panic!("{name} does not serve"));
        process
    }

    fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([name, &self.child.id().to_string()]).status();
        assert!(sent.expect("kill runs").success());
    }

    fn client(&self, dir: &Path) -> Client {
        let token = std::fs::read_to_string(dir.join("admin-token")).expect("a token");
        Client::new(&self.url, token.trim()).expect("a client")
    }

    async fn until(&self, role: &str) {
        let waited = tokio::time::timeout(SOON, async {
            loop {
                if let Ok(answer) = reqwest::get(format!("{}/readyz", self.url)).await
                    && let Ok(view) = answer.json::<serde_json::Value>().await
                    && view["role"] == role
                    && view["status"] == "ready"
                {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        waited.await.unwrap_or_else(|_| panic!("it does not become a ready {role}"));
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// A database of the test's own, and a place for files.
async fn ground(name: &'static str) -> (String, tempfile::TempDir) {
    let url = tokio::task::spawn_blocking(move || {
        let name = format!("{name}_{}", std::process::id());
        let cluster = chiptide_postgres::throwaway();
        cluster.ensure_database(&name).expect("a database");
        cluster.url(&name)
    });
    (url.await.expect("a URL"), tempfile::tempdir().expect("a directory"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_leader_is_followed_by_the_standby_with_every_acknowledged_job() {
    let (database, dir) = ground("killed").await;
    let mut leader = Process::start(&database, dir.path(), "first").await;
    let standby = Process::start(&database, dir.path(), "second").await;
    let both = Client::new(
        &format!("{},{}", leader.url, standby.url),
        std::fs::read_to_string(dir.path().join("admin-token")).expect("a token").trim(),
    );
    let both = both.expect("a client");
    let body = job(json!({}));
    let mut acknowledged = Vec::new();
    for number in 0..20 {
        let key = format!("k{number}");
        acknowledged.push((both.create_job(&body, Some(&key)).await.expect("accepted").id, key));
    }
    leader.child.kill().expect("killed");
    leader.child.wait().expect("gone");
    standby.until("leader").await;
    for (id, key) in acknowledged {
        assert_eq!(both.create_job(&body, Some(&key)).await.expect("the same answer").id, id);
    }
    assert_eq!(both.jobs(&[]).await.expect("a list").items.len(), 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_leader_wakes_as_a_standby_and_has_committed_nothing() {
    let (database, dir) = ground("stopped").await;
    let leader = Process::start(&database, dir.path(), "first").await;
    let standby = Process::start(&database, dir.path(), "second").await;
    leader.signal("-STOP");
    // It is heard when the leader wakes, and not before.
    let late = tokio::spawn({
        let client = leader.client(dir.path());
        async move { client.create_job(&job(json!({"name": "late"})), Some("late")).await }
    });
    standby.until("leader").await;
    let created = standby.client(dir.path()).create_job(&job(json!({})), None).await.expect("accepted");
    leader.signal("-CONT");
    leader.until("standby").await;
    assert_eq!(leader.client(dir.path()).job(created.id).await.expect("passed on").id, created.id);
    let late = tokio::time::timeout(SOON, late).await.expect("answered").expect("no panic");
    let store = Store::open(&database).await.expect("a store");
    let stray: i64 = sqlx::query_scalar(
        "select count(*) from events e where exists
             (select from events t where t.kind = 'leader_took_over' and t.seq < e.seq and t.epoch > e.epoch)",
    )
    .fetch_one(&store.reader)
    .await
    .expect("counted");
    assert_eq!(stray, 0, "an event of the old leader follows the takeover; the late job: {late:?}");
}
