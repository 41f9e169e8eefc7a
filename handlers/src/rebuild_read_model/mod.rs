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
    Class, Error, Io, Result,
    error::Disposition,
    failpoint,
    job::{self, Attempt, IoHandler, Verdict},
    spec::{Queue, Spec},
};
use sql::Cursor;
use std::time::{Duration, Instant};
use uuid::Uuid;

/// A run goes on for so long; then the next does. What died in it counts against that run alone.
const RUN: Duration = Duration::from_secs(30);
/// Redis, or the database, is asked again after this, for as long as it takes: it may be what was lost.
const PAUSE: Duration = Duration::from_secs(2);

/// The job's handler.
pub struct RebuildReadModel;

impl IoHandler for RebuildReadModel {
    const SPEC: &'static Spec = &job::spec::<jobs::RebuildReadModel>(Queue::IO)
        .timeout(Duration::from_mins(2))
        .concurrency(1)
        .consequence("what is wrong in the read model stays until it is read");
    type Job = jobs::RebuildReadModel;

    async fn handle(attempt: &Attempt, job: &jobs::RebuildReadModel) -> Result<Verdict> {
        match walk(attempt, job.rebuild_id).await {
            Err(error) if error.class().disposition() == Disposition::RetryUntilItWorks => {
                note_why(attempt, job.rebuild_id, &error).await;
                Ok(Verdict::Snooze(PAUSE))
            }
            walked => walked,
        }
    }
}

async fn walk(attempt: &Attempt, rebuild_id: Uuid) -> Result<Verdict> {
    let until = Instant::now() + RUN;
    let mut at = sql::cursor(attempt.reads(), rebuild_id).await?;
    while let Some(cursor) = at {
        if attempt.cancelled().is_cancelled() {
            return Err(Error::new(Class::Cancelled, "somebody wants it no more"));
        }
        if attempt.draining().is_cancelled() || Instant::now() >= until {
            return Ok(Verdict::Snooze(Duration::ZERO));
        }
        at = go_on(attempt, rebuild_id, cursor).await?;
    }
    Ok(Verdict::Done)
}

/// Puts a page of items right, and notes it; gives where to go on, if there is more.
async fn go_on(io: &Io, rebuild_id: Uuid, from: Cursor) -> Result<Option<Cursor>> {
    let (counted, last) = page::put_right(io, from.before).await?;
    let next = from.after(last);
    let mut tx = io.begin().await?;
    if let Err(error) = sql::advance(&mut tx, rebuild_id, (from, next), &counted).await {
        io.rollback(tx).await;
        return Err(error);
    }
    failpoint::hit(RebuildReadModel::SPEC.name, "before_commit");
    io.commit(tx).await?;
    Ok(next)
}

/// For whoever looks how far it is. Where it can't be noted they are told of the database.
async fn note_why(io: &Io, rebuild_id: Uuid, why: &Error) {
    let Ok(mut tx) = io.begin().await else { return };
    match sql::note_why(&mut tx, rebuild_id, &why.to_string()).await {
        Ok(()) => drop(io.commit(tx).await),
        Err(_) => io.rollback(tx).await,
    }
}
