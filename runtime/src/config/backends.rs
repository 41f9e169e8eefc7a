//! The servers behind a process.
use super::{Env, limits::AdmissionLimits};
use secrecy::SecretString;
use std::time::Duration;

/// The servers behind a process.
#[derive(Debug, Clone)]
pub struct Backends {
    /// PostgreSQL: the truth.
    pub database_url: SecretString,
    /// A standby of it, for reads that may be some moments old.
    pub standby: Option<Standby>,
    /// RabbitMQ: what happened.
    pub amqp_url: SecretString,
    /// Redis: what people look at.
    pub redis_url: SecretString,
    /// Who may vouch for RabbitMQ and Redis behind TLS, PEM; none: whoever this machine trusts.
    pub authorities: Option<String>,
    /// Connections to PostgreSQL.
    pub pools: PoolSizes,
    /// How much one caller, one address and one key may ask for.
    pub limits: AdmissionLimits,
    /// The way streams are kept.
    pub streams: Streams,
    /// Time for which a worker that says nothing keeps its jobs.
    pub lease: Duration,
    /// Put before every cache key, so that several systems can share one Redis.
    pub cache_prefix: String,
}

/// Connections to PostgreSQL, a pool for each kind of work.
#[derive(Debug, Clone, Copy)]
pub struct PoolSizes {
    /// For calls that change something.
    pub calls: u32,
    /// For reads.
    pub reads: u32,
    /// For jobs, messages and schedules.
    pub jobs: u32,
    /// For loops over pending work.
    pub relay: u32,
}

impl PoolSizes {
    /// `GAVEL_POOL_SIZE`, `GAVEL_READ_POOL_SIZE`, `GAVEL_JOB_POOL_SIZE`, `GAVEL_RELAY_POOL_SIZE`.
    fn from_env(env: &mut Env) -> Self {
        Self {
            calls: env.number("GAVEL_POOL_SIZE", 16, (1, 500)),
            reads: env.number("GAVEL_READ_POOL_SIZE", 8, (1, 500)),
            jobs: env.number("GAVEL_JOB_POOL_SIZE", 16, (1, 500)),
            relay: env.number("GAVEL_RELAY_POOL_SIZE", 4, (1, 500)),
        }
    }
}

/// A standby of PostgreSQL.
#[derive(Debug, Clone)]
pub struct Standby {
    /// Where, one host or several.
    pub url: SecretString,
    /// Reads go to the primary while what it shows may be older.
    pub bound: Duration,
}

impl Standby {
    /// `GAVEL_READ_URL`, `GAVEL_READ_STALENESS_MS`.
    fn from_env(env: &mut Env) -> Option<Self> {
        let bound = env.millis("GAVEL_READ_STALENESS_MS", 2_000, (200, 600_000));
        let is_set = ["GAVEL_READ_URL", "GAVEL_READ_URL_FILE"].into_iter().any(|name| env.get(name).is_some());
        let url = || env.secret_url("GAVEL_READ_URL", &["postgres", "postgresql"], "a standby, for reads");
        is_set.then(url).map(|url| Self { url, bound })
    }
}

/// The way streams are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Streams {
    /// A stream says at least so often that it is alive.
    pub heartbeat: Duration,
    /// A client that takes nothing for so long is dropped.
    pub patience: Duration,
}

impl Streams {
    /// `GAVEL_HEARTBEAT_MS`, `GAVEL_STREAM_PATIENCE_MS`.
    fn from_env(env: &mut Env) -> Self {
        Self {
            heartbeat: env.millis("GAVEL_HEARTBEAT_MS", 10_000, (50, 60_000)),
            patience: env.millis("GAVEL_STREAM_PATIENCE_MS", 30_000, (50, 600_000)),
        }
    }
}

impl Backends {
    /// `DATABASE_URL`, `GAVEL_READ_URL`, `GAVEL_READ_STALENESS_MS`, `AMQP_URL`, `REDIS_URL`, `GAVEL_BACKEND_CACERT`, the pools' sizes, the limits, the streams,
    /// `GAVEL_LEASE_MS`, `GAVEL_CACHE_PREFIX`.
    pub fn from_env(env: &mut Env) -> Self {
        Self {
            database_url: env.secret_url("DATABASE_URL", &["postgres", "postgresql"], "PostgreSQL, the ledger"),
            standby: Standby::from_env(env),
            amqp_url: env.secret_url("AMQP_URL", &["amqp", "amqps"], "RabbitMQ, the events"),
            redis_url: env.secret_url("REDIS_URL", &["redis", "rediss"], "Redis, the read model"),
            authorities: env.optional_file("GAVEL_BACKEND_CACERT"),
            pools: PoolSizes::from_env(env),
            limits: AdmissionLimits::from_env(env),
            streams: Streams::from_env(env),
            lease: env.millis("GAVEL_LEASE_MS", 15_000, (500, 600_000)),
            cache_prefix: env.text("GAVEL_CACHE_PREFIX", "gavel"),
        }
    }
}
