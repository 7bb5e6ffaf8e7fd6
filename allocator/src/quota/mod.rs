//! Quota: what each queue may hold, what it is owed, and what it must give back.
//!
//! A queue may hold up to its `limit`. What it is `guaranteed` it gets whenever it wants it: idle guarantee is lent to the
//! queues of its cohort, and comes back by *reclaim*. Whatever is decided here is a right, never a promise of room:
//! placement has the last word, so no queue is told that it has room where no chips fit.

mod account;
pub(crate) mod below_limit;
mod books;
mod decay;
mod ledger;
mod rank;
mod standing;

pub(crate) use account::Amounts;
pub(crate) use books::is_firm;
pub use books::{ColumnUse, QueuePast, QueueUse};
pub use ledger::PastUse;
pub(crate) use ledger::{Ledger, QueueIx};
pub(crate) use rank::Rank;
pub(crate) use standing::{QuotaBlock, Standing, Why};
