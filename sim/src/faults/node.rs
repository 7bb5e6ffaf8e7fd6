//! A node in full: the agent's own binary on scripted chips, running real processes. Several share this machine, each with
//! a folder, a driver and a cgroup of its own.

use super::disk::Disk;
use super::namespace::Namespace;
use crate::own_daemon::program;
use anyhow::{Context, bail};
use chiptide_api::Client;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tokio::time::sleep;

/// How long an agent may take until its node is up.
const UP_MAX: Duration = Duration::from_secs(60);
/// How long the processes of a node may take to die of SIGKILL.
const END_MAX: Duration = Duration::from_secs(5);

/// The folder of a run on this machine: locks and testimonies of the canaries, and a folder for each node. Dropping it
/// removes it, unless it is to be kept.
#[derive(Debug)]
pub struct Ground {
    root: PathBuf,
    keep: bool,
}

impl Ground {
    /// A fresh one.
    pub fn make(what_for: &str) -> anyhow::Result<Ground> {
        let root = std::env::temp_dir().join(format!("chiptide-{what_for}-nodes-{:08x}", rand::random::<u32>()));
        for inner in ["locks", "testimonies", "nodes"] {
            fs::create_dir_all(root.join(inner)).with_context(|| format!("make {}", root.display()))?;
        }
        Ok(Ground { root, keep: false })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.root
    }

    /// Leaves it behind, and says where.
    pub fn keep(&mut self) {
        self.keep = true;
    }

    /// The command of a canary, for jobs.
    pub fn canary(&self, manner: &str) -> anyhow::Result<Vec<String>> {
        let program = program("chiptide-sim")?;
        let words = [program.display().to_string(), "canary".into(), "--root".into(), self.root.display().to_string()];
        Ok(words.into_iter().chain(["--manner".into(), manner.into()]).collect())
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        if self.keep {
            eprintln!("kept {}", self.root.display());
        } else if let Err(error) = fs::remove_dir_all(&self.root) {
            eprintln!("could not remove {}: {error}", self.root.display());
        }
    }
}

/// What a node is.
#[derive(Clone, Debug)]
pub struct NodeOptions {
    /// How many chips it has.
    pub chips: u32,
    /// How long memory stays in use after the death of a process, milliseconds.
    pub linger_ms: u64,
    /// From SIGTERM to the kill, milliseconds.
    pub kill_after_ms: u64,
    /// More flags of the agent.
    pub flags: Vec<String>,
    /// More of the agent's environment.
    pub env: Vec<(String, String)>,
}

impl Default for NodeOptions {
    fn default() -> Self {
        NodeOptions { chips: 8, linger_ms: 0, kill_after_ms: 2000, flags: Vec::new(), env: Vec::new() }
    }
}

/// One node. Dropping it ends its agent and everything that runs on it.
#[derive(Debug)]
pub struct Node {
    name: String,
    home: PathBuf,
    cgroup: Option<PathBuf>,
    options: NodeOptions,
    child: Option<Child>,
    /// XIDs told so far, by chip.
    xids: Vec<Vec<u32>>,
    namespace: Option<Namespace>,
    state_disk: Option<Disk>,
}

impl Node {
    /// Makes a node; its agent is not started yet.
    pub fn make(ground: &Ground, name: &str, options: NodeOptions) -> anyhow::Result<Node> {
        let home = ground.path().join("nodes").join(name);
        fs::create_dir_all(home.join("driver/procs")).context("make the node's folder")?;
        let cgroup = cgroup_mount().map(|mount| {
            let run = ground.path().file_name().and_then(|name| name.to_str()).unwrap_or("chiptide-faults");
            mount.join(format!("{run}-{name}"))
        });
        let xids = vec![Vec::new(); options.chips as usize];
        let name = name.to_owned();
        let node = Node { name, home, cgroup, options, child: None, xids, namespace: None, state_disk: None };
        node.script(&json!({"linger_ms": node.options.linger_ms}))?;
        Ok(node)
    }

    /// Puts the agent into a network namespace, from its next start on.
    pub fn enter(&mut self, namespace: Namespace) {
        self.namespace = Some(namespace);
    }

    /// Its network namespace, if it has one.
    pub fn namespace(&self) -> Option<&Namespace> {
        self.namespace.as_ref()
    }

    /// Gives the agent's state a disk of its own, if that is permitted; before its first start.
    pub fn give_disk(&mut self, size_mib: u64) -> anyhow::Result<()> {
        self.state_disk = Disk::mount(&self.home.join("state"), size_mib)?;
        Ok(())
    }

    /// The disk of the agent's state, if it has one.
    pub fn disk(&self) -> Option<&Disk> {
        self.state_disk.as_ref()
    }

    /// Leaves the disk of the agent's state mounted behind.
    pub fn keep_disk(&mut self) {
        if let Some(disk) = &mut self.state_disk {
            disk.keep();
        }
    }

    /// How many chips it has.
    pub fn chips(&self) -> usize {
        self.xids.len()
    }

    /// The driver tells of an XID on one chip.
    pub fn tell_xid(&mut self, chip: usize, xid: u32) -> anyhow::Result<()> {
        self.xids[chip].push(xid);
        self.script(&json!({"linger_ms": self.options.linger_ms}))
    }

    /// Rewrites the scenario of the scripted driver: what all chips have in common.
    pub fn script(&self, defaults: &Value) -> anyhow::Result<()> {
        let chips: Vec<Value> = self.xids.iter().map(|xids| json!({"xids": xids})).collect();
        let scenario = json!({"seed": self.home.display().to_string(), "defaults": defaults, "chips": chips});
        let (path, next) = (self.home.join("driver/scenario.json"), self.home.join("driver/scenario.new"));
        fs::write(&next, scenario.to_string()).and_then(|()| fs::rename(next, path)).context("write the scenario")
    }

    /// What the next agent finds in its environment besides what all do.
    pub fn set_env(&mut self, env: Vec<(String, String)>) {
        self.options.env = env;
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its folder: `state` is the agent's, `agent.log` what it said, `driver` the scripted driver's.
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// The agent's process id, while there is one.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Starts the agent, which reports to the daemon at `url`.
    pub fn start(&mut self, url: &str, token: &str) -> anyhow::Result<()> {
        let log =
            File::options().create(true).append(true).open(self.home.join("agent.log")).context("open its log")?;
        let agent = program("chiptide-agent")?;
        let mut command = match &self.namespace {
            Some(namespace) => {
                let [first, rest] = namespace.enter();
                let mut command = Command::new(first);
                command.arg(rest).arg(agent);
                command
            }
            None => Command::new(agent),
        };
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("CHIPTIDE_")) {
            command.env_remove(name);
        }
        command.args(["--node", &self.name, "--daemon", url, "--log-format", "json"]);
        command.args(["--kill-after", &format!("{}ms", self.options.kill_after_ms), "--verify-for", "5s"]);
        command.args(["--cpu-milli", "1000000", "--memory-mib", "4000000"]);
        command.arg("--state-dir").arg(self.home.join("state")).args(&self.options.flags);
        command.arg("--nvml-library").arg(program("libnvidia_ml.so")?);
        command.arg("--cgroup-root").arg(self.cgroup.as_deref().unwrap_or(&self.home.join("no-cgroup")));
        command.arg("--process-groups");
        if rustix::process::geteuid().is_root() {
            command.args(["--workload-user", "root"]);
        }
        command.env("CHIPTIDE_FAKE_NVML", self.home.join("driver")).env("CHIPTIDE_AGENT_TOKEN", token);
        command.envs(self.options.env.iter().cloned());
        // A group of its own: Ctrl-C at the terminal reaches us alone, and we end it in order.
        command.stdin(Stdio::null()).stdout(log.try_clone().context("share its log")?).stderr(log).process_group(0);
        self.child = Some(command.spawn().context("start chiptide-agent")?);
        Ok(())
    }

    /// Waits until the daemon counts the node as up.
    pub async fn wait_up(&mut self, client: &Client) -> anyhow::Result<()> {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.as_mut().and_then(|child| child.try_wait().transpose()).transpose()? {
                bail!("the agent of {} ended ({status}); see {}", self.name, self.home.join("agent.log").display());
            }
            if client.node(&self.name).await.is_ok_and(|node| node.state == "up") {
                return Ok(());
            }
            if start.elapsed() > UP_MAX {
                bail!("{} is not up; see {}", self.name, self.home.join("agent.log").display());
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Sends the agent a signal.
    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let Some(child) = &self.child else { return Ok(()) };
        kill(Pid::from_raw(child.id().cast_signed()), signal).with_context(|| format!("{signal} to {}", self.name))
    }

    /// Kills the agent where it stands. What it runs goes on.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill().context("kill the agent")?;
            child.wait().context("wait for the agent")?;
        }
        Ok(())
    }

    /// Collects the agent if it has ended by itself; answers whether it had.
    pub fn has_ended(&mut self) -> bool {
        let ended = self.child.as_mut().is_some_and(|child| !matches!(child.try_wait(), Ok(None)));
        if ended {
            self.child = None;
        }
        ended
    }

    /// Ends whatever runs on the node: it names the node's folder in its environment or its arguments.
    fn end_processes(&self) {
        let ours = |bytes: &[u8], name: &str| String::from_utf8_lossy(bytes).contains(name);
        let name = self.home.display().to_string();
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            let of = |file: &str| fs::read(entry.path().join(file)).unwrap_or_default();
            if pid != std::process::id().cast_signed() && (ours(&of("environ"), &name) || ours(&of("cmdline"), &name)) {
                // It may end between the look and the signal; that is what we want.
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
        }
    }

    fn remove_cgroup(&self) {
        let Some(root) = self.cgroup.as_ref().filter(|root| root.exists()) else { return };
        let _ = fs::write(root.join("cgroup.kill"), "1");
        let deadline = Instant::now() + END_MAX;
        let is_empty = || fs::read_to_string(root.join("cgroup.events")).is_ok_and(|text| text.contains("populated 0"));
        while !is_empty() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
        let below = fs::read_dir(root).into_iter().flatten().flatten();
        below.filter(|entry| entry.path().is_dir()).for_each(|entry| drop(fs::remove_dir(entry.path())));
        if let Err(error) = fs::remove_dir(root) {
            eprintln!("could not remove {}: {error}", root.display());
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Err(error) = self.kill() {
            eprintln!("{}: {error:#}", self.name);
        }
        self.end_processes();
        self.remove_cgroup();
    }
}

/// Where the kernel's cgroup2 hierarchy is mounted, if this process may make cgroups there.
fn cgroup_mount() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    let mount = mounts.lines().find_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        right.starts_with("cgroup2 ").then(|| left.split(' ').nth(4).map(PathBuf::from))?
    })?;
    let probe = mount.join(format!("chiptide-probe-{}", std::process::id()));
    fs::create_dir(&probe).and_then(|()| fs::remove_dir(&probe)).ok().map(|()| mount)
}
