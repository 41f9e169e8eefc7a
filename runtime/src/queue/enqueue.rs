//! Enqueueing, in the caller's transaction.
//!
//! It writes what sqlxmq's `mq_insert` writes, with the arguments in the job's own row, and without its two
//! notifications: NOTIFY takes a lock through the commit that
//! all notifying transactions share. [`Waker`](super::Waker) tells the workers after the commit instead.
use super::{BASE_BACKOFF, Headers, Job, MAX_KEY_BYTES, wake::LOOKAHEAD};
use crate::{Conn, Error, Invocation, Result, Tx, base::ids};
use sqlx::postgres::types::PgInterval;
use std::time::Duration;
use uuid::Uuid;

/// The longest delay: a year and a day.
pub(crate) const MAX_DELAY: Duration = Duration::from_hours(366 * 24);

/// Which of the jobs that are due is claimed first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Priority {
    /// Before all others.
    Urgent = 0,
    /// Before most.
    High = 1,
    /// As usual; so are those of sqlxmq's producers.
    #[default]
    Normal = 2,
    /// When nothing else is due.
    Low = 3,
}

/// At most one queued job of its kind has this key. A job that is running is not queued any more: a leased one frees
/// its key when it is claimed; while one runs in a transaction, other transactions that enqueue its key wait until that
/// has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unique {
    /// The queued job takes on the new one's arguments, due time and priority.
    Replace(String),
    /// The queued job stays as it is.
    Keep(String),
}

impl Unique {
    fn key(&self) -> &str {
        match self {
            Self::Replace(key) | Self::Keep(key) => key,
        }
    }
}

/// The way to enqueue.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// Due this much after the transaction began.
    pub delay: Duration,
    /// Which goes first.
    pub priority: Priority,
    /// Which queued job makes this one unnecessary, or is replaced by it.
    pub unique: Option<Unique>,
}

impl Options {
    /// Now, as usual.
    pub fn new() -> Self {
        Self::default()
    }

    /// Later.
    #[must_use]
    pub fn delay(self, delay: Duration) -> Self {
        Self { delay, ..self }
    }

    /// With another priority.
    #[must_use]
    pub fn priority(self, priority: Priority) -> Self {
        Self { priority, ..self }
    }

    /// Once per key while queued.
    #[must_use]
    pub fn unique(self, unique: Unique) -> Self {
        Self { unique: Some(unique), ..self }
    }
}

impl From<Duration> for Options {
    fn from(delay: Duration) -> Self {
        Self::new().delay(delay)
    }
}

/// What enqueueing did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Enqueued {
    /// There is a new job.
    New(Uuid),
    /// This queued job took on the new one's arguments.
    Replaced(Uuid),
    /// This queued job stays.
    Kept(Uuid),
}

impl Enqueued {
    /// The job that is in the queue now.
    pub fn job_id(self) -> Uuid {
        match self {
            Self::New(id) | Self::Replaced(id) | Self::Kept(id) => id,
        }
    }
}

/// A job, ready to be written.
struct Row {
    id: Uuid,
    kind: &'static str,
    key: String,
    args: String,
    headers: Vec<u8>,
    attempts: i32,
    delay_s: f64,
    backoff: PgInterval,
    priority: i16,
}

impl Row {
    fn of<J: Job>(job: &J, headers: Vec<u8>, options: &Options) -> Result<Self> {
        let key = job.key();
        let unique = options.unique.as_ref().map_or("", Unique::key);
        if let Some(long) = [key.as_str(), unique].into_iter().find(|key| key.len() > MAX_KEY_BYTES) {
            let message = format!("a job's key of {} bytes is too long; allowed: {MAX_KEY_BYTES}", long.len());
            return Err(Error::invalid(message));
        }
        if options.delay > MAX_DELAY {
            return Err(Error::invalid(format!("a delay of {:?} is too long; allowed: {MAX_DELAY:?}", options.delay)));
        }
        Ok(Self {
            id: ids::ordered(),
            kind: J::KIND,
            key,
            args: serde_json::to_string(job).map_err(Error::internal)?,
            headers,
            attempts: attempts(J::RETRIES),
            delay_s: options.delay.as_secs_f64(),
            backoff: backoff()?,
            priority: options.priority as i16,
        })
    }
}

/// Tries left at first: sqlxmq counts the first one in.
pub(crate) fn attempts(retries: u32) -> i32 {
    i32::try_from(retries).unwrap_or(i32::MAX).saturating_add(1)
}

fn backoff() -> Result<PgInterval> {
    PgInterval::try_from(BASE_BACKOFF).map_err(|error| Error::internal(anyhow::Error::from_boxed(error)))
}

impl Tx {
    /// Enqueues a job: if and only if this transaction commits. A [`Duration`] in place of the options is a delay.
    ///
    /// # Errors
    /// [`Class::Invalid`](crate::Class::Invalid) when its key or its delay is too long.
    pub async fn enqueue<J: Job>(&mut self, job: &J, options: impl Into<Options>) -> Result<Enqueued> {
        let options = options.into();
        let enqueued = insert_one(self, job, &options).await?;
        self.remember(J::KIND, &options);
        Ok(enqueued)
    }

    /// Enqueues many jobs of a kind, in one statement where they have no keys. Gives their ids, in their order.
    ///
    /// # Errors
    /// As [`Tx::enqueue`].
    pub async fn enqueue_many<J: Job>(&mut self, jobs: &[J], options: impl Into<Options>) -> Result<Vec<Uuid>> {
        let options = options.into();
        let ids = insert_many(self, jobs, &options).await?;
        self.remember(J::KIND, &options);
        Ok(ids)
    }

    /// Workers are told after the commit, of what is due soon.
    fn remember(&mut self, kind: &'static str, options: &Options) {
        if options.delay < LOOKAHEAD {
            self.wakes(kind);
        }
    }
}

fn headers(invocation: &Invocation) -> Result<Vec<u8>> {
    let headers = Headers {
        correlation_id: Some(invocation.correlation_id.clone()),
        traceparent: Some(invocation.traceparent.clone()),
    };
    serde_json::to_vec(&headers).map_err(Error::internal)
}

async fn insert_one<J: Job>(tx: &mut Tx, job: &J, options: &Options) -> Result<Enqueued> {
    let (conn, invocation) = tx.parts();
    let row = Row::of(job, headers(invocation)?, options)?;
    match (&options.unique, J::PER_KEY) {
        (Some(_), Some(_)) => {
            Err(Error::internal(anyhow::anyhow!("{}: PER_KEY and unique exclude each other", J::KIND)))
        }
        (Some(unique), None) => insert_unique(conn, &row, unique).await,
        (None, per_key) => {
            insert(conn, &row, per_key).await?;
            Ok(Enqueued::New(row.id))
        }
    }
}

/// Jobs of one kind in one statement, in their order. Keys and uniqueness need [`insert_one`].
async fn insert_many<J: Job>(tx: &mut Tx, jobs: &[J], options: &Options) -> Result<Vec<Uuid>> {
    if options.unique.is_some() || J::PER_KEY.is_some() {
        let mut ids = Vec::with_capacity(jobs.len());
        for job in jobs {
            ids.push(insert_one(tx, job, options).await?.job_id());
        }
        return Ok(ids);
    }
    let (conn, invocation) = tx.parts();
    let headers = headers(invocation)?;
    let args = jobs.iter().map(serde_json::to_string).collect::<Result<Vec<_>, _>>().map_err(Error::internal)?;
    let ids: Vec<Uuid> = jobs.iter().map(|_| ids::ordered()).collect();
    sqlx::query!(
        "INSERT INTO mq_msgs (id, attempt_at, attempts, retry_backoff, channel_name, channel_args, after_message_id,
                              priority, args, headers)
         SELECT id, now() + make_interval(secs => $5), $6, $7, $3, '', NULL, $8, args::json, $4
         FROM unnest($1::uuid[], $2::text[]) WITH ORDINALITY j (id, args, n) ORDER BY n",
        &ids,
        &args,
        J::KIND,
        headers,
        options.delay.as_secs_f64(),
        attempts(J::RETRIES),
        backoff()?,
        options.priority as i16,
    )
    .execute(conn)
    .await?;
    Ok(ids)
}

async fn insert(conn: &mut Conn, row: &Row, per_key: Option<u32>) -> Result<()> {
    if let Some(per_key) = per_key {
        lock_keys(conn, row.kind, std::slice::from_ref(&row.key)).await?;
        return insert_keyed(conn, row, i64::from(per_key)).await;
    }
    sqlx::query!(
        "INSERT INTO mq_msgs (id, attempt_at, attempts, retry_backoff, channel_name, channel_args, after_message_id,
                              priority, args, headers)
         VALUES ($1, now() + make_interval(secs => $5), $6, $7, $2, $8, NULL, $9, $3::text::json, $4)",
        row.id,
        row.kind,
        row.args,
        row.headers,
        row.delay_s,
        row.attempts,
        row.backoff,
        row.key,
        row.priority,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Under the key's lock, as many jobs of a key as may run at once are unblocked, and the others wait behind them.
async fn insert_keyed(conn: &mut Conn, row: &Row, per_key: i64) -> Result<()> {
    sqlx::query!(
        "INSERT INTO mq_msgs (id, attempt_at, attempts, retry_backoff, channel_name, channel_args, after_message_id,
                              priority, args, headers, blocked)
         SELECT $1, now() + make_interval(secs => $5), $6, $7, $2, $8, NULL, $9, $3::text::json, $4,
                (SELECT count(*) FROM (SELECT FROM mq_msgs WHERE channel_name = $2 AND channel_args = $8
                                         AND channel_args <> '' AND NOT blocked LIMIT $10) u) >= $10",
        row.id,
        row.kind,
        row.args,
        row.headers,
        row.delay_s,
        row.attempts,
        row.backoff,
        row.key,
        row.priority,
        per_key,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// The conflicting row is always updated, if only with what it has: that waits for a run under way, after which there
/// is nothing to conflict with any more. Doing nothing would take a job that is running for one that is queued.
async fn insert_unique(conn: &mut Conn, row: &Row, unique: &Unique) -> Result<Enqueued> {
    let replace = matches!(unique, Unique::Replace(_));
    let id = sqlx::query_scalar!(
        "INSERT INTO mq_msgs AS m (id, attempt_at, attempts, retry_backoff, channel_name, channel_args,
                                   after_message_id, priority, unique_key, args, headers)
         VALUES ($1, now() + make_interval(secs => $2), $3, $4, $5, $6, NULL, $7, $8, $10::text::json, $11)
         ON CONFLICT (channel_name, unique_key) WHERE unique_key IS NOT NULL
         DO UPDATE SET attempt_at = CASE WHEN $9 THEN excluded.attempt_at ELSE m.attempt_at END,
                       priority = CASE WHEN $9 THEN excluded.priority ELSE m.priority END,
                       args = CASE WHEN $9 THEN excluded.args ELSE m.args END,
                       headers = CASE WHEN $9 THEN excluded.headers ELSE m.headers END
         RETURNING id",
        row.id,
        row.delay_s,
        row.attempts,
        row.backoff,
        row.kind,
        row.key,
        row.priority,
        unique.key(),
        replace,
        row.args,
        row.headers,
    )
    .fetch_one(conn)
    .await?;
    Ok(match id {
        id if id == row.id => Enqueued::New(id),
        id if replace => Enqueued::Replaced(id),
        id => Enqueued::Kept(id),
    })
}

/// Locks keys until the transaction ends: whoever adds or removes a job of a key does so one at a time.
pub(crate) async fn lock_keys(conn: &mut Conn, kind: &str, keys: &[String]) -> Result<()> {
    let mut keys: Vec<_> = keys.to_vec();
    keys.sort_unstable();
    keys.dedup();
    sqlx::query!(
        "SELECT count(pg_advisory_xact_lock(hashtextextended($1 || chr(31) || k.key, 0)))
         FROM (SELECT key FROM unnest($2::text[]) WITH ORDINALITY k(key, n) ORDER BY n) k",
        kind,
        &keys,
    )
    .fetch_one(conn)
    .await?;
    Ok(())
}
