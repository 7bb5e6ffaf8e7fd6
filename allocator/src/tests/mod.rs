//! Scenarios in words, and properties over random histories.

mod history;
mod promises;
mod rules;
mod victims;
mod world;
