//! Forgets old receipts, dead jobs and parked messages. A client that comes back with its key after [`KEEP_REPLIES`] is
//! a new caller; a message that comes back after [`KEEP_INBOX`] would count again, except for money, which the spend
//! ledger remembers for ever.
mod sql;

use gavel_runtime::{
    Result, Tx, job,
    message::parking,
    schedule::{self, CronSchedule, Tick},
    spec::{Limits, Spec, Trigger},
};
use std::time::Duration;

/// Time for which a reply is given again.
pub const KEEP_REPLIES: Duration = Duration::from_hours(30 * 24);
/// Time for which a message is known again.
pub const KEEP_INBOX: Duration = Duration::from_hours(30 * 24);
/// Time for which a dead job is kept.
pub const KEEP_DEAD_JOBS: Duration = Duration::from_hours(90 * 24);
/// Time for which a parked message is kept.
pub const KEEP_PARKED: Duration = Duration::from_hours(90 * 24);
/// Rows of each kind forgotten by one statement.
const BATCH: i64 = 10_000;
/// Statements of each kind in one tick: 200 000 rows a minute, more than a busy day brings.
const MAX_BATCHES: usize = 20;

/// The schedule.
pub struct SweepReceipts;

impl schedule::TxHandler for SweepReceipts {
    const SPEC: &'static Spec = &Spec::new("sweep_receipts", Trigger::Schedule(CronSchedule::cron("* * * * *")))
        .limits(Limits::DEFAULT.timeout(Duration::from_secs(50)));

    async fn handle(tx: &mut Tx, _: Tick) -> Result<()> {
        let (mut replies, mut messages) = (0, 0);
        for _ in 0..MAX_BATCHES {
            let (some_replies, some_messages) = (
                sql::forget_replies(tx, KEEP_REPLIES, BATCH).await?,
                sql::forget_messages(tx, KEEP_INBOX, BATCH).await?,
            );
            (replies, messages) = (replies + some_replies, messages + some_messages);
            if some_replies.max(some_messages) < BATCH.unsigned_abs() {
                break;
            }
        }
        let dead_jobs = job::forget_dead(tx, KEEP_DEAD_JOBS, BATCH).await?;
        let parked = parking::forget(tx, KEEP_PARKED, BATCH).await?;
        tracing::info!(replies, messages, dead_jobs, parked, "old receipts forgotten");
        Ok(())
    }
}
