//! Faults of this node's chips: what was seen, how grave it is, and when it is over. XIDs come from the driver's events and
//! the kernel's log; the rest is read off the chips. Judged by a table that is data; a fault that takes a chip out of
//! service stays in the book, over restarts too, until the chip was seen clean often enough for its class.

mod book;
mod clean;
mod foreign;
pub mod kmsg;
mod sighting;
mod table;
mod watching;

pub(crate) use book::recovery_text;
pub use book::{Book, Kept, Signs};
pub use clean::{CleanRules, CleanRulesError};
pub use sighting::{Place, Sighting, Which};
pub use table::{Action, TableError, XidTable};
pub(crate) use watching::seen;
pub use watching::{ForeignProcesses, Watching};
