//! Events: XIDs, as the scenario lists them. Each set begins with what is listed when a chip is registered, and tells what is
//! added to the list afterwards, once.

use crate::call::{handle, on_chip, put};
use crate::store;
use nvml_wrapper_sys::bindings::*;
use std::collections::BTreeMap;
use std::ffi::{c_uint, c_ulonglong};
use std::sync::{Mutex, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// How often a waiting set looks. A driver's wait costs nothing; this one should not cost more than the agent that waits.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// How many XIDs of each registered chip, by position, a set has told.
type Told = BTreeMap<usize, usize>;

static SETS: Mutex<BTreeMap<usize, Told>> = Mutex::new(BTreeMap::new());

fn with_sets<T>(body: impl FnOnce(&mut BTreeMap<usize, Told>) -> T) -> T {
    body(&mut SETS.lock().unwrap_or_else(PoisonError::into_inner))
}

/// Makes an empty set.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlEventSetCreate(set: *mut nvmlEventSet_t) -> nvmlReturn_t {
    let number = with_sets(|sets| {
        let number = sets.last_key_value().map_or(1, |(last, _)| last + 1);
        sets.insert(number, Told::new());
        number
    });
    // SAFETY: the caller passes a place for one handle, or null.
    match unsafe { put(set, std::ptr::without_provenance_mut(number)) } {
        Ok(()) => nvmlReturn_enum_NVML_SUCCESS,
        Err(code) => code,
    }
}

/// Frees a set.
#[unsafe(no_mangle)]
pub extern "C" fn nvmlEventSetFree(set: nvmlEventSet_t) -> nvmlReturn_t {
    match with_sets(|sets| sets.remove(&set.addr())) {
        Some(_) => nvmlReturn_enum_NVML_SUCCESS,
        None => nvmlReturn_enum_NVML_ERROR_INVALID_ARGUMENT,
    }
}

/// What a chip tells: XIDs.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetSupportedEventTypes(
    device: nvmlDevice_t,
    types: *mut c_ulonglong,
) -> nvmlReturn_t {
    // SAFETY: the caller passes a place for one number, or null.
    on_chip("nvmlDeviceGetSupportedEventTypes", device, |_| unsafe {
        put(types, c_ulonglong::from(nvmlEventTypeXidCriticalError))
    })
}

/// Adds a chip to a set.
#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceRegisterEvents(
    device: nvmlDevice_t,
    _types: c_ulonglong,
    set: nvmlEventSet_t,
) -> nvmlReturn_t {
    on_chip("nvmlDeviceRegisterEvents", device, |seen| {
        let told = seen.chip()?.xids.len();
        let known = with_sets(|sets| sets.get_mut(&set.addr()).map(|set| set.insert(seen.position, told)));
        known.map(|_| ()).ok_or(nvmlReturn_enum_NVML_ERROR_INVALID_ARGUMENT)
    })
}

/// Waits for the next event of a set.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlEventSetWait_v2(
    set: nvmlEventSet_t,
    data: *mut nvmlEventData_t,
    timeout_ms: c_uint,
) -> nvmlReturn_t {
    let until = Instant::now() + Duration::from_millis(timeout_ms.into());
    loop {
        let Some(scenario) = store::scenario() else { return nvmlReturn_enum_NVML_ERROR_UNINITIALIZED };
        let next = with_sets(|sets| {
            let set = sets.get_mut(&set.addr())?;
            Some(set.iter_mut().find_map(|(position, told)| {
                let xid = *scenario.chips.get(*position)?.xids.get(*told)?;
                *told += 1;
                Some((*position, xid))
            }))
        });
        match next {
            None => return nvmlReturn_enum_NVML_ERROR_INVALID_ARGUMENT,
            Some(Some((position, xid))) => {
                let event = nvmlEventData_t {
                    device: handle(position),
                    eventType: c_ulonglong::from(nvmlEventTypeXidCriticalError),
                    eventData: xid.into(),
                    gpuInstanceId: c_uint::MAX,
                    computeInstanceId: c_uint::MAX,
                };
                // SAFETY: the caller passes a place for one event, or null.
                return match unsafe { put(data, event) } {
                    Ok(()) => nvmlReturn_enum_NVML_SUCCESS,
                    Err(code) => code,
                };
            }
            Some(None) if Instant::now() >= until => return nvmlReturn_enum_NVML_ERROR_TIMEOUT,
            Some(None) => sleep(LOOK_EVERY),
        }
    }
}
