//! Filling rows in chunks, beside everybody's work.
//!
//! A plan is a row; one job walks its table. Each run of the job locks the row, looks whether it may go on, fills a
//! chunk, and commits rows, cursor and its own next run together: a worker that is killed at any line leaves either
//! all of a chunk or nothing of it. Whoever pauses, cancels or retunes a plan writes its row and waits for a chunk at
//! most.
mod chunk;
mod finish;
mod job;
mod keys;
mod known;
mod look;
pub mod online;
pub mod ops;
mod pace;
mod plan;
mod walk;

pub use job::{Next, RunBackfillChunk, RunOnlineStep};
pub use plan::Plan;
pub use walk::run_chunk;

pub(crate) use keys::{differing, differing_row};
pub(crate) use known::ENGINE;
