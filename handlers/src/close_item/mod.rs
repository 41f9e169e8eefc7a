//! Records the end of an auction and announces the winner, once. No bid waits for this: from `ends_at` on, bids are
//! refused whether the end is recorded or not.
mod sql;

use crate::schema::bid_ceiling_minor;
use crate::{
    item::{self, ItemRow},
    jobs,
};
use gavel_proto::events_v1::{ItemClosed, item_event::Fact};
use gavel_rules::{NotDue, Outcome};
use gavel_runtime::{
    Result, Tx,
    job::{self, Verdict},
    spec::{Queue, Spec},
};

/// The job's handler.
pub struct CloseItem;

impl job::TxHandler for CloseItem {
    const SPEC: &'static Spec = &job::spec::<jobs::CloseItem>(Queue::TX)
        .concurrency(4)
        .consequence(
            "its auction stays without a recorded end and a winner until it is enqueued again, some ten seconds after its end",
        );
    type Job = jobs::CloseItem;

    async fn handle(tx: &mut Tx, job: &jobs::CloseItem) -> Result<Verdict> {
        let item = item::lock(tx, job.item_id).await?;
        let now = item.read_at;
        if item.closed_at.is_some() {
            return Ok(Verdict::Done);
        }
        let outcome = match gavel_rules::close(&item.auction(bid_ceiling_minor(tx))?, now) {
            Ok(outcome) => outcome,
            Err(NotDue { ends_at }) => {
                return Ok(Verdict::Snooze((ends_at - now).to_std().unwrap_or_default()));
            }
        };
        let item = ItemRow { closed_at: Some(now), version: item.version + 1, ..item };
        sql::record(tx, &item).await?;
        let fact = match outcome {
            Outcome::Sold { winner, hammer_price_minor } => {
                ItemClosed { winner_id: winner.to_string(), hammer_price_minor }
            }
            Outcome::Unsold => ItemClosed::default(),
        };
        let event = item.event(Fact::Closed(fact), bid_ceiling_minor(tx))?;
        tx.emit(event)?;
        Ok(Verdict::Done)
    }
}
