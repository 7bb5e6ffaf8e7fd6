//! The driver's lists of processes, in the three layouts NVML has had.

use crate::call::{Code, Seen, chip_calls, put};
use crate::scenario::Listed;
use crate::store::load;
use nvml_wrapper_sys::bindings::*;
use std::ffi::c_uint;

const MIB: u64 = 1024 * 1024;
/// NVML's word for "not known": all bits set.
const NOT_AVAILABLE: u64 = u64::MAX;
const NO_INSTANCE: c_uint = c_uint::MAX;

chip_calls! {
    /// Processes with a compute context.
    nvmlDeviceGetComputeRunningProcesses(count: *mut c_uint, infos: *mut nvmlProcessInfo_v1_t) = |seen, _chip|
        list(compute(seen)?, count, infos);
    /// Processes with a compute context.
    nvmlDeviceGetComputeRunningProcesses_v2(count: *mut c_uint, infos: *mut nvmlProcessInfo_v2_t) = |seen, _chip|
        list(compute(seen)?, count, infos);
    /// Processes with a compute context.
    nvmlDeviceGetComputeRunningProcesses_v3(count: *mut c_uint, infos: *mut nvmlProcessInfo_t) = |seen, _chip|
        list(compute(seen)?, count, infos);
    /// Processes with a graphics context.
    nvmlDeviceGetGraphicsRunningProcesses(count: *mut c_uint, infos: *mut nvmlProcessInfo_v1_t) = |seen, _chip|
        list(graphics(seen)?, count, infos);
    /// Processes with a graphics context.
    nvmlDeviceGetGraphicsRunningProcesses_v2(count: *mut c_uint, infos: *mut nvmlProcessInfo_v2_t) = |seen, _chip|
        list(graphics(seen)?, count, infos);
    /// Processes with a graphics context.
    nvmlDeviceGetGraphicsRunningProcesses_v3(count: *mut c_uint, infos: *mut nvmlProcessInfo_t) = |seen, _chip|
        list(graphics(seen)?, count, infos);
    /// Processes behind an MPS server: none.
    nvmlDeviceGetMPSComputeRunningProcesses_v3(count: *mut c_uint, infos: *mut nvmlProcessInfo_t) = |_seen, _chip|
        list(Vec::new(), count, infos);
}

/// One entry of a list, whatever its layout.
trait Entry {
    fn of(pid: c_uint, bytes: u64) -> Self;
}

impl Entry for nvmlProcessInfo_v1_t {
    fn of(pid: c_uint, bytes: u64) -> Self {
        nvmlProcessInfo_v1_t { pid, usedGpuMemory: bytes }
    }
}

impl Entry for nvmlProcessInfo_v2_t {
    fn of(pid: c_uint, bytes: u64) -> Self {
        let (gpuInstanceId, computeInstanceId) = (NO_INSTANCE, NO_INSTANCE);
        nvmlProcessInfo_v2_t { pid, usedGpuMemory: bytes, gpuInstanceId, computeInstanceId }
    }
}

fn compute(seen: &Seen) -> Result<Vec<Listed>, Code> {
    Ok(load(seen.position, seen.chip()?).listed.into_iter().filter(|process| !process.graphics).collect())
}

fn graphics(seen: &Seen) -> Result<Vec<Listed>, Code> {
    Ok(load(seen.position, seen.chip()?).listed.into_iter().filter(|process| process.graphics).collect())
}

/// Writes the list, or how much room it needs.
///
/// # Safety
/// `count` is null or valid, and `infos` is null or has room for `*count` entries.
unsafe fn list<E: Entry>(processes: Vec<Listed>, count: *mut c_uint, infos: *mut E) -> Result<(), Code> {
    // SAFETY: null or valid by this function's contract.
    let room = unsafe { count.as_ref() }.ok_or(nvmlReturn_enum_NVML_ERROR_INVALID_ARGUMENT)?.to_owned() as usize;
    // SAFETY: as above.
    unsafe { put(count, processes.len() as c_uint)? };
    if processes.len() > room {
        return Err(nvmlReturn_enum_NVML_ERROR_INSUFFICIENT_SIZE);
    }
    for (place, process) in processes.into_iter().enumerate() {
        let entry = E::of(process.pid, process.mib.map_or(NOT_AVAILABLE, |mib| mib * MIB));
        // SAFETY: `infos` has room for as many entries as the caller said, and `place` is below that.
        unsafe { put(infos.wrapping_add(place), entry)? };
    }
    Ok(())
}
