//! What the machine says of itself.

use anyhow::Context;
use std::fs;
use std::num::NonZero;

/// The kernel's boot id: another one after every start of the machine.
pub fn boot_id() -> anyhow::Result<String> {
    let file = "/proc/sys/kernel/random/boot_id";
    Ok(fs::read_to_string(file).with_context(|| format!("read {file}"))?.trim().to_owned())
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
