//! How deep each queue is, and how many runs at the same time it takes to drain it in time.
//!
//! Counts are bounded: they read at most [`COUNTED`] entries of the claim index, whatever the backlog. A deeper one is
//! estimated by PostgreSQL's planner, in constant time.
use super::Kind;
use crate::{Error, Result, base::spec::Queue, postgres::Pool};
use chrono::{DateTime, Utc};
use sqlx::types::JsonValue;
use std::{collections::HashMap, sync::Arc, time::Duration};

/// All that is counted exactly; above it, estimated.
pub const COUNTED: i64 = 10_000;
/// A backlog should be drained within this time where nobody says otherwise.
pub const DRAIN_WITHIN: Duration = Duration::from_secs(30);

/// One queue, now.
#[derive(Debug, Clone, PartialEq)]
pub struct Depth {
    /// The kind of its jobs.
    pub kind: String,
    /// True if this application has a handler for it.
    pub registered: bool,
    /// Paused since then, by whom.
    pub paused: Option<(DateTime<Utc>, String)>,
    /// Due and neither leased nor behind others of its key. Those that `Tx` handlers are running are among them.
    pub waiting: i64,
    /// True if `waiting` is more than [`COUNTED`], and estimated.
    pub estimated: bool,
    /// Due later, up to [`COUNTED`].
    pub scheduled: i64,
    /// As of the workers' last heartbeats.
    pub running: i64,
    /// Workers that run the kind.
    pub workers: i64,
    /// Dead ones, up to [`COUNTED`].
    pub dead: i64,
    /// Since the oldest waiting job was due.
    pub oldest_age: Duration,
    /// Of one run, lately. None where none was measured.
    pub mean: Option<Duration>,
    /// Jobs that could not be settled and are put off, up to [`COUNTED`].
    pub faulty: i64,
    /// Jobs whose last try a runner of the crate sqlxmq has begun, up to [`COUNTED`].
    pub exhausted: i64,
    /// Since a worker that lives has settled a job of this kind, done or not. None where none has.
    pub since_progress: Option<Duration>,
    limits: Option<Queue>,
    timeout: Option<Duration>,
}

/// A queue where the oldest job waits for longer than this, and no job is settled meanwhile, stands still.
const STANDS_STILL_AFTER: Duration = Duration::from_mins(1);

impl Depth {
    /// Why no job of it is being settled although some are due; none where all is well or somebody has paused it.
    pub fn standstill(&self) -> Option<String> {
        // What runs may take as long as its handler allows.
        let patience =
            STANDS_STILL_AFTER + if self.running > 0 { self.timeout.unwrap_or_default() } else { Duration::ZERO };
        let is_moving = self.since_progress.is_some_and(|ago| ago < patience);
        if self.waiting == 0 || self.oldest_age < patience || is_moving || self.paused.is_some() {
            return None;
        }
        let (waiting, age_s) = (self.waiting, self.oldest_age.as_secs());
        let why = if self.workers == 0 { "no worker runs it" } else { "workers run it, and none settles a job" };
        Some(format!("{waiting} jobs wait, the oldest for {age_s} s: {why}"))
    }

    /// Runs at the same time that drain the queue within `target`: what runs now goes on, one job needs one run, and
    /// limits over all processes make more than they allow useless.
    pub fn needed(&self, target: Duration) -> i64 {
        if self.waiting + self.running == 0 || self.paused.is_some() {
            return self.running;
        }
        let jobs = self.waiting + self.running;
        let mean_s = self.mean.unwrap_or_default().as_secs_f64();
        let drain = ceil(count(jobs) * mean_s / target.as_secs_f64().max(0.001));
        let useful = self.limits.map_or(i64::MAX, |queue| useful(queue, mean_s));
        drain.max(1).min(useful).max(self.running).min(jobs)
    }
}

/// More at once than this wait for a slot or a token.
fn useful(queue: Queue, mean_s: f64) -> i64 {
    let by_slots = queue.across.map_or(i64::MAX, i64::from);
    let by_rate =
        queue.rate.map_or(i64::MAX, |rate| ceil(f64::from(rate.jobs) / rate.per.as_secs_f64() * mean_s).max(1));
    by_slots.min(by_rate)
}

fn count(jobs: i64) -> f64 {
    f64::from(u32::try_from(jobs).unwrap_or(u32::MAX))
}

#[expect(clippy::cast_possible_truncation, reason = "a float above i64::MAX becomes i64::MAX")]
fn ceil(figure: f64) -> i64 {
    figure.ceil() as i64
}

/// Kinds that have jobs, found by leaping over the claim index from one to the next.
pub(crate) async fn kinds_with_jobs(pool: &Pool) -> Result<Vec<String>> {
    let kinds = sqlx::query_scalar!(
        r#"WITH RECURSIVE kind AS (
             (SELECT channel_name FROM mq_msgs
              WHERE channel_name > '' AND NOT blocked
                AND (after_message_id IS NULL OR after_message_id = '00000000-0000-0000-0000-000000000000')
              ORDER BY channel_name LIMIT 1)
             UNION ALL
             SELECT (SELECT m.channel_name FROM mq_msgs m
                     WHERE m.channel_name > k.channel_name AND NOT m.blocked
                       AND (m.after_message_id IS NULL OR m.after_message_id = '00000000-0000-0000-0000-000000000000')
                     ORDER BY m.channel_name LIMIT 1)
             FROM kind k WHERE k.channel_name IS NOT NULL)
           SELECT channel_name AS "kind!" FROM kind WHERE channel_name IS NOT NULL LIMIT 1000"#
    );
    Ok(kinds.fetch_all(pool).await?)
}

pub(crate) async fn look(
    pool: &Pool,
    names: &[String],
    known: &HashMap<&'static str, Arc<Kind>>,
) -> Result<Vec<Depth>> {
    let rows = sqlx::query!(
        r#"SELECT k.kind AS "kind!", q.paused_at AS "paused_at?", q.paused_by AS "paused_by?", q.mean_ms AS "mean_ms?",
                  (SELECT count(*) FROM (
                     SELECT FROM generate_series(0, 3) p CROSS JOIN LATERAL (
                       SELECT FROM mq_msgs m WHERE m.channel_name = k.kind AND m.priority = p AND m.attempt_at <= now()
                         AND NOT m.blocked AND (m.leased_until IS NULL OR m.leased_until < now())
                         AND (m.after_message_id IS NULL
                              OR m.after_message_id = '00000000-0000-0000-0000-000000000000')
                       LIMIT $2::bigint + 1) j LIMIT $2::bigint + 1) w) AS "waiting!",
                  (SELECT count(*) FROM (
                     SELECT FROM generate_series(0, 3) p CROSS JOIN LATERAL (
                       SELECT FROM mq_msgs m WHERE m.channel_name = k.kind AND m.priority = p AND m.attempt_at > now()
                         AND NOT m.blocked
                         AND (m.after_message_id IS NULL
                              OR m.after_message_id = '00000000-0000-0000-0000-000000000000')
                       LIMIT $2) j LIMIT $2) s) AS "scheduled!",
                  (SELECT extract(epoch FROM clock_timestamp() - min(j.attempt_at))::float8
                   FROM generate_series(0, 3) p CROSS JOIN LATERAL (
                     SELECT m.attempt_at FROM mq_msgs m
                     WHERE m.channel_name = k.kind AND m.priority = p AND m.attempt_at <= now() AND NOT m.blocked
                       AND (m.leased_until IS NULL OR m.leased_until < now())
                       AND (m.after_message_id IS NULL OR m.after_message_id = '00000000-0000-0000-0000-000000000000')
                     ORDER BY m.attempt_at LIMIT 1) j) AS oldest_s,
                  coalesce(l.running, 0)::bigint AS "running!", coalesce(l.workers, 0) AS "workers!", l.mean_ms AS "load_ms?",
                  (SELECT count(*) FROM (SELECT FROM dead_jobs d WHERE d.kind = k.kind LIMIT $2) d) AS "dead!",
                  (SELECT count(*) FROM (SELECT FROM mq_msgs m WHERE m.channel_name = k.kind AND m.faults > 0
                                         LIMIT $2) f) AS "faulty!",
                  (SELECT count(*) FROM (SELECT FROM mq_msgs m WHERE m.channel_name = k.kind AND m.attempt_at IS NULL
                                         LIMIT $2) e) AS "exhausted!",
                  extract(epoch FROM clock_timestamp() - l.progressed_at)::float8 AS "progress_s?"
           FROM unnest($1::text[]) k (kind)
           LEFT JOIN job_queues q USING (kind)
           LEFT JOIN (SELECT kind, sum(running) AS running, count(*) AS workers,
                             avg(mean_ms) FILTER (WHERE mean_ms > 0) AS mean_ms, max(progressed_at) AS progressed_at
                      FROM job_loads GROUP BY kind) l USING (kind)
           ORDER BY k.kind"#,
        names,
        COUNTED,
    )
    .fetch_all(pool)
    .await?;
    let mut depths = Vec::with_capacity(rows.len());
    for row in rows {
        let estimated = row.waiting > COUNTED;
        let waiting = if estimated { estimate(pool, &row.kind).await?.max(row.waiting) } else { row.waiting };
        let mean_ms = row.load_ms.or(row.mean_ms).filter(|ms| *ms > 0.0);
        let kind = known.get(row.kind.as_str());
        depths.push(Depth {
            registered: kind.is_some(),
            kind: row.kind,
            paused: row.paused_at.zip(row.paused_by),
            waiting,
            estimated,
            scheduled: row.scheduled,
            running: row.running,
            workers: row.workers,
            dead: row.dead,
            oldest_age: seconds(row.oldest_s.unwrap_or_default()),
            mean: mean_ms.map(|ms| seconds(ms / 1_000.0)),
            faulty: row.faulty,
            exhausted: row.exhausted,
            since_progress: row.progress_s.map(seconds),
            limits: kind.map(|kind| kind.queue),
            timeout: kind.map(|kind| kind.spec.limits.timeout),
        });
    }
    Ok(depths)
}

fn seconds(s: f64) -> Duration {
    Duration::try_from_secs_f64(s).unwrap_or_default()
}

/// Returns what the planner thinks of it: its statistics, scaled to the table's size now.
async fn estimate(pool: &Pool, kind: &str) -> Result<i64> {
    let explain = "EXPLAIN (FORMAT JSON) SELECT FROM mq_msgs WHERE channel_name = $1 AND attempt_at <= now()
                   AND NOT blocked AND lease_token IS NULL";
    let plan: JsonValue = sqlx::query_scalar(explain).bind(kind).fetch_one(pool).await?;
    let rows = plan.pointer("/0/Plan/Plan Rows").and_then(JsonValue::as_i64);
    rows.ok_or_else(|| Error::internal(anyhow::anyhow!("the planner's estimate can't be read: {plan}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(waiting: i64, running: i64, mean_ms: u64) -> Depth {
        Depth {
            kind: "k".to_owned(),
            registered: true,
            paused: None,
            waiting,
            estimated: false,
            scheduled: 0,
            running,
            workers: 1,
            dead: 0,
            oldest_age: Duration::ZERO,
            mean: (mean_ms > 0).then(|| Duration::from_millis(mean_ms)),
            faulty: 0,
            exhausted: 0,
            since_progress: None,
            limits: Some(Queue::IO),
            timeout: Some(Duration::from_secs(2)),
        }
    }

    #[test]
    fn a_queue_stands_still_where_jobs_wait_and_nobody_settles_any() {
        let long = Duration::from_mins(5);
        let still = Depth { oldest_age: long, ..queue(3, 0, 0) };
        let said = still.standstill().unwrap();
        assert!(said.contains("3 jobs wait, the oldest for 300 s") && said.contains("none settles"), "{said}");
        assert!(Depth { workers: 0, ..still.clone() }.standstill().unwrap().contains("no worker runs it"));
        assert!(Depth { since_progress: Some(long), ..still.clone() }.standstill().is_some());
        for well in [
            Depth { since_progress: Some(Duration::from_secs(5)), ..still.clone() },
            Depth { paused: Some((DateTime::UNIX_EPOCH, "olga".to_owned())), ..still.clone() },
            Depth { oldest_age: Duration::from_secs(5), ..still.clone() },
            Depth { running: 1, timeout: Some(long), ..still.clone() },
            Depth { waiting: 0, ..still },
        ] {
            assert_eq!(well.standstill(), None, "{well:?}");
        }
    }

    #[test]
    fn so_many_runs_are_needed_as_drain_the_queue_in_time() {
        let in_10_s = Duration::from_secs(10);
        assert_eq!(queue(0, 0, 100).needed(in_10_s), 0);
        assert_eq!(queue(1_000, 0, 100).needed(in_10_s), 10);
        assert_eq!(queue(1_001, 0, 100).needed(in_10_s), 11);
        assert_eq!(queue(0, 7, 100).needed(in_10_s), 7, "what runs goes on");
        assert_eq!(queue(3, 0, 60_000).needed(in_10_s), 3, "one job needs one run");
        assert_eq!(queue(9_000, 0, 0).needed(in_10_s), 1, "nothing was measured yet: one finds out");
    }

    #[test]
    fn more_than_the_limits_over_all_processes_allow_is_not_asked_for() {
        let mut narrow = queue(10_000, 0, 1_000);
        narrow.limits = Some(Queue::IO.across(3));
        assert_eq!(narrow.needed(Duration::from_secs(1)), 3);
        narrow.limits = Some(Queue::IO.rate(20, Duration::from_secs(10)));
        assert_eq!(narrow.needed(Duration::from_secs(1)), 2);
        narrow.paused = Some((DateTime::UNIX_EPOCH, "olga".to_owned()));
        assert_eq!(narrow.needed(Duration::from_secs(1)), 0, "nobody claims from a paused queue");
    }
}
