//! Statements that run outside any transaction once every row is filled: indexes built beside the writers, constraints
//! validated, statistics gathered. Each is a job of its own, over a session of its own.
use super::{
    finish,
    job::{NOW, RunOnlineStep},
    known::backfill_of,
    plan::Plan,
};
use crate::{Class, Error, Result, Tx, base::failpoint, schema::indexes};
use sqlx::{Executor, PgConnection};

/// The server notices within this time that whoever asked for a step is gone.
const NOTICE_WITHIN: &str = "SET client_connection_check_interval = '1s'";
/// A step that is no index waits for its lock no longer than this: it is tried again.
const LOCK_TIMEOUT: &str = "SET lock_timeout = '2s'";

impl RunOnlineStep {
    /// The statement; none where the plan has moved on without this job.
    pub async fn statement(&self, tx: &mut Tx) -> Result<Option<String>> {
        let (_, backfill) = backfill_of(tx, self.change)?;
        let Some(plan) = self.plan(tx).await? else { return Ok(None) };
        let step = usize::try_from(plan.online_step).unwrap_or(usize::MAX);
        Ok(backfill.online.get(step).cloned())
    }

    async fn plan(&self, tx: &mut Tx) -> Result<Option<Plan>> {
        let plan = Plan::lock(tx.conn(), self.change).await?;
        let is_mine = |plan: &Plan| plan.generation == self.generation && plan.online_step == self.step;
        Ok(plan.filter(|plan| is_mine(plan) && plan.state == "running" && plan.stage == "online"))
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
        plan.save(tx.conn()).await?;
        tx.enqueue(&Self { step: plan.online_step, ..self.clone() }, NOW).await.map(drop)
    }
}

/// Runs the statement. What was left half done before is cleaned up first, and so is what is left now: an index that is
/// not valid is dropped, never believed.
///
/// # Errors
/// [`Class::Unavailable`] where it is to be tried again.
pub async fn run(conn: &mut PgConnection, statement: &str) -> Result<()> {
    conn.execute(NOTICE_WITHIN).await?;
    let builds_index = indexes::is_built_by(statement);
    conn.execute(if builds_index { "SET lock_timeout = 0" } else { LOCK_TIMEOUT }).await?;
    indexes::drop_half_built(conn, statement).await?;
    failpoint::hit("run_online_step", "before_statement");
    let ran = conn.execute(statement).await.map_err(|error| {
        Error::new(Class::Unavailable, format!("the online step {statement:?} did not come to its end"))
            .with_source(error)
    });
    if builds_index && indexes::drop_half_built(conn, statement).await? {
        return Err(Error::new(
            Class::Unavailable,
            "the index could not be built, and what there was of it is dropped",
        ));
    }
    ran.map(drop)
}

/// The session's number at the server.
pub async fn pid(conn: &mut PgConnection) -> Result<i32> {
    Ok(sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(conn).await?)
}

/// Ends the statement of a session, from another one: it cleans up after itself.
pub async fn stop(conn: &mut PgConnection, pid: i32) -> Result<()> {
    sqlx::query("SELECT pg_cancel_backend($1)").bind(pid).execute(conn).await?;
    Ok(())
}
