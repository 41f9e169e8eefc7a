//! Connection pools: one for transactions, one for reads, so that readers can't starve what they read.
use crate::{
    config::Backends,
    job::{Engine, Waker},
    tasks::Tasks,
};
use anyhow::Context;
use secrecy::{ExposeSecret, SecretString};
use sqlx::{
    PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use std::{str::FromStr, time::Duration};

/// Reads that take longer are cut off.
const READ_STATEMENT_TIMEOUT_MS: u32 = 5_000;
/// How long anyone waits for a free connection.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(2);

/// The pools of one process. They connect when first used.
#[derive(Clone)]
pub(crate) struct Pools {
    pub(crate) transactions: PgPool,
    pub(crate) reads: PgPool,
    /// Short bookkeeping beside a transaction that is open: never waits for one.
    pub(crate) upkeep: PgPool,
    /// For connections of one's own.
    pub(crate) options: PgConnectOptions,
    pub(crate) waker: Waker,
}

/// Connections for bookkeeping: one of them listens.
const UPKEEP_POOL_SIZE: u32 = 4;

impl Pools {
    pub(crate) fn lazy(backends: &Backends, process: &str, engine: &Engine, tasks: &Tasks) -> anyhow::Result<Self> {
        // A transaction whose process has gone quiet is ended by the server after a lease, so its locks are freed.
        let quiet_ms = backends.lease.as_millis().to_string();
        let options = connect_options(&backends.database_url)?
            .application_name(process)
            .options([("idle_in_transaction_session_timeout", quiet_ms)]);
        let pool = |size: u32| PgPoolOptions::new().max_connections(size).acquire_timeout(ACQUIRE_TIMEOUT);
        let reads = options.clone().options([
            ("default_transaction_read_only", "on".to_owned()),
            ("statement_timeout", READ_STATEMENT_TIMEOUT_MS.to_string()),
        ]);
        let upkeep = pool(UPKEEP_POOL_SIZE).connect_lazy_with(options.clone());
        Ok(Self {
            transactions: pool(backends.transaction_pool_size).connect_lazy_with(options.clone()),
            reads: pool(backends.read_pool_size).connect_lazy_with(reads),
            waker: Waker::new(upkeep.clone(), tasks.clone(), engine.kinds().clone()),
            upkeep,
            options,
        })
    }

    pub(crate) async fn close(&self) {
        self.transactions.close().await;
        self.reads.close().await;
        self.upkeep.close().await;
    }
}

/// Options for that URL.
pub(crate) fn connect_options(url: &SecretString) -> anyhow::Result<PgConnectOptions> {
    PgConnectOptions::from_str(url.expose_secret()).context("DATABASE_URL can't be read")
}
