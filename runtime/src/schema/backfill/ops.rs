//! What operators do with backfills, in the caller's transaction.
use super::{
    job::{NOW, RunBackfillChunk, RunOnlineStep},
    keys::{Key, differing_row},
    known::backfill_of,
    plan::{LEAST_ROWS, MOST_ROWS, NewPlan, Plan, now},
};
use crate::{
    Class, Conn, Error, Pool, Result, Tx,
    base::ids,
    changes::{Backfill, Phase},
};

/// Any constant: "GAVB".
const START_LOCK: i64 = 0x4741_5642;

/// What can be set, and changed while it runs. What is none stays as it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, serde::Serialize)]
pub struct Tuning {
    /// A chunk is to take this long, in milliseconds: 10 to 5 000.
    pub target_ms: Option<i32>,
    /// Rows of a statement, at most: 100 to 20 000.
    pub most_rows: Option<i32>,
    /// Rest after each chunk, as a multiple of what it took: 0 to 100.
    pub rest_ratio: Option<f32>,
    /// It waits while the p99 of protected calls is above this, in milliseconds: 1 to 60 000.
    pub p99_limit_ms: Option<i32>,
    /// It slows down while the p99 of protected calls is above this many times what it is without it: 1 to 100.
    pub p99_ratio: Option<f32>,
    /// It waits while the server writes more log than this, in bytes a second: from 1 MiB.
    pub wal_limit_bytes_s: Option<i64>,
    /// It waits while a replica is behind by more than this, in milliseconds: from 100.
    pub lag_limit_ms: Option<i32>,
}

impl Tuning {
    /// Checks what is given.
    ///
    /// # Errors
    /// [`Class::Invalid`], naming the field and what is allowed.
    pub fn check(&self) -> Result<()> {
        let wrong =
            |name: &str, allowed: &str| Err(Error::invalid(format!("{name} is out of range; allowed: {allowed}")));
        if self.target_ms.is_some_and(|ms| !(10..=5_000).contains(&ms)) {
            return wrong("target_ms", "10 to 5000");
        }
        if self.most_rows.is_some_and(|rows| !(LEAST_ROWS..=MOST_ROWS).contains(&rows)) {
            return wrong("most_rows", "100 to 20000");
        }
        if self.rest_ratio.is_some_and(|ratio| !(0.0..=100.0).contains(&ratio)) {
            return wrong("rest_ratio", "0 to 100");
        }
        if self.p99_limit_ms.is_some_and(|ms| !(1..=60_000).contains(&ms)) {
            return wrong("p99_limit_ms", "1 to 60000");
        }
        if self.p99_ratio.is_some_and(|ratio| ratio != 0.0 && !(1.0..=100.0).contains(&ratio)) {
            return wrong("p99_ratio", "1 to 100, or 0 for however slow they become");
        }
        if self.wal_limit_bytes_s.is_some_and(|bytes| bytes < 1 << 20) {
            return wrong("wal_limit_bytes_s", "from 1048576");
        }
        if self.lag_limit_ms.is_some_and(|ms| ms < 100) {
            return wrong("lag_limit_ms", "from 100");
        }
        Ok(())
    }

    fn apply(&self, plan: &mut Plan) {
        plan.target_ms = self.target_ms.unwrap_or(plan.target_ms);
        plan.most_rows = self.most_rows.unwrap_or(plan.most_rows);
        plan.chunk_rows = plan.chunk_rows.min(plan.most_rows);
        plan.rest_ratio = self.rest_ratio.unwrap_or(plan.rest_ratio);
        plan.p99_limit_ms = self.p99_limit_ms.unwrap_or(plan.p99_limit_ms);
        plan.p99_ratio = self.p99_ratio.unwrap_or(plan.p99_ratio);
        plan.wal_limit_bytes_s = self.wal_limit_bytes_s.unwrap_or(plan.wal_limit_bytes_s);
        plan.lag_limit_ms = self.lag_limit_ms.unwrap_or(plan.lag_limit_ms);
    }
}

/// Starts a change's backfill.
///
/// # Errors
/// [`Class::NotFound`] where the change has none; [`Class::Refused`] where it runs, waits or is done already, or where
/// another one walks the same table.
pub async fn start(tx: &mut Tx, number: i64, tuning: &Tuning, (by, reason): (&str, &str)) -> Result<Plan> {
    let (change, backfill) = backfill_of(tx, number)?;
    let expanded = "SELECT EXISTS (SELECT FROM _sqlx_migrations WHERE version = $1 AND success)";
    if !sqlx::query_scalar::<_, bool>(expanded).bind(number).fetch_one(tx.conn()).await? {
        return Err(refused(format!("{} is not expanded yet: apply the migrations first", change.name)));
    }
    // Two who start something at once take turns.
    sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(START_LOCK).execute(tx.conn()).await?;
    let running = Plan::lock(tx.conn(), number).await?.filter(|plan| plan.state != "cancelled");
    // One that was done, and after which somebody has written the old form again, is begun anew.
    let has_both_forms = tx.phase(number) < Phase::Contracted;
    let is_over = has_both_forms && running.as_ref().is_some_and(|plan| plan.state == "done");
    let is_undone = is_over && differing_row(tx.conn(), &backfill).await?.is_some();
    if let Some(plan) = running.filter(|_| !is_undone) {
        let since = plan.started_at.format("%Y-%m-%dT%H:%M:%SZ");
        return Err(refused(format!(
            "{} is {} already, started by {} at {since}",
            plan.name, plan.state, plan.started_by
        )));
    }
    let other = "SELECT name FROM backfills WHERE table_name = $1 AND change <> $2 AND state IN ('running', 'paused')";
    let other: Option<String> =
        sqlx::query_scalar(other).bind(&backfill.table).bind(number).fetch_optional(tx.conn()).await?;
    if let Some(other) = other {
        return Err(refused(format!("{other} walks the table {} already: one at a time", backfill.table)));
    }
    let (ends, rows_estimated) = extent(tx.conn(), &backfill).await?;
    let (cursor, upper) = ends.unzip();
    let generation = ids::random();
    let new = NewPlan {
        table: &backfill.table,
        generation,
        cursor: cursor.as_deref(),
        upper: upper.as_deref(),
        rows_estimated,
        target_ms: i32::try_from(backfill.target.as_millis()).unwrap_or(i32::MAX),
        by,
        reason,
    };
    Plan::insert(tx.conn(), &change, &new).await?;
    tx.enqueue(&RunBackfillChunk { change: number, generation }, NOW).await?;
    let mut plan = locked(tx, number).await?;
    tuning.apply(&mut plan);
    plan.save(tx.conn()).await?;
    Ok(plan)
}

/// A table's first and last key, and how many rows it has: counted where that is quick, else as the planner knows.
type Extent = (Option<(Vec<String>, Vec<String>)>, i64);

async fn extent(conn: &mut Conn, backfill: &Backfill) -> Result<Extent> {
    let ends = Key::of(conn, backfill).await?.ends(conn).await?;
    let estimate = "SELECT greatest(reltuples, 0)::bigint FROM pg_class WHERE oid = $1::text::regclass";
    let estimate: i64 = sqlx::query_scalar(estimate).bind(&backfill.table).fetch_one(&mut *conn).await?;
    if estimate > 100_000 {
        return Ok((ends, estimate));
    }
    let count = format!("SELECT count(*) FROM (SELECT FROM {} LIMIT 100001) t", backfill.table);
    Ok((ends, sqlx::query_scalar::<_, i64>(&count).fetch_one(conn).await?.max(estimate)))
}

/// Stops it after the chunk that runs.
pub async fn pause(tx: &mut Tx, number: i64, who: (&str, &str)) -> Result<Plan> {
    change_state(tx, number, &["running"], "paused", who).await
}

/// Ends it. What was filled stays; started again, it begins at the first key.
pub async fn cancel(tx: &mut Tx, number: i64, who: (&str, &str)) -> Result<Plan> {
    let mut plan = change_state(tx, number, &["running", "paused"], "cancelled", who).await?;
    plan.finished_at = Some(now(tx.conn()).await?);
    plan.save(tx.conn()).await?;
    Ok(plan)
}

/// Lets one that is paused go on where it was.
pub async fn resume(tx: &mut Tx, number: i64, who: (&str, &str)) -> Result<Plan> {
    let mut plan = change_state(tx, number, &["paused"], "running", who).await?;
    if plan.stage != "online" {
        // A job of before that is still there does nothing any more. An online step that has begun may count.
        plan.generation = ids::random();
    }
    plan.pass = plan.pass.min(1);
    plan.progressed_at = now(tx.conn()).await?;
    plan.save(tx.conn()).await?;
    let (change, generation) = (number, plan.generation);
    if plan.stage == "online" {
        tx.enqueue(&RunOnlineStep { change, generation, step: plan.online_step }, NOW).await?;
    } else {
        tx.enqueue(&RunBackfillChunk { change, generation }, NOW).await?;
    }
    Ok(plan)
}

/// Changes how it runs, from the next chunk on.
pub async fn retune(tx: &mut Tx, number: i64, tuning: &Tuning, (by, reason): (&str, &str)) -> Result<Plan> {
    tuning.check()?;
    let mut plan = locked(tx, number).await?;
    if !matches!(&*plan.state, "running" | "paused") {
        return Err(refused(format!("{} is {}: there is nothing to tune", plan.name, plan.state)));
    }
    tuning.apply(&mut plan);
    let state = plan.state.clone();
    plan.turn(tx.conn(), &state, (by, reason)).await?;
    Ok(plan)
}

/// All plans, by number.
pub async fn list(reads: &Pool) -> Result<Vec<Plan>> {
    Ok(Plan::all(reads).await?)
}

async fn change_state(tx: &mut Tx, number: i64, from: &[&str], to: &str, who: (&str, &str)) -> Result<Plan> {
    let mut plan = locked(tx, number).await?;
    if !from.contains(&&*plan.state) {
        return Err(refused(format!("{} is {}; allowed: {}", plan.name, plan.state, from.join(" or "))));
    }
    plan.turn(tx.conn(), to, who).await?;
    Ok(plan)
}

async fn locked(tx: &mut Tx, number: i64) -> Result<Plan> {
    let (change, _) = backfill_of(tx, number)?;
    let none = || Error::not_found(format!("the backfill of {} was never started", change.name));
    Plan::lock(tx.conn(), number).await?.ok_or_else(none)
}

fn refused(message: String) -> Error {
    Error::new(Class::Refused, message)
}
