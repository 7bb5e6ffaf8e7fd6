//! One program that `up` has started: in a process group of its own, with a log, and never left behind.

use anyhow::{Context, Result, bail};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::{Pid, getpid, getppid};
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{self, Command, Stdio};

/// How much of a log is shown when its program dies.
const TAIL_LINES: usize = 20;

/// A running program. Dropping it kills it.
pub(crate) struct Child {
    name: String,
    process: process::Child,
    log: PathBuf,
    log_start: u64,
}

impl Child {
    /// Starts one of our programs, its words appended to `log`. Must be called on a thread that lives as long as we do:
    /// the program is told to stop when the thread that forked it ends.
    #[allow(unsafe_code)]
    pub(crate) fn start(name: &str, args: &[OsString], log: &Path) -> Result<Child> {
        let out = File::options().create(true).append(true).open(log);
        let out = out.with_context(|| format!("open {}", log.display()))?;
        let log_start = out.metadata().map_or(0, |found| found.len());
        let mut command = Command::new(program(name));
        command.args(args).stdin(Stdio::null());
        command.stdout(out.try_clone().context("share the log")?).stderr(out);
        for ours in ["CHIPTIDE_URL", "CHIPTIDE_TOKEN", "CHIPTIDE_TOKEN_FILE"] {
            command.env_remove(ours);
        }
        // Ctrl-C in the terminal is for us: we stop the children in their order.
        command.process_group(0);
        let parent = getpid();
        let arm = move || {
            set_pdeathsig(Signal::SIGTERM)?;
            // If we died between the fork and the line above, no signal will ever come.
            if getppid() == parent { Ok(()) } else { Err(nix::errno::Errno::ESRCH.into()) }
        };
        // SAFETY: the closure runs between fork and exec; it makes two system calls and allocates nothing.
        unsafe {
            command.pre_exec(arm);
        }
        let process = command.spawn().with_context(|| {
            format!("start {}; is it installed beside `chiptide` or on PATH?", command.get_program().display())
        })?;
        Ok(Child { name: name.to_owned(), process, log: log.to_owned(), log_start })
    }

    /// Refuses when it has ended, with the end of its log.
    pub(crate) fn check(&mut self) -> Result<()> {
        let Some(status) = self.process.try_wait().with_context(|| format!("look after {}", self.name))? else {
            return Ok(());
        };
        bail!("{} ended ({status}); {} says:\n{}", self.name, self.log.display(), self.tail())
    }

    /// Whether it still runs.
    pub(crate) fn is_running(&mut self) -> bool {
        matches!(self.process.try_wait(), Ok(None))
    }

    /// Sends SIGTERM.
    pub(crate) fn ask_to_stop(&mut self) {
        if self.is_running() {
            // It may end between the question and the signal; that is what we want.
            kill(self.pid(), Signal::SIGTERM).ok();
        }
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.process.id()).expect("the kernel's process ids fit an i32"))
    }

    fn tail(&self) -> String {
        let mut bytes = Vec::new();
        let read = File::open(&self.log).and_then(|mut file| {
            file.seek(SeekFrom::Start(self.log_start))?;
            file.read_to_end(&mut bytes)
        });
        if let Err(error) = read {
            return format!("(cannot read it: {error})");
        }
        let text = String::from_utf8_lossy(&bytes);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
    }
}

impl Drop for Child {
    /// Whatever did not stop when asked, with all that it started in its group.
    fn drop(&mut self) {
        if self.is_running() {
            killpg(self.pid(), Signal::SIGKILL).ok();
            self.process.wait().ok();
        }
    }
}

/// The program beside our own, else whatever PATH finds.
fn program(name: &str) -> PathBuf {
    let beside = std::env::current_exe().ok().map(|ours| ours.with_file_name(name));
    beside.filter(|path| fs::metadata(path).is_ok_and(|found| found.is_file())).unwrap_or_else(|| name.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread::sleep;
    use std::time::{Duration, Instant};

    fn shell(script: &str, log: &Path) -> Child {
        Child::start("sh", &["-c".into(), script.into()], log).expect("started")
    }

    fn wait_for_end(child: &mut Child) {
        let until = Instant::now() + Duration::from_secs(10);
        while child.is_running() && Instant::now() < until {
            sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn a_child_that_dies_is_named_with_its_last_words() {
        let dir = tempfile::tempdir().expect("a directory");
        let log = dir.path().join("sh.log");
        fs::write(&log, "from an earlier run\n").expect("written");
        let mut child = shell("echo out of luck >&2; exit 3", &log);
        wait_for_end(&mut child);
        let error = child.check().expect_err("it died").to_string();
        assert!(error.contains("sh ended (exit status: 3)") && error.contains("out of luck"), "{error}");
        assert!(!error.contains("earlier run"), "{error}");
    }

    #[test]
    fn a_child_stops_when_asked_and_is_killed_when_dropped() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut polite = shell("sleep 60", &dir.path().join("a.log"));
        polite.check().expect("it runs");
        polite.ask_to_stop();
        wait_for_end(&mut polite);
        assert!(!polite.is_running());
        let stubborn = shell("trap '' TERM; sleep 60 & wait; sleep 60", &dir.path().join("b.log"));
        let pid = stubborn.pid();
        drop(stubborn);
        assert!(kill(pid, None).is_err(), "collected");
    }
}
