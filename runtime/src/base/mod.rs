//! What everything else stands on: errors, ids, time, what a run is and what a handler says of itself. Nothing here
//! knows of a server or of a process.
pub mod batch;
pub mod boundary;
pub mod call;
pub mod clock;
pub mod error;
pub mod failpoint;
pub mod host;
pub mod ids;
pub mod invocation;
pub mod keyset;
pub mod metadata;
pub mod names;
pub mod spec;
pub mod tls;
pub mod wire;

pub(crate) mod backoff;
pub(crate) mod caller;
pub(crate) mod client;
pub(crate) mod concurrency_limit;
pub(crate) mod cron;
pub(crate) mod files;
pub(crate) mod held;
pub(crate) mod memo;
pub(crate) mod seldom;
pub(crate) mod tasks;

pub(crate) use caller::{Access, Caller};
pub(crate) use seldom::Seldom;
