//! A daemon of our own: `chiptided` as a child process on a data folder that goes away with it. It can be killed and
//! started again, which is what the crash runs are for. Whatever way this program ends, the child ends too, except when
//! this program itself is killed with SIGKILL.

use anyhow::{Context, bail};
use chiptide_api::Client;
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use std::fs::{DirBuilder, File};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tokio::time::sleep;

/// How long a daemon may take to be ready, a fresh database included.
const READY_MAX: Duration = Duration::from_secs(90);
/// How long it may take to stop before it is killed.
const STOP_MAX: Duration = Duration::from_secs(15);
/// Lowest port a daemon is given.
const PORT_MIN: u16 = 10_000;
/// How much of its log is shown when it dies.
const TAIL_LINES: usize = 25;

/// What is not as usual about a daemon of our own.
#[derive(Clone, Debug, Default)]
pub struct DaemonOptions {
    /// The database, if it is not to run one itself.
    pub database_url: Option<String>,
    /// Where the admin's token is kept, if not in its own folder: daemons of one database share it.
    pub token_file: Option<PathBuf>,
    /// More flags.
    pub flags: Vec<String>,
    /// More of its environment.
    pub env: Vec<(String, String)>,
}

/// A running `chiptided` of our own. Dropping it ends the process and removes its folder.
#[derive(Debug)]
pub struct OwnDaemon {
    binary: PathBuf,
    dir: PathBuf,
    token: String,
    listen: String,
    options: DaemonOptions,
    child: Child,
    keep_dir: bool,
}

impl OwnDaemon {
    /// Starts one on a fresh folder and waits until it is ready.
    pub async fn start(what_for: &str) -> anyhow::Result<OwnDaemon> {
        let mut daemon = OwnDaemon::launch(what_for, DaemonOptions::default())?;
        daemon.wait_ready().await?;
        Ok(daemon)
    }

    /// Starts one on a fresh folder and does not wait.
    pub fn launch(what_for: &str, options: DaemonOptions) -> anyhow::Result<OwnDaemon> {
        let binary = program("chiptided")?;
        let dir = make_dir(what_for)?;
        let listen = free_address()?;
        let child = spawn(&binary, &dir, &listen, &options)?;
        Ok(OwnDaemon { binary, dir, token: String::new(), listen, options, child, keep_dir: false })
    }

    /// Where it answers.
    pub fn url(&self) -> anyhow::Result<String> {
        Ok(format!("http://{}", self.listen))
    }

    /// The admin's bearer token, which the daemon made at its first start.
    pub fn token(&self) -> &str {
        &self.token
    }

    /// A client with the admin's token.
    pub fn client(&self) -> anyhow::Result<Client> {
        Ok(Client::new(&self.url()?, &self.token)?)
    }

    /// Where its Postgres answers, database included.
    pub fn postgres_url(&self) -> anyhow::Result<String> {
        self.options.database_url.clone().map_or_else(|| self.read("postgres.url"), Ok)
    }

    /// What the next life starts with.
    pub fn options(&mut self) -> &mut DaemonOptions {
        &mut self.options
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The process id of its private Postgres.
    pub fn postgres_pid(&self) -> Option<u32> {
        postmasters_below(&self.dir).into_iter().next().and_then(|pid| u32::try_from(pid).ok())
    }

    /// Its log so far.
    pub fn log_path(&self) -> PathBuf {
        self.dir.join("daemon.log")
    }

    /// Leaves the data folder behind when it ends, and says where.
    pub fn keep_dir(&mut self) -> &Path {
        self.keep_dir = true;
        &self.dir
    }

    /// Kills it as the kernel would that is out of memory: SIGKILL, nothing flushed, nobody told.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        self.child.kill().context("kill chiptided")?;
        self.child.wait().context("wait for chiptided")?;
        Ok(())
    }

    /// Starts it again on the same folder and the same port, and waits until it is ready. Answers how long that took.
    pub async fn restart(&mut self) -> anyhow::Result<Duration> {
        let start = Instant::now();
        self.start_again()?;
        self.wait_ready().await?;
        Ok(start.elapsed())
    }

    /// Starts it again and does not wait.
    pub fn start_again(&mut self) -> anyhow::Result<()> {
        // A file left by the last life must not pass for an answer of the next.
        let _ = std::fs::remove_file(self.dir.join("daemon.url"));
        self.child = spawn(&self.binary, &self.dir, &self.listen, &self.options)?;
        Ok(())
    }

    /// Whether the process has ended.
    pub fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// Sends the process a signal.
    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal).with_context(|| format!("{signal} to chiptided"))
    }

    /// Waits until it serves.
    pub async fn wait_ready(&mut self) -> anyhow::Result<()> {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().context("look after chiptided")? {
                bail!("chiptided ended ({status}) before it was ready; its log ends:\n{}", self.log_tail());
            }
            if self.postgres_url().is_ok() && Client::new(&self.url()?, "")?.ready().await {
                let file = self.options.token_file.clone().unwrap_or_else(|| self.dir.join("admin-token"));
                let token = std::fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
                self.token = token.trim().to_owned();
                return Ok(());
            }
            if start.elapsed() > READY_MAX {
                bail!("chiptided was not ready after {READY_MAX:?}; its log ends:\n{}", self.log_tail());
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// The end of its log.
    pub fn log_tail(&self) -> String {
        let text = std::fs::read(self.log_path()).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
    }

    fn read(&self, name: &str) -> anyhow::Result<String> {
        let path = self.dir.join(name);
        let text = std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        match text.trim() {
            "" => bail!("{} is still empty", path.display()),
            url => Ok(url.to_owned()),
        }
    }

    /// Asks it to stop, waits, and kills what is left.
    fn end(&mut self) {
        let group = Pid::from_raw(self.child.id().cast_signed());
        let asked = kill(group, Signal::SIGTERM);
        let deadline = Instant::now() + STOP_MAX;
        while asked.is_ok() && matches!(self.child.try_wait(), Ok(None)) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(20));
        }
        // Its helpers share its process group; a Postgres that a killed daemon left behind does not.
        let _ = killpg(group, Signal::SIGKILL);
        let _ = self.child.wait();
        stop_postgres_below(&self.dir);
    }
}

impl Drop for OwnDaemon {
    fn drop(&mut self) {
        self.end();
        if self.keep_dir {
            eprintln!("kept {}", self.dir.display());
        } else if let Err(error) = std::fs::remove_dir_all(&self.dir) {
            eprintln!("could not remove {}: {error}", self.dir.display());
        }
    }
}

/// An address of this machine that was free a moment ago and that nobody is given by chance, so that it is the daemon's in
/// every life. The kernel takes ports for outgoing connections from a range; one of these could be taken while the daemon is
/// down, even by a connection to that very port, which then meets itself.
fn free_address() -> anyhow::Result<String> {
    let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let lowest = range.split_whitespace().next().and_then(|low| low.parse().ok()).unwrap_or(32_768_u16);
    let ports =
        (0..1000).map(|_| PORT_MIN.saturating_add(rand::random::<u16>() % lowest.saturating_sub(PORT_MIN).max(1)));
    let free =
        ports.map(|port| format!("127.0.0.1:{port}")).find(|address| std::net::TcpListener::bind(address).is_ok());
    free.context("find a free port")
}

/// A program or library of ours beside this program (or one folder up, for a test in `deps/`).
pub(crate) fn program(name: &str) -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe().context("find this program")?;
    let mut candidates = own.ancestors().skip(1).take(2).map(|dir| dir.join(name));
    let found = candidates.find(|path| path.is_file());
    found.with_context(|| format!("no {name} beside {}; build it in the same profile first", own.display()))
}

/// A fresh folder. Run as root, the account that Postgres runs under must be able to pass through it.
pub(crate) fn make_dir(what_for: &str) -> anyhow::Result<PathBuf> {
    let dir = std::env::temp_dir().join(format!("chiptide-{what_for}-{:08x}", rand::random::<u32>()));
    DirBuilder::new().mode(0o711).create(&dir).with_context(|| format!("make {}", dir.display()))?;
    // The process's umask may have taken the last bit away.
    std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o711)).context("open the folder to Postgres")?;
    Ok(dir)
}

fn spawn(binary: &Path, dir: &Path, listen: &str, options: &DaemonOptions) -> anyhow::Result<Child> {
    let log =
        File::options().create(true).append(true).open(dir.join("daemon.log")).context("open the daemon's log")?;
    let mut command = Command::new(binary);
    if let Some(url) = &options.database_url {
        command.args(["--database-url", url]);
    }
    command
        .arg("--data-dir")
        .arg(dir)
        .args(["--listen", listen])
        .arg("--admin-token-file")
        .arg(options.token_file.clone().unwrap_or_else(|| dir.join("admin-token")))
        .args(&options.flags)
        .envs(options.env.iter().cloned())
        .stdin(Stdio::null())
        .stdout(log.try_clone().context("share the daemon's log")?)
        .stderr(log)
        // A group of its own: Ctrl-C at the terminal reaches us alone, and we end it in order.
        .process_group(0)
        .spawn()
        .with_context(|| format!("start {}", binary.display()))
}

/// Every Postgres that runs on a cluster below `dir`.
fn postmasters_below(dir: &Path) -> Vec<i32> {
    let inside = |dir: &Path| std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    let two_deep = inside(dir).flat_map(|inner| inside(&inner).chain([inner.clone()]).collect::<Vec<_>>());
    let locks = two_deep.map(|cluster| cluster.join("postmaster.pid"));
    let pids = locks.filter_map(|lock| std::fs::read_to_string(lock).ok()?.lines().next()?.trim().parse().ok());
    pids.filter(|pid| *pid > 1 && is_postmaster_below(*pid, dir)).collect()
}

/// A number in a lock file may be stale and someone else's by now: a postmaster runs inside its own cluster.
fn is_postmaster_below(pid: i32, dir: &Path) -> bool {
    std::fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd.starts_with(dir))
}

/// Ends a Postgres that still runs on a cluster below `dir`: the daemon it belonged to is gone.
fn stop_postgres_below(dir: &Path) {
    for pid in postmasters_below(dir) {
        let _ = kill(Pid::from_raw(pid), Signal::SIGQUIT);
        let deadline = Instant::now() + Duration::from_secs(5);
        while is_postmaster_below(pid, dir) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_daemons_port_is_none_that_the_kernel_gives_to_connections() {
        let listen = free_address().expect("a free port");
        let _held = std::net::TcpListener::bind(&listen).expect("free");
        let port: u16 = listen.rsplit(':').next().expect("a port").parse().expect("a number");
        let given = std::net::TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr());
        assert!(port < given.expect("a port of the kernel's choice").port());
    }
}
