//! The processes the driver lists on a chip, and whose they are.

use super::facts::is_absent;
use super::sample::Fault;
use chiptide_api::chip::ChipProcess;
use nvml_wrapper::Device;
use nvml_wrapper::enums::device::UsedGpuMemory;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::struct_wrappers::device::ProcessInfo;
use std::collections::BTreeMap;
use std::fs;
use std::sync::OnceLock;
use uuid::Uuid;

const MIB: u64 = 1024 * 1024;
/// What a workload is told of its lease.
const LEASE_VARIABLE: &[u8] = b"CHIPTIDE_LEASE_ID=";
/// No kernel hands out a higher pid.
const PID_LIMIT: u32 = 4 * 1024 * 1024;

/// Which lease a process belongs to, by pid.
pub(crate) type Owners = BTreeMap<u32, Uuid>;

/// Every process with a compute, MPS or graphics context. A list that cannot be read, or reads as nonsense, is a fault: it
/// must never pass for an empty one.
pub(crate) fn read(device: &Device<'_>, memory_mib: u64) -> Result<(Vec<ChipProcess>, Owners), Fault> {
    let compute = list(|| device.running_compute_processes())?;
    let compute = compute.ok_or_else(|| Fault::Unreadable("the driver cannot list processes".to_owned()))?;
    let graphics = list(|| device.running_graphics_processes())?.unwrap_or_default();
    let clients = list(|| device.mps_running_compute_processes())?.unwrap_or_default();
    let all = compute.into_iter().chain(graphics).chain(clients);
    let listed = merge(all.map(|info| (info.pid, used_mib(info.used_gpu_memory))), memory_mib, pid_max())?;
    let owners = listed.iter().filter_map(|process| Some((process.pid, owner(process.pid)?))).collect();
    Ok((listed, owners))
}

/// One list; `None` where the driver has none. A list that grew between counting and fetching is fetched again.
fn list(fetch: impl Fn() -> Result<Vec<ProcessInfo>, NvmlError>) -> Result<Option<Vec<ProcessInfo>>, Fault> {
    let mut answer = fetch();
    for _ in 0..3 {
        if matches!(answer, Err(NvmlError::InsufficientSize(_))) {
            answer = fetch();
        }
    }
    match answer {
        Ok(list) => Ok(Some(list)),
        Err(error) if is_absent(&error) => Ok(None),
        Err(error) => Err(Fault::of("processes", &error)),
    }
}

/// One entry for each pid. Some drivers lay the list out differently than they say; what comes out then is caught here.
fn merge(
    all: impl Iterator<Item = (u32, Option<u64>)>,
    memory_mib: u64,
    pid_max: u32,
) -> Result<Vec<ChipProcess>, Fault> {
    let mut merged: BTreeMap<u32, Option<u64>> = BTreeMap::new();
    for (pid, mib) in all {
        if pid == 0 || pid > pid_max || mib.is_some_and(|mib| memory_mib > 0 && mib > memory_mib) {
            return Err(Fault::Unreadable(format!("the list of processes is garbage: pid {pid} with {mib:?} MiB")));
        }
        let known = merged.entry(pid).or_default();
        *known = mib.max(*known);
    }
    Ok(merged.into_iter().map(|(pid, memory_mib)| ChipProcess { pid, memory_mib }).collect())
}

fn used_mib(used: UsedGpuMemory) -> Option<u64> {
    match used {
        UsedGpuMemory::Used(bytes) => Some(bytes / MIB),
        UsedGpuMemory::Unavailable => None,
    }
}

/// The kernel's highest pid, read once: it is set at boot.
fn pid_max() -> u32 {
    static PID_MAX: OnceLock<u32> = OnceLock::new();
    *PID_MAX.get_or_init(|| {
        let text = fs::read_to_string("/proc/sys/kernel/pid_max");
        text.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(PID_LIMIT)
    })
}

/// The lease named in a process's environment; nobody's when that is not there or not for us to read.
pub(crate) fn owner(pid: u32) -> Option<Uuid> {
    lease_in(&fs::read(format!("/proc/{pid}/environ")).ok()?)
}

fn lease_in(environment: &[u8]) -> Option<Uuid> {
    let value = environment.split(|byte| *byte == 0).find_map(|entry| entry.strip_prefix(LEASE_VARIABLE))?;
    Uuid::try_parse_ascii(value).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn garbage_is_not_a_list() {
        let merged = |all: &[(u32, Option<u64>)]| merge(all.iter().copied(), 1000, 32_768);
        assert!(merged(&[(0, None)]).is_err());
        assert!(merged(&[(40_000, Some(1))]).is_err());
        assert!(merged(&[(7, Some(1001))]).is_err());
        let twice = merged(&[(9, Some(5)), (7, None), (9, None)]).expect("sane");
        assert_eq!(twice, [ChipProcess { pid: 7, memory_mib: None }, ChipProcess { pid: 9, memory_mib: Some(5) }]);
    }

    #[test]
    fn the_lease_is_read_from_the_environment() {
        let lease = Uuid::from_u128(5);
        assert_eq!(lease_in(format!("PATH=/bin\0CHIPTIDE_LEASE_ID={lease}\0X=1\0").as_bytes()), Some(lease));
        assert_eq!(lease_in(b"XCHIPTIDE_LEASE_ID=1\0CHIPTIDE_LEASE_ID=nonsense\0"), None);
    }
}
