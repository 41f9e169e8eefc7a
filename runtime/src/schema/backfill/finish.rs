//! The end of a walk: is every row filled? Then the online steps; else once more, when no old program is left to write
//! behind the cursor.
use super::{
    job::{NOW, Next, RunOnlineStep},
    keys,
    known::ENGINE,
    plan::Plan,
};
use crate::{
    Result, Tx,
    changes::{Backfill, Change},
    schema::{ledger, presence},
};
use serde_json::{Value, json};
use std::time::Duration;

/// Time until it is looked again whether old programs have ended.
const OLD_ENDS_WITHIN: Duration = Duration::from_secs(3);
/// Rows that are left after so many walks, with no old program alive, are no matter of waiting.
const MOST_PASSES: i32 = 10;

/// Every key was walked.
pub(super) async fn at_end(tx: &mut Tx, of: (&Change, &Backfill), plan: &mut Plan) -> Result<Next> {
    let (_, backfill) = of;
    let differing = keys::differing(tx.conn(), backfill).await?;
    note(plan, "rows_that_differ", json!(differing));
    if differing == 0 {
        return go_online(tx, plan, backfill.online.len()).await;
    }
    if plan.pass >= MOST_PASSES {
        let why = format!("{differing} rows are not filled after {} walks", plan.pass);
        plan.turn(tx.conn(), "paused", (ENGINE, &why)).await?;
        return Ok(Next::Over);
    }
    "waiting".clone_into(&mut plan.stage);
    wait_for_old(tx, of, plan).await
}

/// Begins another walk once nobody lives who writes the old form.
pub(super) async fn wait_for_old(
    tx: &mut Tx,
    (change, backfill): (&Change, &Backfill),
    plan: &mut Plan,
) -> Result<Next> {
    let programs = tx.evolution().programs();
    let living = presence::living(tx.conn(), programs).await?;
    let old: Vec<_> = living.iter().filter(|process| process.knows < change.number).map(ToString::to_string).collect();
    if !old.is_empty() {
        plan.throttled_by = format!("rows are still written in the old form, by {}", old.join("; "));
        plan.save(tx.conn()).await?;
        return Ok(Next::Again(OLD_ENDS_WITHIN));
    }
    let key = keys::Key::of(tx.conn(), backfill).await?;
    let (cursor, upper) = key.ends(tx.conn()).await?.unzip();
    (plan.cursor, plan.upper) = (cursor, upper);
    plan.pass += 1;
    plan.throttled_by.clear();
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
    plan.finished_at = Some(plan.progressed_at);
    plan.turn(tx.conn(), "done", (ENGINE, "every row is filled")).await?;
    plan.why.clear();
    plan.save(tx.conn()).await?;
    ledger::begin_epoch(tx.conn()).await?;
    tracing::info!(plan = plan.name, rows, chunks, busy_ms, "the backfill is done");
    Ok(())
}

pub(super) fn note(plan: &mut Plan, name: &str, value: Value) {
    if let Value::Object(evidence) = &mut plan.evidence {
        evidence.insert(name.to_owned(), value);
    }
}
