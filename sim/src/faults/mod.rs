//! Real faults on one machine: a real daemon, a real Postgres and real agents on scripted chips that run real child
//! processes, hit by real signals. What came of it is judged by [`checker`], which shares no code with what it judges.

pub mod canary;
pub mod node;
