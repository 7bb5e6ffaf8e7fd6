//! NVLinks: link `n` leads to the `n`-th of the chip's `link_peers`.

use crate::call::{Code, Seen, chip_calls, put};
use crate::identity::pci_info;
use crate::scenario::Chip;
use nvml_wrapper_sys::bindings::*;
use std::ffi::c_uint;

chip_calls! {
    /// Whether a link is up.
    nvmlDeviceGetNvLinkState(link: c_uint, out: *mut nvmlEnableState_t) = |_seen, chip| {
        if chip.link_peers.is_empty() {
            return Err(nvmlReturn_enum_NVML_ERROR_NOT_SUPPORTED);
        }
        let up = (link as usize) < chip.link_peers.len();
        put(out, if up { nvmlEnableState_enum_NVML_FEATURE_ENABLED } else { nvmlEnableState_enum_NVML_FEATURE_DISABLED })
    };
    /// What a link leads to.
    nvmlDeviceGetNvLinkRemotePciInfo_v2(link: c_uint, out: *mut nvmlPciInfo_t) = |seen, _chip|
        put(out, pci_info(peer(seen, link)?)?);
    /// Links lead straight to another chip, not to a switch.
    nvmlDeviceGetNvLinkRemoteDeviceType(link: c_uint, out: *mut nvmlIntNvLinkDeviceType_t) = |seen, _chip| {
        peer(seen, link)?;
        put(out, nvmlIntNvLinkDeviceType_enum_NVML_NVLINK_DEVICE_TYPE_GPU)
    };
}

fn peer(seen: &Seen, link: c_uint) -> Result<&Chip, Code> {
    let peer = seen.chip()?.link_peers.get(link as usize).and_then(|position| seen.scenario.chips.get(*position));
    peer.ok_or(nvmlReturn_enum_NVML_ERROR_INVALID_ARGUMENT)
}
