//! The statements on sqlxmq's tables.
use crate::{Error, Result, Tx, backoff};
use sqlx::{PgPool, types::JsonValue};
use std::time::Duration;
use uuid::Uuid;

/// A claimed job: its row is locked by the transaction that claimed it.
#[derive(Debug, Clone)]
pub(super) struct Claimed {
    pub(super) id: Uuid,
    /// Tries left, this one included.
    pub(super) attempts: i32,
    pub(super) args: Option<JsonValue>,
    pub(super) headers: Option<Vec<u8>>,
}

/// Claims the job of this kind that has been due longest and that nobody holds.
pub(super) async fn claim(tx: &mut Tx, kind: &str) -> Result<Option<Claimed>> {
    let claimed = sqlx::query_as!(
        Claimed,
        r#"SELECT m.id, m.attempts, p.payload_json AS args, p.payload_bytes AS headers
           FROM mq_msgs m JOIN mq_payloads p ON p.id = m.id
           WHERE m.channel_name = $1 AND m.attempt_at <= now() AND m.id <> uuid_nil()
             AND coalesce(m.after_message_id, uuid_nil()) = uuid_nil() AND m.commit_interval IS NULL
           ORDER BY m.attempt_at
           LIMIT 1
           FOR UPDATE OF m SKIP LOCKED"#,
        kind,
    )
    .fetch_optional(tx.conn())
    .await?;
    Ok(claimed)
}

/// How long until the next job of this kind is due; none where there is none in the future.
pub(super) async fn until_next(pool: &PgPool, kind: &str) -> Result<Option<Duration>> {
    let seconds = sqlx::query_scalar!(
        r#"SELECT extract(epoch FROM min(attempt_at) - clock_timestamp())::float8
           FROM mq_msgs WHERE channel_name = $1 AND attempt_at > now()"#,
        kind,
    )
    .fetch_one(pool)
    .await?;
    Ok(seconds.map(|seconds| Duration::try_from_secs_f64(seconds).unwrap_or_default()))
}

/// Deletes the job in the transaction that did its work: its receipt.
///
/// # Errors
/// When the row is not there: then this transaction must not commit.
pub(super) async fn complete(tx: &mut Tx, id: Uuid) -> Result<()> {
    let deleted = sqlx::query_scalar!(
        r#"WITH payload AS (DELETE FROM mq_payloads WHERE id = $1),
                message AS (DELETE FROM mq_msgs WHERE id = $1 RETURNING id)
           SELECT count(*) AS "deleted!" FROM message"#,
        id,
    )
    .fetch_one(tx.conn())
    .await?;
    if deleted == 1 {
        Ok(())
    } else {
        Err(Error::internal(anyhow::anyhow!("job {id} is gone: it was completed elsewhere")))
    }
}

/// Counts a failed try, if nobody else has taken the job since, and puts the next one off.
pub(super) async fn retry_later(pool: &PgPool, job: &Claimed, tried: u32) -> Result<()> {
    let pause_s = backoff::pause(tried, super::BASE_BACKOFF, super::MAX_BACKOFF).as_secs_f64();
    sqlx::query!(
        "UPDATE mq_msgs SET attempts = attempts - 1, attempt_at = clock_timestamp() + make_interval(secs => $3)
         WHERE id = $1 AND attempts = $2",
        job.id,
        job.attempts,
        pause_s,
    )
    .execute(pool)
    .await?;
    Ok(())
}

/// Moves a job that will not be tried again to `dead_jobs`, if nobody else has taken it since.
pub(super) async fn bury(
    pool: &PgPool,
    job: &Claimed,
    kind: &str,
    correlation_id: &str,
    tried: i32,
    error: &str,
) -> Result<()> {
    sqlx::query!(
        "WITH message AS (DELETE FROM mq_msgs WHERE id = $1 AND attempts = $2 RETURNING id, created_at),
              payload AS (DELETE FROM mq_payloads p USING message m WHERE p.id = m.id RETURNING p.id, p.payload_json)
         INSERT INTO dead_jobs (job_id, kind, args, correlation_id, attempts, last_error, enqueued_at)
         SELECT m.id, $3, p.payload_json, $4, $5, $6, coalesce(m.created_at, clock_timestamp())
         FROM message m LEFT JOIN payload p USING (id)",
        job.id,
        job.attempts,
        kind,
        correlation_id,
        tried,
        error,
    )
    .execute(pool)
    .await?;
    Ok(())
}
