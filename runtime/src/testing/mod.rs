//! For tests of handlers, on a real database.
//!
//! A [`Lab`] runs one handler by hand, drains queues, moves time on, and crashes workers:
//!
//! ```no_run
//! # use gavel_runtime::{App, config::Backends, job::Job, testing::Lab};
//! # async fn shown<J: Job>(app: fn() -> App, backends: Backends, job: J, count: impl AsyncFn() -> anyhow::Result<i64>)
//! # -> anyhow::Result<()> {
//! let lab = Lab::new(app, &backends)?;
//! let survival = lab.survives(&job, count).await?;
//! assert!(survival.passed("before_commit"));
//! # Ok(()) }
//! ```
//!
//! [`Lab::survives`] kills a worker at each boundary of the job's run, then freezes one past its lease, and each time
//! demands that the job's effect is there exactly once in the end. A [`Hand`] takes a job step by step.

mod crash;
mod hand;
mod lab;
mod requests;
mod worker;

pub use crash::{BOUNDARIES, FROZEN, Survival};
pub use hand::Hand;
pub use lab::Lab;
pub use requests::Requests;
pub use worker::Worker;
