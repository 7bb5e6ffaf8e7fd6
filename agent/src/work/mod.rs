//! Workloads on this node: started under a lease, kept together, warned, ended, and known again by the next agent.
//!
//! One thread, the keeper, does all of it. Each replica has a guardian process that starts it and writes down how it ended,
//! a folder in the state directory with all that is known of it, and a cgroup (or, where configured, a process group). This
//! module never decides who gets a chip and never proves a chip vacant; it says whether anything of a lease is left.

mod cgroup;
mod containment;
mod deadline;
mod devices;
mod expiry;
pub mod guard;
mod keeper;
mod ladder;
mod launch;
mod output;
mod outputs;
pub(crate) mod procs;
mod record;
mod replica;
mod steps;
mod wish;

pub use containment::{Containment, Hierarchy};
pub use devices::{DeviceLimits, Fitted, can_limit};
pub use keeper::{Work, wanted};
pub use ladder::{Act, Bounds, Ladder, Wanted};
pub use launch::{User, WorkOptions};
pub use outputs::{Outputs, Said};
pub use record::Key;
pub use wish::{ReplicaView, View, WantedLease, Wish};
