//! The canary: a workload that witnesses. It takes a lock on every chip it was given, shows up in the scripted driver's list
//! of processes, and writes down, with every heartbeat, that it has them. A lock that another process has is written down
//! too: two were on one chip, whatever anybody else says.

use anyhow::{Context, bail, ensure};
use clap::{Args, ValueEnum};
use nix::sys::signal::{SigHandler, Signal, signal};
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use std::fs::{self, File, TryLockError};
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, SystemTime};

/// How often it says that it still has its chips.
const HEARTBEAT: Duration = Duration::from_millis(20);
/// Memory it shows to have on each chip.
const MIB: u64 = 4000;

/// How long the driver lists a canary that got stuck in it.
pub const STUCK: Duration = Duration::from_secs(30);
/// How long a canary that fails works before it does.
const FAILS_AFTER_MS: u64 = 250;

/// How a canary behaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Manner {
    /// Ends at SIGTERM at once.
    Polite,
    /// Ignores SIGTERM.
    Stubborn,
    /// Works in a child that ignores SIGTERM, in the same process group.
    Forks,
    /// Works in a grandchild in a session of its own, with an empty environment, that ignores SIGTERM; its parent is gone.
    Escapes,
    /// Ends at SIGTERM, and the driver goes on listing it on its first chip for [`STUCK`]: a process that cannot be killed
    /// while it waits for the driver shows the same from outside.
    Stuck,
    /// Fails by itself, again and again.
    Fails,
    /// The process that [`Manner::Escapes`] puts in between. Not for people.
    #[value(hide = true)]
    Between,
}

/// A workload that witnesses which chips it had, from when to when. Started by agents, not by people.
#[derive(Args, Clone, Debug)]
pub struct CanaryArgs {
    /// The folder of the run: locks, testimonies, and each node's scripted driver.
    #[arg(long)]
    root: PathBuf,
    /// How it behaves.
    #[arg(long, value_enum, default_value_t = Manner::Polite)]
    manner: Manner,
    /// Ends by itself after so long.
    #[arg(long)]
    run_for_ms: Option<u64>,
    /// What it was given, where the environment no longer says so.
    #[arg(long, hide = true)]
    given: Option<String>,
}

/// What a canary was given.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct Given {
    node: String,
    lease: String,
    epoch: u64,
    rank: u32,
    chips: Vec<String>,
}

/// One line of a testimony.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Testimony {
    /// Since boot, sleep included, nanoseconds.
    pub at_ns: u64,
    /// The same moment by the wall clock, milliseconds since 1970.
    pub wall_ms: u64,
    /// What it says.
    pub says: Says,
    /// Who says so.
    pub pid: u32,
    /// On which node.
    pub node: String,
    /// Under which lease.
    pub lease: String,
    /// The highest epoch among its chips.
    pub epoch: u64,
    /// Which replica of its gang.
    pub rank: u32,
    /// About which chips.
    pub chips: Vec<String>,
}

/// What a canary says.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Says {
    /// It has its chips, from now on.
    Took,
    /// It still has them.
    Has,
    /// It lets them go, now.
    Left,
    /// Somebody else has one of them.
    Refused,
    /// The driver will list it on its first chip for [`STUCK`] after its end.
    Stuck,
}

/// `chiptide-sim canary`.
pub fn run(args: &CanaryArgs) -> anyhow::Result<()> {
    let given: Given = match &args.given {
        Some(given) => serde_json::from_str(given).context("read what was given")?,
        None => Given::from_environment()?,
    };
    match args.manner {
        Manner::Polite | Manner::Stuck => hold(args, &given, true),
        Manner::Stubborn => hold(args, &given, false),
        Manner::Fails => {
            hold(&CanaryArgs { run_for_ms: Some(FAILS_AFTER_MS), ..args.clone() }, &given, true)?;
            bail!("a canary that fails")
        }
        Manner::Forks => {
            let mut child = again(args, &given, Manner::Stubborn)?.spawn().context("fork")?;
            child.wait().context("wait for the child")?;
            Ok(())
        }
        Manner::Escapes => {
            let mut between = again(args, &given, Manner::Between)?.spawn().context("fork")?;
            between.wait().context("wait for the process in between")?;
            // The agent takes the end of this process for the end of the work: it stays until it is told to go.
            loop {
                sleep(Duration::from_secs(1));
            }
        }
        Manner::Between => {
            nix::unistd::setsid().context("leave the session")?;
            again(args, &given, Manner::Stubborn)?.env_clear().process_group(0).spawn().context("fork again")?;
            Ok(())
        }
    }
}

/// This program once more, with the same chips and another manner.
fn again(args: &CanaryArgs, given: &Given, manner: Manner) -> anyhow::Result<Command> {
    let mut command = Command::new(std::env::current_exe().context("find this program")?);
    let manner = manner.to_possible_value().context("a manner with a name")?;
    command.arg("canary").arg("--root").arg(&args.root).args(["--manner", manner.get_name()]);
    command.arg("--given").arg(serde_json::to_string(given).context("say what was given")?);
    if let Some(ms) = args.run_for_ms {
        command.args(["--run-for-ms", &ms.to_string()]);
    }
    Ok(command)
}

impl Given {
    fn from_environment() -> anyhow::Result<Given> {
        let get = |name: &str| std::env::var(name).with_context(|| format!("{name} is not set"));
        let rank: u32 = get("CHIPTIDE_RANK")?.parse().context("read the rank")?;
        let nodes = get("CHIPTIDE_NODES")?;
        let node = nodes.split(',').nth(rank as usize).context("the rank has a node")?.to_owned();
        let epoch = get("CHIPTIDE_LEASE_EPOCH")?.parse().context("read the epoch")?;
        let chips = get("CUDA_VISIBLE_DEVICES")?.split(',').map(str::to_owned).collect();
        Ok(Given { node, lease: get("CHIPTIDE_LEASE_ID")?, epoch, rank, chips })
    }
}

/// Has the chips until told to go, or for as long as it was asked to.
fn hold(args: &CanaryArgs, given: &Given, heeds: bool) -> anyhow::Result<()> {
    if !heeds {
        ignore_sigterm()?;
    }
    let mut diary = Diary::open(&args.root, given)?;
    let Some(_locks) = lock_all(&args.root, given)? else {
        diary.say(Says::Refused)?;
        bail!("another process is on a chip of lease {}", given.lease);
    };
    diary.say(Says::Took)?;
    let is_stuck = args.manner == Manner::Stuck;
    if is_stuck {
        diary.say(Says::Stuck)?;
    }
    show_up(&args.root, given, is_stuck)?;
    let until = args.run_for_ms.map(|ms| boot_ns().saturating_add(ms.saturating_mul(1_000_000)));
    while until.is_none_or(|until| boot_ns() < until) {
        sleep(HEARTBEAT);
        diary.say(Says::Has)?;
    }
    diary.say(Says::Left)
}

#[allow(unsafe_code)]
fn ignore_sigterm() -> anyhow::Result<()> {
    // SAFETY: ignoring a signal runs no code of ours in a handler.
    unsafe { signal(Signal::SIGTERM, SigHandler::SigIgn) }.context("ignore SIGTERM")?;
    Ok(())
}

/// Locks every chip; `None` when somebody else has one. The locks live until the last process that has them is gone.
fn lock_all(root: &Path, given: &Given) -> anyhow::Result<Option<Vec<File>>> {
    let mut locks = Vec::new();
    for chip in &given.chips {
        ensure!(!chip.contains('/'), "{chip} is no name of a chip");
        let path = root.join("locks").join(chip);
        let file = File::options().create(true).append(true).open(&path);
        let file = file.with_context(|| format!("open {}", path.display()))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(error).context("lock a chip"),
        }
        fcntl_setfd(&file, FdFlags::empty()).context("hand the lock on to children")?;
        locks.push(file);
    }
    Ok(Some(locks))
}

/// Lets the scripted driver list this process on its chips.
fn show_up(root: &Path, given: &Given, is_stuck: bool) -> anyhow::Result<()> {
    let procs = root.join("nodes").join(&given.node).join("driver/procs");
    let (pid, start_time) = (std::process::id(), start_time()?);
    for (index, chip) in given.chips.iter().enumerate() {
        let stays_ms = if is_stuck && index == 0 { STUCK.as_millis() as u64 } else { 0 };
        let text = serde_json::json!({
            "chip": chip, "mib": MIB, "pid": pid, "start_time": start_time, "stays_ms": stays_ms, "lease": given.lease,
        });
        let path = procs.join(format!("{pid}-{index}.json"));
        let next = path.with_extension("new");
        fs::write(&next, text.to_string()).and_then(|()| fs::rename(&next, &path)).context("show up at the driver")?;
    }
    Ok(())
}

/// Field 22 of this process's `stat`.
fn start_time() -> anyhow::Result<u64> {
    let stat = fs::read_to_string("/proc/self/stat").context("read its own stat")?;
    let fields = stat.rsplit_once(')').context("a name in brackets")?.1;
    fields.split_ascii_whitespace().nth(19).context("22 fields")?.parse().context("read its start time")
}

/// A testimony being written: one line at a time, each in one write, so that a kill cuts it between lines or in the last.
struct Diary<'a> {
    file: File,
    given: &'a Given,
}

impl<'a> Diary<'a> {
    fn open(root: &Path, given: &'a Given) -> anyhow::Result<Diary<'a>> {
        let name = format!("{}.{}.{}.jsonl", given.lease, given.rank, std::process::id());
        let path = root.join("testimonies").join(name);
        let file = File::options().create(true).append(true).open(&path);
        Ok(Diary { file: file.with_context(|| format!("open {}", path.display()))?, given })
    }

    fn say(&mut self, says: Says) -> anyhow::Result<()> {
        let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let line = Testimony {
            at_ns: boot_ns(),
            wall_ms: u64::try_from(wall.as_millis()).unwrap_or(u64::MAX),
            says,
            pid: std::process::id(),
            node: self.given.node.clone(),
            lease: self.given.lease.clone(),
            epoch: self.given.epoch,
            rank: self.given.rank,
            chips: self.given.chips.clone(),
        };
        let text = serde_json::to_string(&line).context("write a testimony")? + "\n";
        self.file.write_all(text.as_bytes()).context("write a testimony")
    }
}

/// Nanoseconds since boot, sleep included.
pub fn boot_ns() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    u64::try_from(now.tv_sec).unwrap_or(0).saturating_mul(1_000_000_000).saturating_add(now.tv_nsec.unsigned_abs())
}
