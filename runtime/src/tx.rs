//! The transaction a `Tx` handler runs in, and what it may send out of it.
//!
//! It is opened with time-outs from the deadline and ends in exactly one way: committed by the runtime together with
//! its receipt, rolled back, or (dropped in the middle, by a panic or a time-out) with its connection closed, so that
//! no half-done transaction ever returns to the pool.
use crate::{
    Class, Error, Invocation, Result,
    db::{Pools, Share},
    job::{self, Enqueued, Job, Options, Waker},
    outbox::{self, Emitted},
};
use sqlx::{Executor, PgConnection, Postgres, pool::PoolConnection};
use std::time::Duration;

/// A connection that does not answer a rollback within this time is closed.
const ROLLBACK_TIMEOUT: Duration = Duration::from_secs(2);

/// An open transaction.
pub struct Tx {
    conn: PoolConnection<Postgres>,
    invocation: Invocation,
    waker: Waker,
    enqueued: Vec<&'static str>,
    emitted: Vec<Emitted>,
    /// Whether events are in the outbox that the relay has not been told of.
    has_events: bool,
    ended: bool,
}

/// How a transaction is begun.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Terms {
    /// How long it waits for a lock, within its deadline.
    pub(crate) lock_wait: Duration,
    /// Whether it is on disk when its commit returns.
    pub(crate) durable: bool,
}

impl Terms {
    /// Waits while there is time, and is durable.
    pub(crate) const USUAL: Self = Self { lock_wait: Duration::MAX, durable: true };
}

/// Something that happened, for the outbox.
#[derive(Debug, Clone)]
pub struct Event {
    /// The message id, minted here and never by the relay, so that a consumer knows a repeated delivery.
    pub event_id: uuid::Uuid,
    /// What it happened to. A key's events are published in the order of their versions.
    pub key: String,
    /// Gapless per key.
    pub version: i64,
    /// The AMQP routing key.
    pub routing_key: &'static str,
    /// The protobuf message's full name.
    pub message_type: String,
    /// The encoded message.
    pub payload: Vec<u8>,
}

impl Event {
    /// Wraps a protobuf message.
    pub fn new<M: prost::Name>(
        event_id: uuid::Uuid,
        (key, version): (String, i64),
        routing_key: &'static str,
        message: &M,
    ) -> Self {
        Self { event_id, key, version, routing_key, message_type: M::full_name(), payload: message.encode_to_vec() }
    }
}

impl Tx {
    /// Begins on a connection of that share, with the deadline's remaining time as the limit of every statement and of
    /// every wait for a lock.
    pub(crate) async fn begin(pools: &Pools, share: Share, invocation: Invocation) -> Result<Self> {
        Self::begin_with(pools, share, invocation, Terms::USUAL).await
    }

    /// As [`Tx::begin`], on other terms.
    pub(crate) async fn begin_with(pools: &Pools, share: Share, invocation: Invocation, terms: Terms) -> Result<Self> {
        let left = invocation.remaining();
        if left.is_zero() {
            return Err(Error::new(Class::DeadlineExceeded, "no time was left to begin"));
        }
        let conn = bounded(left, async { Ok(pools.of(share).acquire().await?) }).await?;
        // From here on the connection is closed unless the transaction ends: also when this very statement is cut off.
        let mut tx = Self {
            conn,
            invocation,
            waker: pools.waker.clone(),
            enqueued: Vec::new(),
            emitted: Vec::new(),
            has_events: false,
            ended: false,
        };
        let left = tx.invocation.remaining();
        let (left_ms, lock_ms) = (left.as_millis().max(1), left.min(terms.lock_wait).as_millis().max(1));
        let begin = format!(
            "BEGIN; SET LOCAL statement_timeout = {left_ms}; SET LOCAL lock_timeout = {lock_ms}{}",
            if terms.durable { "" } else { "; SET LOCAL synchronous_commit = off" }
        );
        bounded(left, async { Ok(tx.conn().execute(begin.as_str()).await?) }).await?;
        Ok(tx)
    }

    /// The connection, for the handler's statements.
    pub fn conn(&mut self) -> &mut PgConnection {
        &mut self.conn
    }

    /// Which run this is.
    pub fn invocation(&self) -> &Invocation {
        &self.invocation
    }

    /// Sends an event: published if and only if this transaction commits. It is written with the receipt, together with
    /// all others of this transaction.
    pub fn emit(&mut self, event: Event) {
        self.emitted.push(Emitted::by(&self.invocation, event));
    }

    /// As [`Tx::emit`], on behalf of one of a batch.
    pub fn emit_for(&mut self, run: &Invocation, event: Event) {
        self.emitted.push(Emitted::by(run, event));
    }

    /// What is to be written into the outbox before the commit: the caller does it.
    pub(crate) fn take_emitted(&mut self) -> Vec<Emitted> {
        self.has_events |= !self.emitted.is_empty();
        std::mem::take(&mut self.emitted)
    }

    /// Enqueues a job: if and only if this transaction commits. A [`Duration`] in place of the options is a delay.
    ///
    /// # Errors
    /// [`Class::Invalid`] when its key or its delay is too long.
    pub async fn enqueue<J: Job>(&mut self, job: &J, options: impl Into<Options>) -> Result<Enqueued> {
        let options = options.into();
        let enqueued = job::enqueue(&mut self.conn, &self.invocation, job, &options).await?;
        self.remember(J::KIND, &options);
        Ok(enqueued)
    }

    /// Enqueues many jobs of a kind, in one statement where they have no keys. Gives their ids, in their order.
    ///
    /// # Errors
    /// As [`Tx::enqueue`].
    pub async fn enqueue_many<J: Job>(&mut self, jobs: &[J], options: impl Into<Options>) -> Result<Vec<uuid::Uuid>> {
        let options = options.into();
        let ids = job::enqueue_many(&mut self.conn, &self.invocation, jobs, &options).await?;
        self.remember(J::KIND, &options);
        Ok(ids)
    }

    /// Workers are told after the commit, of what is due soon.
    fn remember(&mut self, kind: &'static str, options: &Options) {
        if options.delay < job::LOOKAHEAD && !self.enqueued.contains(&kind) {
            self.enqueued.push(kind);
        }
    }

    /// Takes on another run's ids, once a claim has told which run this is.
    pub(crate) fn adopt(&mut self, invocation: Invocation) {
        self.invocation = invocation;
    }

    /// Commits, with the events that are not written yet.
    pub(crate) async fn commit(mut self) -> Result<()> {
        let emitted = self.take_emitted();
        if !emitted.is_empty() {
            outbox::write(self.conn(), emitted).await?;
        }
        // In a transaction that a swallowed error has aborted, COMMIT alone would quietly roll back and report success;
        // the empty SELECT before it fails.
        match self.conn().execute("SELECT; COMMIT").await {
            Ok(_) => {
                self.ended = true;
                self.waker.enqueued(std::mem::take(&mut self.enqueued));
                if self.has_events {
                    self.waker.emitted();
                }
                Ok(())
            }
            // Dropping closes the connection. Whether the commit took place is unknown; the receipt will tell a retry.
            Err(error) => Err(error.into()),
        }
    }

    /// Undoes everything because of `error`. Out of time, the connection may be in the middle of a statement: it is
    /// closed instead.
    pub(crate) async fn fail(self, error: Error) -> Error {
        if error.class() != Class::DeadlineExceeded {
            self.rollback().await;
        }
        error
    }

    /// Undoes everything.
    pub(crate) async fn rollback(mut self) {
        let undone = tokio::time::timeout(ROLLBACK_TIMEOUT, self.conn().execute("ROLLBACK")).await;
        self.ended = matches!(undone, Ok(Ok(_)));
    }
}

impl Drop for Tx {
    fn drop(&mut self) {
        if !self.ended {
            self.conn.close_on_drop();
        }
    }
}

/// Runs `work` for at most `limit`.
pub(crate) async fn bounded<T>(limit: Duration, work: impl Future<Output = Result<T>>) -> Result<T> {
    match tokio::time::timeout(limit, work).await {
        Ok(result) => result,
        Err(_) => Err(Error::new(Class::DeadlineExceeded, "the handler ran out of time")),
    }
}
