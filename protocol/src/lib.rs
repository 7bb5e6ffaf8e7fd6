//! The lease protocol as a checked model (`docs/protocol.md`): small enough to explore every state it can reach, close
//! enough to the code that each rule names the file that keeps it. Nothing imports this crate, and it imports none of ours.
//!
//! [`world`] has the whole of it; [`rules`] the switches; [`explore`] looks at every state.

pub mod ablations;
pub mod canon;
pub mod explore;
pub mod ledger;
pub mod node;
pub mod properties;
pub mod rules;
pub mod story;
pub mod world;
