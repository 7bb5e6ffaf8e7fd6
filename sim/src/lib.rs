//! `chiptide-sim`: fleets of scripted nodes, a real trace replayed, loads, crashes, and the audit of what came of them.
//!
//! Most of it speaks to a daemon over its HTTP API, as users do, and judges it by the event log in Postgres: it never
//! decides anything and never reaches into the daemon. [`pack`] measures the allocator alone, on a virtual clock.

pub mod audit;
pub mod backlog;
pub mod census;
pub mod counters;
pub mod crash;
pub mod demo;
pub mod event_log;
pub mod fleet;
pub mod idle_cost;
pub mod json_file;
pub mod latency;
pub mod load;
pub mod machine;
pub mod openb;
pub mod own_daemon;
pub mod pack;
pub mod progress;
pub mod scheduler;
pub mod scripted_node;
pub mod single_chip;
pub mod table;
