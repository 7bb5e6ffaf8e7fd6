//! Who a chip is and where it sits.

use crate::call::{Code, chip_calls, put, put_text, supported};
use crate::scenario::Chip;
use nvml_wrapper_sys::bindings::*;
use std::ffi::{c_char, c_int, c_uint};

chip_calls! {
    /// Product name.
    nvmlDeviceGetName(name: *mut c_char, length: c_uint) = |_seen, chip| put_text(name, length, &chip.name);
    /// Unique id.
    nvmlDeviceGetUUID(uuid: *mut c_char, length: c_uint) = |_seen, chip| put_text(uuid, length, &chip.uuid);
    /// Serial number.
    nvmlDeviceGetSerial(serial: *mut c_char, length: c_uint) = |_seen, chip|
        put_text(serial, length, supported(chip.serial.as_deref())?);
    /// Index among the chips that are present.
    nvmlDeviceGetIndex(index: *mut c_uint) = |seen, _chip| {
        let before = seen.scenario.chips.iter().take(seen.position);
        put(index, before.filter(|chip| !chip.absent).count() as c_uint)
    };
    /// Number of the device node.
    nvmlDeviceGetMinorNumber(minor: *mut c_uint) = |_seen, chip| put(minor, chip.minor);
    /// NUMA node.
    nvmlDeviceGetNumaNodeId(node: *mut c_uint) = |_seen, chip| put(node, supported(chip.numa_node)?);
    /// PCI place.
    nvmlDeviceGetPciInfo_v3(pci: *mut nvmlPciInfo_t) = |_seen, chip| put(pci, pci_info(chip)?);
    /// PCI place.
    nvmlDeviceGetPciInfo_v2(pci: *mut nvmlPciInfo_t) = |_seen, chip| put(pci, pci_info(chip)?);
    /// Brand: NVIDIA.
    nvmlDeviceGetBrand(brand: *mut nvmlBrandType_t) = |_seen, _chip| put(brand, nvmlBrandType_enum_NVML_BRAND_NVIDIA);
    /// Architecture: Hopper.
    nvmlDeviceGetArchitecture(architecture: *mut nvmlDeviceArchitecture_t) = |_seen, _chip|
        put(architecture, NVML_DEVICE_ARCH_HOPPER);
    /// Compute capability: 9.0.
    nvmlDeviceGetCudaComputeCapability(major: *mut c_int, minor: *mut c_int) = |_seen, _chip| {
        put(major, 9)?;
        put(minor, 0)
    };
    /// Persistence is always on.
    nvmlDeviceGetPersistenceMode(mode: *mut nvmlEnableState_t) = |_seen, _chip|
        put(mode, nvmlEnableState_enum_NVML_FEATURE_ENABLED);
    /// Persistence may be set, to no effect.
    nvmlDeviceSetPersistenceMode(_mode: nvmlEnableState_t) = |_seen, _chip| Ok(());
    /// MIG is not supported.
    nvmlDeviceGetMigMode(_current: *mut c_uint, _pending: *mut c_uint) = |_seen, _chip|
        Err(nvmlReturn_enum_NVML_ERROR_NOT_SUPPORTED);
}

/// The chip's place on the bus, from its bus id; a bus id that is none is "unknown error".
pub fn pci_info(chip: &Chip) -> Result<nvmlPciInfo_t, Code> {
    let unknown = nvmlReturn_enum_NVML_ERROR_UNKNOWN;
    let number = |text: Option<&str>| text.and_then(|text| c_uint::from_str_radix(text, 16).ok()).ok_or(unknown);
    let mut parts = chip.pci_bus_id.split([':', '.']);
    let (domain, bus, device) = (number(parts.next())?, number(parts.next())?, number(parts.next())?);
    let (mut busId, mut busIdLegacy) = ([0; 32], [0; 16]);
    let legacy = format!("{domain:04X}:{bus:02X}:{device:02X}.0");
    for (place, byte) in busId.iter_mut().take(31).zip(chip.pci_bus_id.bytes()) {
        *place = byte as c_char;
    }
    for (place, byte) in busIdLegacy.iter_mut().take(15).zip(legacy.bytes()) {
        *place = byte as c_char;
    }
    // 10de is NVIDIA's vendor id, 2329 an H20.
    Ok(nvmlPciInfo_t { busIdLegacy, domain, bus, device, pciDeviceId: 0x2329_10de, pciSubSystemId: 0x10de, busId })
}
