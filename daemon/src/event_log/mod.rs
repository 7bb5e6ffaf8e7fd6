//! The event log for those who read it: a tail in memory for what has just been committed, the table for the past.
//!
//! It holds nothing that is not committed, and decides nothing. The order is that of the log: positions without gaps.

mod directory;
mod filter;
mod page;
mod press;
mod tail;
mod watching;

pub use directory::{About, Directory, Numbered};
pub use filter::Filter;
pub use page::{Past, read_page};
pub use press::Press;
pub use tail::{Batch, Tail};
pub use watching::{Watching, stream};
