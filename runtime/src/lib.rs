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
mod base;
pub mod config;
mod context;
pub mod diagnose;
mod edge;
mod postgres;
pub mod process;
mod queue;
pub mod rabbitmq;
pub mod redis;
mod server;
pub mod telemetry;
pub mod testing;
mod triggers;

pub use app::{App, RegistrationErrors};
pub use base::{
    batch::{self, Member},
    call, clock,
    error::{self, Class, Error, Result},
    failpoint, ids,
    invocation::{self, Invocation},
    keyset, metadata, names, spec, tls, wire,
};
pub use context::{io::Io, runtime::Runtime};
pub use postgres::{
    Pool,
    outbox::{Event, MAX_EVENT_BYTES},
    schema,
    tx::Tx,
};
pub use triggers::{http, job, live, message, poll, reconcile, rpc, schedule, sqlxmq_jobs};
