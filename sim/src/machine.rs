//! The machine a figure was measured on, and what a process on it uses. Reads `/proc`.

use anyhow::Context;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::Serialize;
use std::time::Duration;

/// Ticks of `/proc/PID/stat` in a second: fixed in Linux's interface to programs, whatever the kernel's own tick is.
const TICKS_PER_SECOND: f64 = 100.0;

/// The machine.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Machine {
    /// Cores this process may use.
    pub cores: usize,
    /// The processor's name.
    pub processor: String,
    /// Memory, MiB.
    pub memory_mib: u64,
    /// Whether this program was built without optimisation: then its figures mean little.
    pub debug_build: bool,
}

impl Machine {
    /// The one this runs on.
    pub fn here() -> Machine {
        let read = |path| std::fs::read_to_string(path).unwrap_or_default();
        let after = |text: &str, name: &str| {
            let line = text.lines().find(|line| line.starts_with(name))?;
            Some(line.split_once(':')?.1.trim().to_owned())
        };
        let memory_kib = after(&read("/proc/meminfo"), "MemTotal").and_then(|total| number(&total));
        Machine {
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            processor: after(&read("/proc/cpuinfo"), "model name").unwrap_or_else(|| "unknown".into()),
            memory_mib: memory_kib.unwrap_or(0) / 1024,
            debug_build: cfg!(debug_assertions),
        }
    }
}

impl std::fmt::Display for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} cores ({}), {} GiB of memory", self.cores, self.processor, self.memory_mib / 1024)?;
        if self.debug_build { f.write_str("; a build without optimisation") } else { Ok(()) }
    }
}

/// Lets this process, and the daemon it may start, open as many files as the system allows: every agent keeps two
/// connections, and the usual limit of 1,024 is below one fleet.
pub fn raise_open_files() -> anyhow::Result<()> {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    setrlimit(Resource::Nofile, raised).context("raise the limit of open files")
}

/// Memory of a process.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub struct ProcessMemory {
    /// Resident now, MiB.
    pub resident_mib: u64,
    /// Resident at its highest, MiB.
    pub peak_mib: u64,
}

impl ProcessMemory {
    /// Of the process with this id.
    pub fn of(pid: u32) -> anyhow::Result<ProcessMemory> {
        let path = format!("/proc/{pid}/status");
        let text = std::fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
        let mib = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|rest| number(rest.trim_start_matches(':'))).map_or(0, |kib| kib / 1024)
        };
        Ok(ProcessMemory { resident_mib: mib("VmRSS"), peak_mib: mib("VmHWM") })
    }
}

/// CPU time a process has used, in user and kernel together.
pub fn cpu_time(pid: u32) -> anyhow::Result<Duration> {
    let path = format!("/proc/{pid}/stat");
    let text = std::fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    parse_cpu_time(&text).with_context(|| format!("find the CPU time in {path}"))
}

/// CPU time of a process and of its children, those included that it has waited for.
pub fn family_cpu_time(pid: u32) -> anyhow::Result<Duration> {
    let mut total = Duration::ZERO;
    for entry in std::fs::read_dir("/proc").context("list processes")?.flatten() {
        // A process may end between the listing and the reading; then its parent has its time.
        let Ok(stat) = std::fs::read_to_string(entry.path().join("stat")) else { continue };
        let is_child = || stat_fields(&stat).and_then(|fields| fields.get(1)?.parse::<u32>().ok()) == Some(pid);
        if entry.file_name().to_str().is_some_and(|name| name == pid.to_string()) {
            total += ticks(&stat, [11, 12, 13, 14]).unwrap_or_default();
        } else if is_child() {
            total += parse_cpu_time(&stat).unwrap_or_default();
        }
    }
    Ok(total)
}

fn parse_cpu_time(stat: &str) -> Option<Duration> {
    ticks(stat, [11, 12])
}

/// The sum of these fields, counted from the state on, as time.
fn ticks<const N: usize>(stat: &str, fields: [usize; N]) -> Option<Duration> {
    let all = stat_fields(stat)?;
    let each = fields.into_iter().map(|field| all.get(field)?.parse::<u64>().ok());
    Some(Duration::from_secs_f64(each.sum::<Option<u64>>()? as f64 / TICKS_PER_SECOND))
}

/// The fields after the name. The name may hold spaces and brackets; what follows its last bracket does not.
fn stat_fields(stat: &str) -> Option<Vec<&str>> {
    Some(stat.rsplit_once(')')?.1.split_whitespace().collect())
}

fn number(text: &str) -> Option<u64> {
    text.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_survives_a_name_with_brackets() {
        let stat = "42 (a ) b) S 1 2 3 4 5 6 7 8 9 10 150 50 0 0 20 0";
        assert_eq!(parse_cpu_time(stat), Some(Duration::from_secs(2)));
    }

    #[test]
    fn this_process_has_memory() {
        let memory = ProcessMemory::of(std::process::id()).expect("own status");
        assert!(memory.resident_mib > 0 && memory.peak_mib >= memory.resident_mib, "{memory:?}");
    }
}
