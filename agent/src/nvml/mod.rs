//! Chips read through NVIDIA's management library. The library is initialised once for the life of the process (repeated
//! initialising is known to hang), and since any call can block for seconds, every chip has a reader thread of its own with
//! a deadline. Nothing here judges what a reading means for leases; nothing here writes to a chip.

mod events;
mod facts;
mod inventory;
mod processes;
mod sample;
mod source;
mod worker;

pub use events::listen;
pub use nvml_wrapper::Nvml;
pub(crate) use processes::owner;
pub use source::{NvmlOptions, StartError, start};

/// The vendor of every chip of this source.
pub const VENDOR: &str = "nvidia";
