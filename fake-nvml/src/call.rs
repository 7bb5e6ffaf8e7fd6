//! The border every exported function crosses: finds the chip behind a handle, plays its faults, writes results through the
//! caller's pointers, and never lets a panic out (unwinding into C is undefined, so it aborts instead).

use crate::scenario::{Chip, Scenario};
use crate::store;
use nvml_wrapper_sys::bindings::*;
use std::ffi::{c_char, c_uint};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

/// An NVML error code on its way out.
pub type Code = nvmlReturn_t;

/// The chip a call is about.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The whole scenario.
    pub scenario: Arc<Scenario>,
    /// The chip's position in it.
    pub position: usize,
}

impl Seen {
    /// The chip.
    pub fn chip(&self) -> Result<&Chip, Code> {
        self.scenario.chips.get(self.position).ok_or(nvmlReturn_enum_NVML_ERROR_INVALID_ARGUMENT)
    }
}

/// The handle of the chip at `position`: never null, and the same in every process.
pub fn handle(position: usize) -> nvmlDevice_t {
    std::ptr::without_provenance_mut(position + 1)
}

/// Runs a call that concerns no chip.
pub fn on_system(name: &str, body: impl FnOnce(Arc<Scenario>) -> Result<(), Code>) -> Code {
    guarded(|| {
        let scenario = store::scenario().ok_or(nvmlReturn_enum_NVML_ERROR_UNINITIALIZED)?;
        match scenario.errors.get(name) {
            Some(code) => Err(*code),
            None => body(scenario),
        }
    })
}

/// Runs a call on a chip, faults first.
pub fn on_chip(name: &str, device: nvmlDevice_t, body: impl FnOnce(&Seen) -> Result<(), Code>) -> Code {
    guarded(|| {
        let scenario = store::scenario().ok_or(nvmlReturn_enum_NVML_ERROR_UNINITIALIZED)?;
        let position = device.addr().checked_sub(1).ok_or(nvmlReturn_enum_NVML_ERROR_INVALID_ARGUMENT)?;
        let seen = Seen { scenario, position };
        play_faults(name, seen.chip()?)?;
        body(&seen)
    })
}

/// Waits as long as the chip is slow, then fails if it fails.
pub fn play_faults(name: &str, chip: &Chip) -> Result<(), Code> {
    if chip.delay_ms > 0 {
        std::thread::sleep(Duration::from_millis(chip.delay_ms));
    }
    if chip.lost || chip.absent {
        return Err(nvmlReturn_enum_NVML_ERROR_GPU_IS_LOST);
    }
    match chip.error.as_ref().or_else(|| chip.errors.get(name)) {
        Some(code) => Err(*code),
        None => Ok(()),
    }
}

fn guarded(body: impl FnOnce() -> Result<(), Code>) -> Code {
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(())) => nvmlReturn_enum_NVML_SUCCESS,
        Ok(Err(code)) => code,
        Err(_) => std::process::abort(),
    }
}

/// A value the chip has, or "not supported".
pub fn supported<T>(value: Option<T>) -> Result<T, Code> {
    value.ok_or(nvmlReturn_enum_NVML_ERROR_NOT_SUPPORTED)
}

/// Writes a result.
///
/// # Safety
/// `out` is null or valid for a write.
pub unsafe fn put<T>(out: *mut T, value: T) -> Result<(), Code> {
    if out.is_null() {
        return Err(nvmlReturn_enum_NVML_ERROR_INVALID_ARGUMENT);
    }
    // SAFETY: not null, and valid by this function's contract.
    unsafe { out.write(value) };
    Ok(())
}

/// Writes a text with its closing zero.
///
/// # Safety
/// `out` is null or valid for `size` bytes.
pub unsafe fn put_text(out: *mut c_char, size: c_uint, text: &str) -> Result<(), Code> {
    if out.is_null() {
        return Err(nvmlReturn_enum_NVML_ERROR_INVALID_ARGUMENT);
    }
    if text.len() >= size as usize {
        return Err(nvmlReturn_enum_NVML_ERROR_INSUFFICIENT_SIZE);
    }
    // SAFETY: `out` has room for the text and one more byte, as just checked against the caller's size.
    unsafe {
        out.copy_from_nonoverlapping(text.as_ptr().cast(), text.len());
        out.add(text.len()).write(0);
    }
    Ok(())
}

/// Defines exported functions whose first argument is a chip's handle.
macro_rules! chip_calls {
    ($($(#[$doc:meta])* $name:ident($($arg:ident: $type:ty),*) = |$seen:ident, $chip:ident| $body:expr;)*) => {$(
        $(#[$doc])*
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name(device: nvmlDevice_t, $($arg: $type),*) -> nvmlReturn_t {
            $crate::call::on_chip(stringify!($name), device, |$seen| {
                let $chip = $seen.chip()?;
                // SAFETY: the caller passes pointers as nvml.h demands: null, or valid for the documented size.
                #[allow(unused_unsafe, reason = "some calls write nothing")]
                unsafe { $body }
            })
        }
    )*};
}
pub(crate) use chip_calls;
