//! `chiptide-sim`: fleets of scripted nodes, a real trace replayed, loads, crashes, and the audit of what came of them.
//!
//! Everything here speaks to a daemon over its HTTP API, as users do, and judges it by the event log in Postgres. It
//! never decides anything and never reaches into the daemon.

pub mod audit;
pub mod event_log;
pub mod fleet;
pub mod latency;
pub mod openb;
pub mod own_daemon;
pub mod progress;
pub mod scripted_node;
