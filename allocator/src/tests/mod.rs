//! Scenarios in words, and properties over random histories.

mod budgets;
mod consolidation;
mod cordon;
mod corruption;
mod elastic;
mod explain;
mod faults;
mod forgotten;
mod history;
mod node_loss;
mod placement;
mod promises;
mod quota;
mod quota_history;
mod reservations;
mod reserve;
mod rules;
mod starvation;
mod victims;
mod world;
