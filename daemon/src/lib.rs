//! `chiptided`: leads the cluster. Routes bring commands in; the round loop decides, commits and answers; the store is
//! Postgres. Nothing is acknowledged that is not committed.
//!
//! This crate decides nothing: that is `chiptide-allocator`.

pub mod access;
pub mod admission;
pub mod app;
pub mod audit;

pub mod clock;
pub mod config;
pub mod doors;
pub mod event_log;
pub mod fault_point;
pub mod following;
pub mod forwarding;
pub mod health;
pub mod leading;
pub mod log_desk;
pub mod metrics;
pub mod opening;
pub mod orders;
pub mod own_postgres;
pub mod policy_document;
pub mod policy_file;
pub mod render;
pub mod renewals;
pub mod role;
pub mod rounds;
pub mod routes;
pub mod serve;
pub mod shared;
pub mod store;
pub mod store_watch;
pub mod telemetry;
pub mod term;
pub mod tls;
mod turns;
pub mod watchers;
pub mod whole_file;
pub mod workloads;
