//! What a chip measures.

use crate::call::{Code, Seen, chip_calls, put, supported};
use crate::store::load;
use nvml_wrapper_sys::bindings::*;
use std::ffi::c_uint;

const MIB: u64 = 1024 * 1024;

chip_calls! {
    /// Memory, where what the driver reserves counts as used.
    nvmlDeviceGetMemoryInfo(memory: *mut nvmlMemory_t) = |seen, _chip| {
        let (total, reserved, used) = bytes(seen)?;
        let used = (used + reserved).min(total);
        put(memory, nvmlMemory_t { total, free: total - used, used })
    };
    /// Memory, with what the driver reserves apart.
    nvmlDeviceGetMemoryInfo_v2(memory: *mut nvmlMemory_v2_t) = |seen, _chip| {
        let version = memory.as_ref().ok_or(nvmlReturn_enum_NVML_ERROR_INVALID_ARGUMENT)?.version;
        if version != (size_of::<nvmlMemory_v2_t>() | (2 << 24)) as c_uint {
            return Err(nvmlReturn_enum_NVML_ERROR_ARGUMENT_VERSION_MISMATCH);
        }
        let (total, reserved, used) = bytes(seen)?;
        put(memory, nvmlMemory_v2_t { version, total, reserved, free: total.saturating_sub(reserved + used), used })
    };
    /// Share of time a kernel ran, percent.
    nvmlDeviceGetUtilizationRates(out: *mut nvmlUtilization_t) = |seen, chip| {
        let gpu = supported(if busy(seen)? { chip.busy_utilization } else { chip.idle_utilization })?;
        put(out, nvmlUtilization_t { gpu, memory: gpu / 2 })
    };
    /// Temperature, degrees Celsius.
    nvmlDeviceGetTemperature(_sensor: nvmlTemperatureSensors_t, out: *mut c_uint) = |_seen, chip|
        put(out, supported(chip.temperature_celsius)?);
    /// Power draw, milliwatts.
    nvmlDeviceGetPowerUsage(out: *mut c_uint) = |seen, chip| {
        let watts = supported(if busy(seen)? { chip.busy_power_watts } else { chip.idle_power_watts })?;
        put(out, milliwatts(watts))
    };
    /// Enforced power limit, milliwatts.
    nvmlDeviceGetEnforcedPowerLimit(out: *mut c_uint) = |_seen, chip|
        put(out, milliwatts(supported(chip.power_limit_watts)?));
    /// Clocks, MHz.
    nvmlDeviceGetClockInfo(clock: nvmlClockType_t, out: *mut c_uint) = |_seen, chip| {
        let mhz = if clock == nvmlClockType_enum_NVML_CLOCK_MEM { chip.memory_clock_mhz } else { chip.sm_clock_mhz };
        put(out, supported(mhz)?)
    };
    /// Fans: none, these are cooled by the chassis.
    nvmlDeviceGetFanSpeed(_out: *mut c_uint) = |_seen, _chip| Err(nvmlReturn_enum_NVML_ERROR_NOT_SUPPORTED);
}

fn busy(seen: &Seen) -> Result<bool, Code> {
    Ok(!load(seen.position, seen.chip()?).listed.is_empty())
}

/// Total, reserved and used memory in bytes.
fn bytes(seen: &Seen) -> Result<(u64, u64, u64), Code> {
    let chip = seen.chip()?;
    let total = supported(chip.memory_mib)?;
    let used = chip.idle_mib + chip.leak_mib + load(seen.position, chip).mib;
    Ok((total * MIB, chip.reserved_mib * MIB, used.min(total.saturating_sub(chip.reserved_mib)) * MIB))
}

fn milliwatts(watts: f64) -> c_uint {
    (watts * 1000.0).round() as c_uint
}
