//! What a chip is: read once for each chip a reader meets, since nothing of it changes while the node is up.

use super::VENDOR;
use super::sample::Fault;
use chiptide_api::node::{ChipBody, HealthBody};
use nvml_wrapper::Device;
use nvml_wrapper::enum_wrappers::nv_link::IntDeviceType;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::struct_wrappers::device::PciInfo;
use std::collections::BTreeSet;

const MIB: u64 = 1024 * 1024;
/// No chip has more NVLinks.
const LINKS_MAX: u32 = 18;

/// A place on the PCI buses: domain, bus, device. Ids in text form differ in width and case between calls.
pub(crate) type Place = (u32, u32, u32);

/// What one chip is.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Facts {
    /// As registered, without its link peers: those are other chips, which a reader does not know.
    pub(crate) chip: ChipBody,
    /// Where it sits.
    pub(crate) place: Option<Place>,
    /// What its active links lead to.
    pub(crate) links: BTreeSet<Link>,
}

/// The far end of an active link.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Link {
    /// Another chip, or something else that is no switch.
    Direct(Place),
    /// A switch: whatever else hangs on it is one hop away at full speed.
    Switch(Place),
}

impl Facts {
    /// Reads what the chip of this uuid is.
    pub(crate) fn read(device: &Device<'_>, uuid: &str) -> Result<Facts, Fault> {
        let pci = optional("PCI place", device.pci_info())?;
        let memory = optional("memory", device.memory_info())?;
        let chip = ChipBody {
            id: uuid.to_owned(),
            vendor: VENDOR.to_owned(),
            product: device.name().map_err(|error| Fault::of("name", &error))?,
            device_class: None,
            memory_mib: memory.map_or(0, |memory| memory.total / MIB),
            serial: optional("serial number", device.serial())?,
            pci_bus_id: pci.as_ref().map(|pci| pci.bus_id.clone()),
            // A chip without a NUMA node of its own answers -1 on some drivers.
            numa_node: optional("NUMA node", device.numa_node_id())?.filter(|node| *node != u32::MAX),
            link_peers: Vec::new(),
            health: HealthBody::Healthy,
        };
        Ok(Facts { chip, place: pci.as_ref().map(place), links: links(device) })
    }
}

fn place(pci: &PciInfo) -> Place {
    (pci.domain, pci.bus, pci.device)
}

/// Links help placement and nothing else: one that cannot be read is left out.
fn links(device: &Device<'_>) -> BTreeSet<Link> {
    let mut found = BTreeSet::new();
    for number in 0..LINKS_MAX {
        let link = device.link_wrapper_for(number);
        match link.is_active() {
            Ok(true) => {}
            Ok(false) => continue,
            Err(_) => break,
        }
        let Ok(remote) = link.remote_pci_info() else { continue };
        let switch = matches!(link.remote_device_type(number), Ok(IntDeviceType::Switch));
        found.insert(if switch { Link::Switch(place(&remote)) } else { Link::Direct(place(&remote)) });
    }
    found
}

/// A value the chip may not have. Anything but "there is none" is a fault, or a passing error would become a fact.
fn optional<T>(what: &'static str, answer: Result<T, NvmlError>) -> Result<Option<T>, Fault> {
    match answer {
        Ok(value) => Ok(Some(value)),
        Err(error) if is_absent(&error) => Ok(None),
        Err(error) => Err(Fault::of(what, &error)),
    }
}

/// Whether the driver says that this chip, or this driver, has no such thing.
pub(crate) fn is_absent(error: &NvmlError) -> bool {
    matches!(
        error,
        NvmlError::NotSupported | NvmlError::FunctionNotFound | NvmlError::FailedToLoadSymbol(_) | NvmlError::NoData
    )
}
