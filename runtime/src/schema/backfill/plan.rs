//! A backfill as its row: what is asked of it, how far it has come, and what it has found.
use crate::{Conn, changes::Change};
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::Value;
use uuid::Uuid;

/// Rows of a statement, at least.
pub(crate) const LEAST_ROWS: i32 = 100;
/// Rows of a statement, at most, whatever is asked.
pub(crate) const MOST_ROWS: i32 = 20_000;

/// Every column of a plan.
const COLUMNS: &str = "change, name, table_name, generation, state, stage, online_step, pass, why, cursor, upper, \
                       chunk_rows, target_ms, most_rows, rest_ratio, p99_limit_ms, wal_limit_bytes_s, lag_limit_ms, \
                       rows_estimated, rows_passed, rows_changed, chunks, busy_ms, rate, throttled_by, throttled_ms, \
                       halvings, critical_since, wal_lsn, looked_at, started_at, started_by, progressed_at, \
                       finished_at, evidence, p99_ratio, p99_before_ms, p99_noted_at, still_since, pace, paced_at";

/// A plan's row.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct Plan {
    /// The change's number.
    pub change: i64,
    /// `NNNN_verb_noun`.
    pub name: String,
    /// The table that is walked.
    pub table_name: String,
    /// Jobs of another generation do nothing any more.
    pub generation: Uuid,
    /// `running`, `paused`, `done` or `cancelled`.
    pub state: String,
    /// `chunks`, `waiting` (for old programs to end) or `online`.
    pub stage: String,
    /// The online step that is next.
    pub online_step: i32,
    /// How often the table has been walked, this time included.
    pub pass: i32,
    /// Why it does not run; empty where it does.
    pub why: String,
    /// The first key of the next chunk; none after the last.
    pub cursor: Option<Vec<String>>,
    /// The last key that is walked.
    pub upper: Option<Vec<String>>,
    /// Rows of the next statement.
    pub chunk_rows: i32,
    /// A chunk is to take this long.
    pub target_ms: i32,
    /// Rows of a statement, at most.
    pub most_rows: i32,
    /// It rests after each chunk for this many times what the chunk took.
    pub rest_ratio: f32,
    /// It waits while the p99 of protected calls is above this.
    pub p99_limit_ms: i32,
    /// It slows down while the p99 of protected calls is above this many times what it is without the backfill.
    pub p99_ratio: f32,
    /// It waits while the server writes more log than this.
    pub wal_limit_bytes_s: i64,
    /// It waits while a replica is behind by more than this.
    pub lag_limit_ms: i32,
    /// Rows to walk, as the planner's statistics had it.
    pub rows_estimated: i64,
    /// Rows walked, in this walk.
    pub rows_passed: i64,
    /// Rows changed.
    pub rows_changed: i64,
    /// Chunks committed.
    pub chunks: i64,
    /// Time that they took.
    pub busy_ms: i64,
    /// Rows a second, lately, pauses included.
    pub rate: f64,
    /// What it waits for; empty where it does not.
    pub throttled_by: String,
    /// Time for which it has waited.
    pub throttled_ms: i64,
    /// Statements that were halved because they took too long.
    pub halvings: i32,
    /// Since when the protected calls have been in distress.
    pub critical_since: Option<DateTime<Utc>>,
    /// Where the server's log was at the last look, in bytes.
    pub wal_lsn: i64,
    /// When that was.
    pub looked_at: Option<DateTime<Utc>>,
    /// When it was started.
    pub started_at: DateTime<Utc>,
    /// Who started it.
    pub started_by: String,
    /// When it last got further.
    pub progressed_at: DateTime<Utc>,
    /// When it was done or cancelled.
    pub finished_at: Option<DateTime<Utc>>,
    /// What was found, for whoever wants to know later.
    pub evidence: Value,
    /// The p99 of protected calls without the backfill, in milliseconds; none where that is not known.
    pub p99_before_ms: Option<f64>,
    /// When that was.
    pub p99_noted_at: Option<DateTime<Utc>>,
    /// Since when it has stood still to find that out; none where it does not.
    pub still_since: Option<DateTime<Utc>>,
    /// The share of its time that it works, up to 1.
    pub pace: f64,
    /// When the pace was last set.
    pub paced_at: Option<DateTime<Utc>>,
}

impl Plan {
    /// The plan of a change, locked for this transaction; none where it was never started.
    pub(crate) async fn lock(conn: &mut Conn, change: i64) -> Result<Option<Self>, sqlx::Error> {
        let read = format!("SELECT {COLUMNS} FROM backfills WHERE change = $1 FOR UPDATE");
        sqlx::query_as(&read).bind(change).fetch_optional(conn).await
    }

    /// The plan of a change as it is now; none where it was never started.
    pub(crate) async fn read(conn: &mut Conn, change: i64) -> Result<Option<Self>, sqlx::Error> {
        let read = format!("SELECT {COLUMNS} FROM backfills WHERE change = $1");
        sqlx::query_as(&read).bind(change).fetch_optional(conn).await
    }

    /// All plans, by number.
    pub(crate) async fn all(conn: impl sqlx::PgExecutor<'_>) -> Result<Vec<Self>, sqlx::Error> {
        sqlx::query_as(&format!("SELECT {COLUMNS} FROM backfills ORDER BY change")).fetch_all(conn).await
    }

    /// Writes what a chunk, a look or an operator has changed.
    pub(crate) async fn save(&self, conn: &mut Conn) -> Result<(), sqlx::Error> {
        let update = "UPDATE backfills SET generation = $2, state = $3, stage = $4, online_step = $5, pass = $6,
                        why = $7, cursor = $8, upper = $9, chunk_rows = $10, target_ms = $11, most_rows = $12,
                        rest_ratio = $13, p99_limit_ms = $14, wal_limit_bytes_s = $15, lag_limit_ms = $16,
                        rows_estimated = $31, rows_passed = $17, rows_changed = $18, chunks = $19, busy_ms = $20, rate = $21,
                        throttled_by = $22, throttled_ms = $23, halvings = $24, critical_since = $25, wal_lsn = $26,
                        looked_at = $27, progressed_at = $28, finished_at = $29, evidence = $30,
                        p99_ratio = $32, p99_before_ms = $33, p99_noted_at = $34, still_since = $35, pace = $36,
                        paced_at = $37
                      WHERE change = $1";
        let update = sqlx::query(update).bind(self.change).bind(self.generation).bind(&self.state).bind(&self.stage);
        let update = update.bind(self.online_step).bind(self.pass).bind(&self.why).bind(&self.cursor).bind(&self.upper);
        let update = update.bind(self.chunk_rows).bind(self.target_ms).bind(self.most_rows).bind(self.rest_ratio);
        let update = update.bind(self.p99_limit_ms).bind(self.wal_limit_bytes_s).bind(self.lag_limit_ms);
        let update = update.bind(self.rows_passed).bind(self.rows_changed).bind(self.chunks).bind(self.busy_ms);
        let update = update.bind(self.rate).bind(&self.throttled_by).bind(self.throttled_ms).bind(self.halvings);
        let update = update.bind(self.critical_since).bind(self.wal_lsn).bind(self.looked_at);
        let update =
            update.bind(self.progressed_at).bind(self.finished_at).bind(&self.evidence).bind(self.rows_estimated);
        let update = update.bind(self.p99_ratio).bind(self.p99_before_ms).bind(self.p99_noted_at);
        let update = update.bind(self.still_since).bind(self.pace).bind(self.paced_at);
        update.execute(conn).await.map(drop)
    }

    /// Moves it to another state, and writes down who did it and why.
    pub(crate) async fn turn(
        &mut self,
        conn: &mut Conn,
        to: &str,
        (by, reason): (&str, &str),
    ) -> Result<(), sqlx::Error> {
        note_transition(conn, self.change, (&self.state, to), (by, reason)).await?;
        if self.state != to {
            self.why = if to == "running" || to == "done" { String::new() } else { reason.to_owned() };
        }
        to.clone_into(&mut self.state);
        self.save(conn).await
    }

    /// Writes a new plan down, or begins one anew that was cancelled: nothing of how that one was tuned holds.
    pub(crate) async fn insert(conn: &mut Conn, change: &Change, new: &NewPlan<'_>) -> Result<(), sqlx::Error> {
        let insert = "INSERT INTO backfills (change, name, table_name, generation, cursor, upper, rows_estimated,
                                             target_ms, chunk_rows, started_by)
                      VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
                      ON CONFLICT (change) DO UPDATE SET
                        generation = excluded.generation, state = 'running', stage = 'chunks', online_step = 0,
                        pass = 1, why = '', cursor = excluded.cursor, upper = excluded.upper,
                        rows_estimated = excluded.rows_estimated, chunk_rows = excluded.chunk_rows, rows_passed = 0,
                        rows_changed = 0, chunks = 0, busy_ms = 0, rate = 0, throttled_by = '', throttled_ms = 0,
                        halvings = 0, critical_since = NULL, started_at = clock_timestamp(),
                        started_by = excluded.started_by, progressed_at = clock_timestamp(), finished_at = NULL,
                        evidence = '{}', p99_before_ms = NULL, p99_noted_at = NULL, still_since = NULL, pace = 1,
                        paced_at = NULL, target_ms = excluded.target_ms, most_rows = DEFAULT, rest_ratio = DEFAULT,
                        p99_limit_ms = DEFAULT, p99_ratio = DEFAULT, wal_limit_bytes_s = DEFAULT,
                        lag_limit_ms = DEFAULT";
        let insert = sqlx::query(insert).bind(change.number).bind(&change.name).bind(new.table).bind(new.generation);
        let insert = insert.bind(new.cursor).bind(new.upper).bind(new.rows_estimated).bind(new.target_ms);
        insert.bind(LEAST_ROWS * 10).bind(new.by).execute(&mut *conn).await?;
        note_transition(conn, change.number, ("", "running"), (new.by, new.reason)).await
    }

    /// Writes down that there was nothing to fill.
    pub(crate) async fn insert_done(conn: &mut Conn, change: &Change, evidence: &Value) -> Result<(), sqlx::Error> {
        let Some(backfill) = &change.backfill else { return Ok(()) };
        let insert = "INSERT INTO backfills (change, name, table_name, generation, state, chunk_rows, target_ms,
                                             rows_estimated, started_by, finished_at, evidence)
                      VALUES ($1, $2, $3, gen_random_uuid(), 'done', $4, 150, 0, 'migrate', clock_timestamp(), $5)";
        let insert = sqlx::query(insert).bind(change.number).bind(&change.name).bind(&backfill.table);
        insert.bind(LEAST_ROWS).bind(evidence).execute(conn).await.map(drop)
    }

    /// Time since a worker last came by. None passes where it need not: it does not run, or it makes an index, which may
    /// take hours.
    pub fn silent_for(&self, now: DateTime<Utc>) -> TimeDelta {
        if self.state != "running" || self.stage == "online" {
            return TimeDelta::zero();
        }
        now - self.looked_at.map_or(self.progressed_at, |at| at.max(self.progressed_at))
    }

    /// Rows that are left of this walk, as far as is known.
    pub fn left(&self) -> i64 {
        if self.cursor.is_none() { 0 } else { (self.rows_estimated - self.rows_passed).max(0) }
    }
}

async fn note_transition(
    conn: &mut Conn,
    change: i64,
    (from, to): (&str, &str),
    (by, reason): (&str, &str),
) -> Result<(), sqlx::Error> {
    let insert = "INSERT INTO backfill_transitions (change, from_state, to_state, made_by, reason)
                  VALUES ($1, $2, $3, $4, $5)";
    sqlx::query(insert).bind(change).bind(from).bind(to).bind(by).bind(reason).execute(conn).await.map(drop)
}

/// The server's time.
pub(super) async fn now(conn: &mut Conn) -> Result<DateTime<Utc>, sqlx::Error> {
    sqlx::query_scalar("SELECT clock_timestamp()").fetch_one(conn).await
}

/// What a plan begins with.
pub(crate) struct NewPlan<'a> {
    pub(crate) table: &'a str,
    pub(crate) generation: Uuid,
    pub(crate) cursor: Option<&'a [String]>,
    pub(crate) upper: Option<&'a [String]>,
    pub(crate) rows_estimated: i64,
    pub(crate) target_ms: i32,
    pub(crate) by: &'a str,
    pub(crate) reason: &'a str,
}
