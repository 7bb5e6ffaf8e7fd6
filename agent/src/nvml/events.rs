//! XIDs as the driver's events tell them, on a thread and an event set of its own: waiting blocks, and a set belongs to one
//! thread. Events are a hint that comes early; what lasts shows in the readings, and the kernel's log has what this misses.

use crate::faults::{Sighting, Which};
use nvml_wrapper::bitmasks::event::EventTypes;
use nvml_wrapper::enums::event::XidError;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::{EventSet, Nvml};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};
use std::{io, thread};
use tokio::sync::mpsc::Sender;
use tokio::sync::mpsc::error::TrySendError;
use tracing::{info, warn};

/// How long one wait lasts at most, ms: so often the thread looks whether anybody still listens.
const WAIT_MS: u32 = 5_000;
/// After an error that is no time-out, and after a wait that did not wait.
const PAUSE: Duration = Duration::from_secs(1);
/// How often chips are registered anew: one that was lost, or came late, had no part in the set.
const REGISTER_EVERY: Duration = Duration::from_secs(60);

/// Listens on a thread of its own, for as long as anybody takes what is heard.
pub fn listen(nvml: &'static Nvml, sightings: Sender<Sighting>) -> io::Result<()> {
    thread::Builder::new().name("chip-events".into()).stack_size(256 * 1024).spawn(move || {
        let mut heard: Option<BTreeSet<u32>> = None;
        while !sightings.is_closed() {
            match register(nvml) {
                Ok((set, chips)) => {
                    if heard.as_ref() != Some(&chips) {
                        info!(chips = chips.len(), "listening to the driver's events");
                        heard = Some(chips);
                    }
                    wait(&set, &sightings);
                }
                Err(NvmlError::FailedToLoadSymbol(_) | NvmlError::FunctionNotFound | NvmlError::NotSupported) => {
                    info!("this driver tells no events; XIDs come from the kernel's log only");
                    return;
                }
                Err(error) => {
                    warn!("the driver's events are not heard: {error}");
                    thread::sleep(REGISTER_EVERY);
                }
            }
        }
    })?;
    Ok(())
}

/// A set of every chip that can tell XIDs, by index. A chip that refuses costs the set, so another is made without it.
fn register(nvml: &'static Nvml) -> Result<(EventSet<'static>, BTreeSet<u32>), NvmlError> {
    let count = nvml.device_count()?;
    let (mut set, mut chips, mut refused) = (nvml.create_event_set()?, BTreeSet::new(), BTreeSet::new());
    let mut index = 0;
    while index < count {
        let able = || {
            let device = nvml.device_by_index(index).ok()?;
            let xids = device.supported_event_types().ok()?.contains(EventTypes::CRITICAL_XID_ERROR);
            xids.then_some(device)
        };
        let Some(device) = (!refused.contains(&index)).then(able).flatten() else {
            index += 1;
            continue;
        };
        match device.register_events(EventTypes::CRITICAL_XID_ERROR, set) {
            Ok(with_it) => {
                set = with_it;
                chips.insert(index);
                index += 1;
            }
            Err(_) => {
                refused.insert(index);
                (set, index) = (nvml.create_event_set()?, 0);
                chips.clear();
            }
        }
    }
    Ok((set, chips))
}

/// Takes events until it is time to register anew.
fn wait(set: &EventSet<'_>, sightings: &Sender<Sighting>) {
    let begun = Instant::now();
    while begun.elapsed() < REGISTER_EVERY && !sightings.is_closed() {
        match set.wait(WAIT_MS) {
            Ok(event) => {
                let xid = match event.event_data {
                    Some(XidError::Value(xid)) => u32::try_from(xid).unwrap_or(u32::MAX),
                    // The wrapper's word for 999.
                    Some(XidError::Unknown) => 999,
                    None => continue,
                };
                let Ok(uuid) = event.device.uuid() else { continue };
                let seen = Sighting { which: Which::Chip(uuid), xid, wanted: None, detail: String::new() };
                if let Err(TrySendError::Full(_)) = sightings.try_send(seen) {
                    warn!(xid, "more XIDs than are taken in");
                }
            }
            Err(NvmlError::Timeout) => {}
            // A lost chip fails the whole wait; its loss shows in the readings.
            Err(_) => thread::sleep(PAUSE),
        }
    }
}
