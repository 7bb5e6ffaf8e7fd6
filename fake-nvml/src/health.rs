//! Memory errors, row remapping and the driver's recovery action.

use crate::call::{chip_calls, put, supported};
use crate::scenario::Chip;
use nvml_wrapper_sys::bindings::field_id::*;
use nvml_wrapper_sys::bindings::*;
use std::ffi::{c_int, c_uint, c_ulonglong};

chip_calls! {
    /// Memory errors of a kind.
    nvmlDeviceGetTotalEccErrors(kind: nvmlMemoryErrorType_t, _counter: nvmlEccCounterType_t, out: *mut c_ulonglong) =
        |_seen, chip| {
            let corrected = kind == nvmlMemoryErrorType_enum_NVML_MEMORY_ERROR_TYPE_CORRECTED;
            put(out, supported(if corrected { chip.ecc_corrected } else { chip.ecc_uncorrected })?)
        };
    /// Row remapping.
    nvmlDeviceGetRemappedRows(corrected: *mut c_uint, uncorrected: *mut c_uint, pending: *mut c_uint,
        failed: *mut c_uint) = |_seen, chip| {
            put(corrected, 0)?;
            put(uncorrected, 0)?;
            put(pending, c_uint::from(chip.remap_pending))?;
            put(failed, c_uint::from(chip.remap_failed))
        };
    /// Field values by id.
    nvmlDeviceGetFieldValues(count: c_int, values: *mut nvmlFieldValue_t) = |_seen, chip| {
        if values.is_null() || count < 0 {
            return Err(nvmlReturn_enum_NVML_ERROR_INVALID_ARGUMENT);
        }
        for place in std::slice::from_raw_parts_mut(values, count as usize) {
            fill(place, chip);
        }
        Ok(())
    };
}

fn fill(place: &mut nvmlFieldValue_t, chip: &Chip) {
    let value = match place.fieldId {
        NVML_FI_DEV_REMAPPED_COR | NVML_FI_DEV_REMAPPED_UNC => Some(0),
        NVML_FI_DEV_REMAPPED_PENDING => Some(c_uint::from(chip.remap_pending)),
        NVML_FI_DEV_REMAPPED_FAILURE => Some(c_uint::from(chip.remap_failed)),
        NVML_FI_DEV_GET_GPU_RECOVERY_ACTION => Some(chip.recovery_action),
        _ => None,
    };
    place.valueType = nvmlValueType_enum_NVML_VALUE_TYPE_UNSIGNED_INT;
    place.value = nvmlValue_t { ullVal: value.unwrap_or(0).into() };
    place.nvmlReturn = match value {
        Some(_) => nvmlReturn_enum_NVML_SUCCESS,
        None => nvmlReturn_enum_NVML_ERROR_NOT_SUPPORTED,
    };
}
