//! Scenarios in words, and properties over random histories.

mod corruption;
mod history;
mod placement;
mod promises;
mod quota;
mod quota_history;
mod rules;
mod victims;
mod world;
