//! Scenarios in words, and properties over random histories.

mod consolidation;
mod history;
mod promises;
mod reservations;
mod rules;
mod starvation;
mod victims;
mod world;
