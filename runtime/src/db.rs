//! Connection pools: one for transactions, one for reads, so that readers can't starve what they read.
use crate::config::Backends;
use anyhow::Context;
use secrecy::{ExposeSecret, SecretString};
use sqlx::{
    PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use std::{str::FromStr, time::Duration};

/// A transaction whose process has gone quiet is ended by the server after this long, so its locks are freed.
const IDLE_IN_TRANSACTION_TIMEOUT_MS: u32 = 15_000;
/// Reads that take longer are cut off.
const READ_STATEMENT_TIMEOUT_MS: u32 = 5_000;
/// How long anyone waits for a free connection.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(2);

/// The pools of one process. They connect when first used.
#[derive(Debug, Clone)]
pub(crate) struct Pools {
    pub(crate) transactions: PgPool,
    pub(crate) reads: PgPool,
}

impl Pools {
    pub(crate) fn lazy(backends: &Backends, process: &str) -> anyhow::Result<Self> {
        let options = connect_options(&backends.database_url)?.application_name(process);
        let pool = |size: u32| PgPoolOptions::new().max_connections(size).acquire_timeout(ACQUIRE_TIMEOUT);
        let reads = options.clone().options([
            ("default_transaction_read_only", "on".to_owned()),
            ("statement_timeout", READ_STATEMENT_TIMEOUT_MS.to_string()),
        ]);
        Ok(Self {
            transactions: pool(backends.transaction_pool_size).connect_lazy_with(options),
            reads: pool(backends.read_pool_size).connect_lazy_with(reads),
        })
    }

    pub(crate) async fn close(&self) {
        self.transactions.close().await;
        self.reads.close().await;
    }
}

/// Options for that URL, with what every connection of ours sets.
pub(crate) fn connect_options(url: &SecretString) -> anyhow::Result<PgConnectOptions> {
    let options = PgConnectOptions::from_str(url.expose_secret()).context("DATABASE_URL can't be read")?;
    Ok(options.options([("idle_in_transaction_session_timeout", IDLE_IN_TRANSACTION_TIMEOUT_MS.to_string())]))
}
