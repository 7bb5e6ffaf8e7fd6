//! Scenarios in words, and properties over random histories.

mod corruption;
mod history;
mod promises;
mod quota;
mod quota_history;
mod reserve;
mod rules;
mod victims;
mod world;
