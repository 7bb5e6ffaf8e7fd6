//! A `libnvidia-ml.so.1` on scripted chips, for tests and demos: the agent's real code runs on it unchanged.
//!
//! Chips, processes and faults come from the directory named in `CHIPTIDE_FAKE_NVML` (see `README.md`), read anew whenever
//! it changes. The library keeps no state of its own that must outlive its process: agent, tests and people's tools each
//! load their own copy and see the same chips. It never talks to a real driver.
//!
//! Modules by noun: `scenario` is the file's format, `jobs` the processes that come and go, `store` what is current of both;
//! `call` is the border every exported function crosses; the others are the exported functions.

#![allow(unsafe_code, reason = "the C interface of NVML: raw pointers from the caller, unmangled names")]
#![allow(non_snake_case, reason = "the names are NVML's")]
#![allow(clippy::missing_safety_doc, reason = "nvml.h says what callers owe: valid pointers of the documented size")]

pub mod call;
pub mod events;
pub mod health;
pub mod identity;
pub mod jobs;
pub mod links;
pub mod processes;
pub mod scenario;
pub mod state;
pub mod store;
pub mod system;

/// Names the directory with `scenario.json` and `procs/`.
pub const DIRECTORY: &str = "CHIPTIDE_FAKE_NVML";
