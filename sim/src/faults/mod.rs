//! Real faults on one machine: a real daemon, a real Postgres and real agents on scripted chips that run real child
//! processes, hit by real signals. What came of it is judged by [`checker`], which shares no code with what it judges.
//! `docs/faults.md` lists the faults and what is checked.

pub mod canary;
pub mod checker;
pub mod daemons;
pub mod database;
pub mod disk;
pub mod evidence;
pub mod fault;
mod hardware;
pub mod load;
pub mod namespace;
pub mod node;
pub mod points;
pub mod promotion;
pub mod proxy;
pub mod report;
pub mod run;
mod service;
pub mod world;
