//! The guardian of one replica: a small process between the agent and the workload, so that neither the end nor the upgrade
//! of the agent ends the work or loses how it ended. It starts the workload inside its cgroup, keeps what it says, waits for
//! it, and writes down how it ended. It takes no signal from the ladder: that is for the workload. By itself it ends the
//! work only when a fenced lease has not been renewed in time ([`super::expiry`]).

use super::output::Output;
use super::record::{Folder, Record};
use crate::fault_point;
use anyhow::{Context, ensure};
use chiptide_api::work::WorkBody;
use nix::unistd::{Gid, Uid, geteuid, setgid, setgroups, setuid};
use rustix::fs::Mode;
use rustix::process::{
    Resource, Rlimit, WaitOptions, WaitStatus, getpid, getrlimit, set_child_subreaper, setrlimit, umask, wait,
};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::{self, JoinHandle};

/// The flag, with the replica's folder, that makes this binary a guardian.
pub const FLAG: &str = "--guard";

/// Guards the replica of this folder until nothing of it is left.
pub fn run(folder: &Path) -> anyhow::Result<()> {
    let folder = Folder::at(folder.to_owned());
    let _lock = folder.guard().context("lock the replica")?;
    fault_point::reach("guardian-locked");
    if folder.is_fenced() {
        return Ok(());
    }
    fault_point::reach("guardian-not-fenced");
    let record = folder.record()?.context("nothing is to be started here")?;
    // What the workload leaves behind becomes ours to reap, and stays below us in the tree of processes.
    set_child_subreaper(Some(getpid())).context("become a subreaper")?;
    let (ended, outputs) = match start_in_time(&record, &folder) {
        Ok((pid, outputs)) => {
            // Without this file the start is known a little less well; the work itself does not need it.
            fault_point::reach("guardian-started");
            let _ = folder.keep_started(pid);
            fault_point::reach("guardian-started-kept");
            (end_of(pid, &record), outputs)
        }
        Err(error) => (WorkBody::Failed { reason: format!("{error:#}") }, Vec::new()),
    };
    fault_point::reach("guardian-saw-end");
    folder.keep_ended(&ended)?;
    fault_point::reach("guardian-end-kept");
    // Leftovers are the agent's to end.
    while let Ok(Some(_)) = wait(WaitOptions::empty()) {}
    for output in outputs {
        let _ = output.join();
    }
    Ok(())
}

/// Starts the workload, and beside it, where it is fenced, who ends it when its time is up.
fn start_in_time(record: &Record, folder: &Folder) -> anyhow::Result<(u32, Vec<JoinHandle<()>>)> {
    let Some(expiry) = record.expiry.clone() else { return start(record, folder) };
    ensure!(!expiry.is_due(), "its lease was not renewed in time");
    let (own, of) = (record.cgroups.as_ref().map(|(own, _)| own.clone()), folder.clone());
    // Before the workload, so that nothing runs that nobody would end.
    thread::Builder::new()
        .name("expiry".into())
        .spawn(move || expiry.enforce(&of, own.as_ref()))
        .context("start the thread that ends it in time")?;
    start(record, folder)
}

fn start(record: &Record, folder: &Folder) -> anyhow::Result<(u32, Vec<JoinHandle<()>>)> {
    let (program, arguments) = record.command.split_first().context("there is no command")?;
    let output = |name: &str| Output::open(folder.path().join(name), record.output_bytes_max).context("keep output");
    let (stdout, stderr) = (output("stdout")?, output("stderr")?);
    let mut command = Command::new(program);
    command.args(arguments).env_clear().envs(&record.env).current_dir(&record.directory);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    if let Some((user, group)) = record.user {
        become_user(&mut command, user, group, &record.groups);
    }
    // Neither a hardened agent's mask nor its core files are the workload's.
    umask(Mode::from_raw_mode(0o022));
    let core = getrlimit(Resource::Core);
    let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: core.maximum });
    // The child is born where its parent is. If the cgroup is gone, the replica has been given up: no start.
    if let Some((own, _)) = &record.cgroups {
        own.enter().context("enter the cgroup")?;
        fault_point::reach("guardian-in-cgroup");
    }
    let started = command.spawn().with_context(|| format!("start {program:?}"));
    if let Some((_, guards)) = &record.cgroups {
        // One that cannot leave is killed with the workload, which costs the exit code and nothing else.
        let _ = guards.enter();
    }
    let mut child = started?;
    let (out, err) = (child.stdout.take().context("a pipe")?, child.stderr.take().context("a pipe")?);
    let follow = vec![thread::spawn(move || stdout.follow(out)), thread::spawn(move || stderr.follow(err))];
    Ok((child.id(), follow))
}

/// Has the child run as somebody else, in all of that user's groups: `Command::uid` alone would leave it in none.
fn become_user(command: &mut Command, user: u32, group: u32, groups: &[u32]) {
    let (user, group) = (Uid::from_raw(user), Gid::from_raw(group));
    let groups: Vec<Gid> = groups.iter().copied().map(Gid::from_raw).collect();
    let change = move || -> io::Result<()> {
        if geteuid().is_root() {
            setgroups(&groups)?;
        }
        setgid(group)?;
        setuid(user)?;
        Ok(())
    };
    // SAFETY: between fork and exec the closure makes four system calls and allocates nothing.
    #[allow(unsafe_code)]
    unsafe {
        command.pre_exec(change);
    }
}

/// Waits for the end of one child, reaping whatever else ends.
fn end_of(pid: u32, record: &Record) -> WorkBody {
    loop {
        match wait(WaitOptions::empty()) {
            Ok(Some((ended, status))) if ended.as_raw_nonzero().get().cast_unsigned() == pid => {
                let out_of_memory = record.cgroups.as_ref().is_some_and(|(own, _)| own.had_oom_kill());
                return body(status, out_of_memory);
            }
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return WorkBody::Failed { reason: format!("wait for the process: {error}") },
        }
    }
}

fn body(status: WaitStatus, out_of_memory: bool) -> WorkBody {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => WorkBody::Exited { code },
        (None, Some(signal)) => WorkBody::Killed { signal, out_of_memory },
        (None, None) => WorkBody::Failed { reason: "an exit status of no known kind".to_owned() },
    }
}
