//! For tests of handlers, on a real database.
//!
//! A [`Harness`] runs one handler by hand, drains queues, moves time on, and crashes workers:
//!
//! ```no_run
//! # use gavel_runtime::{App, config::Backends, job::Job, testing::Harness};
//! # async fn shown<J: Job>(app: fn() -> App, backends: Backends, job: J, count: impl AsyncFn() -> anyhow::Result<i64>)
//! # -> anyhow::Result<()> {
//! let harness = Harness::new(app, &backends)?;
//! let survival = harness.survives(&job, count).await?;
//! assert!(survival.passed("before_commit"));
//! # Ok(()) }
//! ```
//!
//! [`Harness::survives`] kills a worker at each boundary of the job's run, then freezes one past its lease, and each
//! time demands that the job's effect is there exactly once in the end. A [`LeasedJob`] takes a job step by step.

mod crash;
mod harness;
mod leased_job;
mod requests;
mod worker;

pub use crash::{BOUNDARIES, FROZEN, Survival};
pub use harness::Harness;
pub use leased_job::LeasedJob;
pub use requests::Requests;
pub use worker::Worker;
