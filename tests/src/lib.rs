//! The harness: one database (cloned from a migrated template), one vhost and one key prefix per test, the real
//! binaries as processes, and a wire between them and their servers that a test can cut.
#![allow(clippy::disallowed_types, reason = "it looks from outside")]

pub mod accounts;
pub mod answers;
pub mod api;
pub mod atlas;
pub mod broker;
pub mod chaos;
pub mod collector;
pub mod encrypted;
pub mod eventually;
pub mod evolving;
pub mod gateway;
pub mod https;
pub mod levers;
pub mod modules;
pub mod planted;
pub mod private;
pub mod process;
pub mod proxy;
pub mod servers;
pub mod system;
pub mod watching;
pub mod wire;

pub use api::{Api, Failure, settle};
pub use collector::Collector;
pub use eventually::eventually;
pub use gateway::RunningGateway;
pub use process::Process;
pub use system::{Options, System, claims};
pub use wire::frame;
