//! Whether a backfill may go on now: what it would be in the way of.
use super::{pace, plan::Plan};
use crate::Conn;
use chrono::{DateTime, TimeDelta, Utc};
use std::fmt::Write;

/// Protected calls this many times slower than the limit are in distress.
const CRITICAL: f64 = 4.0;
/// Distress that lasts for longer pauses the backfill: longer than what a single call does to a percentile.
const CRITICAL_FOR: TimeDelta = TimeDelta::seconds(15);

/// With a transaction that is open for longer, each filled row would leave one behind that nobody takes away.
const OLDEST_S: i64 = 3_600;

/// What is looked at before each chunk.
#[derive(Debug, Clone, Copy, PartialEq, sqlx::FromRow)]
pub(super) struct Look {
    /// The furthest replica's delay.
    pub(super) lag_ms: i64,
    /// True if this role is told of other roles' sessions, of replicas and of vacuums.
    pub(super) sees_all: bool,
    /// Where the server's log is, in bytes.
    pub(super) wal_lsn: i64,
    /// The server prevents a wraparound on the table: nothing is more urgent. An ordinary vacuum is a backfill's friend.
    pub(super) is_urgent_vacuum: bool,
    /// Sessions that wait for a lock on the table itself, not its rows.
    pub(super) waiters: i64,
    /// For how long the oldest transaction has been open, in seconds: vacuum tidies nothing behind it.
    pub(super) oldest_s: i64,
    /// Of protected calls, the slowest process's.
    pub(super) p99_ms: Option<f64>,
    pub(super) now: DateTime<Utc>,
    /// When the transaction began.
    pub(super) begun: DateTime<Utc>,
}

/// What follows from a look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Advice {
    Go,
    Wait(String),
    /// Pause, and let somebody decide.
    Abort(String),
}

pub(super) async fn look(conn: &mut Conn, table: &str) -> Result<Look, sqlx::Error> {
    let read = "SELECT
        (SELECT coalesce(max(extract(epoch FROM replay_lag)) * 1000, 0)::bigint FROM pg_stat_replication) AS lag_ms,
        pg_has_role(current_user, 'pg_read_all_stats', 'USAGE') AS sees_all,
        (pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::bigint AS wal_lsn,
        EXISTS (SELECT FROM pg_stat_activity a JOIN pg_locks l USING (pid)
                WHERE a.backend_type = 'autovacuum worker' AND a.query LIKE '%(to prevent wraparound)%'
                  AND l.relation = $1::text::regclass) AS is_urgent_vacuum,
        (SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = 'relation'
           AND relation = $1::text::regclass) AS waiters,
        (SELECT coalesce(max(extract(epoch FROM clock_timestamp() - began)), 0)::bigint FROM (
           SELECT xact_start FROM pg_stat_activity WHERE backend_xmin IS NOT NULL AND backend_type = 'client backend'
           UNION ALL SELECT prepared FROM pg_prepared_xacts) AS open (began)) AS oldest_s,
        (SELECT max(p99_ms) FROM processes WHERE seen_at > clock_timestamp() - interval '10 s') AS p99_ms,
        clock_timestamp() AS now, now() AS begun";
    sqlx::query_as(read).bind(table).fetch_one(conn).await
}

impl Look {
    /// Decides, and notes in the plan what the next look needs.
    pub(super) fn advise(&self, plan: &mut Plan) -> Advice {
        if !self.sees_all {
            let why = "this worker's role is not told how far replicas are and what is vacuumed; grant it pg_monitor";
            return Advice::Abort(why.to_owned());
        }
        let advice = self.advice(plan);
        let is_critical = self.p99_ms.is_some_and(|p99| p99 > f64::from(plan.p99_limit_ms) * CRITICAL);
        plan.critical_since = if is_critical { plan.critical_since.or(Some(self.now)) } else { None };
        (plan.wal_lsn, plan.looked_at) = (self.wal_lsn, Some(self.now));
        if plan.critical_since.is_some_and(|since| self.now - since >= CRITICAL_FOR) {
            plan.critical_since = None;
            let p99 = self.p99_ms.unwrap_or_default();
            return Advice::Abort(format!(
                "protected calls are in distress: p99 {p99:.0} ms, limit {} ms",
                plan.p99_limit_ms
            ));
        }
        match advice {
            Advice::Go if !pace::set(plan, self.p99_ms, self.now) => {
                Advice::Wait("it stands still to see how fast protected calls are without it".to_owned())
            }
            advice => advice,
        }
    }

    fn advice(&self, plan: &Plan) -> Advice {
        let mut why = String::new();
        let mut say = |text: String| {
            let _ = write!(why, "{}{text}", if why.is_empty() { "" } else { "; " });
        };
        if let Some(p99) = self.p99_ms.filter(|p99| *p99 > f64::from(plan.p99_limit_ms)) {
            say(format!("p99 of protected calls {p99:.0} ms, limit {} ms", plan.p99_limit_ms));
        }
        if self.lag_ms > plan.lag_limit_ms.into() {
            say(format!("a replica is {} ms behind, limit {} ms", self.lag_ms, plan.lag_limit_ms));
        }
        if let Some(rate) = self.wal_rate(plan).filter(|rate| *rate > plan.wal_limit_bytes_s) {
            say(format!("the server writes {} MB of log a second, limit {}", rate >> 20, plan.wal_limit_bytes_s >> 20));
        }
        if self.is_urgent_vacuum {
            say("a vacuum prevents a wraparound on the table".to_owned());
        }
        if self.oldest_s > OLDEST_S {
            let minutes = self.oldest_s / 60;
            say(format!("a transaction has been open for {minutes} minutes, and vacuum tidies nothing behind it"));
        }
        if self.waiters > 0 {
            say(format!("{} sessions wait for a lock on the table", self.waiters));
        }
        if why.is_empty() { Advice::Go } else { Advice::Wait(why) }
    }

    /// Bytes a second since the look before; none where that was too long ago, or just now.
    fn wal_rate(&self, plan: &Plan) -> Option<i64> {
        let ms = (self.now - plan.looked_at?).num_milliseconds();
        (50..5_000).contains(&ms).then(|| (self.wal_lsn - plan.wal_lsn) * 1_000 / ms)
    }
}
