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

/// KEYS: hashes; ARGV: seconds to live, then a version and a value for each. Returns how many were written.
const PUT_IF_NEWER: &str = "
local written = 0
for i, key in ipairs(KEYS) do
  local version, value = ARGV[2 * i], ARGV[2 * i + 1]
  local held = redis.call('HGET', key, 'version')
  if not held or tonumber(held) < tonumber(version) then
    redis.call('HSET', key, 'version', version, 'value', value)
    redis.call('EXPIRE', key, ARGV[1])
    written = written + 1
  end
end
return written";

/// KEYS: hashes of who is present; ARGV: who says so, milliseconds that it counts, then how many for each. Returns the sums.
const PRESENT: &str = "
local time, sums = redis.call('TIME'), {}
local now = time[1] * 1000 + math.floor(time[2] / 1000)
for i, key in ipairs(KEYS) do
  if ARGV[i + 2] == '0' then
    redis.call('HDEL', key, ARGV[1])
  else
    redis.call('HSET', key, ARGV[1], ARGV[i + 2] .. ':' .. now + ARGV[2])
    redis.call('PEXPIRE', key, ARGV[2])
  end
  local sum, all = 0, redis.call('HGETALL', key)
  for j = 1, #all, 2 do
    local count, till = string.match(all[j + 1], '^(%d+):(%d+)')
    if tonumber(till) < now then redis.call('HDEL', key, all[j]) else sum = sum + count end
  end
  sums[i] = sum
end
return sums";

/// Topics of one script: it holds up every other client meanwhile.
const PRESENT_AT_A_TIME: usize = 256;

/// How many are present somewhere, as one member says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Presence {
    pub(crate) key: String,
    pub(crate) count: i64,
}

/// A value on its way into the read model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Put {
    /// Where.
    pub key: String,
    /// Of what age it is.
    pub version: i64,
    /// The bytes.
    pub value: Vec<u8>,
}

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
    present: Script,
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
            present: Script::new(PRESENT),
            prefix: backends.cache_prefix.clone(),
        })
    }

    /// Writes `value` unless the same or a newer version is there. Returns whether it was written.
    pub async fn put_if_newer(&self, key: &str, version: i64, value: &[u8]) -> Result<bool> {
        let put = Put { key: key.to_owned(), version, value: value.to_vec() };
        Ok(self.put_all_if_newer(&[put]).await? == 1)
    }

    /// Writes each of them unless the same or a newer version is there, in one step. Returns how many were written.
    pub async fn put_all_if_newer(&self, puts: &[Put]) -> Result<usize> {
        if puts.is_empty() {
            return Ok(0);
        }
        let mut connection = self.connection.clone();
        let mut invocation = self.put_if_newer.prepare_invoke();
        invocation.arg(TTL_S);
        for Put { key, version, value } in puts {
            invocation.key(self.full(key)).arg(version).arg(value);
        }
        bounded(invocation.invoke_async::<usize>(&mut connection)).await
    }

    /// Reads the newest value.
    pub async fn get(&self, key: &str) -> Result<Option<Versioned>> {
        let mut connection = self.connection.clone();
        let mut command = redis::cmd("HMGET");
        command.arg(self.full(key)).arg("version").arg("value");
        let (version, value): (Option<i64>, Option<Vec<u8>>) = bounded(command.query_async(&mut connection)).await?;
        Ok(version.zip(value).map(|(version, value)| Versioned { version, value }))
    }

    /// Says how many are present, as seen by one member, and gives the sums over all members that have said so lately.
    pub(crate) async fn present(&self, member: &str, presences: &[Presence], lasts: Duration) -> Result<Vec<i64>> {
        let mut sums = Vec::with_capacity(presences.len());
        for some in presences.chunks(PRESENT_AT_A_TIME) {
            let mut connection = self.connection.clone();
            let mut invocation = self.present.prepare_invoke();
            invocation.arg(member).arg(u64::try_from(lasts.as_millis()).unwrap_or(u64::MAX));
            for Presence { key, count } in some {
                invocation.key(self.full(key)).arg(*count);
            }
            sums.extend(bounded(invocation.invoke_async::<Vec<i64>>(&mut connection)).await?);
        }
        Ok(sums)
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
        // Something else is stored under our key: waiting does not help.
        Ok(Err(error)) if error.code() == Some("WRONGTYPE") => Err(Error::internal(error)),
        Ok(Err(error)) => Err(unavailable().with_source(error)),
        Err(_) => Err(unavailable()),
    }
}
