//! Announces that bidding on an item has begun. No bid waits for this: from `starts_at` on bids are taken, announced or
//! not, and the first of them says as much.
mod sql;

use crate::schema::bid_ceiling_minor;
use crate::{
    item::{self, ItemRow},
    jobs,
};
use gavel_proto::events_v1::{ItemStarted, item_event::Fact};
use gavel_runtime::{
    Result, Tx,
    job::{self, Verdict},
    spec::{Queue, Spec},
};

/// The version of an item to which nothing has happened.
const UNTOUCHED: i64 = 1;

/// The job's handler.
pub struct StartItem;

impl job::TxHandler for StartItem {
    const SPEC: &'static Spec = &job::spec::<jobs::StartItem>(Queue::TX).concurrency(4).consequence(
        "who watches its item learns some ten seconds late that bidding has begun; bids are taken all the same",
    );
    type Job = jobs::StartItem;

    async fn handle(tx: &mut Tx, job: &jobs::StartItem) -> Result<Verdict> {
        let item = item::lock(tx, job.item_id).await?;
        if item.version > UNTOUCHED {
            return Ok(Verdict::Done);
        }
        if item.read_at < item.starts_at {
            return Ok(Verdict::Snooze((item.starts_at - item.read_at).to_std().unwrap_or_default()));
        }
        let item = ItemRow { version: item.version + 1, ..item };
        sql::record(tx, &item).await?;
        let event = item.event(Fact::Started(ItemStarted {}), bid_ceiling_minor(tx))?;
        tx.emit(event)?;
        Ok(Verdict::Done)
    }
}
