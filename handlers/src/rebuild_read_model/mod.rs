//! Makes the read model anew from the items, while everybody works: for after Redis was lost, and after a bug. Readers do
//! the same for what they read; here it is done for all of them, counted, and proved by going through them once more.
//!
//! An operator starts it ([`StartRebuild`]) and looks how far it is ([`GetRebuild`]); this job does it. After each page it
//! commits how far it is: a worker that is killed at any line leaves the rest to the next.
mod calls;
mod page;
mod sql;

pub use calls::{GetRebuild, StartRebuild};

use crate::jobs;
use gavel_runtime::{
    Class, Error, Io, Result, failpoint,
    job::{self, Attempt, IoHandler, Verdict},
    spec::{Queue, Spec},
};
use sql::Cursor;
use std::time::Duration;

/// The job's handler.
pub struct RebuildReadModel;

impl IoHandler for RebuildReadModel {
    const SPEC: &'static Spec = &job::spec::<jobs::RebuildReadModel>(Queue::IO)
        .timeout(Duration::from_hours(12))
        .concurrency(1)
        .consequence("what is wrong in the read model stays until it is read");
    type Job = jobs::RebuildReadModel;

    async fn handle(attempt: &Attempt, job: &jobs::RebuildReadModel) -> Result<Verdict> {
        let mut at = sql::cursor(attempt.reads(), job.rebuild_id).await?;
        while let Some(cursor) = at {
            if attempt.draining().is_cancelled() {
                return Ok(Verdict::Snooze(Duration::ZERO));
            }
            if attempt.cancelled().is_cancelled() {
                return Err(Error::new(Class::Cancelled, "somebody wants it no more"));
            }
            at = go_on(attempt, job, cursor).await?;
        }
        Ok(Verdict::Done)
    }
}

/// Puts a page of items right, and notes it; gives where to go on, if there is more.
async fn go_on(io: &Io, job: &jobs::RebuildReadModel, from: Cursor) -> Result<Option<Cursor>> {
    let (counted, last) = page::put_right(io, from.before).await?;
    let next = from.after(last);
    let mut tx = io.begin().await?;
    if let Err(error) = sql::advance(&mut tx, job.rebuild_id, (from, next), &counted).await {
        io.rollback(tx).await;
        return Err(error);
    }
    failpoint::hit(RebuildReadModel::SPEC.name, "before_commit");
    io.commit(tx).await?;
    Ok(next)
}
