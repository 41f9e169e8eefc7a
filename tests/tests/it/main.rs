//! Gavel tested from outside, one file per promise. Started by `cargo xtask test`, which brings the servers.

mod access;
mod architecture;
mod batching;
mod closing;
mod contention;
mod correlation;
mod deadlines;
mod delivery;
mod drain;
mod idempotency;
mod jobs;
mod kills;
mod lab;
mod listing;
mod model;
mod operating;
mod outages;
mod poison;
mod probe;
mod protocols;
mod relay;
mod restarts;
mod scaling;
mod schedules;
mod startup;
mod travels;
