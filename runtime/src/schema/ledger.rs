//! What was done to the schema after its expand, step by step, and the phases that follow from it.
use crate::{
    Conn,
    changes::{Change, History, Known, Phase},
};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// Who takes the right to take a step, or to begin as a program of some version: any constant, "GAVS".
const STEP_LOCK: i64 = 0x4741_5653;

/// A step of a change after its expand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    Contract,
    Revert,
    Drop,
}

impl Step {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Contract => "contract",
            Self::Revert => "revert",
            Self::Drop => "drop",
        }
    }
}

/// Who takes a step, why, and what speaks for it.
pub(crate) struct Taken<'a> {
    pub(crate) by: &'a str,
    pub(crate) reason: &'a str,
    pub(crate) evidence: Value,
    pub(crate) checksum: &'a [u8],
}

/// Writes a step down, in the transaction that takes it.
pub(crate) async fn record(conn: &mut Conn, change: &Change, step: Step, taken: &Taken<'_>) -> Result<(), sqlx::Error> {
    let insert = "INSERT INTO schema_steps (change, name, step, checksum, taken_by, reason, evidence)
                  VALUES ($1, $2, $3, $4, $5, $6, $7)";
    let insert = sqlx::query(insert).bind(change.number).bind(&change.name).bind(step.name()).bind(taken.checksum);
    insert.bind(taken.by).bind(taken.reason).bind(&taken.evidence).execute(&mut *conn).await?;
    let audit = "INSERT INTO operator_actions (operator_id, action, target, reason, details)
                 VALUES ($1, $2, $3, $4, $5)";
    let audit = sqlx::query(audit).bind(taken.by).bind(format!("{}_change", step.name())).bind(&change.name);
    audit.bind(taken.reason).bind(&taken.evidence).execute(&mut *conn).await?;
    begin_epoch(conn).await
}

/// Lets every process notice that a phase has changed.
pub(crate) async fn begin_epoch(conn: &mut Conn) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE schema_epoch SET epoch = epoch + 1").execute(conn).await.map(drop)
}

/// Reads how far each change has come, all at one moment.
pub(crate) async fn phases(conn: &mut Conn, history: &History) -> Result<Known, sqlx::Error> {
    let read = "SELECT e.epoch, s.changes, s.steps, f.filled FROM schema_epoch e,
                  (SELECT coalesce(array_agg(change), '{}') AS changes, coalesce(array_agg(step), '{}') AS steps
                   FROM (SELECT DISTINCT ON (change) change, step FROM schema_steps
                         ORDER BY change, step_id DESC) newest) s,
                  (SELECT coalesce(array_agg(change), '{}') AS filled FROM backfills WHERE state = 'done') f";
    let (epoch, changes, steps, filled): (i64, Vec<i64>, Vec<String>, Vec<i64>) =
        sqlx::query_as(read).fetch_one(conn).await?;
    let steps: BTreeMap<_, _> = changes.into_iter().zip(steps).collect();
    let filled: BTreeSet<_> = filled.into_iter().collect();
    let phase = |change: &Change| match steps.get(&change.number).map(String::as_str) {
        Some("drop") => Phase::Dropped,
        Some("contract") => Phase::Contracted,
        _ if change.backfill.is_none() || filled.contains(&change.number) => Phase::Filled,
        _ => Phase::Expanded,
    };
    Ok(Known { epoch, by_change: history.iter().map(|change| (change.number, phase(change))).collect() })
}

/// Changes above a number whose old form is out of reach, so that no program lives with the schema that knows only
/// those up to it.
pub(crate) async fn contracted_above(conn: &mut Conn, newest: i64) -> Result<Vec<String>, sqlx::Error> {
    let read = "SELECT name FROM (SELECT DISTINCT ON (change) change, name, step FROM schema_steps
                                  ORDER BY change, step_id DESC) newest
                WHERE step <> 'revert' AND change > $1 ORDER BY change";
    sqlx::query_scalar(read).bind(newest).fetch_all(conn).await
}

/// Waits until nobody takes a step, until the transaction's end: then nobody does while it lasts.
pub(crate) async fn hold_off_steps(conn: &mut Conn) -> Result<(), sqlx::Error> {
    sqlx::query("SELECT pg_advisory_xact_lock_shared($1)").bind(STEP_LOCK).execute(conn).await.map(drop)
}

/// Takes the right to take a step until the transaction's end; false where a process is just beginning.
pub(crate) async fn may_step(conn: &mut Conn) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar("SELECT pg_try_advisory_xact_lock($1)").bind(STEP_LOCK).fetch_one(conn).await
}
