//! The wire: bodies of Chiptide's HTTP API, and a thin typed client that agents, the CLI, the simulator and tests share.
//!
//! Requests and answers are separate types. A request refuses unknown fields by name; turning one into the model
//! (`JobBody::into_spec`) says which field is at fault. This crate never decides and never touches the database.

pub mod access;
pub mod chip;
pub mod client;
pub mod dry_run;
pub mod event;
pub mod event_stream;
pub mod explain;
pub mod fault;
pub mod job;
mod job_spec;
pub mod lease;
pub mod logs;
pub mod node;
pub mod page;
pub mod policy;
pub mod policy_document;
pub mod problem;
pub mod queue;
pub mod reason;
pub mod time;
pub mod work;
pub mod workload;

pub use client::{Client, ClientError, ClientTls};
pub use problem::{Invalid, Problem};
