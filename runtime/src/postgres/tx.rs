//! The transaction a `Tx` handler runs in, and what it may send out of it.
//!
//! It is opened with time-outs from the deadline and ends in exactly one way: committed by the runtime together with
//! its receipt, rolled back, or (dropped in the middle, by a panic or a time-out) with its connection closed, so that
//! no half-done transaction ever returns to the pool.
use super::{
    Conn, Pool,
    outbox::{self, Emitted, Event},
    pools::{CommitListener, Pools},
};
use crate::{
    Class, Error, Invocation, Result,
    base::spec::PoolKind,
    changes::{Evolution, Phase},
};
use sqlx::Row;
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

/// A connection that does not answer a rollback within this time is closed.
const ROLLBACK_TIMEOUT: Duration = Duration::from_secs(2);

/// An open transaction.
pub struct Tx {
    /// Here until the drop.
    conn: Option<Conn>,
    pinned: PinnedConnection,
    invocation: Invocation,
    evolution: Evolution,
    listener: Option<Arc<dyn CommitListener>>,
    enqueued: Vec<&'static str>,
    emitted: Vec<Emitted>,
    /// True if events are in the outbox that the relay has not been told of.
    has_events: bool,
    ended: bool,
}

/// A connection that goes from one transaction to the next, for one who runs them one after another. Given back to the
/// pool and taken again, each would cost two more round trips: a pool asks its connections whether they are alive.
#[derive(Clone, Default)]
pub(crate) struct PinnedConnection(Arc<Mutex<Option<Conn>>>);

impl PinnedConnection {
    fn take(&self) -> Option<Conn> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn put(&self, conn: Conn) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(conn);
    }
}

/// The way a transaction is begun.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TxOptions {
    /// Time for which it waits for a lock, within its deadline.
    pub(crate) lock_wait: Duration,
    /// True if it is on disk when its commit returns.
    pub(crate) durable: bool,
}

impl TxOptions {
    /// Waits while there is time, and is durable.
    pub(crate) const USUAL: Self = Self { lock_wait: Duration::MAX, durable: true };
}

impl Tx {
    /// Begins on a connection of that pool, with the deadline's remaining time as the limit of every statement and of
    /// every wait for a lock.
    pub(crate) async fn begin(pools: &Pools, pool_kind: PoolKind, invocation: Invocation) -> Result<Self> {
        Self::begin_with(pools, pool_kind, invocation, TxOptions::USUAL).await
    }

    /// As [`Tx::begin`], on other options.
    pub(crate) async fn begin_with(
        pools: &Pools,
        pool_kind: PoolKind,
        invocation: Invocation,
        options: TxOptions,
    ) -> Result<Self> {
        Self::begin_on(&PinnedConnection::default(), pools, pool_kind, invocation, options).await
    }

    /// As [`Tx::begin_with`], on the connection that is pinned, if there is one, which is kept when this transaction
    /// ends.
    pub(crate) async fn begin_on(
        pinned: &PinnedConnection,
        pools: &Pools,
        pool_kind: PoolKind,
        invocation: Invocation,
        options: TxOptions,
    ) -> Result<Self> {
        let left = invocation.remaining();
        if left.is_zero() {
            return Err(Error::new(Class::DeadlineExceeded, "no time was left to begin"));
        }
        let conn = match pinned.take() {
            Some(conn) => conn,
            None => bounded(left, async { Ok(pools.of(pool_kind).acquire().await?) }).await?,
        };
        let mut tx = Self::on(conn, pinned, pools, invocation);
        match tx.open(options).await {
            // Since it was last used the server has closed the connection, or writes no more; nothing has been done on
            // it.
            Err(error) if error.class() == Class::Unavailable => {
                let invocation = tx.invocation.clone();
                // Its place in the pool is what the other one needs.
                drop(tx);
                let conn = bounded(invocation.remaining(), fresh(pools.of(pool_kind))).await?;
                tx = Self::on(conn, pinned, pools, invocation);
                tx.open(options).await?;
            }
            opened => opened?,
        }
        Ok(tx)
    }

    /// From here on the connection is closed unless the transaction ends: also when its first statement is cut off.
    fn on(mut conn: Conn, pinned: &PinnedConnection, pools: &Pools, invocation: Invocation) -> Self {
        conn.on_behalf_of(invocation.handler);
        Self {
            conn: Some(conn),
            pinned: pinned.clone(),
            invocation,
            evolution: pools.evolution.clone(),
            listener: pools.listener.clone(),
            enqueued: Vec::new(),
            emitted: Vec::new(),
            has_events: false,
            ended: false,
        }
    }

    async fn open(&mut self, options: TxOptions) -> Result<()> {
        let left = self.invocation.remaining();
        let (left_ms, lock_ms) = (left.as_millis().max(1), left.min(options.lock_wait).as_millis().max(1));
        let begin = format!(
            "BEGIN; SET LOCAL statement_timeout = {left_ms}; SET LOCAL lock_timeout = {lock_ms}{}; SHOW transaction_read_only",
            if options.durable { "" } else { "; SET LOCAL synchronous_commit = off" }
        );
        bounded(left, async {
            let is_read_only: String = self.conn().ask("begin", &begin).await?.try_get(0)?;
            if is_read_only == "off" {
                return Ok(());
            }
            // Before any work is done for nothing: a standby says so only at the first write.
            Err(Error::new(Class::Unavailable, "the database is read-only"))
        })
        .await
    }

    /// The connection, for the handler's statements.
    pub fn conn(&mut self) -> &mut Conn {
        held(&mut self.conn)
    }

    /// Which run this is.
    pub fn invocation(&self) -> &Invocation {
        &self.invocation
    }

    /// How far a change of the schema has come: which of its forms this transaction may rely on.
    pub fn phase(&self, change: i64) -> Phase {
        self.evolution.phase(change)
    }

    /// The changes of the schema.
    pub(crate) fn evolution(&self) -> &Evolution {
        &self.evolution
    }

    /// Sends an event: published if and only if this transaction commits. It is written with the receipt, together with
    /// all others of this transaction.
    ///
    /// # Errors
    /// When it is larger than [`MAX_EVENT_BYTES`](crate::MAX_EVENT_BYTES): a broker would never take it, and it would
    /// stand before all that come after.
    pub fn emit(&mut self, event: Event) -> Result<()> {
        self.emitted.push(Emitted::by(&self.invocation, event)?);
        Ok(())
    }

    /// As [`Tx::emit`], on behalf of one of a batch.
    ///
    /// # Errors
    /// The same.
    pub fn emit_for(&mut self, run: &Invocation, event: Event) -> Result<()> {
        self.emitted.push(Emitted::by(run, event)?);
        Ok(())
    }

    /// Returns what is to be written into the outbox before the commit: the caller does it.
    pub(crate) fn take_emitted(&mut self) -> Vec<Emitted> {
        self.has_events |= !self.emitted.is_empty();
        std::mem::take(&mut self.emitted)
    }

    /// The connection and which run this is.
    pub(crate) fn parts(&mut self) -> (&mut Conn, &Invocation) {
        (held(&mut self.conn), &self.invocation)
    }

    /// Workers of this kind of job are told after the commit.
    pub(crate) fn wakes(&mut self, kind: &'static str) {
        if !self.enqueued.contains(&kind) {
            self.enqueued.push(kind);
        }
    }

    /// Takes on another run's ids, once a claim has told which run this is.
    pub(crate) fn adopt(&mut self, invocation: Invocation) {
        self.conn().on_behalf_of(invocation.handler);
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
        match self.conn().run("commit", "SELECT; COMMIT").await {
            Ok(_) => {
                self.ended = true;
                if let Some(listener) = &self.listener {
                    listener.committed(&self.enqueued, self.has_events);
                }
                Ok(())
            }
            // Dropping closes the connection. Whether the commit took place is unknown; the receipt will tell a retry.
            Err(error) => Err(error.into()),
        }
    }

    /// Undoes everything because of `error`. Out of time, the connection may be in the middle of a statement: it is
    /// closed instead, as is one that is of no use any more.
    pub(crate) async fn fail(self, error: Error) -> Error {
        if error.class() != Class::DeadlineExceeded && !error.spends_session() {
            self.rollback().await;
        }
        error
    }

    /// Undoes everything.
    pub(crate) async fn rollback(mut self) {
        let undone = tokio::time::timeout(ROLLBACK_TIMEOUT, self.conn().run("rollback", "ROLLBACK")).await;
        self.ended = matches!(undone, Ok(Ok(_)));
    }
}

impl Drop for Tx {
    fn drop(&mut self) {
        let Some(mut conn) = self.conn.take() else { return };
        if self.ended {
            self.pinned.put(conn);
        } else {
            conn.close_on_drop();
        }
    }
}

#[expect(clippy::expect_used, reason = "it is taken by the drop alone")]
fn held(conn: &mut Option<Conn>) -> &mut Conn {
    conn.as_mut().expect("a transaction holds its connection until it is dropped")
}

/// A connection that answers and writes, in place of those that don't.
async fn fresh(pool: &Pool) -> Result<Conn> {
    loop {
        let mut conn = pool.acquire().await?;
        if pool.fits(&mut conn).await {
            return Ok(conn);
        }
        conn.close_on_drop();
    }
}

/// Runs `work` for at most `limit`. Without any time it is not begun: whoever waited for it may have been told that
/// nothing came of it.
pub(crate) async fn bounded<T>(limit: Duration, work: impl Future<Output = Result<T>>) -> Result<T> {
    let late = || Error::new(Class::DeadlineExceeded, "the handler ran out of time");
    if limit.is_zero() {
        return Err(late());
    }
    tokio::time::timeout(limit, work).await.unwrap_or_else(|_| Err(late()))
}
