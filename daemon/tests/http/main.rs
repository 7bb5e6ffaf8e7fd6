//! The daemon, black box: real HTTP, real Postgres.

mod bad_input;
mod common;
mod contract;
mod jobs;
mod nodes;
mod store;
mod workloads;
