//! Runs a statement of a backfill that may be in no transaction: an index built beside the writers, a constraint
//! validated, statistics gathered.
use gavel_runtime::{
    Class, Error, Result,
    job::{self, Attempt, Verdict},
    schema::backfill::{RunOnlineStep as Job, online},
    spec::{Durability, Queue, Spec},
};
use std::time::Duration;

/// The job's handler. It needs the rights of whoever owns the tables, which no other worker has.
pub struct RunOnlineStep;

impl job::IoHandler for RunOnlineStep {
    const SPEC: &'static Spec = &job::spec::<Job>(Queue::IO.durability(Durability::Inline))
        .timeout(Duration::from_hours(12))
        .concurrency(2)
        .consequence("its backfill stands still until it is paused and resumed")
        .only_when_named();
    type Job = Job;

    async fn handle(attempt: &Attempt, job: &Job) -> Result<Verdict> {
        let mut tx = attempt.begin().await?;
        let statement = job.statement(&mut tx).await?;
        attempt.commit(tx).await?;
        let Some(statement) = statement else { return Ok(Verdict::Done) };
        tracing::info!(change = job.change, statement, "an online step begins");
        let ran = run(attempt, job.change, &statement).await;
        let mut tx = attempt.begin().await?;
        match ran {
            Ok(true) => job.settle(&mut tx).await?,
            Ok(false) => return Ok(Verdict::Snooze(Duration::ZERO)),
            Err(error) if error.class() == Class::Refused => job.give_up(&mut tx, error.message()).await?,
            Err(error) => return Err(error),
        }
        attempt.complete(tx).await?;
        Ok(Verdict::Done)
    }
}

/// Runs it over a session of its own; false where a drain has cut it off. What it leaves half done is cleaned up then,
/// and once more before it is tried again.
async fn run(attempt: &Attempt, change: i64, statement: &str) -> Result<bool> {
    let mut conn = attempt.session().await?;
    let pid = online::pid(&mut conn).await?;
    let is_cut_off = {
        let mut running = std::pin::pin!(online::run(&mut conn, change, statement));
        tokio::select! {
            ran = &mut running => {
                ran?;
                false
            }
            () = attempt.draining().cancelled() => {
                online::stop(&mut attempt.session().await?, pid).await?;
                running.await.is_err()
            }
            () = attempt.cancelled().cancelled() => {
                online::stop(&mut attempt.session().await?, pid).await?;
                running.await?;
                return Err(Error::new(Class::Cancelled, "somebody wants it no more"));
            }
        }
    };
    conn.close().await.ok();
    Ok(!is_cut_off)
}
