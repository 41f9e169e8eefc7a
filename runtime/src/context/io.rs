//! What an `Io` handler may touch.
use super::runtime::Runtime;
use crate::{
    Conn, Invocation, Result,
    base::{
        call::Call,
        error::outcome_of,
        spec::{Freshness, PoolKind, Spec},
    },
    changes::{History, Phase},
    postgres::{
        Pool, Purpose,
        tx::{Tx, TxOptions, bounded},
    },
    rabbitmq::Publisher,
    redis::Cache,
};
use chrono::{DateTime, Utc};
use tokio_util::sync::CancellationToken;

/// Reads, the cache, the broker, and short transactions of its own, none of which stays open around the others.
pub struct Io {
    runtime: Runtime,
    pool_kind: PoolKind,
    invocation: Invocation,
    /// Where it reads: from the primary, or from a standby.
    reads: Pool,
}

impl Io {
    pub(crate) fn new(runtime: &Runtime, pool_kind: PoolKind, invocation: Invocation) -> Self {
        let reads = runtime.pools().reads.on_behalf_of(invocation.handler);
        Self { runtime: runtime.clone(), pool_kind, invocation, reads }
    }

    /// The same for another run.
    pub(crate) fn within(&self, invocation: Invocation) -> Self {
        Self { runtime: self.runtime.clone(), pool_kind: self.pool_kind, invocation, reads: self.reads.clone() }
    }

    /// The same at a standby, where the handler may read there and one follows closely.
    pub(crate) fn at_standby(&self, spec: &Spec) -> Option<Self> {
        let standby = self
            .runtime
            .pools()
            .standby
            .as_ref()
            .filter(|standby| spec.freshness == Freshness::MayLag && standby.is_fresh())?;
        let reads = standby.pool().on_behalf_of(self.invocation.handler);
        Some(Self { reads, ..self.within(self.invocation.clone()) })
    }

    /// What a standby answers within half of the time; none where it fails. It may not know what the primary has just
    /// been told, neither rows nor columns, so no error is its own to give.
    pub(crate) async fn heard<T>(&self, answer: impl Future<Output = Result<T>>) -> Option<T> {
        let answer = bounded(self.invocation.remaining() / 2, answer).await;
        self.runtime.metrics().standby_read(outcome_of(&answer));
        answer.inspect_err(|error| tracing::debug!(%error, "a standby failed: the primary is asked")).ok()
    }

    pub(crate) fn runtime(&self) -> &Runtime {
        &self.runtime
    }

    /// Every handler of this application.
    pub fn handlers(&self) -> &[&'static Spec] {
        self.runtime.specs()
    }

    /// How far a change of the schema has come: which of its forms may be relied on.
    pub fn phase(&self, change: i64) -> Phase {
        self.runtime.pools().evolution.phase(change)
    }

    /// The changes of the schema.
    pub fn history(&self) -> &History {
        self.runtime.pools().evolution.history()
    }

    /// A session of one's own, for what lasts long. It is not one of a pool's.
    pub async fn session(&self) -> Result<Conn> {
        Ok(self.runtime.pools().connector.connect(self.invocation.handler, Purpose::Work).await?)
    }

    /// Tripped when the process begins to drain.
    pub fn draining(&self) -> &CancellationToken {
        self.runtime.tasks().draining()
    }

    /// The pool for reads: its sessions are read-only.
    pub fn reads(&self) -> &Pool {
        &self.reads
    }

    /// The database's time, as far as this process knows it: for what is shown, never for what is decided.
    pub fn now(&self) -> DateTime<Utc> {
        self.runtime.pools().connector.now()
    }

    /// The read model.
    pub fn cache(&self) -> Cache {
        self.runtime.cache().on_behalf_of(self.invocation.handler)
    }

    /// The broker.
    pub fn publisher(&self) -> Publisher {
        self.runtime.publisher().on_behalf_of(self.invocation.handler)
    }

    /// The call that this answers, where the handler's spec asks for it.
    pub fn call(&self) -> Option<&Call> {
        self.invocation.call.as_deref()
    }

    /// Which run this is.
    pub fn invocation(&self) -> &Invocation {
        &self.invocation
    }

    /// Begins a transaction to claim or to settle work in. End it with [`Io::commit`] before any other I/O.
    pub async fn begin(&self) -> Result<Tx> {
        Tx::begin(self.runtime.pools(), self.pool_kind, self.invocation.clone()).await
    }

    /// As [`Io::begin`], for what may be done again: its commit does not wait for the disk, and a crash of the server
    /// in that moment undoes it whole.
    pub async fn begin_repeatable(&self) -> Result<Tx> {
        let options = TxOptions { durable: false, ..TxOptions::USUAL };
        Tx::begin_with(self.runtime.pools(), self.pool_kind, self.invocation.clone(), options).await
    }

    /// Commits a transaction begun with [`Io::begin`].
    pub async fn commit(&self, tx: Tx) -> Result<()> {
        tx.commit().await
    }

    /// Undoes a transaction begun with [`Io::begin`].
    pub async fn rollback(&self, tx: Tx) {
        tx.rollback().await;
    }
}
