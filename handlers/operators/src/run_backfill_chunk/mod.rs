//! Fills the next chunk of a backfill: rows, cursor and the job's own next run commit together.
use gavel_runtime::{
    Result, Tx,
    job::{self, Verdict},
    schema::backfill::{self, Next, RunBackfillChunk as Job},
    spec::{Queue, Spec},
};
use std::time::Duration;

/// The job's handler. It needs the rights of whoever owns the tables, which no other worker has.
pub struct RunBackfillChunk;

impl job::TxHandler for RunBackfillChunk {
    const SPEC: &'static Spec = &job::spec::<Job>(Queue::TX.batch(1))
        .timeout(Duration::from_mins(5))
        .concurrency(4)
        .consequence("its backfill stands still until it is paused and resumed")
        .only_when_named();
    type Job = Job;

    async fn handle(tx: &mut Tx, job: &Job) -> Result<Verdict> {
        Ok(match backfill::run_chunk(tx, job).await? {
            // A job for each chunk: what one of them has used of its tries is nothing to the next.
            Next::Again(pause) => {
                tx.enqueue(job, pause).await?;
                Verdict::Done
            }
            Next::Over => Verdict::Done,
        })
    }
}
