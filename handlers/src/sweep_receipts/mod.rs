//! Forgets old receipts. A client that comes back with its key after [`KEEP_REPLIES`] is a new caller; a message that
//! comes back after [`KEEP_INBOX`] would count again, except for money, which the spend ledger remembers for ever.
mod sql;

use gavel_runtime::{
    Result, Tx, schedule,
    spec::{Limits, Spec, Trigger},
};
use std::time::Duration;

/// How long a reply is given again.
pub const KEEP_REPLIES: Duration = Duration::from_hours(30 * 24);
/// How long a message is known again.
pub const KEEP_INBOX: Duration = Duration::from_hours(30 * 24);
/// Rows forgotten at a time, so that no tick holds many locks for long.
const BATCH: i64 = 10_000;

/// The schedule.
pub struct SweepReceipts;

impl schedule::TxHandler for SweepReceipts {
    const SPEC: &'static Spec = &Spec::new("sweep_receipts", Trigger::Schedule(Duration::from_mins(1)))
        .limits(Limits::DEFAULT.timeout(Duration::from_secs(20)));

    async fn handle(tx: &mut Tx) -> Result<()> {
        let replies = sql::forget_replies(tx, KEEP_REPLIES, BATCH).await?;
        let messages = sql::forget_messages(tx, KEEP_INBOX, BATCH).await?;
        tracing::info!(replies, messages, "old receipts forgotten");
        Ok(())
    }
}
