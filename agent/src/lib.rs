//! The node agent: it tells the daemon what its chips are doing, confirms the leases it is ordered to carry, runs
//! their workloads, and proves chips vacant when their leases have ended.
//!
//! The core ([`Agent`]) knows nothing of any vendor: it takes readings from a `watch` channel, so the same code runs on
//! real chips (the `nvml` source) and on thousands of scripted ones in one process. It never decides who gets a chip,
//! and "could not read" is never taken for idle or healthy.

pub mod agent;
mod backoff;
mod complaints;
pub mod config;
pub mod credential;
pub mod dialogue;
pub mod fault_point;
pub mod faults;
pub mod fence;
pub mod holders;
pub mod host;
pub mod idle;
mod logs;
pub mod nvml;
pub mod pace;
mod print;
pub mod reading;
#[cfg(test)]
mod scripted;
mod session;
pub mod standing;
pub mod state;
pub mod supervisor;
mod telling;
pub mod vacancy;
mod weighing;
pub mod wishing;
pub mod work;

pub use agent::{Agent, NodeConfig};
pub use pace::Pace;
pub use reading::{ChipNow, NodeReading};
pub use state::StateDir;
pub use supervisor::Supervisor;
pub use work::{Work, WorkOptions};
