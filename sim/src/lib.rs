//! `chiptide-sim`: fleets of scripted nodes, a real trace replayed, loads, crashes, and the audit of what came of them.
//!
//! What needs a daemon speaks to it over its HTTP API, as users do, judges it by the event log in Postgres, and never
//! reaches into it. What asks how well and how fast is decided (`pack`, `tide`, `scale`) drives the allocator itself, under a
//! virtual clock. Nothing here decides.

pub mod audit;
pub mod backlog;
pub mod census;
pub mod chaos;
pub mod counters;
pub mod crash;
pub mod demo;
pub mod event_log;
pub mod faults;
pub mod fleet;
pub mod handover;
pub mod idle_cost;
pub mod json_file;
pub mod latency;
pub mod load;
pub mod machine;
pub mod openb;
pub mod own_daemon;
pub mod pack;
pub mod progress;
pub mod reconnect;
pub mod scale;
pub mod scheduler;
pub mod scripted_node;
pub mod single_chip;
pub mod table;
pub mod takeover;
pub mod tide;
pub mod virtual_cluster;
