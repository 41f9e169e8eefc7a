//! What becomes of a claimed job: each statement changes the row only if this attempt still holds it.
use super::{
    MAX_ERRORS,
    claim::{Claimed, Place},
    enqueue::{MAX_DELAY, lock_keys},
};
use crate::{Conn, Error, Result, base::invocation::is_correlation_id};
use sqlx::types::JsonValue;
use std::{collections::HashSet, time::Duration};
use uuid::Uuid;

/// What must still hold for an attempt to change its job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fence {
    /// Nobody has leased it and no try has been counted since.
    Attempts(i32),
    /// The lease is this attempt's.
    Token(Uuid),
}

impl Fence {
    fn attempts(self) -> Option<i32> {
        if let Self::Attempts(attempts) = self { Some(attempts) } else { None }
    }

    fn token(self) -> Option<Uuid> {
        if let Self::Token(token) = self { Some(token) } else { None }
    }
}

/// Where jobs stand that have been unblocked. They may stand before the place where claims begin.
pub(crate) type Unblocked = Vec<Place>;

/// A kind's keys that lose a job: the next one of each is unblocked.
#[derive(Debug, Clone)]
pub(crate) struct Keys<'a> {
    pub(crate) kind: &'a str,
    pub(crate) per_key: Option<u32>,
    pub(crate) names: Vec<String>,
}

impl<'a> Keys<'a> {
    pub(crate) fn of(kind: &'a str, per_key: Option<u32>, jobs: &[&Claimed]) -> Self {
        let names = jobs.iter().map(|job| job.key.clone()).filter(|key| !key.is_empty());
        Self { kind, per_key, names: if per_key.is_some() { names.collect() } else { Vec::new() } }
    }

    /// Before the deletion: nobody adds a job of these keys until the transaction ends.
    async fn lock(&self, conn: &mut Conn) -> Result<()> {
        if self.names.is_empty() { Ok(()) } else { lock_keys(conn, self.kind, &self.names).await }
    }

    /// After it: as many as may run are unblocked, in their order.
    async fn unblock(&self, conn: &mut Conn) -> Result<Unblocked> {
        let Some(per_key) = self.per_key.filter(|_| !self.names.is_empty()) else { return Ok(Vec::new()) };
        let unblocked = sqlx::query_as!(
            Place,
            "UPDATE mq_msgs SET blocked = false WHERE id IN (
               SELECT n.id FROM (SELECT DISTINCT key FROM unnest($2::text[]) k (key)) k CROSS JOIN LATERAL (
                 SELECT id FROM mq_msgs WHERE channel_name = $1 AND channel_args = k.key AND blocked ORDER BY seq
                 LIMIT greatest(0, $3 - (SELECT count(*) FROM mq_msgs WHERE channel_name = $1 AND channel_args = k.key
                                           AND channel_args <> '' AND NOT blocked))) n)
             RETURNING priority, attempt_at, seq",
            self.kind,
            &self.names,
            i64::from(per_key),
        );
        Ok(unblocked.fetch_all(conn).await?)
    }
}

/// Deletes jobs in the transaction that did their work, whose rows it has locked: their receipt.
///
/// # Errors
/// When one is not there: then this transaction must not commit.
pub(crate) async fn complete(conn: &mut Conn, jobs: &[&Claimed], keys: &Keys<'_>) -> Result<Unblocked> {
    keys.lock(conn).await?;
    let ids: Vec<Uuid> = jobs.iter().map(|job| job.id).collect();
    let there =
        sqlx::query!("DELETE FROM mq_msgs WHERE ctid = ANY($1::text[]::tid[]) AND id = ANY($2)", &places(jobs), &ids);
    let mut deleted = there.execute(&mut *conn).await?.rows_affected();
    if deleted < jobs.len() as u64 {
        // The handler itself has changed the row, which moved it.
        let moved = sqlx::query!("DELETE FROM mq_msgs WHERE id = ANY($1)", &ids);
        deleted += moved.execute(&mut *conn).await?.rows_affected();
    }
    if deleted != jobs.len() as u64 {
        let missing = anyhow::anyhow!("{deleted} of {} jobs are left: they were completed elsewhere", jobs.len());
        return Err(Error::internal(missing));
    }
    delete_payloads(conn, jobs.iter().filter(|job| job.stock).map(|job| job.id).collect()).await?;
    keys.unblock(conn).await
}

/// By the place of its row, a job is found without an index.
fn places(jobs: &[&Claimed]) -> Vec<String> {
    jobs.iter().map(|job| job.place.clone()).collect()
}

async fn delete_payloads(conn: &mut Conn, ids: Vec<Uuid>) -> Result<()> {
    if !ids.is_empty() {
        sqlx::query!("DELETE FROM mq_payloads WHERE id = ANY($1)", &ids).execute(conn).await?;
    }
    Ok(())
}

/// Deletes leased jobs whose attempts still hold them; gives how many that were.
pub(crate) async fn complete_leased(
    conn: &mut Conn,
    jobs: &[&Claimed],
    tokens: &[Uuid],
    keys: &Keys<'_>,
) -> Result<(usize, Unblocked)> {
    keys.lock(conn).await?;
    let ids: Vec<Uuid> = jobs.iter().map(|job| job.id).collect();
    // A place may have been given to another job of ours meanwhile: the ids tell.
    let there = sqlx::query_scalar!(
        "DELETE FROM mq_msgs WHERE ctid = ANY($1::text[]::tid[]) AND id = ANY($2) AND lease_token = ANY($3) RETURNING id",
        &places(jobs),
        &ids,
        tokens,
    );
    let mut deleted: HashSet<Uuid> = there.fetch_all(&mut *conn).await?.into_iter().collect();
    if deleted.len() < jobs.len() {
        // Those that were kept alive have moved.
        let moved = sqlx::query_scalar!(
            "DELETE FROM mq_msgs m USING unnest($1::uuid[], $2::uuid[]) AS a (id, token)
             WHERE m.id = a.id AND m.lease_token = a.token RETURNING m.id",
            &ids,
            tokens,
        );
        deleted.extend(moved.fetch_all(&mut *conn).await?);
    }
    let stock = jobs.iter().filter(|job| job.stock && deleted.contains(&job.id)).map(|job| job.id);
    delete_payloads(conn, stock.collect()).await?;
    Ok((deleted.len(), keys.unblock(conn).await?))
}

/// The class of what was queued when it was cancelled: no try of it failed.
pub(crate) const CANCELLED: &str = "cancelled";

/// A failed try, as the job's history keeps it.
#[derive(Debug, Clone)]
pub(crate) struct Failure {
    pub(crate) class: &'static str,
    pub(crate) error: String,
    /// The pause its handler asked for.
    pub(crate) after: Option<Duration>,
}

impl Failure {
    /// As one entry of the history; what PostgreSQL can't keep in a JSON text is left out.
    fn entry(&self, tries: i32) -> JsonValue {
        let error: String = self.error.replace('\0', "").chars().take(2_000).collect();
        serde_json::json!({ "at": crate::base::clock::wall(), "try": tries, "class": self.class, "error": error })
    }
}

/// Counts a failed try and puts the next one off: doubling from the job's own backoff, of which between half and all is
/// waited. False when the attempt does not hold the job any more.
pub(crate) async fn retry(
    conn: &mut Conn,
    job: &Claimed,
    fence: Fence,
    failure: &Failure,
    max_backoff: Duration,
) -> Result<bool> {
    let entry = failure.entry(job.tries.saturating_add(1));
    let moved = sqlx::query!(
        "UPDATE mq_msgs
         SET attempts = attempts - 1, tries = tries + 1, deaths = 0, lease_token = NULL, leased_until = NULL,
             attempt_at = clock_timestamp() + make_interval(secs => coalesce($4::float8,
               greatest(0, least($5::float8, extract(epoch FROM retry_backoff)::float8 * power(2, least(tries, 40))))
               * (0.5 + random() / 2))),
             errors = jsonb_path_query_array(coalesce(errors, '[]') || $6::jsonb, '$[last - $keep to last]',
                                             jsonb_build_object('keep', $7::int))
         WHERE id = $1 AND ($3::uuid IS NULL AND attempts = $2 AND lease_token IS NULL OR lease_token = $3)",
        job.id,
        fence.attempts(),
        fence.token(),
        failure.after.map(|after| after.min(MAX_DELAY).as_secs_f64()),
        max_backoff.as_secs_f64(),
        entry,
        i32::try_from(MAX_ERRORS).unwrap_or(i32::MAX) - 1,
    )
    .execute(conn)
    .await?;
    Ok(moved.rows_affected() > 0)
}

/// Puts a job off without counting a try.
pub(crate) async fn snooze(conn: &mut Conn, id: Uuid, token: Option<Uuid>, pause: Duration) -> Result<bool> {
    let moved = sqlx::query!(
        "UPDATE mq_msgs SET attempt_at = clock_timestamp() + make_interval(secs => $3), lease_token = NULL,
                            leased_until = NULL, deaths = 0
         WHERE id = $1 AND lease_token IS NOT DISTINCT FROM $2",
        id,
        token,
        pause.min(MAX_DELAY).as_secs_f64(),
    )
    .execute(conn)
    .await?;
    Ok(moved.rows_affected() == 1)
}

/// Puts a job off that can't be settled, for longer each time, up to an hour: it makes room for the others of its
/// kind. No value that its row may hold makes this fail.
pub(crate) async fn step_aside(conn: &mut Conn, job: &Claimed, fence: Fence) -> Result<bool> {
    let moved = sqlx::query!(
        "UPDATE mq_msgs SET faults = least(faults, 1000000) + 1, lease_token = NULL, leased_until = NULL,
                            attempt_at = clock_timestamp() + make_interval(secs => least(3600, 5 * power(2, least(faults, 12))))
         WHERE id = $1 AND ($3::uuid IS NULL AND attempts = $2 AND lease_token IS NULL OR lease_token = $3)",
        job.id,
        fence.attempts(),
        fence.token(),
    )
    .execute(conn)
    .await?;
    Ok(moved.rows_affected() == 1)
}

/// Moves a job that will not be tried again to `dead_jobs`, whatever its row holds. One whose id is there already gets
/// another. None when the attempt does not hold it any more. Call it in a transaction where the kind has keys.
pub(crate) async fn dead_letter(
    conn: &mut Conn,
    job: &Claimed,
    fence: Fence,
    failure: &Failure,
    keys: &Keys<'_>,
) -> Result<Option<Unblocked>> {
    keys.lock(conn).await?;
    let tried = i64::from(failure.class != CANCELLED);
    let entry = failure.entry(job.tries.saturating_add(i32::from(tried != 0)));
    let headers = super::Headers::read(job.headers.as_deref());
    let dead_lettered = sqlx::query!(
        "WITH message AS (DELETE FROM mq_msgs
                          WHERE id = $1
                            AND ($3::uuid IS NULL AND attempts = $2 AND lease_token IS NULL OR lease_token = $3)
                          RETURNING id, created_at, channel_name, channel_args, priority, tries, attempts, args, headers,
                                    errors),
              payload AS (DELETE FROM mq_payloads p USING message m WHERE p.id = m.id
                          RETURNING p.id, p.payload_json, p.payload_bytes)
         INSERT INTO dead_jobs (job_id, kind, arguments, correlation_id, attempts, last_error, enqueued_at, key, priority,
                                retries, headers, errors)
         SELECT CASE WHEN EXISTS (SELECT FROM dead_jobs d WHERE d.job_id = m.id) THEN gen_random_uuid() ELSE m.id END,
                m.channel_name, coalesce(m.args, p.payload_json::json), $4, least(m.tries::bigint + $7, 2147483647)::int,
                $5, coalesce(m.created_at, clock_timestamp()), m.channel_args, m.priority,
                greatest(0, least(m.tries::bigint + m.attempts - 1, 2147483647))::int,
                coalesce(m.headers, p.payload_bytes), coalesce(m.errors, '[]') || $6::jsonb
         FROM message m LEFT JOIN payload p USING (id)",
        job.id,
        fence.attempts(),
        fence.token(),
        headers.correlation_id.filter(|id| is_correlation_id(id)).unwrap_or_default(),
        failure.error.replace('\0', ""),
        entry,
        tried,
    )
    .execute(&mut *conn)
    .await?;
    let unblocked = keys.unblock(conn).await?;
    Ok((dead_lettered.rows_affected() == 1).then_some(unblocked))
}

/// A poison job begins, alone: should its worker die, that was its doing. False when the attempt does not hold it any
/// more.
pub(crate) async fn begin_alone(conn: &mut Conn, id: Uuid, token: Uuid) -> Result<bool> {
    let begun = sqlx::query!("UPDATE mq_msgs SET deaths = deaths + 1 WHERE id = $1 AND lease_token = $2", id, token);
    Ok(begun.execute(conn).await?.rows_affected() == 1)
}

/// Gives leases back that were never begun.
pub(crate) async fn release(conn: &mut Conn, ids: &[Uuid], token: Uuid) -> Result<()> {
    sqlx::query!(
        "UPDATE mq_msgs SET lease_token = NULL, leased_until = NULL WHERE id = ANY($1) AND lease_token = $2",
        ids,
        token,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// The leased job, locked until the transaction ends, if the attempt still holds it.
pub(crate) async fn hold(conn: &mut Conn, id: Uuid, token: Uuid) -> Result<bool> {
    let held = sqlx::query_scalar!("SELECT id FROM mq_msgs WHERE id = $1 AND lease_token = $2 FOR UPDATE", id, token)
        .fetch_optional(conn)
        .await?;
    Ok(held.is_some())
}
