//! Faults at random, for long: several services and workers, two dozen clients and a model of what they were told. What
//! is random follows from a seed.
pub mod clients;
pub mod fleet;
pub mod nemesis;
pub mod run;

use std::time::Duration;

/// How long, and which.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    /// Faults are made for so long.
    pub lasts: Duration,
    /// What is random follows from it.
    pub seed: u64,
}
