//! A small runtime for isolated handlers.
//!
//! A handler is a function; this crate gives it a trigger and a transaction. Whatever the trigger, the handler's
//! effect and the receipt that it happened commit together, so a retry finds the receipt and changes nothing:
//!
//! | trigger | module | receipt |
//! | --- | --- | --- |
//! | a gRPC call | [`rpc`] | idempotency key and stored reply |
//! | an HTTP request | [`http`] | none: reads only |
//! | a job on the PostgreSQL queue | [`job`] | the job's row, deleted by the same transaction |
//! | a message from RabbitMQ | [`message`] | a row in the inbox |
//! | an event, in every service process | [`live`] | none: it moves forward what is watched |
//! | the clock | [`schedule`] | the tick's row |
//! | a loop over pending work | [`poll`] | whatever the handler claims and settles |
//!
//! Handlers come in two shapes. A `Tx` handler gets a [`Tx`] and nothing else: pure database effects, with
//! [`Tx::emit`] for events and [`Tx::enqueue`] for follow-up jobs in the same transaction. An `Io` handler gets
//! [`Io`]: the read pool, the broker and the cache, and no transaction held open around them.
//!
//! [`App`] holds the registrations; it refuses to start with a duplicate or an invalid one.

pub mod app;
pub mod auth;
pub mod batch;
pub mod broker;
pub mod cache;
pub mod call;
pub mod clock;
pub mod config;
pub mod diagnose;
pub mod error;
pub mod fault;
pub mod health;
pub mod http;
pub mod ids;
pub mod invocation;
pub mod io;
pub mod job;
pub mod keyset;
pub mod live;
pub mod message;
pub mod metadata;
pub mod names;
pub mod poll;
pub mod process;
pub mod reconcile;
pub mod rpc;
pub mod schedule;
pub mod schema;
pub mod spec;
pub mod sqlxmq_jobs;
pub mod telemetry;
pub mod testing;
pub mod tls;
pub mod tx;

mod admission;
mod backoff;
mod caller;
mod client;
mod combine;
mod concurrency_limit;
mod db;
mod edge;
mod gauges;
mod invoke;
mod kept;
mod outbox;
mod rate_limit;
mod receipt;
mod runtime;
mod server;
mod tasks;
mod timetable;

pub use app::{App, RegistrationErrors};
pub use batch::Member;
pub use db::Pool;
pub use error::{Class, Error, Result};
pub use invocation::Invocation;
pub use io::Io;
pub use outbox::{Event, MAX_EVENT_BYTES};
pub use runtime::Runtime;
pub use tx::Tx;
