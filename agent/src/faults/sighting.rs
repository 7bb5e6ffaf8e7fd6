//! An XID as one of the sources saw it.

/// A place on the PCI buses: domain, bus, device.
pub type Place = (u32, u32, u32);

/// Which chip is meant.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Which {
    /// The one at this place.
    At(Place),
    /// The one of this id.
    Chip(String),
}

/// An XID as one of the sources saw it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sighting {
    /// Which chip.
    pub which: Which,
    /// The XID.
    pub xid: u32,
    /// The recovery the driver asks for, where the sighting says so.
    pub wanted: Option<u32>,
    /// What else was said, for people.
    pub detail: String,
}

/// The place that a bus id names: `00000000:17:00.0`, in any width and case.
pub(super) fn place_of(bus_id: &str) -> Option<Place> {
    let mut parts = bus_id.split([':', '.']).map(|part| u32::from_str_radix(part, 16).ok());
    Some((parts.next()??, parts.next()??, parts.next()??))
}
