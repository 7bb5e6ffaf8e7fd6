//! The kernel's list of processes, and signals to them.

use rustix::process::{Pid, Signal, kill_process};
use std::collections::BTreeMap;
use std::{fs, io};

/// One process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Proc {
    pub(crate) pid: u32,
    pub(crate) parent: u32,
    pub(crate) group: u32,
    /// Dead, but its parent has not asked how it ended: it runs nothing and holds nothing.
    pub(crate) zombie: bool,
}

/// Every process. One that ends while we look is left out.
pub(crate) fn all() -> io::Result<Vec<Proc>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        match fs::read_to_string(format!("/proc/{pid}/stat")) {
            Ok(stat) => found.extend(parse(pid, &stat)),
            Err(error) if is_gone(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error())
}

/// Reads `/proc/<pid>/stat`. The name, in brackets, may hold anything, brackets too.
fn parse(pid: u32, stat: &str) -> Option<Proc> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next()?;
    let (parent, group) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some(Proc { pid, parent, group, zombie: matches!(state, "Z" | "X") })
}

/// When a process was started, in the kernel's ticks since boot: with the pid it names one process for good.
pub(crate) fn started(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_ascii_whitespace().nth(19)?.parse().ok()
}

/// Whether the environment a process was started with holds all of these entries.
pub(crate) fn was_started_with(pid: u32, entries: &[String]) -> bool {
    let Ok(environment) = fs::read(format!("/proc/{pid}/environ")) else { return false };
    entries.iter().all(|entry| environment.split(|byte| *byte == 0).any(|held| held == entry.as_bytes()))
}

/// Whether a process descends from another, by a list of parents.
pub(crate) fn descends(parents: &BTreeMap<u32, u32>, pid: u32, from: u32) -> bool {
    // A list taken while processes come and go may hold a circle: no walk is longer than the list.
    let walk = std::iter::successors(Some(pid), |pid| parents.get(pid).copied()).take(parents.len());
    walk.skip(1).any(|above| above == from)
}

/// Sends a signal. A process that is gone already is what was wanted.
pub(crate) fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, signal);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_hold_anything() {
        let proc = parse(7, "7 (a) R (b)) Z 3 5 5 0 -1").expect("a process");
        assert_eq!(proc, Proc { pid: 7, parent: 3, group: 5, zombie: true });
        assert_eq!(parse(7, "7 (a"), None);
    }

    #[test]
    fn this_process_is_among_all() {
        let own = std::process::id();
        assert!(all().expect("readable").iter().any(|proc| proc.pid == own && !proc.zombie));
    }
}
