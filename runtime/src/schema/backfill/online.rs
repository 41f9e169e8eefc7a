//! Statements that run outside any transaction once every row is filled: indexes built beside the writers, constraints
//! validated, statistics gathered. Each is a job of its own, over a session of its own.
use super::{
    finish,
    job::{NOW, RunOnlineStep},
    known::{ENGINE, backfill_of, is_known},
    plan::{Plan, now},
};
use crate::{Class, Conn, Error, Result, Tx, base::failpoint, schema::indexes};
use sqlx::{Executor, error::DatabaseError};

/// Who runs a step of a change, beside its number: any constant, "GAVO".
const STEP_LOCK: i32 = 0x4741_564F;

/// The server notices within this time that whoever asked for a step is gone.
const NOTICE_WITHIN: &str = "SET client_connection_check_interval = '1s'";
/// A step that is no index waits for its lock no longer than this: it is tried again.
const LOCK_TIMEOUT: &str = "SET lock_timeout = '2s'";

impl RunOnlineStep {
    /// The statement; none where the plan has moved on without this job.
    pub async fn statement(&self, tx: &mut Tx) -> Result<Option<String>> {
        if !is_known(tx, self.change) {
            return Err(Error::new(Class::Unavailable, "the change is a newer version's: its worker has it next"));
        }
        let (_, backfill) = backfill_of(tx, self.change)?;
        let plan = self.plan(tx).await?.filter(|plan| plan.state == "running");
        let Some(plan) = plan else { return Ok(None) };
        let step = usize::try_from(plan.online_step).unwrap_or(usize::MAX);
        Ok(backfill.online.get(step).cloned())
    }

    async fn plan(&self, tx: &mut Tx) -> Result<Option<Plan>> {
        let plan = Plan::lock(tx.conn(), self.change).await?;
        let is_mine = |plan: &Plan| plan.generation == self.generation && plan.online_step == self.step;
        Ok(plan.filter(|plan| is_mine(plan) && plan.stage == "online" && plan.finished_at.is_none()))
    }

    /// Notes that the step is done, in the transaction that completes the job; the next one is enqueued.
    pub async fn settle(&self, tx: &mut Tx) -> Result<()> {
        let (_, backfill) = backfill_of(tx, self.change)?;
        let Some(mut plan) = self.plan(tx).await? else { return Ok(()) };
        plan.online_step += 1;
        let next = usize::try_from(plan.online_step).unwrap_or(usize::MAX);
        if next >= backfill.online.len() {
            return finish::done(tx, &mut plan).await;
        }
        plan.progressed_at = now(tx.conn()).await?;
        plan.save(tx.conn()).await?;
        if plan.state != "running" {
            return Ok(());
        }
        tx.enqueue(&Self { step: plan.online_step, ..self.clone() }, NOW).await.map(drop)
    }

    /// Pauses the plan: the step can't work as things are.
    pub async fn give_up(&self, tx: &mut Tx, why: &str) -> Result<()> {
        let Some(mut plan) = self.plan(tx).await? else { return Ok(()) };
        tracing::error!(plan = plan.name, why, "the backfill is paused: an online step failed");
        Ok(plan.turn(tx.conn(), "paused", (ENGINE, why)).await?)
    }
}

/// Runs the statement of a change. What was left half done before is cleaned up first, and so is what is left now: an
/// index that is not valid is dropped, never believed.
///
/// # Errors
/// [`Class::Unavailable`] where it is to be tried again, [`Class::Refused`] where it can't work as things are.
pub async fn run(conn: &mut Conn, change: i64, statement: &str) -> Result<()> {
    // Whoever runs a step of it still, such as a worker that was cut off, comes to the end first.
    let is_mine = "SELECT pg_try_advisory_lock($1, $2::int)";
    let is_mine = sqlx::query_scalar(is_mine).bind(STEP_LOCK).bind(i32::try_from(change).unwrap_or(i32::MAX));
    if !is_mine.fetch_one(&mut *conn).await? {
        return Err(Error::new(Class::Unavailable, "another session runs a step of this change"));
    }
    conn.execute(NOTICE_WITHIN).await?;
    let builds_index = indexes::is_built_by(statement);
    conn.execute(if builds_index { "SET lock_timeout = 0" } else { LOCK_TIMEOUT }).await?;
    indexes::drop_half_built(conn, statement).await?;
    failpoint::hit("run_online_step", "before_statement");
    let ran = conn.execute(statement).await;
    if builds_index && (indexes::drop_half_built(conn, statement).await? || !indexes::is_valid(conn, statement).await?)
    {
        ran.map_err(|error| failed(statement, &error))?;
        return Err(Error::new(
            Class::Unavailable,
            "the index could not be built, and what there was of it is dropped",
        ));
    }
    ran.map(drop).map_err(|error| failed(statement, &error))
}

/// What is wrong with the data or with the statement will be so the next time.
fn failed(statement: &str, error: &sqlx::Error) -> Error {
    let code = error.as_database_error().and_then(DatabaseError::code).unwrap_or_default();
    let is_final = ["22", "23", "42"].iter().any(|class| code.starts_with(class));
    let class = if is_final { Class::Refused } else { Class::Unavailable };
    Error::new(class, format!("the online step {statement:?} did not come to its end: {error}"))
}

/// The session's number at the server.
pub async fn pid(conn: &mut Conn) -> Result<i32> {
    Ok(sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(conn).await?)
}

/// Ends the statement of a session, from another one: it cleans up after itself.
pub async fn stop(conn: &mut Conn, pid: i32) -> Result<()> {
    sqlx::query("SELECT pg_cancel_backend($1)").bind(pid).execute(conn).await?;
    Ok(())
}
