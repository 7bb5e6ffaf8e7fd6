//! A node in full: the agent's binary on fake chips, a scripted daemon, and real workloads, in cgroups or process groups.

use crate::fake::{Scenario, agent, library};
use crate::scripted::{Daemon, lease};
use chiptide_agent::work::Containment;
use chiptide_api::node::{LeaseOrder, ReportBody};
use chiptide_api::work::{ReplicaOrder, WorkBody, WorkOrder};
use chiptide_model::Millis;
use serde_json::json;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use uuid::Uuid;

/// How long anything a test waits for may take: a bound on failure, never a pause.
const BOUND: Duration = Duration::from_secs(30);

/// How a node keeps workloads together.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kept {
    Cgroups,
    Groups,
    Not,
}

/// A cgroup for one test, where this machine lets us have one; says so where it does not.
pub(crate) fn cgroup_root() -> Option<PathBuf> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    let mount = mounts.lines().find_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        right.starts_with("cgroup2 ").then(|| left.split(' ').nth(4).map(PathBuf::from))?
    });
    let name = format!("chiptide-test-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    let root = mount.map(|mount| mount.join(name));
    match root.as_ref().map(|root| Containment::decide(Some(root), false)) {
        Some(Containment::Cgroups(_)) => root,
        Some(other) => {
            eprintln!("skipped: {other}");
            None
        }
        None => {
            eprintln!("skipped: no cgroup2 hierarchy is mounted");
            None
        }
    }
}

/// The ways to keep workloads together that can be tried here.
pub(crate) fn ways() -> Vec<Kept> {
    match cgroup_root() {
        Some(root) => {
            remove_cgroup(&root);
            vec![Kept::Cgroups, Kept::Groups]
        }
        None => vec![Kept::Groups],
    }
}

/// The node.
pub(crate) struct Node {
    pub(crate) daemon: Daemon,
    pub(crate) scenario: Scenario,
    pub(crate) chips: Vec<String>,
    kept: Kept,
    pub(crate) root: PathBuf,
    /// Who runs its workloads, where the test is root.
    pub(crate) user: &'static str,
    /// Whom else its jobs may name.
    pub(crate) users: &'static str,
    agent: Option<Child>,
}

impl Node {
    /// A node of two chips, registered.
    pub(crate) async fn start(kept: Kept) -> Node {
        let mut node = Node::prepare(kept, json!({"count": 2})).await;
        node.start_agent().await;
        node
    }

    /// A node whose agent has not been started.
    pub(crate) async fn prepare(kept: Kept, scenario: serde_json::Value) -> Node {
        let (daemon, scenario) = (Daemon::start("1h").await, Scenario::new(scenario));
        let root = match kept {
            Kept::Cgroups => cgroup_root().expect("cgroups can be had"),
            Kept::Groups | Kept::Not => scenario.path().join("no-cgroup"),
        };
        Node { daemon, scenario, chips: Vec::new(), kept, root, user: "root", users: "", agent: None }
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.scenario.path().join("state")
    }

    /// Starts an agent and waits until it has registered.
    pub(crate) async fn start_agent(&mut self) {
        let mut command = agent();
        command.args(["--token", "t", "--node", "n1", "--daemon", &self.daemon.url, "--sample-every", "1h"]);
        command.arg("--nvml-library").arg(library()).env("CHIPTIDE_FAKE_NVML", self.scenario.path());
        command.arg("--state-dir").arg(self.state()).arg("--cgroup-root").arg(&self.root);
        command.args(["--kill-after", "300ms", "--verify-for", "5s", "--restart-after", "100ms"]);
        if rustix::process::geteuid().is_root() {
            command.args(["--workload-user", self.user]);
            if !self.users.is_empty() {
                command.args(["--workload-users", self.users]);
            }
        }
        if self.kept == Kept::Groups {
            command.arg("--process-groups");
        }
        self.agent = Some(command.spawn().expect("the agent starts"));
        self.chips = self.daemon.registered().await.chips.into_iter().map(|chip| chip.id).collect();
    }

    /// Sends the agent a signal.
    pub(crate) fn signal_agent(&self, name: &str) {
        let pid = self.agent.as_ref().expect("an agent").id().to_string();
        assert!(Command::new("kill").args(["-s", name, &pid]).status().expect("kill runs").success());
    }

    /// The agent dies where it stands.
    pub(crate) fn kill_agent(&mut self) {
        if let Some(mut agent) = self.agent.take() {
            agent.kill().expect("killed");
            agent.wait().expect("reaped");
        }
    }

    /// A lease on the first chip that runs this shell script.
    pub(crate) fn work(&self, id: Uuid, epoch: u64, script: &str) -> LeaseOrder {
        let replica = ReplicaOrder { rank: 1, chips: vec![self.chips[0].clone()], cpu_milli: 0, memory_mib: 0 };
        let command = ["/bin/sh", "-c", script].map(str::to_owned).to_vec();
        let env = [("GREETING".to_owned(), "hello".to_owned()), ("CHIPTIDE_RANK".to_owned(), "9".to_owned())].into();
        let nodes = vec!["n0".to_owned(), "n1".to_owned()];
        let work = WorkOrder {
            command,
            env,
            directory: None,
            run: 0,
            notice_signal: None,
            user: None,
            nodes,
            replicas: vec![replica],
        };
        LeaseOrder { work: Some(work), ..lease(id, &self.chips[0], epoch) }
    }

    /// Where the replica's things are while its lease is ordered, and after.
    pub(crate) fn folder(&self, id: Uuid) -> PathBuf {
        let name = format!("{id}.1");
        let finished = self.state().join("finished").join(&name);
        if finished.exists() { finished } else { self.state().join("work").join(name) }
    }

    /// Waits until the workload has written this file, whole, in its folder; answers what it says.
    pub(crate) async fn said(&self, id: Uuid, file: &str) -> String {
        let read = || {
            let text = fs::read_to_string(self.folder(id).join(file)).ok()?;
            text.ends_with('\n').then_some(text)
        };
        let deadline = Instant::now() + BOUND;
        loop {
            if let Some(text) = read() {
                return text;
            }
            assert!(Instant::now() < deadline, "{file} never came");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// The process ids that the workload has written to a file, one a line, once there are as many.
    pub(crate) async fn pids(&self, id: Uuid, file: &str, count: usize) -> Vec<u32> {
        let deadline = Instant::now() + BOUND;
        loop {
            let text = self.said(id, file).await;
            if text.lines().count() >= count {
                return text.lines().map(|line| line.trim().parse().expect("a pid")).collect();
            }
            assert!(Instant::now() < deadline, "{file} stays short");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Waits for a report that says this of the replica.
    pub(crate) async fn reported(&mut self, id: Uuid, wanted: impl Fn(&WorkBody) -> bool) -> ReportBody {
        self.daemon.reported(|report| report.work.iter().any(|work| work.lease == id && wanted(&work.work))).await
    }
}

/// The order with notice: its time is up in so long.
pub(crate) fn ends_in(order: LeaseOrder, left: &str) -> LeaseOrder {
    let left: Millis = left.parse().expect("a duration");
    let deadline = "2026-01-01T00:00:00Z".parse().expect("a time");
    LeaseOrder { deadline: Some(deadline), ends_in: Some(left), ..order }
}

/// Whether the process is there and runs (a zombie does not).
pub(crate) fn runs(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with(['Z', 'X']))
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(agent) = &mut self.agent {
            let _ = agent.kill();
            let _ = agent.wait();
        }
        let state = self.state().display().to_string();
        for entry in fs::read_dir("/proc").expect("/proc").flatten() {
            let of = |file: &str| fs::read(entry.path().join(file)).unwrap_or_default();
            let ours = |bytes: &[u8]| String::from_utf8_lossy(bytes).contains(&state);
            if ours(&of("environ")) || ours(&of("cmdline")) {
                let _ = Command::new("kill").arg("-9").arg(entry.file_name()).status();
            }
        }
        if self.kept == Kept::Cgroups {
            remove_cgroup(&self.root);
        }
    }
}

/// Kills what is in a test's cgroup and removes it, as far as that can be done at once.
pub(crate) fn remove_cgroup(root: &Path) {
    let _ = fs::write(root.join("cgroup.kill"), "1");
    let deadline = Instant::now() + BOUND;
    let empty = || fs::read_to_string(root.join("cgroup.events")).is_ok_and(|events| events.contains("populated 0"));
    while root.exists() && !empty() && Instant::now() < deadline {
        std::thread::yield_now();
    }
    for entry in fs::read_dir(root).into_iter().flatten().flatten() {
        let _ = fs::remove_dir(entry.path());
    }
    let _ = fs::remove_dir(root);
}
