//! The end of a walk: is every row filled? Then the online steps; else once more, when no old program is left to write
//! behind the cursor.
use super::{
    job::{NOW, Next, RunOnlineStep},
    keys,
    known::ENGINE,
    plan::{Plan, now},
};
use crate::{
    Result, Tx,
    changes::{Backfill, Change},
    schema::{ledger, presence},
};
use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use std::time::Duration;

/// Time until it is looked again whether old programs have ended.
const OLD_ENDS_WITHIN: Duration = Duration::from_secs(3);
/// Rows that are left after so many walks, with no old program alive, are no matter of waiting.
const MOST_PASSES: i32 = 10;

/// What is found once every key was walked.
pub(super) struct Found {
    /// Programs that live and write the old form, as of before the rows were counted.
    old: Vec<String>,
    differing: i64,
    ends: Option<(Vec<String>, Vec<String>)>,
    at: DateTime<Utc>,
}

/// Looks who lives, and then which rows are not filled: whoever is gone by then has written all that they ever will.
pub(super) async fn look(tx: &mut Tx, (change, backfill): (&Change, &Backfill)) -> Result<Found> {
    let programs = tx.evolution().programs();
    let living = presence::living(tx.conn(), programs).await?;
    let old: Vec<_> = living.iter().filter(|process| process.knows < change.number).map(ToString::to_string).collect();
    // Waited for in any case: to count a large table again and again would be for nothing.
    let is_waiting = backfill.awaits_old && !old.is_empty();
    let differing = if is_waiting { 0 } else { keys::differing(tx.conn(), backfill).await? };
    let ends = keys::Key::of(tx.conn(), backfill).await?.ends(tx.conn()).await?;
    let at = now(tx.conn()).await?;
    Ok(Found { old, differing, ends, at })
}

/// Goes on to the online steps where every row is filled; else waits for the end of old programs, and walks once more.
pub(super) async fn conclude(tx: &mut Tx, backfill: &Backfill, plan: &mut Plan, found: &Found) -> Result<Next> {
    plan.looked_at = Some(found.at);
    if !found.old.is_empty() && (found.differing > 0 || backfill.awaits_old) {
        "waiting".clone_into(&mut plan.stage);
        plan.throttled_by = format!("rows are still written in the old form, by {}", found.old.join("; "));
        plan.save(tx.conn()).await?;
        return Ok(Next::Again(OLD_ENDS_WITHIN));
    }
    plan.throttled_by.clear();
    note(plan, "rows_that_differ", json!(found.differing));
    if found.differing == 0 {
        return go_online(tx, plan, backfill.online.len()).await;
    }
    if plan.pass >= MOST_PASSES {
        let why = format!("{} rows are not filled after {} walks", found.differing, plan.pass);
        plan.turn(tx.conn(), "paused", (ENGINE, &why)).await?;
        return Ok(Next::Over);
    }
    (plan.cursor, plan.upper) = found.ends.clone().unzip();
    plan.pass += 1;
    (plan.rows_estimated, plan.rows_passed) = (found.differing, 0);
    "chunks".clone_into(&mut plan.stage);
    plan.save(tx.conn()).await?;
    Ok(Next::Again(Duration::ZERO))
}

/// Begins the first online step, or is done where there is none.
async fn go_online(tx: &mut Tx, plan: &mut Plan, steps: usize) -> Result<Next> {
    if steps == 0 {
        done(tx, plan).await?;
        return Ok(Next::Over);
    }
    (plan.stage, plan.online_step) = ("online".to_owned(), 0);
    plan.save(tx.conn()).await?;
    tx.enqueue(&RunOnlineStep { change: plan.change, generation: plan.generation, step: 0 }, NOW).await?;
    Ok(Next::Over)
}

/// Everything was done: processes go by the new form from now on.
pub(super) async fn done(tx: &mut Tx, plan: &mut Plan) -> Result<()> {
    let (rows, chunks, busy_ms) = (plan.rows_changed, plan.chunks, plan.busy_ms);
    let figures =
        [("rows_changed", rows), ("chunks", chunks), ("busy_ms", busy_ms), ("throttled_ms", plan.throttled_ms)];
    for (name, value) in figures {
        note(plan, name, json!(value));
    }
    note(plan, "halvings", json!(plan.halvings));
    plan.finished_at = Some(now(tx.conn()).await?);
    plan.turn(tx.conn(), "done", (ENGINE, "every row is filled")).await?;
    ledger::begin_epoch(tx.conn()).await?;
    tracing::info!(plan = plan.name, rows, chunks, busy_ms, "the backfill is done");
    Ok(())
}

pub(super) fn note(plan: &mut Plan, name: &str, value: Value) {
    if let Value::Object(evidence) = &mut plan.evidence {
        evidence.insert(name.to_owned(), value);
    }
}
