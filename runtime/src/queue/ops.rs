//! What an operator does with queues and dead jobs, in the caller's transaction.
use super::{
    claim::Claimed,
    settle::{self, Failure, Fence, Keys},
};
use crate::{Conn, Result, Tx};
use std::time::Duration;
use uuid::Uuid;

/// What asking for a cancellation did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cancelled {
    /// It was queued, and is dead now.
    DeadLettered,
    /// It is running: its handler is asked to stop.
    Asked,
    /// It was dead before: there is nothing to cancel.
    Dead,
    /// There is no such job, or it is done.
    Unknown,
}

/// The most dead jobs that one call redrives or discards.
pub const MAX_SELECTED: i64 = 1_000;

/// Which dead jobs.
#[derive(Debug, Clone, serde::Serialize)]
pub enum Selection {
    /// These.
    Ids(Vec<Uuid>),
    /// The oldest of this kind, up to [`MAX_SELECTED`].
    Of(String),
}

impl Selection {
    fn parts(&self) -> (&[Uuid], Option<&str>) {
        match self {
            Self::Ids(ids) => (ids, None),
            Self::Of(kind) => (&[], Some(kind)),
        }
    }
}

/// Stops all workers from claiming jobs of this kind, from their next claim on. What runs goes on. False when it was
/// paused before.
pub async fn pause(conn: &mut Conn, kind: &str, by: &str) -> Result<bool> {
    let paused = sqlx::query!(
        "INSERT INTO job_queues (kind, paused_at, paused_by) VALUES ($1, clock_timestamp(), $2)
         ON CONFLICT (kind) DO UPDATE SET paused_at = clock_timestamp(), paused_by = $2
         WHERE job_queues.paused_at IS NULL",
        kind,
        by,
    )
    .execute(conn)
    .await?;
    Ok(paused.rows_affected() > 0)
}

/// Lets workers claim jobs of this kind again. False when it was not paused.
pub async fn resume(conn: &mut Conn, kind: &str) -> Result<bool> {
    let resumed = sqlx::query!(
        "UPDATE job_queues SET paused_at = NULL, paused_by = NULL WHERE kind = $1 AND paused_at IS NOT NULL",
        kind,
    )
    .execute(&mut *conn)
    .await?;
    if resumed.rows_affected() > 0 {
        sqlx::query!("SELECT pg_notify($1, $2)", super::wake::CHANNEL, kind).execute(conn).await?;
    }
    Ok(resumed.rows_affected() > 0)
}

/// Dead-letters a queued job as cancelled, or asks the handler of a running one to stop. Must be in a transaction.
pub async fn cancel(conn: &mut Conn, job_id: Uuid, by: &str) -> Result<Cancelled> {
    let queued = sqlx::query_as!(
        Claimed,
        r#"SELECT m.id, m.ctid::text AS "place!", m.attempts, m.tries, m.deaths, m.priority,
                  coalesce(m.attempt_at, 'epoch') AS "attempt_at!", m.seq, m.channel_args AS key, NULL::text AS unique_key,
                  m.args IS NULL AS "stock!", coalesce(m.args::text, p.payload_json::text) AS args,
                  coalesce(m.headers, p.payload_bytes) AS headers
           FROM mq_msgs m LEFT JOIN mq_payloads p ON p.id = m.id
           WHERE m.id = $1 AND m.id <> uuid_nil()
             AND (m.leased_until IS NULL OR m.leased_until < now() OR m.attempt_at IS NULL)
           FOR UPDATE OF m SKIP LOCKED"#,
        job_id,
    )
    .fetch_optional(&mut *conn)
    .await?;
    if let Some(job) = queued {
        let failure = Failure { class: settle::CANCELLED, error: format!("cancelled by {by}"), after: None };
        sqlx::query!("UPDATE mq_msgs SET lease_token = NULL, leased_until = NULL WHERE id = $1", job_id)
            .execute(&mut *conn)
            .await?;
        let kind =
            sqlx::query_scalar!("SELECT channel_name FROM mq_msgs WHERE id = $1", job_id).fetch_one(&mut *conn).await?;
        // Whatever the limit of the kind is, one place of the key is free now.
        let keys = Keys::of(&kind, Some(1), &[&job]);
        settle::dead_letter(conn, &job, Fence::Attempts(job.attempts), &failure, &keys).await?;
        return Ok(Cancelled::DeadLettered);
    }
    // Asked again, it is asked all the same.
    let asked = sqlx::query!(
        "INSERT INTO job_cancellations (job_id, requested_by) SELECT id, $2 FROM mq_msgs WHERE id = $1 AND id <> uuid_nil()
         ON CONFLICT (job_id) DO UPDATE SET requested_by = $2",
        job_id,
        by,
    )
    .execute(&mut *conn)
    .await?;
    let is_there = asked.rows_affected() > 0;
    if !is_there && not_dead(conn, &Selection::Ids(vec![job_id])).await?.is_empty() {
        return Ok(Cancelled::Dead);
    }
    sqlx::query!("SELECT pg_notify($1, $2)", super::wake::CHANNEL, format!("!{job_id}")).execute(&mut *conn).await?;
    Ok(if is_there { Cancelled::Asked } else { Cancelled::Unknown })
}

/// Which of these are not among the dead.
pub async fn not_dead(conn: &mut Conn, selection: &Selection) -> Result<Vec<Uuid>> {
    let missing = sqlx::query_scalar!(
        r#"SELECT id AS "id!" FROM unnest($1::uuid[]) AS asked (id)
           WHERE NOT EXISTS (SELECT FROM dead_jobs d WHERE d.job_id = asked.id)"#,
        selection.parts().0,
    );
    Ok(missing.fetch_all(conn).await?)
}

/// Queues dead jobs again, with all their tries; their history stays with them. Gives how many there were.
pub async fn redrive(conn: &mut Conn, selection: &Selection) -> Result<u64> {
    let (ids, kind) = selection.parts();
    let redriven = sqlx::query!(
        "WITH dead AS (DELETE FROM dead_jobs
                       WHERE job_id IN (
                         SELECT unnest($1::uuid[])
                         UNION ALL (SELECT job_id FROM dead_jobs WHERE kind = $2 ORDER BY died_at LIMIT $3))
                       RETURNING job_id, kind, coalesce(arguments, args::json, 'null') AS args, key, priority, retries,
                                 headers, errors, enqueued_at),
              asked AS (DELETE FROM job_cancellations WHERE job_id IN (SELECT job_id FROM dead))
         INSERT INTO mq_msgs (id, created_at, attempts, channel_name, channel_args, after_message_id, priority, args,
                              headers, errors)
         SELECT CASE WHEN EXISTS (SELECT FROM mq_msgs m WHERE m.id = job_id) THEN gen_random_uuid() ELSE job_id END,
                least(greatest(enqueued_at, 'epoch'), timestamptz '9999-12-30'), least(retries, 2147483646) + 1, kind, key,
                NULL, priority, args, headers, errors
         FROM dead",
        ids,
        kind,
        MAX_SELECTED,
    )
    .execute(&mut *conn)
    .await?;
    if redriven.rows_affected() > 0 {
        sqlx::query!("SELECT pg_notify($1, '')", super::wake::STOCK_CHANNEL).execute(conn).await?;
    }
    Ok(redriven.rows_affected())
}

/// Deletes dead jobs for good. Gives how many there were.
pub async fn discard(conn: &mut Conn, selection: &Selection) -> Result<u64> {
    let (ids, kind) = selection.parts();
    let discarded = sqlx::query!(
        "DELETE FROM dead_jobs
         WHERE job_id IN (
           SELECT unnest($1::uuid[])
           UNION ALL (SELECT job_id FROM dead_jobs WHERE kind = $2 ORDER BY died_at LIMIT $3))",
        ids,
        kind,
        MAX_SELECTED,
    );
    let discarded = discarded.execute(conn).await?;
    Ok(discarded.rows_affected())
}

/// Forgets dead jobs older than `older_than`, cancellations that found nobody, and jobs that a two-phase producer
/// enqueued and never committed within a day of its time, up to `limit` of each.
pub async fn forget_dead(tx: &mut Tx, older_than: Duration, limit: i64) -> Result<u64> {
    sqlx::query!(
        "WITH message AS (
           DELETE FROM mq_msgs WHERE id IN (
             SELECT id FROM mq_msgs WHERE commit_interval IS NOT NULL AND attempt_at < now() - interval '1 day' LIMIT $1)
           RETURNING id)
         DELETE FROM mq_payloads p USING message m WHERE p.id = m.id",
        limit,
    )
    .execute(tx.conn())
    .await?;
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
