//! Jobs as operators see them.
use crate::{Pool, Result, base::keyset};
use chrono::{DateTime, Utc};
use serde::Deserialize;
use sqlx::types::JsonValue;
use uuid::Uuid;

/// Where a job is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Due, and to be claimed.
    Waiting,
    /// Due later.
    Scheduled,
    /// Behind others of its key or of its chain.
    Blocked,
    /// Held by a worker.
    Running,
    /// A runner of the crate sqlxmq has begun its last try: it runs there, or is never tried again.
    Exhausted,
    /// Failed for good.
    Dead,
}

/// A try that failed.
#[derive(Debug, Clone, Deserialize)]
pub struct Try {
    /// When.
    pub at: DateTime<Utc>,
    /// Which, from 1.
    #[serde(rename = "try")]
    pub number: i32,
    /// The error's class, or `retry`, `dead`, `cancelled`, `killer`.
    pub class: String,
    /// Its text.
    pub error: String,
}

/// A job, queued or dead.
#[derive(Debug, Clone)]
pub struct View {
    /// Which.
    pub job_id: Uuid,
    /// Its kind.
    pub kind: String,
    /// Where it is.
    pub state: State,
    /// Its key; empty where it has none.
    pub key: String,
    /// 0 urgent, 1 high, 2 normal, 3 low.
    pub priority: i16,
    /// When it was enqueued.
    pub enqueued_at: DateTime<Utc>,
    /// When it is due; when it died, where it is dead.
    pub at: DateTime<Utc>,
    /// Tries that failed.
    pub tries: i32,
    /// Tries left.
    pub tries_left: i32,
    /// Tries that failed, the newest last.
    pub errors: Vec<Try>,
    /// Which request it belongs to.
    pub correlation_id: String,
    /// JSON.
    pub args: String,
}

/// A row of either table.
struct Row {
    job_id: Uuid,
    kind: String,
    state: i32,
    key: String,
    priority: i16,
    enqueued_at: Option<DateTime<Utc>>,
    at: Option<DateTime<Utc>>,
    tries: i32,
    tries_left: i32,
    errors: Option<JsonValue>,
    headers: Option<Vec<u8>>,
    args: Option<String>,
}

impl From<Row> for View {
    fn from(row: Row) -> Self {
        let state = match row.state {
            0 => State::Waiting,
            1 => State::Scheduled,
            2 => State::Blocked,
            3 => State::Running,
            4 => State::Exhausted,
            _ => State::Dead,
        };
        let errors = row.errors.and_then(|errors| serde_json::from_value(errors).ok()).unwrap_or_default();
        let headers = super::Headers::read(row.headers.as_deref());
        Self {
            job_id: row.job_id,
            kind: row.kind,
            state,
            key: row.key,
            priority: row.priority,
            enqueued_at: row.enqueued_at.unwrap_or(DateTime::UNIX_EPOCH),
            at: row.at.unwrap_or(DateTime::UNIX_EPOCH),
            tries: row.tries,
            tries_left: row.tries_left,
            errors,
            correlation_id: headers.correlation_id.unwrap_or_default(),
            args: row.args.unwrap_or_else(|| "null".to_owned()),
        }
    }
}

/// The jobs of a kind that come next, in the order in which they are claimed, then those behind others of their key; at
/// most `limit` of each.
pub async fn queued(reads: &Pool, kind: &str, limit: i64) -> Result<Vec<View>> {
    let rows = sqlx::query_as!(
        Row,
        r#"SELECT m.id AS "job_id!", m.channel_name AS "kind!",
                  CASE WHEN m.blocked THEN 2 WHEN m.leased_until >= now() AND m.attempt_at IS NOT NULL OR c.held THEN 3
                       WHEN m.attempt_at IS NULL THEN 4 WHEN m.attempt_at <= now() THEN 0 ELSE 1 END AS "state!",
                  m.channel_args AS "key!", m.priority AS "priority!", m.created_at AS enqueued_at, m.attempt_at AS at,
                  m.tries AS "tries!", m.attempts AS "tries_left!", m.errors,
                  CASE WHEN m.args IS NULL THEN (SELECT payload_bytes FROM mq_payloads p WHERE p.id = m.id)
                       ELSE m.headers END AS headers,
                  NULL::text AS args
           FROM (
             (SELECT j.ctid, j.id FROM generate_series(0, 3) p CROSS JOIN LATERAL (
                SELECT ctid, id, priority, attempt_at, seq FROM mq_msgs
                WHERE channel_name = $1 AND priority = p AND NOT blocked
                  AND (after_message_id IS NULL OR after_message_id = '00000000-0000-0000-0000-000000000000')
                ORDER BY attempt_at, seq LIMIT $2) j LIMIT $2)
             UNION ALL
             (SELECT ctid, id FROM mq_msgs WHERE channel_name = $1 AND blocked ORDER BY channel_args, seq LIMIT $2)) n
           JOIN mq_msgs m ON m.id = n.id
           CROSS JOIN LATERAL (SELECT EXISTS (SELECT FROM job_claims c WHERE c.kind = $1 AND m.id = ANY(c.job_ids)
                                                AND m.attempt_at <= c.claimed_at) AS held) c
           ORDER BY m.blocked, m.priority, m.attempt_at, m.seq LIMIT $2"#,
        kind,
        limit,
    );
    Ok(rows.fetch_all(reads).await?.into_iter().map(View::from).collect())
}

/// One job, queued or dead.
pub async fn job(reads: &Pool, job_id: Uuid) -> Result<Option<View>> {
    let queued = sqlx::query_as!(
        Row,
        r#"SELECT m.id AS job_id, m.channel_name AS kind,
                  CASE WHEN m.leased_until >= now() AND m.attempt_at IS NOT NULL OR EXISTS (
                              SELECT FROM job_claims c WHERE c.kind = m.channel_name AND m.id = ANY(c.job_ids)
                                                                 AND m.attempt_at <= c.claimed_at) THEN 3
                       WHEN m.blocked OR coalesce(m.after_message_id, uuid_nil()) <> uuid_nil() THEN 2
                       WHEN m.attempt_at IS NULL THEN 4 WHEN m.attempt_at <= now() THEN 0 ELSE 1 END AS "state!",
                  m.channel_args AS key, m.priority, m.created_at AS enqueued_at, m.attempt_at AS at, m.tries,
                  m.attempts AS tries_left, m.errors, coalesce(m.headers, p.payload_bytes) AS headers,
                  coalesce(m.args::text, p.payload_json::text) AS args
           FROM mq_msgs m LEFT JOIN mq_payloads p USING (id) WHERE m.id = $1 AND m.id <> uuid_nil()"#,
        job_id,
    )
    .fetch_optional(reads)
    .await?;
    if let Some(row) = queued {
        return Ok(Some(row.into()));
    }
    let dead = sqlx::query_as!(
        Row,
        r#"SELECT job_id, kind, 5 AS "state!", key, priority, enqueued_at AS "enqueued_at?", died_at AS "at?",
                  attempts AS tries, 0 AS "tries_left!", errors AS "errors?", headers,
                  coalesce(arguments::text, args::text) AS args
           FROM dead_jobs WHERE job_id = $1"#,
        job_id,
    )
    .fetch_optional(reads)
    .await?;
    Ok(dead.map(View::from))
}

/// Dead jobs, the newest first, of one kind or of all, after the one named. Without their arguments.
pub async fn dead(
    reads: &Pool,
    kind: Option<&str>,
    after: Option<(DateTime<Utc>, Uuid)>,
    limit: i64,
) -> Result<Vec<View>> {
    let (after_at, after_id) = after.unwrap_or(keyset::END);
    // Two statements, each with an index of its own: one for both would walk the other's.
    let Some(kind) = kind else {
        let rows = sqlx::query_as!(
            Row,
            r#"SELECT job_id, kind, 5 AS "state!", key, priority, enqueued_at AS "enqueued_at?", died_at AS "at?",
                      attempts AS tries, 0 AS "tries_left!",
                      jsonb_build_array(errors -> -1) AS "errors?", headers, NULL::text AS args
               FROM dead_jobs WHERE (died_at, job_id) < ($1, $2)
               ORDER BY died_at DESC, job_id DESC LIMIT $3"#,
            after_at,
            after_id,
            limit,
        );
        return Ok(rows.fetch_all(reads).await?.into_iter().map(View::from).collect());
    };
    let rows = sqlx::query_as!(
        Row,
        r#"SELECT job_id, kind, 5 AS "state!", key, priority, enqueued_at AS "enqueued_at?", died_at AS "at?",
                  attempts AS tries, 0 AS "tries_left!",
                  jsonb_build_array(errors -> -1) AS "errors?", headers, NULL::text AS args
           FROM dead_jobs WHERE kind = $1 AND (died_at, job_id) < ($2, $3)
           ORDER BY died_at DESC, job_id DESC LIMIT $4"#,
        kind,
        after_at,
        after_id,
        limit,
    );
    Ok(rows.fetch_all(reads).await?.into_iter().map(View::from).collect())
}
