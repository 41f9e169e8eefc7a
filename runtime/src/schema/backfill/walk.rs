//! One run of the job that walks a table.
use super::{
    chunk::{self, Chunk},
    finish,
    job::{Next, RunBackfillChunk},
    known::{ENGINE, backfill_of},
    look::{self, Advice},
    plan::Plan,
};
use crate::{
    Result, Tx,
    changes::{Backfill, Change},
};
use chrono::{DateTime, Utc};
use std::time::{Duration, Instant};

/// Time until a plan that must wait looks again.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// And one whose rows somebody holds.
const BLOCKED_FOR: Duration = Duration::from_secs(2);
/// Weight of the newest chunk in the rate.
const NEWEST: f64 = 0.1;

/// Runs one chunk, or finds that it must wait, or that all is done.
pub async fn run_chunk(tx: &mut Tx, job: &RunBackfillChunk) -> Result<Next> {
    let (change, backfill) = backfill_of(tx, job.change)?;
    let Some(mut plan) = Plan::lock(tx.conn(), job.change).await? else { return Ok(Next::Over) };
    if plan.generation != job.generation || plan.state != "running" || plan.stage == "online" {
        return Ok(Next::Over);
    }
    if plan.stage == "waiting" {
        return finish::wait_for_old(tx, (&change, &backfill), &mut plan).await;
    }
    let look = look::look(tx.conn(), &plan.table_name).await?;
    match look.advise(&mut plan) {
        Advice::Go => {}
        Advice::Wait(why) => {
            plan.throttled_ms += millis(LOOK_AGAIN);
            if plan.throttled_by != why {
                tracing::info!(plan = plan.name, why, "the backfill waits");
            }
            plan.throttled_by = why;
            plan.save(tx.conn()).await?;
            return Ok(Next::Again(LOOK_AGAIN));
        }
        Advice::Abort(why) => {
            tracing::warn!(plan = plan.name, why, "the backfill is paused");
            plan.turn(tx.conn(), "paused", (ENGINE, &why)).await?;
            return Ok(Next::Over);
        }
    }
    fill(tx, (&change, &backfill), &mut plan, look.now).await
}

async fn fill(
    tx: &mut Tx,
    (change, backfill): (&Change, &Backfill),
    plan: &mut Plan,
    now: DateTime<Utc>,
) -> Result<Next> {
    let (began, rows_before) = (Instant::now(), plan.rows_passed);
    let chunk = chunk::run(tx.conn(), backfill, plan).await?;
    let took = began.elapsed();
    plan.throttled_by.clear();
    plan.busy_ms += millis(took);
    if plan.rows_passed > rows_before || chunk == Chunk::AtEnd {
        plan.chunks += 1;
        let since = (now - plan.progressed_at).as_seconds_f64() + took.as_secs_f64();
        #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
        let newest = (plan.rows_passed - rows_before) as f64 / since.max(0.001);
        plan.rate = if plan.rate > 0.0 { plan.rate * (1.0 - NEWEST) + newest * NEWEST } else { newest };
        plan.progressed_at = now + took;
    }
    match chunk {
        Chunk::Moved => {
            plan.save(tx.conn()).await?;
            Ok(Next::Again(took.mul_f32(plan.rest_ratio.max(0.0))))
        }
        Chunk::AtEnd => finish::at_end(tx, (change, backfill), plan).await,
        Chunk::Blocked(why) => {
            plan.throttled_by = format!("somebody holds its rows or its table: {why}");
            plan.throttled_ms += millis(BLOCKED_FOR);
            plan.save(tx.conn()).await?;
            Ok(Next::Again(BLOCKED_FOR))
        }
        Chunk::Failed(why) => {
            tracing::error!(plan = plan.name, why, "the backfill is paused: its statement failed");
            plan.turn(tx.conn(), "paused", (ENGINE, &why)).await?;
            Ok(Next::Over)
        }
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
