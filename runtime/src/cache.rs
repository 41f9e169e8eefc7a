//! Redis as a read model: versioned values that only ever move forward.
//!
//! A value is written only over an older version of itself, by a script that compares and sets in one step, so events
//! that arrive twice or out of order, and fills that race with them, leave the newest. Nothing is decided by what is
//! read here, and every reader has somewhere else to read from.
use crate::{Class, Error, Result, config::Backends};
use anyhow::Context;
use redis::{
    Client, Script,
    aio::{ConnectionManager, ConnectionManagerConfig},
};
use secrecy::ExposeSecret;
use std::time::Duration;

/// A cache that takes longer than this is worse than none.
const RESPONSE_TIMEOUT: Duration = Duration::from_millis(250);
/// Values not written for this long are forgotten: readers fill them again.
const TTL_S: u64 = 24 * 3_600;

/// KEYS[1] a hash; ARGV: version, value, seconds to live. Returns 1 when written.
const PUT_IF_NEWER: &str = "
local held = redis.call('HGET', KEYS[1], 'version')
if held and tonumber(held) >= tonumber(ARGV[1]) then return 0 end
redis.call('HSET', KEYS[1], 'version', ARGV[1], 'value', ARGV[2])
redis.call('EXPIRE', KEYS[1], ARGV[3])
return 1";

/// A value as it was put.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Versioned {
    /// The version it was put with.
    pub version: i64,
    /// The bytes.
    pub value: Vec<u8>,
}

/// The read model's store.
#[derive(Clone)]
pub struct Cache {
    connection: ConnectionManager,
    put_if_newer: Script,
    prefix: String,
}

impl Cache {
    pub(crate) fn lazy(backends: &Backends) -> anyhow::Result<Self> {
        let client = Client::open(backends.redis_url.expose_secret()).context("REDIS_URL can't be read")?;
        let config = ConnectionManagerConfig::new()
            .set_connection_timeout(Some(RESPONSE_TIMEOUT))
            .set_response_timeout(Some(RESPONSE_TIMEOUT))
            .set_number_of_retries(1)
            .set_min_delay(Duration::from_millis(20))
            .set_max_delay(Duration::from_millis(200));
        Ok(Self {
            connection: ConnectionManager::new_lazy_with_config(client, config)?,
            put_if_newer: Script::new(PUT_IF_NEWER),
            prefix: backends.cache_prefix.clone(),
        })
    }

    /// Writes `value` unless the same or a newer version is there. Returns whether it was written.
    pub async fn put_if_newer(&self, key: &str, version: i64, value: &[u8]) -> Result<bool> {
        let mut connection = self.connection.clone();
        let mut invocation = self.put_if_newer.prepare_invoke();
        invocation.key(self.full(key)).arg(version).arg(value).arg(TTL_S);
        bounded(invocation.invoke_async::<bool>(&mut connection)).await
    }

    /// Reads the newest value.
    pub async fn get(&self, key: &str) -> Result<Option<Versioned>> {
        let mut connection = self.connection.clone();
        let mut command = redis::cmd("HMGET");
        command.arg(self.full(key)).arg("version").arg("value");
        let (version, value): (Option<i64>, Option<Vec<u8>>) = bounded(command.query_async(&mut connection)).await?;
        Ok(version.zip(value).map(|(version, value)| Versioned { version, value }))
    }

    pub(crate) async fn check(&self) -> Result<()> {
        let mut connection = self.connection.clone();
        bounded(redis::cmd("PING").query_async::<String>(&mut connection)).await.map(drop)
    }

    fn full(&self, key: &str) -> String {
        format!("{}:{key}", self.prefix)
    }
}

/// The library's own time-outs add up over reconnects; this one bounds the whole.
async fn bounded<T>(command: impl Future<Output = redis::RedisResult<T>>) -> Result<T> {
    let unavailable = || Error::new(Class::Unavailable, "the cache does not answer");
    match tokio::time::timeout(RESPONSE_TIMEOUT * 2, command).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(unavailable().with_source(error)),
        Err(_) => Err(unavailable()),
    }
}
