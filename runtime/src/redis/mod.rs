//! Redis as a read model: versioned values that only ever move forward.
//!
//! A value is written only over an older version of itself, by a script that compares and sets in one step, so events
//! that arrive twice or out of order, and fills that race with them, leave the newest. Nothing is decided by what is
//! read here, and every reader has somewhere else to read from.
//!
//! Nor is it believed for long: anybody who can write there could say anything, of a version that no event will ever
//! reach. So each process compares a value with the truth when it reads it for the first time, and every few seconds
//! after that ([`Cache::read_through`]); and what takes no writes is not read (`connection`).
#![expect(clippy::disallowed_types, reason = "it is the adapter")]
mod connection;
mod scripts;

use crate::{
    Class, Result,
    base::{boundary::planted, ids},
    config::Backends,
};
use connection::Link;
use moka::sync::Cache as Remembered;
use redis::{RedisResult, Script, aio::ConnectionManager};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

/// Values not written for this long are forgotten: readers fill them again.
const TTL_S: u64 = 24 * 3_600;
/// A value that was compared with the truth is believed for this long.
const BELIEVED_FOR: Duration = Duration::from_secs(5);
/// The most values of which that is remembered: some 10 MiB.
const MAX_BELIEVED: u64 = 100_000;
/// What shows that writes are taken is forgotten after this long, in seconds.
const PROBE_TTL_S: u64 = 60;
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

/// What was here where a value of the truth should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Found {
    /// The same.
    Same,
    /// Nothing.
    Nothing,
    /// An earlier version: its event may be on its way.
    Earlier,
    /// Something that the truth does not say.
    Wrong,
}

impl Found {
    fn of(held: Option<&Versioned>, truth: &Versioned, agree: impl FnOnce(&[u8], &[u8]) -> bool) -> Self {
        match held {
            None => Self::Nothing,
            Some(held) if held.version < truth.version => Self::Earlier,
            Some(held) if held.version == truth.version && agree(&held.value, &truth.value) => Self::Same,
            Some(_) => Self::Wrong,
        }
    }
}

/// Where a value was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// Here.
    Cache,
    /// At the truth.
    Truth,
}

/// How often reads found what they looked for here, and how often they went to the truth.
#[derive(Debug, Default)]
pub(crate) struct Lookups {
    cache: AtomicU64,
    truth: AtomicU64,
}

impl Lookups {
    fn count(&self, source: Source) {
        let counter = match source {
            Source::Cache => &self.cache,
            Source::Truth => &self.truth,
        };
        counter.fetch_add(1, Relaxed);
    }

    pub(crate) fn counts(&self) -> [(&'static str, u64); 2] {
        [("cache", self.cache.load(Relaxed)), ("truth", self.truth.load(Relaxed))]
    }
}

/// The read model's store. Cheap to clone.
#[derive(Clone)]
pub struct Cache {
    inner: Arc<Inner>,
    /// In whose name it is read and written.
    handler: &'static str,
}

struct Inner {
    link: Link,
    put_if_newer: Script,
    replace: Script,
    present: Script,
    prefix: String,
    /// Keys whose values were compared with the truth a moment ago.
    believed: Remembered<String, ()>,
    /// Where this process writes to see whether it may.
    probe: String,
    lookups: Arc<Lookups>,
}

impl Cache {
    pub(crate) fn lazy(backends: &Backends) -> anyhow::Result<Self> {
        let inner = Arc::new(Inner {
            link: Link::lazy(backends)?,
            put_if_newer: Script::new(planted::text(scripts::PUT_IF_NEWER)),
            replace: Script::new(scripts::REPLACE),
            present: Script::new(scripts::PRESENT),
            prefix: backends.cache_prefix.clone(),
            believed: Remembered::builder().max_capacity(MAX_BELIEVED).time_to_live(BELIEVED_FOR).build(),
            probe: format!("probe:{}", ids::random()),
            lookups: Arc::default(),
        });
        Ok(Self { inner, handler: "cache" })
    }

    /// The same, in the name of that handler.
    pub(crate) fn on_behalf_of(&self, handler: &'static str) -> Self {
        Self { handler, ..self.clone() }
    }

    async fn run<T>(
        &self,
        verb: &'static str,
        command: impl AsyncFnOnce(&mut ConnectionManager) -> RedisResult<T>,
    ) -> Result<T> {
        self.inner.link.run((self.handler, verb), command).await
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
        let mut invocation = self.inner.put_if_newer.prepare_invoke();
        invocation.arg(TTL_S);
        for Put { key, version, value } in puts {
            invocation.key(self.full(key)).arg(version).arg(value);
        }
        self.run("put", async |connection| invocation.invoke_async::<usize>(connection).await).await
    }

    /// Reads the newest value, as it was put by whoever could; none where what is there is no such value.
    pub async fn get(&self, key: &str) -> Result<Option<Versioned>> {
        self.inner.link.readable()?;
        let mut command = redis::cmd("HMGET");
        command.arg(self.full(key)).arg("version").arg("value");
        let read = async |connection: &mut ConnectionManager| match command.query_async(connection).await {
            Err(error) if error.code() == Some("WRONGTYPE") => Ok((None, None)),
            answer => answer,
        };
        let (version, value): (Option<Vec<u8>>, Option<Vec<u8>>) = self.run("get", read).await?;
        let version = version.and_then(|version| std::str::from_utf8(&version).ok()?.parse().ok());
        Ok(version.zip(value).map(|(version, value)| Versioned { version, value }))
    }

    /// Reads a value here, or the truth with `load`, where there is none, or it was not compared with the truth lately.
    /// `agree` says whether two values of the same version mean the same. What is found to be wrong here is put right.
    ///
    /// # Errors
    /// Those of `load`; but while the truth can't be had, what is here is given as it is.
    pub async fn read_through(
        &self,
        key: &str,
        load: impl Future<Output = Result<Versioned>>,
        agree: impl FnOnce(&[u8], &[u8]) -> bool,
    ) -> Result<(Versioned, Source)> {
        let read = self.read(key, load, agree).await;
        if let Ok((_, source)) = &read {
            self.inner.lookups.count(*source);
        }
        read
    }

    /// Puts the truth here, and says what was here before. As with [`Cache::read_through`], what is here is read first.
    ///
    /// # Errors
    /// Those of `load`; and where it can't be read or written here.
    pub async fn put_truth(
        &self,
        key: &str,
        load: impl Future<Output = Result<Versioned>>,
        agree: impl FnOnce(&[u8], &[u8]) -> bool,
    ) -> Result<Found> {
        let held = self.get(key).await?;
        let truth = load.await?;
        let found = Found::of(held.as_ref(), &truth, agree);
        match (found, held) {
            (Found::Same, _) => {}
            (Found::Wrong, Some(held)) => self.put_right(key, held.version, Some(&truth)).await?,
            _ => drop(self.put_if_newer(key, truth.version, &truth.value).await?),
        }
        Ok(found)
    }

    /// How reads went so far.
    pub(crate) fn lookups(&self) -> Arc<Lookups> {
        self.inner.lookups.clone()
    }

    async fn read(
        &self,
        key: &str,
        load: impl Future<Output = Result<Versioned>>,
        agree: impl FnOnce(&[u8], &[u8]) -> bool,
    ) -> Result<(Versioned, Source)> {
        // First: the truth is then at least as new, or this is no value of its.
        let held = self.get(key).await.inspect_err(|error| tracing::debug!(%error, "the truth is read instead"));
        let is_believed = || self.inner.believed.contains_key(key);
        match (held, is_believed()) {
            (Ok(Some(held)), true) => Ok((held, Source::Cache)),
            (Ok(held), _) => match (load.await, held) {
                (Ok(truth), held) => {
                    self.compare(key, held, &truth, agree).await;
                    Ok((truth, Source::Truth))
                }
                (Err(error), Some(held)) if error.class() == Class::NotFound => {
                    let _ = self.put_right(key, held.version, None).await;
                    Err(error)
                }
                (Err(error), Some(held)) if error.is_nobodys_fault() => {
                    tracing::debug!(%error, "the truth can't be had for the moment");
                    Ok((held, Source::Cache))
                }
                (Err(error), _) => Err(error),
            },
            (Err(_), _) => Ok((load.await?, Source::Truth)),
        }
    }

    /// A write may fail: the next reader tries again.
    async fn compare(
        &self,
        key: &str,
        held: Option<Versioned>,
        truth: &Versioned,
        agree: impl FnOnce(&[u8], &[u8]) -> bool,
    ) {
        let is_right = match (Found::of(held.as_ref(), truth, agree), held) {
            (Found::Same, _) => true,
            (Found::Wrong, Some(held)) => self.put_right(key, held.version, Some(truth)).await.is_ok(),
            _ => self.put_if_newer(key, truth.version, &truth.value).await.is_ok(),
        };
        if is_right {
            self.inner.believed.insert(key.to_owned(), ());
        }
    }

    /// Puts the truth, or nothing, in place of a value that nobody should have written.
    async fn put_right(&self, key: &str, wrong: i64, truth: Option<&Versioned>) -> Result<()> {
        tracing::warn!(
            key,
            version = wrong,
            truth = truth.map(|truth| truth.version),
            "the read model was wrong: put right"
        );
        let mut invocation = self.inner.replace.prepare_invoke();
        invocation.key(self.full(key)).arg(TTL_S).arg(wrong);
        if let Some(Versioned { version, value }) = truth {
            invocation.arg(version).arg(value);
        }
        self.run("replace", async |connection| invocation.invoke_async::<usize>(connection).await).await.map(drop)
    }

    /// Says how many are present, as seen by one member, and gives the sums over all members that have said so lately.
    pub(crate) async fn present(&self, member: &str, presences: &[Presence], lasts: Duration) -> Result<Vec<i64>> {
        let mut sums = Vec::with_capacity(presences.len());
        for some in presences.chunks(PRESENT_AT_A_TIME) {
            let mut invocation = self.inner.present.prepare_invoke();
            invocation.arg(member).arg(u64::try_from(lasts.as_millis()).unwrap_or(u64::MAX));
            for Presence { key, count } in some {
                invocation.key(self.full(key)).arg(*count);
            }
            let present = self.run("present", async |connection| invocation.invoke_async::<Vec<i64>>(connection).await);
            sums.extend(present.await?);
        }
        Ok(sums)
    }

    /// Checks that it takes writes.
    pub(crate) async fn check(&self) -> Result<()> {
        let mut command = redis::cmd("SET");
        command.arg(self.full(&self.inner.probe)).arg(1).arg("EX").arg(PROBE_TTL_S);
        self.run("probe", async |connection| command.query_async::<()>(connection).await).await
    }

    fn full(&self, key: &str) -> String {
        format!("{}:{key}", self.inner.prefix)
    }
}
