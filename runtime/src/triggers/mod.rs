//! What makes a handler run, one module for each kind of trigger.
pub mod http;
pub mod job;
pub mod live;
pub mod message;
pub mod poll;
pub mod reconcile;
pub mod rpc;
pub mod schedule;
pub mod sqlxmq_jobs;
