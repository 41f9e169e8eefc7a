//! What an operator does with queues and dead jobs. Each is one short transaction.
use super::{
    claim::Claimed,
    settle::{self, Failure, Fence, Keys},
};
use crate::{Result, Tx};
use sqlx::PgPool;
use std::time::Duration;
use uuid::Uuid;

/// What asking for a cancellation did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cancelled {
    /// It was queued, and is dead now.
    Buried,
    /// It is running: its handler is asked to stop.
    Asked,
    /// There is no such job, or it is done.
    Unknown,
}

/// Stops all workers from claiming jobs of this kind, from their next claim on. What runs goes on.
pub async fn pause(pool: &PgPool, kind: &str, by: &str) -> Result<()> {
    sqlx::query!(
        "INSERT INTO job_queues (kind, paused_at, paused_by) VALUES ($1, clock_timestamp(), $2)
         ON CONFLICT (kind) DO UPDATE SET paused_at = clock_timestamp(), paused_by = $2
         WHERE job_queues.paused_at IS NULL",
        kind,
        by,
    )
    .execute(pool)
    .await?;
    Ok(())
}

/// Lets workers claim jobs of this kind again. False when it was not paused.
pub async fn resume(pool: &PgPool, kind: &str) -> Result<bool> {
    let resumed = sqlx::query!(
        "UPDATE job_queues SET paused_at = NULL, paused_by = NULL WHERE kind = $1 AND paused_at IS NOT NULL",
        kind,
    )
    .execute(pool)
    .await?;
    if resumed.rows_affected() > 0 {
        sqlx::query!("SELECT pg_notify($1, $2)", super::wake::CHANNEL, kind).execute(pool).await?;
    }
    Ok(resumed.rows_affected() > 0)
}

/// Buries a queued job as cancelled, or asks the handler of a running one to stop.
pub async fn cancel(pool: &PgPool, job_id: Uuid, by: &str) -> Result<Cancelled> {
    let mut tx = pool.begin().await?;
    let queued = sqlx::query_as!(
        Claimed,
        r#"SELECT m.id, m.ctid::text AS "place!", m.attempts, m.tries, m.deaths, m.priority,
                  coalesce(m.attempt_at, 'epoch') AS "attempt_at!", m.seq, m.channel_args AS key, false AS "unique!",
                  m.args IS NULL AS "stock!", coalesce(m.args::text, p.payload_json::text) AS args,
                  coalesce(m.headers, p.payload_bytes) AS headers
           FROM mq_msgs m LEFT JOIN mq_payloads p ON p.id = m.id
           WHERE m.id = $1 AND m.id <> uuid_nil() AND (m.leased_until IS NULL OR m.leased_until < now())
           FOR UPDATE OF m SKIP LOCKED"#,
        job_id,
    )
    .fetch_optional(&mut *tx)
    .await?;
    if let Some(job) = queued {
        let failure = Failure { class: "cancelled", error: format!("cancelled by {by}"), after: None };
        sqlx::query!("UPDATE mq_msgs SET lease_token = NULL, leased_until = NULL WHERE id = $1", job_id)
            .execute(&mut *tx)
            .await?;
        let kind =
            sqlx::query_scalar!("SELECT channel_name FROM mq_msgs WHERE id = $1", job_id).fetch_one(&mut *tx).await?;
        // Whatever the limit of the kind is, one place of the key is free now.
        let keys = Keys::of(&kind, Some(1), &[&job]);
        settle::bury(&mut tx, &job, Fence::Attempts(job.attempts), &failure, &keys).await?;
        tx.commit().await?;
        return Ok(Cancelled::Buried);
    }
    let asked = sqlx::query!(
        "INSERT INTO job_cancellations (job_id, requested_by) SELECT id, $2 FROM mq_msgs WHERE id = $1
         ON CONFLICT (job_id) DO NOTHING",
        job_id,
        by,
    )
    .execute(&mut *tx)
    .await?;
    sqlx::query!("SELECT pg_notify($1, $2)", super::wake::CHANNEL, format!("!{job_id}")).execute(&mut *tx).await?;
    tx.commit().await?;
    Ok(if asked.rows_affected() > 0 { Cancelled::Asked } else { Cancelled::Unknown })
}

/// Queues dead jobs again, with all their tries; their history stays with them. Gives how many there were.
pub async fn redrive(pool: &PgPool, job_ids: &[Uuid]) -> Result<u64> {
    let redriven = sqlx::query!(
        "WITH dead AS (DELETE FROM dead_jobs WHERE job_id = ANY($1)
                       RETURNING job_id, kind, args, key, priority, retries, headers, errors, enqueued_at)
         INSERT INTO mq_msgs (id, created_at, attempts, channel_name, channel_args, after_message_id, priority, args,
                              headers, errors)
         SELECT job_id, enqueued_at, retries + 1, kind, key, NULL, priority, coalesce(args::json, 'null'), headers, errors
         FROM dead",
        job_ids,
    )
    .execute(pool)
    .await?;
    if redriven.rows_affected() > 0 {
        sqlx::query!("SELECT pg_notify($1, '')", super::wake::STOCK_CHANNEL).execute(pool).await?;
    }
    Ok(redriven.rows_affected())
}

/// Deletes dead jobs for good. Gives how many there were.
pub async fn discard(pool: &PgPool, job_ids: &[Uuid]) -> Result<u64> {
    let discarded = sqlx::query!("DELETE FROM dead_jobs WHERE job_id = ANY($1)", job_ids).execute(pool).await?;
    Ok(discarded.rows_affected())
}

/// Forgets dead jobs older than `older_than`, and cancellations that found nobody, up to `limit` of each.
pub async fn forget_dead(tx: &mut Tx, older_than: Duration, limit: i64) -> Result<u64> {
    sqlx::query!("DELETE FROM job_cancellations WHERE requested_at < now() - interval '1 day'")
        .execute(tx.conn())
        .await?;
    let forgotten = sqlx::query!(
        "DELETE FROM dead_jobs WHERE job_id IN (
           SELECT job_id FROM dead_jobs WHERE died_at < now() - make_interval(secs => $1) ORDER BY died_at LIMIT $2)",
        older_than.as_secs_f64(),
        limit,
    )
    .execute(tx.conn())
    .await?;
    Ok(forgotten.rows_affected())
}
