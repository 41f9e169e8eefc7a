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
//!
//! # The layers
//!
//! Each directory imports only those below it here; no file imports one that imports it.
//!
//! ```text
//!  testing     handlers in the hands of a test            diagnose   what an operator asks first
//!  process     a process's life: start, readiness, drain
//!  app         registrations, checked, and what they come to
//!  server      listeners and connections
//!  edge        gRPC, gRPC-Web and Connect, in protobuf and JSON
//!  triggers    rpc · http · job · message · live · schedule · reconcile · poll · sqlxmq_jobs
//!  context     what the handlers of a process share: Runtime, Io, admission, health
//!  redis       read models        rabbitmq   publishing, topology
//!  schema      migrations, backfills, contracts           queue   jobs as rows
//!  postgres    pools, transactions, receipts, the outbox
//!  changes     changes of the schema, as their files describe them
//!  telemetry   logs, metrics      auth       tokens, keys                config  the environment
//!  base        errors, ids, time, specs, batches, failpoints, the boundary of I/O
//! ```
//!
//! # A handler from start to end
//!
//! A counter that visitors press. The trait says when it runs and what it may use; `handle` gets a transaction.
//!
//! ```
//! use gavel_runtime::{
//!     App, Result, Tx,
//!     job::{self, Job, Verdict},
//!     spec::{Queue, Spec},
//! };
//! use serde::{Deserialize, Serialize};
//!
//! /// What is enqueued: `tx.enqueue(&Press { by: 1 }, Duration::ZERO)`, in any other handler's transaction.
//! #[derive(Serialize, Deserialize)]
//! struct Press {
//!     by: i64,
//! }
//!
//! impl Job for Press {
//!     const KIND: &'static str = "press";
//!     const RETRIES: u32 = 3;
//! }
//!
//! struct Counter;
//!
//! impl job::TxHandler for Counter {
//!     const SPEC: &'static Spec = &job::spec::<Press>(Queue::TX);
//!     type Job = Press;
//!
//!     async fn handle(tx: &mut Tx, job: &Press) -> Result<Verdict> {
//!         sqlx::query("UPDATE counter SET total = total + $1").bind(job.by).execute(tx.conn()).await?;
//!         // The effect, this completion and any event or job sent from here commit together, or not at all.
//!         Ok(Verdict::Done)
//!     }
//! }
//!
//! static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate::Migrator::DEFAULT;
//! let app = App::new("demo", &MIGRATIONS).job_tx::<Counter>();
//! assert_eq!(app.registrations().len(), 1);
//! ```

pub mod app;
pub mod auth;
mod base;
pub mod changes;
pub mod config;
mod context;
pub mod diagnose;
mod edge;
mod postgres;
pub mod process;
mod queue;
pub mod rabbitmq;
pub mod redis;
pub mod schema;
mod server;
pub mod telemetry;
pub mod testing;
mod triggers;

pub use app::{App, RegistrationErrors};
pub use base::{
    batch::{self, Member},
    boundary, call, clock,
    error::{self, Class, Error, Result},
    failpoint, host, ids,
    invocation::{self, Invocation},
    keyset, metadata, names, spec, tls, wire,
};
pub use context::{io::Io, runtime::Runtime};
pub use postgres::{
    Conn, Pool,
    outbox::{Event, MAX_EVENT_BYTES},
    tx::Tx,
};
pub use triggers::{http, job, live, message, poll, reconcile, rpc, schedule, sqlxmq_jobs};
