//! Calls on the library and the node: start and stop, versions, and the ways to a chip's handle.

use crate::call::{Code, handle, on_system, put, put_text};
use crate::scenario::{Chip, Scenario};
use crate::store;
use nvml_wrapper_sys::bindings::*;
use std::ffi::{CStr, c_char, c_int, c_uint};

/// Starts the library.
#[unsafe(no_mangle)]
pub extern "C" fn nvmlInit_v2() -> nvmlReturn_t {
    if !store::open() {
        return nvmlReturn_enum_NVML_ERROR_DRIVER_NOT_LOADED;
    }
    match store::scenario() {
        Some(scenario) => scenario.init_error.unwrap_or(nvmlReturn_enum_NVML_SUCCESS),
        None => nvmlReturn_enum_NVML_ERROR_DRIVER_NOT_LOADED,
    }
}

/// Starts the library; the flags change nothing here.
#[unsafe(no_mangle)]
pub extern "C" fn nvmlInitWithFlags(_flags: c_uint) -> nvmlReturn_t {
    nvmlInit_v2()
}

/// Stops the library; there is nothing to give back.
#[unsafe(no_mangle)]
pub extern "C" fn nvmlShutdown() -> nvmlReturn_t {
    nvmlReturn_enum_NVML_SUCCESS
}

/// A code in words.
#[unsafe(no_mangle)]
pub extern "C" fn nvmlErrorString(result: nvmlReturn_t) -> *const c_char {
    let text: &'static CStr = match result {
        0 => c"Success",
        1 => c"Uninitialized",
        2 => c"Invalid Argument",
        3 => c"Not Supported",
        6 => c"Not Found",
        7 => c"Insufficient Size",
        9 => c"Driver Not Loaded",
        10 => c"Timeout",
        15 => c"GPU is lost",
        16 => c"GPU requires reset",
        _ => c"Unknown Error",
    };
    text.as_ptr()
}

/// Version of the driver.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlSystemGetDriverVersion(version: *mut c_char, length: c_uint) -> nvmlReturn_t {
    // SAFETY: the caller's buffer is as long as it says.
    on_system("nvmlSystemGetDriverVersion", |s| unsafe { put_text(version, length, &s.driver_version) })
}

/// Version of the library.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlSystemGetNVMLVersion(version: *mut c_char, length: c_uint) -> nvmlReturn_t {
    let text = |s: &Scenario| format!("13.{}", s.driver_version);
    // SAFETY: the caller's buffer is as long as it says.
    on_system("nvmlSystemGetNVMLVersion", |s| unsafe { put_text(version, length, &text(&s)) })
}

/// CUDA version: 13.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlSystemGetCudaDriverVersion(version: *mut c_int) -> nvmlReturn_t {
    // SAFETY: the caller passes a place for one number.
    on_system("nvmlSystemGetCudaDriverVersion", |_| unsafe { put(version, 13_000) })
}

/// CUDA version: 13.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlSystemGetCudaDriverVersion_v2(version: *mut c_int) -> nvmlReturn_t {
    // SAFETY: the caller passes a place for one number.
    on_system("nvmlSystemGetCudaDriverVersion_v2", |_| unsafe { put(version, 13_000) })
}

/// Name of a process.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlSystemGetProcessName(pid: c_uint, name: *mut c_char, length: c_uint) -> nvmlReturn_t {
    on_system("nvmlSystemGetProcessName", |_| {
        let text = std::fs::read_to_string(format!("/proc/{pid}/comm"));
        let text = text.map_err(|_| nvmlReturn_enum_NVML_ERROR_NOT_FOUND)?;
        // SAFETY: the caller's buffer is as long as it says.
        unsafe { put_text(name, length, text.trim_end()) }
    })
}

fn present(scenario: &Scenario) -> impl Iterator<Item = usize> {
    scenario.chips.iter().enumerate().filter(|(_, chip)| !chip.absent).map(|(position, _)| position)
}

fn count(name: &str, out: *mut c_uint) -> Code {
    // SAFETY: the caller passes a place for one number.
    on_system(name, |scenario| unsafe { put(out, present(&scenario).count() as c_uint) })
}

/// How many chips there are.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetCount(out: *mut c_uint) -> nvmlReturn_t {
    count("nvmlDeviceGetCount", out)
}

/// How many chips there are.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetCount_v2(out: *mut c_uint) -> nvmlReturn_t {
    count("nvmlDeviceGetCount_v2", out)
}

fn by_index(name: &str, index: c_uint, out: *mut nvmlDevice_t) -> Code {
    on_system(name, |scenario| {
        let position = present(&scenario).nth(index as usize).ok_or(nvmlReturn_enum_NVML_ERROR_INVALID_ARGUMENT)?;
        // A chip off the bus still counts, but its handle cannot be had.
        match scenario.chips.get(position) {
            Some(chip) if chip.lost => Err(nvmlReturn_enum_NVML_ERROR_GPU_IS_LOST),
            // SAFETY: the caller passes a place for one handle.
            _ => unsafe { put(out, handle(position)) },
        }
    })
}

/// The chip at an index.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetHandleByIndex(index: c_uint, out: *mut nvmlDevice_t) -> nvmlReturn_t {
    by_index("nvmlDeviceGetHandleByIndex", index, out)
}

/// The chip at an index.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetHandleByIndex_v2(index: c_uint, out: *mut nvmlDevice_t) -> nvmlReturn_t {
    by_index("nvmlDeviceGetHandleByIndex_v2", index, out)
}

fn by_text(name: &str, text: *const c_char, out: *mut nvmlDevice_t, is: impl Fn(&Chip, &str) -> bool) -> Code {
    on_system(name, |scenario| {
        if text.is_null() {
            return Err(nvmlReturn_enum_NVML_ERROR_INVALID_ARGUMENT);
        }
        // SAFETY: not null, and a C string by the caller's contract.
        let wanted = unsafe { CStr::from_ptr(text) }.to_string_lossy();
        let found = present(&scenario).find(|position| scenario.chips.get(*position).is_some_and(|c| is(c, &wanted)));
        let position = found.ok_or(nvmlReturn_enum_NVML_ERROR_NOT_FOUND)?;
        // SAFETY: the caller passes a place for one handle.
        unsafe { put(out, handle(position)) }
    })
}

/// The chip of a uuid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetHandleByUUID(uuid: *const c_char, out: *mut nvmlDevice_t) -> nvmlReturn_t {
    by_text("nvmlDeviceGetHandleByUUID", uuid, out, |chip, wanted| chip.uuid == wanted)
}

/// The chip of a serial number.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetHandleBySerial(serial: *const c_char, out: *mut nvmlDevice_t) -> nvmlReturn_t {
    by_text("nvmlDeviceGetHandleBySerial", serial, out, |chip, wanted| chip.serial.as_deref() == Some(wanted))
}

/// The chip at a PCI bus id.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetHandleByPciBusId_v2(id: *const c_char, out: *mut nvmlDevice_t) -> nvmlReturn_t {
    by_text("nvmlDeviceGetHandleByPciBusId_v2", id, out, |chip, wanted| chip.pci_bus_id.eq_ignore_ascii_case(wanted))
}
