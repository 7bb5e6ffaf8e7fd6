//! What the machine says of itself.

use anyhow::Context;
use rustix::time::{ClockId, clock_gettime};
use std::fs;
use std::num::NonZero;
use std::path::PathBuf;
use std::time::Duration;

/// The kernel's boot id: another one after every start of the machine.
pub fn boot_id() -> anyhow::Result<String> {
    let file = "/proc/sys/kernel/random/boot_id";
    Ok(fs::read_to_string(file).with_context(|| format!("read {file}"))?.trim().to_owned())
}

/// Time since the machine started, its sleep included: no deadline on this clock is missed by a suspended machine.
pub fn boot_time() -> Duration {
    let now = clock_gettime(ClockId::Boottime);
    // The kernel counts up from 0, in whole nanoseconds below a second.
    Duration::new(now.tv_sec.cast_unsigned(), u32::try_from(now.tv_nsec).unwrap_or(0))
}

/// The host name, up to its first dot; empty if it has none.
pub fn name() -> String {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    name.split('.').next().unwrap_or_default().to_owned()
}

/// Processors this process may use, in thousandths of a core.
pub fn cpu_milli() -> u64 {
    std::thread::available_parallelism().map_or(1, NonZero::get) as u64 * 1000
}

/// Memory of the machine in MiB.
pub fn memory_mib() -> u64 {
    let info = rustix::system::sysinfo();
    (info.totalram as u64).saturating_mul(u64::from(info.mem_unit)) / (1024 * 1024)
}

/// Where an agent of this user keeps its state unless told otherwise: where systemd says, else the usual places.
pub fn state_dir() -> anyhow::Result<PathBuf> {
    if let Some(folder) = std::env::var_os("STATE_DIRECTORY").filter(|folder| !folder.is_empty()) {
        return Ok(folder.into());
    }
    if rustix::process::geteuid().is_root() {
        return Ok("/var/lib/chiptide-agent".into());
    }
    let home = std::env::var_os("HOME").filter(|home| !home.is_empty()).context("state_dir is not set")?;
    Ok(PathBuf::from(home).join(".local/state/chiptide-agent"))
}
