//! `chiptide up`: a whole cluster on this machine, in the foreground. Starts the daemon (which runs its own Postgres), then
//! an agent for the real chips of the machine or a fleet of fake ones; stops all of it on Ctrl-C and keeps the data.

mod child;
mod driver;

use crate::args::Up;
use crate::connect;
use crate::failure::Failure;
use crate::output::line;
use crate::places;
use crate::wait::spinner;
use anyhow::{Context, Result, anyhow, ensure};
use child::Child;
use chiptide_api::Client;
use std::ffi::OsString;
use std::fs::{self, DirBuilder, File};
use std::io::{IsTerminal, stderr};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::sleep;

/// How long the daemon may take to be ready; it says itself when it has given up.
const READY_MAX: Duration = Duration::from_secs(600);
/// How long the nodes may take to show before the greeting appears without them.
const NODES_MAX: Duration = Duration::from_secs(10);
/// How long a child may take to stop in order.
const STOP_MAX: Duration = Duration::from_secs(10);
/// How often to look.
const TICK: Duration = Duration::from_millis(100);

/// Runs until Ctrl-C, SIGTERM, or the end of a child.
pub(crate) async fn run(up: &Up) -> Result<(), Failure> {
    let mut interrupts = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let mut stopped = async move || {
        tokio::select! { _ = interrupts.0.recv() => (), _ = interrupts.1.recv() => () }
    };
    let home = Home::open(up.data_dir.clone())?;
    let mut children = Vec::new();
    let outcome = tokio::select! {
        () = stopped() => Ok(()),
        // The steps of this future run on the main thread, which is where children have to be forked.
        end = serve(up, &home, &mut children) => Err(end),
    };
    eprintln!("stopping; the data stays in {}", home.dir.display());
    tokio::select! {
        () = stop(&mut children) => {}
        // Asked twice: no more patience.
        () = stopped() => {}
    }
    drop(children);
    outcome.map_err(Failure::Other)
}

/// Starts everything and watches it. Comes back only with what went wrong.
async fn serve(up: &Up, home: &Home, children: &mut Vec<Child>) -> anyhow::Error {
    match start(up, home, children).await {
        Ok(()) => loop {
            if let Err(error) = all_alive(children) {
                return error;
            }
            sleep(TICK).await;
        },
        Err(error) => error,
    }
}

async fn start(up: &Up, home: &Home, children: &mut Vec<Child>) -> Result<()> {
    let token_file = home.dir.join(places::TOKEN_FILE);
    let args: Vec<OsString> = vec![
        "--data-dir".into(),
        home.dir.clone().into(),
        "--listen".into(),
        up.listen.clone().into(),
        "--admin-token-file".into(),
        token_file.clone().into(),
    ];
    children.push(Child::start("chiptided", &args, &home.log("chiptided"))?);
    let url = await_ready(up, home, children).await?;
    let token = connect::read(&token_file).with_context(|| format!("read {}", token_file.display()))?;

    let driver = driver::find().filter(|_| up.nodes.is_none());
    let (program, args) = match &driver {
        Some(_) => {
            let state = home.dir.join("agent").display().to_string();
            let args = ["--daemon", &url, "--node", &driver::hostname()?, "--state-dir", &state];
            ("chiptide-agent", args.map(str::to_owned).to_vec())
        }
        None => {
            let nodes = up.nodes.unwrap_or(4).to_string();
            let args = ["fleet", "--url", &url, "--nodes", &nodes, "--chips-per-node", &up.chips.to_string()];
            ("chiptide-sim", args.map(str::to_owned).into())
        }
    };
    let mut args: Vec<OsString> = args.into_iter().map(OsString::from).collect();
    args.extend(["--token-file".into(), token_file.clone().into()]);
    children.push(Child::start(program, &args, &home.log(program))?);

    let client = Client::new(&url, &token).context("make a client")?;
    let wanted = if driver.is_some() { 1 } else { up.nodes.unwrap_or(4) };
    let (nodes, chips) = await_nodes(&client, wanted, children).await?;
    greet(&url, &token, &token_file, &home.dir, driver.as_deref(), (nodes, chips))
}

/// Waits until the daemon serves; returns its address.
async fn await_ready(up: &Up, home: &Home, children: &mut [Child]) -> Result<String> {
    let bar = stderr().is_terminal().then(|| spinner("{spinner} {msg} ({elapsed})"));
    let text = "starting the daemon and its database";
    match &bar {
        Some(bar) => bar.set_message(text),
        None => eprintln!("{text}"),
    }
    let begun = Instant::now();
    loop {
        all_alive(children)?;
        if let Some(url) = home.daemon_url().or_else(|| url_of(&up.listen))
            && Client::new(&url, "").context("make a client")?.ready().await
        {
            // Another daemon may have the port: then ours has just died of it.
            sleep(TICK).await;
            all_alive(children)?;
            return Ok(url);
        }
        ensure!(begun.elapsed() < READY_MAX, "the daemon is not ready; see {}", home.log("chiptided").display());
        sleep(TICK).await;
    }
}

/// Waits, but not for ever, until the nodes have registered; returns how many nodes and chips there are.
async fn await_nodes(client: &Client, wanted: u32, children: &mut [Child]) -> Result<(usize, u32)> {
    let begun = Instant::now();
    loop {
        all_alive(children)?;
        // A page holds enough for a greeting.
        let nodes = client.nodes(&[("limit", "500".into())]).await.map(|page| page.items).unwrap_or_default();
        let up: Vec<_> = nodes.iter().filter(|node| node.state == "up").collect();
        if up.len() >= wanted.min(500) as usize || begun.elapsed() > NODES_MAX {
            return Ok((up.len(), up.iter().map(|node| node.chips).sum()));
        }
        sleep(TICK).await;
    }
}

fn greet(
    url: &str,
    token: &str,
    token_file: &Path,
    dir: &Path,
    driver: Option<&str>,
    (nodes, chips): (usize, u32),
) -> Result<()> {
    let whose = match driver {
        Some(driver) => format!("real ones, by {driver}"),
        None => "fake ones, for trying things out".to_owned(),
    };
    let node_word = if nodes == 1 { "node" } else { "nodes" };
    let default_dir = places::data_dir().is_ok_and(|default| default == dir);
    let mut hint = String::new();
    if url != "http://127.0.0.1:7070" {
        hint.push_str(&format!("  export CHIPTIDE_URL={url}\n"));
    }
    if !default_dir {
        hint.push_str(&format!("  export CHIPTIDE_TOKEN_FILE={}\n", token_file.display()));
    }
    let text = format!(
        "Chiptide is up: {url}\n\
         \x20 chips        {chips} on {nodes} {node_word} ({whose})\n\
         \x20 admin token  {token}\n\
         \x20 kept in      {}\n\
         \x20 logs         {}\n\n\
         Try, in another terminal:\n\
         {hint}\
         \x20 chiptide node list\n\
         \x20 chiptide job submit examples/train.yaml\n\
         \x20 chiptide job list\n\n\
         Ctrl-C stops it and keeps the data.",
        token_file.display(),
        dir.join("logs").display(),
    );
    line(&text).map_err(|failure| anyhow!("{failure}"))
}

/// Names the first child that has ended, with the end of its log.
fn all_alive(children: &mut [Child]) -> Result<()> {
    children.iter_mut().try_for_each(Child::check)
}

/// Asks the children to stop, the last first, and waits for each.
async fn stop(children: &mut [Child]) {
    for child in children.iter_mut().rev() {
        child.ask_to_stop();
        let begun = Instant::now();
        while child.is_running() && begun.elapsed() < STOP_MAX {
            sleep(Duration::from_millis(20)).await;
        }
    }
}

/// The address of a daemon that listens on `listen`, if that names a port.
fn url_of(listen: &str) -> Option<String> {
    let address: std::net::SocketAddr = listen.parse().ok()?;
    let host = if !address.ip().is_unspecified() {
        address.ip()
    } else if address.is_ipv4() {
        std::net::Ipv4Addr::LOCALHOST.into()
    } else {
        std::net::Ipv6Addr::LOCALHOST.into()
    };
    (address.port() != 0).then(|| format!("http://{}", std::net::SocketAddr::new(host, address.port())))
}

/// The data directory, held by one `up` at a time.
struct Home {
    dir: PathBuf,
    _lock: File,
}

impl Home {
    fn open(dir: Option<PathBuf>) -> Result<Home> {
        let dir = dir.map_or_else(places::data_dir, Ok)?;
        let dir = std::path::absolute(&dir).with_context(|| format!("find {}", dir.display()))?;
        // Root's database runs as another account, which must be able to pass through.
        let mode = if nix::unistd::Uid::effective().is_root() { 0o711 } else { 0o700 };
        make_dir(&dir, mode)?;
        make_dir(&dir.join("logs"), 0o700)?;
        let path = dir.join("up.lock");
        let lock = File::options().create(true).append(true).open(&path);
        let lock = lock.with_context(|| format!("open {}", path.display()))?;
        lock.try_lock().map_err(|_| anyhow!("another `chiptide up` already runs on {}", dir.display()))?;
        let home = Home { dir, _lock: lock };
        // The daemon writes it anew when it is ready; an old one would point at nothing.
        match fs::remove_file(home.dir.join("daemon.url")) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error).context("remove daemon.url"),
            _ => Ok(home),
        }
    }

    fn log(&self, program: &str) -> PathBuf {
        self.dir.join("logs").join(format!("{program}.log"))
    }

    fn daemon_url(&self) -> Option<String> {
        let text = fs::read_to_string(self.dir.join("daemon.url")).ok()?;
        let url = text.trim();
        (!url.is_empty()).then(|| url.to_owned())
    }
}

fn make_dir(dir: &Path, mode: u32) -> Result<()> {
    DirBuilder::new().recursive(true).mode(mode).create(dir).with_context(|| format!("create {}", dir.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listen_address_becomes_one_to_call() {
        assert_eq!(url_of("127.0.0.1:7070").as_deref(), Some("http://127.0.0.1:7070"));
        assert_eq!(url_of("0.0.0.0:80").as_deref(), Some("http://127.0.0.1:80"));
        assert_eq!(url_of("[::]:80").as_deref(), Some("http://[::1]:80"));
        assert_eq!(url_of("127.0.0.1:0"), None, "the daemon will say which");
    }

    #[test]
    fn one_up_at_a_time_on_a_directory() {
        let dir = tempfile::tempdir().expect("a directory");
        fs::write(dir.path().join("daemon.url"), "http://127.0.0.1:1\n").expect("written");
        let home = Home::open(Some(dir.path().to_owned())).expect("opened");
        assert_eq!(home.daemon_url(), None, "an old address is gone");
        let second = Home::open(Some(dir.path().to_owned())).err().expect("refused").to_string();
        assert!(second.contains("another `chiptide up`"), "{second}");
        drop(home);
        assert!(Home::open(Some(dir.path().to_owned())).is_ok());
    }
}
