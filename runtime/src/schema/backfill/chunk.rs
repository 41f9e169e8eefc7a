//! One chunk: statements over rows that follow each other, as many as its time allows, in one transaction.
use super::{
    keys::Key,
    plan::{LEAST_ROWS, MOST_ROWS, Plan},
};
use crate::{Result, base::failpoint, changes::Backfill};
use sqlx::{Executor, PgConnection, error::DatabaseError};
use std::time::{Duration, Instant};

/// A statement of a chunk waits for a lock no longer than this, and takes no longer than that.
const LIMITS: &str = "SAVEPOINT chunk; SET LOCAL lock_timeout = '1s'; SET LOCAL statement_timeout = '5s'";
/// Statements that a chunk's time is meant for: each is undone by itself where it takes too long.
const STATEMENTS: u32 = 3;
/// A statement is tried so often before it is given up for now.
const TRIES: u32 = 6;

/// What a chunk came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Chunk {
    /// It got further.
    Moved,
    /// It reached the end.
    AtEnd,
    /// Somebody holds its rows: later.
    Blocked(String),
    /// It can't work as it is.
    Failed(String),
}

/// Runs one.
pub(super) async fn run(conn: &mut PgConnection, backfill: &Backfill, plan: &mut Plan) -> Result<Chunk> {
    let (began, target) = (Instant::now(), Duration::from_millis(u64::try_from(plan.target_ms).unwrap_or(1)));
    let key = Key::of(conn, backfill).await?;
    let mut tries = 0;
    loop {
        let Some((from, upper)) = plan.cursor.clone().zip(plan.upper.clone()) else { return Ok(Chunk::AtEnd) };
        let (upto, next) = key.probe(conn, (&from, &upper), plan.chunk_rows, plan.pass > 1).await?;
        let is_whole = upto.is_some();
        let upto = upto.unwrap_or_else(|| upper.clone());
        let statement_began = Instant::now();
        conn.execute(LIMITS).await?;
        match key.fill(conn, &from, &upto).await {
            Ok(changed) => {
                conn.execute("RELEASE SAVEPOINT chunk").await?;
                failpoint::hit("run_backfill_chunk", "after_statement");
                let changed = i64::try_from(changed).unwrap_or(i64::MAX);
                plan.rows_changed += changed;
                plan.rows_passed += if is_whole { i64::from(plan.chunk_rows) } else { changed };
                plan.cursor = next;
                plan.chunk_rows = next_size(plan, statement_began.elapsed(), target / STATEMENTS);
                tries = 0;
                if plan.cursor.is_none() {
                    return Ok(Chunk::AtEnd);
                }
                if began.elapsed() + statement_began.elapsed() / 2 >= target {
                    return Ok(Chunk::Moved);
                }
            }
            Err(error) => {
                let code = error.as_database_error().and_then(DatabaseError::code).unwrap_or_default().into_owned();
                if code.is_empty() {
                    return Err(error.into());
                }
                conn.execute("ROLLBACK TO SAVEPOINT chunk").await?;
                if !matches!(&*code, "57014" | "55P03" | "40P01") {
                    return Ok(Chunk::Failed(error.to_string()));
                }
                tries += 1;
                plan.halvings += 1;
                plan.chunk_rows = (plan.chunk_rows / 2).max(LEAST_ROWS);
                // What was done before stays, and is committed: others wait for its rows.
                if tries == TRIES || began.elapsed() >= target {
                    return Ok(Chunk::Blocked(error.to_string()));
                }
            }
        }
    }
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
