//! Connection pools, one for each kind of work: what one of them is short of, the others still have. Together they must fit
//! into what the server allows, which is checked when a process starts.
use crate::{
    config::{Backends, PoolSizes},
    job::{Engine, Waker},
    tasks::Tasks,
};
use anyhow::{Context, bail};
use secrecy::{ExposeSecret, SecretString};
use sqlx::{
    Connection, PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use std::{str::FromStr, time::Duration};

/// Reads that take longer are cut off.
const READ_STATEMENT_TIMEOUT_MS: u32 = 5_000;
/// How long anyone waits for a free connection.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(2);
/// A connection is taken as it is when it has been idle for less than this.
const UNTESTED: Duration = Duration::from_secs(1);

/// Which pool a transaction's connection comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Share {
    /// Calls that change something.
    Calls,
    /// Jobs, messages, schedules.
    Jobs,
    /// Loops over pending work.
    Relay,
}

/// The pools of one process. They connect when first used.
#[derive(Clone)]
pub(crate) struct Pools {
    calls: PgPool,
    jobs: PgPool,
    relay: PgPool,
    pub(crate) reads: PgPool,
    /// Short bookkeeping beside a transaction that is open: never waits for one.
    pub(crate) upkeep: PgPool,
    /// For connections of one's own.
    pub(crate) options: PgConnectOptions,
    pub(crate) waker: Waker,
}

/// Connections for bookkeeping: one of them listens.
const UPKEEP_POOL_SIZE: u32 = 4;
/// Connections of one's own: the heartbeat's.
const OWN: u32 = 1;

impl Pools {
    pub(crate) fn lazy(backends: &Backends, process: &str, engine: &Engine, tasks: &Tasks) -> anyhow::Result<Self> {
        // A transaction whose process has gone quiet is ended by the server after a lease, so its locks are freed.
        let quiet_ms = backends.lease.as_millis().to_string();
        // All statements here are short. Compiling one costs more than it ever saves, and loading the compiler alone can take
        // seconds on a busy server, which no time-out of a statement cuts off.
        let options = connect_options(&backends.database_url)?
            .application_name(process)
            .options([("idle_in_transaction_session_timeout", quiet_ms.as_str()), ("jit", "off")]);
        let tested = |size: u32| PgPoolOptions::new().max_connections(size).acquire_timeout(ACQUIRE_TIMEOUT);
        let pool = |size: u32| tested_when_idle(tested(size));
        let reads = options.clone().options([
            ("default_transaction_read_only", "on".to_owned()),
            ("statement_timeout", READ_STATEMENT_TIMEOUT_MS.to_string()),
        ]);
        // Their few statements take arrays and go by primary keys. Planning them anew each time would cost more than running
        // them; and a plan that is made while a table is empty, and kept, must not read it whole once it is full.
        let calls = options.clone().options([
            ("plan_cache_mode", "force_generic_plan"),
            ("enable_seqscan", "off"),
            ("enable_hashjoin", "off"),
            ("enable_mergejoin", "off"),
        ]);
        let upkeep = tested(UPKEEP_POOL_SIZE).connect_lazy_with(options.clone());
        Ok(Self {
            calls: pool(backends.pools.calls).connect_lazy_with(calls),
            jobs: pool(backends.pools.jobs).connect_lazy_with(options.clone()),
            relay: pool(backends.pools.relay).connect_lazy_with(options.clone()),
            reads: tested(backends.pools.reads).connect_lazy_with(reads),
            waker: Waker::new(upkeep.clone(), tasks.clone(), engine.kinds().clone()),
            upkeep,
            options,
        })
    }

    /// The pool of that share.
    pub(crate) fn of(&self, share: Share) -> &PgPool {
        match share {
            Share::Calls => &self.calls,
            Share::Jobs => &self.jobs,
            Share::Relay => &self.relay,
        }
    }

    pub(crate) async fn close(&self) {
        for pool in [&self.calls, &self.jobs, &self.relay, &self.reads, &self.upkeep] {
            pool.close().await;
        }
    }
}

/// A connection that was in use a moment ago is not asked whether it is alive: that would be one more round trip for each
/// transaction, and BEGIN tells as well.
fn tested_when_idle(pool: PgPoolOptions) -> PgPoolOptions {
    pool.test_before_acquire(false).before_acquire(|conn, meta| {
        Box::pin(async move {
            if meta.idle_for < UNTESTED {
                return Ok(true);
            }
            conn.ping().await.map(|()| true)
        })
    })
}

/// Which of the pools a process uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Uses {
    /// Routes.
    Service,
    /// Jobs, consumers, schedules, loops.
    Worker,
}

impl Uses {
    /// The pools by their settings' names, and what is not to be set.
    fn connections(self, sizes: &PoolSizes) -> Vec<(&'static str, u32)> {
        let reads = ("GAVEL_READ_POOL_SIZE", sizes.reads);
        match self {
            Self::Service => vec![("GAVEL_POOL_SIZE", sizes.calls), reads, ("bookkeeping", UPKEEP_POOL_SIZE)],
            Self::Worker => vec![
                ("GAVEL_JOB_POOL_SIZE", sizes.jobs),
                ("GAVEL_RELAY_POOL_SIZE", sizes.relay),
                reads,
                ("bookkeeping", UPKEEP_POOL_SIZE + OWN),
            ],
        }
    }
}

/// Refuses pools that together are more than the server allows this user in this database; warns when others have taken so
/// many that not all are left.
pub(crate) async fn check_sizes(reads: &PgPool, uses: Uses, sizes: &PoolSizes) -> anyhow::Result<()> {
    let server = sqlx::query!(
        r#"SELECT least(
             current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
               - coalesce(current_setting('reserved_connections', true)::int, 0),
             (SELECT nullif(datconnlimit, -1) FROM pg_database WHERE datname = current_database()),
             (SELECT nullif(rolconnlimit, -1) FROM pg_roles WHERE rolname = current_user)) AS "allowed!",
           (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid())::int
             AS "taken!""#,
    )
    .fetch_one(reads)
    .await?;
    let pools = uses.connections(sizes);
    let needed = i64::from(pools.iter().map(|(_, size)| size).sum::<u32>());
    let sum = pools.iter().map(|(name, size)| format!("{name} {size}")).collect::<Vec<_>>().join(" + ");
    if needed > i64::from(server.allowed) {
        bail!(
            "the pools need {needed} connections ({sum}), and the server allows {}: make them smaller",
            server.allowed
        );
    }
    if needed + i64::from(server.taken) > i64::from(server.allowed) {
        let (allowed, taken) = (server.allowed, server.taken);
        tracing::warn!(needed, allowed, taken, "others have taken so many connections that the pools may not fill");
    }
    Ok(())
}

/// Options for that URL.
pub(crate) fn connect_options(url: &SecretString) -> anyhow::Result<PgConnectOptions> {
    PgConnectOptions::from_str(url.expose_secret()).context("DATABASE_URL can't be read")
}
