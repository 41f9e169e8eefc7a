//! One run of the job that walks a table.
use super::{
    chunk::{self, Chunk},
    finish,
    job::{Next, RunBackfillChunk},
    known::{ENGINE, backfill_of, is_known},
    look::{self, Advice, Look},
    pace,
    plan::Plan,
};
use crate::{Result, Tx, changes::Backfill};
use std::time::{Duration, Instant};

/// Time until a plan that must wait looks again.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// And one whose rows somebody holds.
const BLOCKED_FOR: Duration = Duration::from_secs(2);
/// Weight of the newest chunk in the rate.
const NEWEST: f64 = 0.1;

/// Runs one chunk, or finds that it must wait, or that all is done.
pub async fn run_chunk(tx: &mut Tx, job: &RunBackfillChunk) -> Result<Next> {
    if !is_known(tx, job.change) {
        // A newer version's: that one's worker has it next.
        return Ok(Next::Again(BLOCKED_FOR));
    }
    let (change, backfill) = backfill_of(tx, job.change)?;
    let is_mine = |plan: &Plan| plan.generation == job.generation && plan.state == "running" && plan.stage != "online";
    let seen = Plan::read(tx.conn(), job.change).await?.filter(is_mine);
    let Some(seen) = seen else { return Ok(Next::Over) };
    if seen.stage == "waiting" || seen.cursor.is_none() {
        // What takes long comes before the lock: an operator who wants to pause it waits for no scan.
        let found = finish::look(tx, (&change, &backfill)).await?;
        let plan = Plan::lock(tx.conn(), job.change).await?.filter(is_mine);
        let Some(mut plan) = plan else { return Ok(Next::Over) };
        return finish::conclude(tx, &backfill, &mut plan, &found).await;
    }
    let Some(mut plan) = Plan::lock(tx.conn(), job.change).await?.filter(is_mine) else { return Ok(Next::Over) };
    let look = look::look(tx.conn(), &plan.table_name).await?;
    match look.advise(&mut plan) {
        Advice::Go => fill(tx, &backfill, &mut plan, &look).await,
        Advice::Wait(why) => wait(tx, &mut plan, why, LOOK_AGAIN).await,
        Advice::Abort(why) => {
            tracing::warn!(plan = plan.name, why, "the backfill is paused");
            plan.turn(tx.conn(), "paused", (ENGINE, &why)).await?;
            Ok(Next::Over)
        }
    }
}

async fn wait(tx: &mut Tx, plan: &mut Plan, why: String, pause: Duration) -> Result<Next> {
    plan.throttled_ms += millis(pause);
    if plan.throttled_by != why {
        tracing::info!(plan = plan.name, why, "the backfill waits");
    }
    plan.throttled_by = why;
    plan.save(tx.conn()).await?;
    Ok(Next::Again(pause))
}

async fn fill(tx: &mut Tx, backfill: &Backfill, plan: &mut Plan, look: &Look) -> Result<Next> {
    let (began, rows_before) = (Instant::now(), plan.rows_passed);
    let chunk = chunk::run(tx.conn(), backfill, plan).await?;
    let took = began.elapsed();
    plan.busy_ms += millis(took);
    match chunk {
        Chunk::Moved => {
            plan.throttled_by.clear();
            plan.chunks += 1;
            let since = (look.now - plan.progressed_at).as_seconds_f64() + took.as_secs_f64();
            #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
            let newest = (plan.rows_passed - rows_before) as f64 / since.max(0.001);
            plan.rate = if plan.rate > 0.0 { plan.rate * (1.0 - NEWEST) + newest * NEWEST } else { newest };
            plan.progressed_at = look.now + took;
            plan.save(tx.conn()).await?;
            let before = (look.now - look.begun).to_std().unwrap_or_default();
            // A job's delay counts from the beginning of its transaction.
            Ok(Next::Again(before + began.elapsed() + pace::rest(plan, took)))
        }
        Chunk::Blocked(why) => {
            wait(tx, plan, format!("somebody holds its rows or its table: {why}"), BLOCKED_FOR).await
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
