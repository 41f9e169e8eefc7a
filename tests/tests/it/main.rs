//! Gavel tested from outside, one file per promise. Started by `cargo xtask test`, which brings the servers.

mod access;
mod architecture;
mod closing;
mod contention;
mod correlation;
mod deadlines;
mod delivery;
mod drain;
mod idempotency;
mod jobs;
mod lab;
mod listing;
mod model;
mod outages;
mod poison;
mod probe;
mod relay;
mod startup;
mod travels;
