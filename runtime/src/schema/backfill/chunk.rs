//! One chunk: one statement over rows that follow each other, in a transaction of its own. Where it takes too long, or
//! somebody holds its rows, it is undone and tried on half of them.
use super::{
    keys::Key,
    pace,
    plan::{LEAST_ROWS, MOST_ROWS, Plan},
};
use crate::{Conn, Result, base::failpoint, changes::Backfill};
use sqlx::{Executor, error::DatabaseError};
use std::time::{Duration, Instant};

/// A statement waits for a lock no longer than this, and takes no longer than that. It holds until the transaction's
/// end, whose other statements are short.
const LIMITS: &str = "SET LOCAL lock_timeout = '1s'; SET LOCAL statement_timeout = '5s'";
/// A chunk is a few rows of a key, however many the planner expects of a range that it knows nothing of: found by it, and
/// joined to others by theirs.
const BY_KEYS: &str = "SET LOCAL plan_cache_mode = force_custom_plan; SET LOCAL enable_seqscan = off; \
                       SET LOCAL enable_hashjoin = off; SET LOCAL enable_mergejoin = off";
/// Later walks look for the rows that are left, wherever they are: that may take longer.
const LATER_LIMITS: &str = "SET LOCAL lock_timeout = '1s'; SET LOCAL statement_timeout = '60s'";
/// A statement is tried so often before it is given up for now.
const TRIES: u32 = 3;

/// What a chunk came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Chunk {
    /// It got further, or to the end.
    Moved,
    /// Somebody holds its rows: later.
    Blocked(String),
    /// It can't work as it is.
    Failed(String),
}

/// Runs one.
pub(super) async fn run(conn: &mut Conn, backfill: &Backfill, plan: &mut Plan) -> Result<Chunk> {
    let target = pace::chunk_time(plan);
    let key = Key::of(conn, backfill).await?;
    conn.execute(if plan.pass > 1 { LATER_LIMITS } else { LIMITS }).await?;
    conn.execute(BY_KEYS).await?;
    let mut tries = 0;
    loop {
        let began = Instant::now();
        conn.execute("SAVEPOINT chunk").await?;
        let error = match step(conn, &key, plan).await {
            Ok(()) => {
                conn.execute("RELEASE SAVEPOINT chunk").await?;
                failpoint::hit("run_backfill_chunk", "after_statement");
                plan.chunk_rows = next_size(plan, began.elapsed(), target);
                return Ok(Chunk::Moved);
            }
            Err(error) => error,
        };
        let code = error.as_database_error().and_then(DatabaseError::code).unwrap_or_default().into_owned();
        if code.is_empty() || code.starts_with("08") || code.starts_with("57P") {
            return Err(error.into());
        }
        conn.execute("ROLLBACK TO SAVEPOINT chunk").await?;
        if !matches!(&*code, "57014" | "55P03" | "40P01") {
            return Ok(Chunk::Failed(error.to_string()));
        }
        tries += 1;
        plan.halvings += 1;
        plan.chunk_rows = (plan.chunk_rows / 2).max(LEAST_ROWS);
        if tries == TRIES {
            return Ok(Chunk::Blocked(error.to_string()));
        }
    }
}

/// Fills the next rows, and moves the cursor behind them.
async fn step(conn: &mut Conn, key: &Key<'_>, plan: &mut Plan) -> Result<(), sqlx::Error> {
    let Some((from, upper)) = plan.cursor.clone().zip(plan.upper.clone()) else { return Ok(()) };
    let Some(found) = key.probe(conn, (&from, &upper), plan.chunk_rows, plan.pass > 1).await? else {
        plan.cursor = None;
        return Ok(());
    };
    let changed = i64::try_from(key.fill(conn, &found.from, &found.upto).await?).unwrap_or(i64::MAX);
    plan.rows_changed += changed;
    plan.rows_passed += found.rows.map_or(changed, i64::from);
    plan.cursor = found.next;
    Ok(())
}

/// Rows of the next statement: a fifth more where this one was quick, half where it was slow.
fn next_size(plan: &Plan, took: Duration, aim: Duration) -> i32 {
    let most = plan.most_rows.clamp(LEAST_ROWS, MOST_ROWS);
    sized(plan.chunk_rows, took, aim).clamp(LEAST_ROWS, most)
}

fn sized(rows: i32, took: Duration, aim: Duration) -> i32 {
    if took < aim.mul_f32(0.8) {
        rows + (rows / 5).max(1)
    } else if took > aim.mul_f32(1.25) {
        rows / 2
    } else {
        rows
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_size_follows_what_a_statement_took() {
        let aim = Duration::from_millis(50);
        assert_eq!(sized(1_000, Duration::from_millis(10), aim), 1_200);
        assert_eq!(sized(1_000, Duration::from_millis(50), aim), 1_000);
        assert_eq!(sized(1_000, Duration::from_millis(70), aim), 500);
        assert_eq!(sized(1, Duration::ZERO, aim), 2);
    }
}
