//! Sees to it that every auction is closed, whatever has become of the job that was to do it: cancelled, discarded,
//! lost with a database that was restored. What is past its end and not recorded as closed is enqueued again.
mod sql;

use crate::jobs;
use gavel_runtime::{
    Pool, Result, Tx,
    job::{Options, Unique},
    reconcile::{Overdue, Reconciler},
    schedule::CronSchedule,
    spec::{Limits, Spec, Trigger},
};
use std::time::Duration;

/// An end is recorded within milliseconds: what is not after this long has no job, or one that fails.
const GRACE: Duration = Duration::from_secs(5);
/// Items enqueued in one tick.
const BATCH: i64 = 500;

/// The reconciler.
pub struct CloseOverdueItems;

impl Reconciler for CloseOverdueItems {
    const SPEC: &'static Spec =
        &Spec::new("close_overdue_items", Trigger::Schedule(CronSchedule::cron("*/10 * * * * *")))
            .limits(Limits::DEFAULT.timeout(Duration::from_secs(8)));
    const WHAT: &'static str = "auctions past their end and not closed";

    async fn overdue(reads: &Pool) -> Result<Overdue> {
        sql::overdue(reads, GRACE).await
    }

    async fn enqueue(tx: &mut Tx) -> Result<u64> {
        let item_ids = sql::overdue_items(tx, GRACE, BATCH).await?;
        for item_id in &item_ids {
            // One that is queued already, waiting for its next try perhaps, is enough.
            let once = Options::new().unique(Unique::Keep(item_id.to_string()));
            tx.enqueue(&jobs::CloseItem { item_id: *item_id }, once).await?;
        }
        Ok(item_ids.len() as u64)
    }
}
