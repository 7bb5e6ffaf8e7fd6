//! The daemon, black box: real HTTP, real Postgres.

mod access;
mod bad_input;
mod common;
mod contract;
mod cordon;
mod dry_run;
mod elastic;
mod events;
mod explain;
mod faults;
mod jobs;
mod logs;
mod node_loss;
mod nodes;
mod outage;
mod overload;
mod own_postgres;
mod policy;
mod postgres;
mod processes;
mod queues;
mod reservations;
mod standby;
mod store;
mod unfit;
mod workloads;
