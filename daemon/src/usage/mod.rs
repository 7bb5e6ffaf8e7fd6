//! Accounts of chip time: who had how much, and what became of it. A fold of the event log, kept apart from the rounds by the
//! daemon that leads. `docs/usage.md` says what is counted.

mod amounts;
mod book;
mod keeping;

pub use amounts::{Amounts, Cell};
pub use book::Book;
pub use keeping::{Desk, keep};
