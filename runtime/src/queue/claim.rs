//! Claiming due jobs of one kind.
//!
//! A claim reads the claim index from where the last one ended: what lies before is done, but as long as any
//! transaction holds an old snapshot its dead entries can't be removed, and reading over them would make each claim
//! slower than the one before. What is put back moves the beginning back to it. For what was committed late, the poller
//! looks from the beginning now and then, how often depends on how long that takes; as long as it is quick, claims do
//! the same.
use crate::{Class, Conn, Error, Result};
use chrono::{DateTime, Utc};
use std::time::{Duration, Instant};
use uuid::Uuid;

/// Where a job stands in its queue.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    pub(crate) priority: i16,
    /// None where a runner of the crate sqlxmq has begun its last try.
    pub(crate) attempt_at: Option<DateTime<Utc>>,
    pub(crate) seq: i64,
}

/// A look from the beginning that is quicker than this is always taken.
const CHEAP: Duration = Duration::from_millis(3);
/// A slower one may take this part of the time.
const SHARE: u32 = 20;
/// What a look that was cut off is taken to need.
const GAVE_UP: Duration = Duration::from_secs(5);
const LEVELS: usize = 4;

/// A claimed job.
#[derive(Debug, Clone)]
pub(crate) struct Claimed {
    pub(crate) id: Uuid,
    /// Where the row is, PostgreSQL's ctid: good as long as the row is locked or leased and nobody has changed it.
    pub(crate) place: String,
    /// Tries left, this one included.
    pub(crate) attempts: i32,
    /// Tries that failed.
    pub(crate) tries: i32,
    /// Workers that died with it.
    pub(crate) deaths: i32,
    pub(crate) priority: i16,
    pub(crate) attempt_at: DateTime<Utc>,
    pub(crate) seq: i64,
    pub(crate) key: String,
    /// Where at most one queued job of the kind has it.
    pub(crate) unique_key: Option<String>,
    /// Its arguments are in `mq_payloads`, as sqlxmq's producers leave them.
    pub(crate) stock: bool,
    pub(crate) args: Option<String>,
    pub(crate) headers: Option<Vec<u8>>,
}

/// Where the last claim ended, per priority.
#[derive(Debug)]
pub(crate) struct Cursor {
    lows: [(DateTime<Utc>, i64); LEVELS],
    last_full: Option<(Instant, Duration)>,
    /// Counts how often the beginning was moved back.
    moved_back: u64,
}

/// Where a claim begins.
#[derive(Debug, Clone)]
pub(crate) struct From {
    at: Vec<DateTime<Utc>>,
    seq: Vec<i64>,
    pub(crate) full: bool,
    moved_back: u64,
}

impl From {
    /// Per priority.
    pub(crate) fn lows(&self) -> impl Iterator<Item = (DateTime<Utc>, i64)> {
        self.at.iter().copied().zip(self.seq.iter().copied())
    }
}

impl Cursor {
    pub(crate) fn new() -> Self {
        Self { lows: [(DateTime::UNIX_EPOCH, 0); LEVELS], last_full: None, moved_back: 0 }
    }

    /// Where a claim begins now.
    pub(crate) fn from(&self) -> From {
        self.begin(self.last_full.is_none_or(|(_, took)| took < CHEAP))
    }

    /// Where the poller begins now: nobody waits for it.
    pub(crate) fn look_from(&self) -> From {
        self.begin(self.last_full.is_none_or(|(at, took)| took < CHEAP || at.elapsed() > took * SHARE))
    }

    fn begin(&self, full: bool) -> From {
        let lows = if full { [(DateTime::UNIX_EPOCH, 0); LEVELS] } else { self.lows };
        From {
            at: lows.iter().map(|low| low.0).collect(),
            seq: lows.iter().map(|low| low.1).collect(),
            full,
            moved_back: self.moved_back,
        }
    }

    /// Moves on past what was claimed, unless something was put back meanwhile that the claim may have passed over.
    pub(crate) fn advance(&mut self, from: &From, claimed: &[Claimed], took: Duration) {
        if from.full {
            self.last_full = Some((Instant::now(), took));
        }
        if from.moved_back != self.moved_back {
            return;
        }
        for job in claimed {
            let low = usize::try_from(job.priority).ok().and_then(|level| self.lows.get_mut(level));
            if let Some(low) = low {
                *low = (*low).max((job.attempt_at, job.seq));
            }
        }
    }

    /// These were claimed and are due again: the next claim begins with them.
    pub(crate) fn put_back<'a>(&mut self, jobs: impl IntoIterator<Item = &'a Claimed>) {
        for job in jobs {
            self.found(job.priority, (job.attempt_at, job.seq));
        }
    }

    /// These may be claimed now, and stand where claims may have passed by.
    pub(crate) fn unblocked(&mut self, places: &[Place]) {
        for Place { priority, attempt_at, seq } in places {
            if let Some(at) = attempt_at {
                self.found(*priority, (*at, *seq));
            }
        }
    }

    /// There is a job at that place: the next claim begins with it at the latest.
    pub(crate) fn found(&mut self, priority: i16, (at, seq): (DateTime<Utc>, i64)) {
        let low = usize::try_from(priority).ok().and_then(|level| self.lows.get_mut(level));
        if let Some(low) = low.filter(|low| (at, seq - 1) < **low) {
            *low = (at, seq - 1);
            self.moved_back += 1;
        }
    }

    /// A claim or a look failed. One that took too long must not be made from the beginning again and again.
    pub(crate) fn failed(&mut self, error: &Error) {
        if error.class() == Class::DeadlineExceeded {
            self.last_full = Some((Instant::now(), GAVE_UP));
        } else {
            self.reset();
        }
    }

    /// The fate of claimed jobs is not known: the next claim begins at the beginning.
    pub(crate) fn reset(&mut self) {
        self.lows = [(DateTime::UNIX_EPOCH, 0); LEVELS];
        self.last_full = None;
        self.moved_back += 1;
    }
}

/// Locks up to `limit` due jobs until the transaction ends, in the order of priority and due time. Those that killed a
/// worker are left to [`lock_poison`].
pub(crate) async fn lock(
    conn: &mut Conn,
    kind: &str,
    from: &From,
    (limit, shunned): (usize, &[Uuid]),
) -> Result<Vec<Claimed>> {
    let claimed = sqlx::query_as!(
        Claimed,
        r#"SELECT m.id AS "id!", m.ctid::text AS "place!", m.attempts AS "attempts!", m.tries AS "tries!",
                  m.deaths AS "deaths!", m.priority AS "priority!", m.attempt_at AS "attempt_at!", m.seq AS "seq!",
                  m.channel_args AS "key!", m.unique_key, m.args IS NULL AS "stock!",
                  coalesce(m.args::text, (SELECT payload_json::text FROM mq_payloads p WHERE p.id = m.id)) AS args,
                  CASE WHEN m.args IS NULL THEN (SELECT payload_bytes FROM mq_payloads p WHERE p.id = m.id)
                       ELSE m.headers END AS headers
           FROM (SELECT j.id, j.ctid, j.attempts, j.tries, j.deaths, j.priority, j.attempt_at, j.seq, j.channel_args,
                        j.unique_key, j.args, j.headers
                 FROM unnest('{0,1,2,3}'::smallint[], $2::timestamptz[], $3::bigint[]) AS l (priority, low_at, low_seq)
                 CROSS JOIN LATERAL (
                   SELECT id, ctid, attempts, tries, deaths, priority, attempt_at, seq, channel_args, unique_key, args,
                          headers
                   FROM mq_msgs
                   WHERE channel_name = $1 AND priority = l.priority AND (attempt_at, seq) > (l.low_at, l.low_seq)
                     AND attempt_at <= now() AND NOT blocked
                     AND (after_message_id IS NULL OR after_message_id = '00000000-0000-0000-0000-000000000000')
                     AND commit_interval IS NULL AND deaths = 0 AND (leased_until IS NULL OR leased_until < now())
                     AND id <> ALL ($5)
                   ORDER BY attempt_at, seq LIMIT $4 FOR UPDATE SKIP LOCKED) j
                 WHERE NOT EXISTS (SELECT FROM job_queues WHERE kind = $1 AND paused_at IS NOT NULL)
                 LIMIT $4) m
           ORDER BY m.priority, m.attempt_at, m.seq"#,
        kind,
        &from.at,
        &from.seq,
        i64::try_from(limit).unwrap_or(i64::MAX),
        shunned,
    )
    .fetch_all(conn)
    .await?;
    Ok(claimed)
}

/// A job that is claimed is not queued any more: whoever enqueues its key anew, its handler too, enqueues another job.
pub(crate) async fn free_unique_keys(conn: &mut Conn, jobs: &[Claimed]) -> Result<()> {
    let ids: Vec<Uuid> = jobs.iter().filter(|job| job.unique_key.is_some()).map(|job| job.id).collect();
    if !ids.is_empty() {
        sqlx::query!("UPDATE mq_msgs SET unique_key = NULL WHERE id = ANY($1)", &ids).execute(conn).await?;
    }
    Ok(())
}

/// A job that was claimed and is put off is queued again, under its key, unless another one has taken its place.
pub(crate) async fn take_unique_key_back(conn: &mut Conn, kind: &str, job: &Claimed) -> Result<()> {
    if let Some(key) = &job.unique_key {
        sqlx::query!(
            "UPDATE mq_msgs SET unique_key = $3 WHERE id = $2
             AND NOT EXISTS (SELECT FROM mq_msgs WHERE channel_name = $1 AND unique_key = $3)",
            kind,
            job.id,
            key,
        )
        .execute(conn)
        .await?;
    }
    Ok(())
}

/// Locks one due job that has killed a worker.
pub(crate) async fn lock_poison(conn: &mut Conn, kind: &str, shunned: &[Uuid]) -> Result<Option<Claimed>> {
    let claimed = sqlx::query_as!(
        Claimed,
        r#"SELECT m.id, m.ctid::text AS "place!", m.attempts, m.tries, m.deaths, m.priority,
                  m.attempt_at AS "attempt_at!", m.seq, m.channel_args AS key, m.unique_key,
                  m.args IS NULL AS "stock!", coalesce(m.args::text, p.payload_json::text) AS args,
                  coalesce(m.headers, p.payload_bytes) AS headers
           FROM mq_msgs m LEFT JOIN mq_payloads p ON p.id = m.id
           WHERE m.channel_name = $1 AND m.deaths > 0 AND m.attempt_at <= now() AND NOT m.blocked
             AND coalesce(m.after_message_id, uuid_nil()) = uuid_nil() AND m.commit_interval IS NULL
             AND (m.leased_until IS NULL OR m.leased_until < now()) AND m.id <> ALL ($2)
             AND NOT EXISTS (SELECT FROM job_queues WHERE kind = $1 AND paused_at IS NOT NULL)
           ORDER BY m.attempt_at LIMIT 1 FOR UPDATE OF m SKIP LOCKED"#,
        kind,
        shunned,
    )
    .fetch_optional(conn)
    .await?;
    Ok(claimed)
}

/// Leases up to `limit` due jobs to the attempt `token`. A job whose lease has run out lost its worker: it may be poison
/// from then on, and comes back with the others. The update touches no indexed column, unless a unique key is freed.
pub(crate) async fn lease(
    conn: &mut Conn,
    kind: &str,
    from: &From,
    (limit, shunned): (usize, &[Uuid]),
    (token, lease): (Uuid, Duration),
) -> Result<Vec<Claimed>> {
    let claimed = sqlx::query_as!(
        Claimed,
        r#"WITH due AS (
             SELECT j.ctid FROM unnest('{0,1,2,3}'::smallint[], $2::timestamptz[], $3::bigint[])
                                  AS l (priority, low_at, low_seq)
             CROSS JOIN LATERAL (
               SELECT ctid FROM mq_msgs
               WHERE channel_name = $1 AND priority = l.priority AND (attempt_at, seq) > (l.low_at, l.low_seq)
                 AND attempt_at <= now() AND NOT blocked
                 AND (after_message_id IS NULL OR after_message_id = '00000000-0000-0000-0000-000000000000')
                 AND commit_interval IS NULL AND (leased_until IS NULL OR leased_until < now()) AND id <> ALL ($7)
               ORDER BY attempt_at, seq LIMIT $4 FOR UPDATE SKIP LOCKED) j
             WHERE NOT EXISTS (SELECT FROM job_queues WHERE kind = $1 AND paused_at IS NOT NULL)
             LIMIT $4),
           taken AS (
             UPDATE mq_msgs m
             SET lease_token = $5, leased_until = now() + make_interval(secs => $6), unique_key = NULL,
                 deaths = CASE WHEN m.lease_token IS NULL THEN m.deaths ELSE greatest(m.deaths, 1) END
             WHERE m.ctid = ANY (ARRAY(SELECT ctid FROM due))
             RETURNING m.id, m.ctid, m.attempts, m.tries, m.deaths, m.priority, m.attempt_at, m.seq, m.channel_args,
                       m.args, m.headers)
           SELECT t.id AS "id!", t.ctid::text AS "place!", t.attempts AS "attempts!", t.tries AS "tries!",
                  t.deaths AS "deaths!", t.priority AS "priority!", t.attempt_at AS "attempt_at!", t.seq AS "seq!",
                  t.channel_args AS "key!", NULL::text AS unique_key, t.args IS NULL AS "stock!",
                  coalesce(t.args::text, (SELECT payload_json::text FROM mq_payloads p WHERE p.id = t.id)) AS args,
                  CASE WHEN t.args IS NULL THEN (SELECT payload_bytes FROM mq_payloads p WHERE p.id = t.id)
                       ELSE t.headers END AS headers
           FROM taken t
           ORDER BY t.priority, t.attempt_at, t.seq"#,
        kind,
        &from.at,
        &from.seq,
        i64::try_from(limit).unwrap_or(i64::MAX),
        token,
        lease.as_secs_f64(),
        shunned,
    )
    .fetch_all(conn)
    .await?;
    Ok(claimed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(seq: i64) -> Claimed {
        Claimed {
            id: Uuid::nil(),
            place: String::new(),
            attempts: 1,
            tries: 0,
            deaths: 0,
            priority: 2,
            attempt_at: DateTime::UNIX_EPOCH,
            seq,
            key: String::new(),
            unique_key: None,
            stock: false,
            args: None,
            headers: None,
        }
    }

    /// Past a slow look from the beginning, claims begin where the last one ended.
    fn slow() -> Cursor {
        let mut cursor = Cursor::new();
        cursor.advance(&cursor.from(), &[job(10)], CHEAP * 2);
        cursor
    }

    fn begins(cursor: &Cursor) -> i64 {
        cursor.from().lows().nth(2).expect("four levels").1
    }

    #[test]
    fn a_claim_begins_where_the_last_ended_or_where_something_was_put_back_or_unblocked() {
        let mut cursor = slow();
        assert_eq!(begins(&cursor), 10);
        cursor.put_back(&[job(7), job(9)]);
        assert_eq!(begins(&cursor), 6);
        let follower = Place { priority: 2, attempt_at: Some(DateTime::UNIX_EPOCH), seq: 4 };
        cursor.unblocked(&[follower]);
        assert_eq!(begins(&cursor), 3, "a job that waited for another of its key stands before");
        cursor.reset();
        assert_eq!(begins(&cursor), 0);
    }

    #[test]
    fn a_claim_that_began_before_something_was_put_back_does_not_pass_over_it() {
        let mut cursor = slow();
        let before = cursor.from();
        cursor.put_back(&[job(8)]);
        cursor.advance(&before, &[job(20)], CHEAP);
        assert_eq!(begins(&cursor), 7);
        cursor.advance(&cursor.from(), &[job(20)], CHEAP);
        assert_eq!(begins(&cursor), 20);
    }
}
