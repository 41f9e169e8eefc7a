//! The transaction a `Tx` handler runs in, and what it may send out of it.
//!
//! It is opened with time-outs from the deadline and ends in exactly one way: committed by the runtime together with
//! its receipt, rolled back, or (dropped in the middle, by a panic or a time-out) with its connection closed, so that
//! no half-done transaction ever returns to the pool.
use crate::{
    Class, Error, Invocation, Result,
    db::Pools,
    job::{self, Enqueued, Job, Options, Waker},
};
use sqlx::{Executor, PgConnection, Postgres, pool::PoolConnection};
use std::time::Duration;

/// Shards of the outbox, a constant of its schema.
const OUTBOX_SHARDS: u64 = 16;

/// A connection that does not answer a rollback within this time is closed.
const ROLLBACK_TIMEOUT: Duration = Duration::from_secs(2);

/// An open transaction.
pub struct Tx {
    conn: PoolConnection<Postgres>,
    invocation: Invocation,
    waker: Waker,
    enqueued: Vec<&'static str>,
    ended: bool,
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
    /// Begins, with the deadline's remaining time as the limit of every statement and of every wait for a lock.
    pub(crate) async fn begin(pools: &Pools, invocation: Invocation) -> Result<Self> {
        let left = invocation.remaining();
        if left.is_zero() {
            return Err(Error::new(Class::DeadlineExceeded, "no time was left to begin"));
        }
        let conn = bounded(left, async { Ok(pools.transactions.acquire().await?) }).await?;
        // From here on the connection is closed unless the transaction ends: also when this very statement is cut off.
        let mut tx = Self { conn, invocation, waker: pools.waker.clone(), enqueued: Vec::new(), ended: false };
        let left = tx.invocation.remaining();
        let left_ms = left.as_millis().max(1);
        let begin = format!("BEGIN; SET LOCAL statement_timeout = {left_ms}; SET LOCAL lock_timeout = {left_ms}");
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

    /// Puts an event into the outbox: published if and only if this transaction commits.
    pub async fn emit(&mut self, event: Event) -> Result<()> {
        let shard = shard_of(&event.key);
        sqlx::query!(
            "INSERT INTO outbox (event_id, shard, key, version, routing_key, message_type, payload,
                                 correlation_id, traceparent)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
            event.event_id,
            shard,
            event.key,
            event.version,
            event.routing_key,
            event.message_type,
            event.payload,
            self.invocation.correlation_id,
            self.invocation.traceparent,
        )
        .execute(&mut *self.conn)
        .await?;
        Ok(())
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

    /// Commits. The receipt must have been written just before: in a transaction that a swallowed error has aborted,
    /// that write fails, where COMMIT alone would quietly roll back.
    pub(crate) async fn commit(mut self) -> Result<()> {
        match self.conn().execute("COMMIT").await {
            Ok(_) => {
                self.ended = true;
                self.waker.enqueued(std::mem::take(&mut self.enqueued));
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

/// FNV-1a: the same key lands in the same shard in every version of this code.
fn shard_of(key: &str) -> i16 {
    let hash = key
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    i16::try_from(hash % OUTBOX_SHARDS).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_keys_shard_never_changes() {
        assert_eq!(shard_of(""), 5);
        assert_eq!(shard_of("a"), 12);
        assert!((0..1_000).all(|n| (0..16).contains(&shard_of(&n.to_string()))));
    }
}
