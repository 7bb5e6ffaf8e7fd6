//! Scenarios in words, and properties over random histories.

mod explain;
mod history;
mod promises;
mod rules;
mod victims;
mod world;
