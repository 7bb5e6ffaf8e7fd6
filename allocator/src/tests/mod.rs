//! Scenarios in words, and properties over random histories.

mod budgets;
mod elastic;
mod history;
mod promises;
mod rules;
mod victims;
mod world;
