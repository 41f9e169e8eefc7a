//! Counts what users do, many events at a time. Counting commutes, so events may come in any order; the inbox makes
//! each count once, and the spend ledger makes each sale count once even if the inbox has long forgotten it.
pub mod rebuild;
mod sql;

use crate::item::routing_key;
use gavel_proto::events_v1::{ItemEvent, item_event::Fact};
use gavel_runtime::{
    Error, Member, Result, Tx,
    batch::Verdicts,
    failpoint, message,
    spec::{Batch, Spec, Trigger},
    wire::uuid,
};
use sql::{Follows, Sale, Sums};

/// The consumer.
pub struct ApplyUserStats;

impl message::TxBatchHandler for ApplyUserStats {
    const SPEC: &'static Spec =
        &Spec::new("apply_user_stats", Trigger::Message(&[routing_key::BID_ACCEPTED, routing_key::CLOSED]))
            .batched(Batch::DEFAULT.size(500).lanes(1));
    type Message = ItemEvent;

    async fn handle(tx: &mut Tx, batch: &[Member<ItemEvent>]) -> Result<Verdicts<()>> {
        let (mut sums, mut sales, mut follows) = (Sums::new(), Vec::new(), Follows::new());
        let verdicts = batch.iter().map(|event| read(&event.input, &mut sums, &mut sales, &mut follows)).collect();
        let counted = sql::follow(tx, &follows).await?;
        for ((user_id, _), currency) in follows.iter().filter(|((user, item), _)| counted.has(user, *item)) {
            sums.entry((user_id, currency)).or_default().items_bid_on += 1;
        }
        for Sale { user_id, currency, amount_minor, .. } in sql::enter_sales(tx, sales).await? {
            let sum = sums.entry((user_id, currency)).or_default();
            sum.items_won += 1;
            sum.total_spent_minor += amount_minor;
        }
        sql::add(tx, &sums).await?;
        Ok(verdicts)
    }
}

/// What an event adds; a sale only once the ledger has taken it.
fn read<'a>(
    event: &'a ItemEvent,
    sums: &mut Sums<'a>,
    sales: &mut Vec<Sale<'a>>,
    follows: &mut Follows<'a>,
) -> Result<()> {
    let item = event.item.as_ref().ok_or_else(|| Error::invalid("the event carries no item"))?;
    match &event.fact {
        Some(Fact::BidAccepted(bid)) => {
            failpoint::hit_for("apply_user_stats", "apply", &bid.bidder_id);
            follows.insert((&bid.bidder_id, uuid("item.item_id", &item.item_id)?), &item.currency);
            sums.entry((&bid.bidder_id, &item.currency)).or_default().bids_placed += 1;
        }
        Some(Fact::Closed(closed)) if !closed.winner_id.is_empty() => sales.push(Sale {
            item_id: uuid("item.item_id", &item.item_id)?,
            user_id: &closed.winner_id,
            currency: &item.currency,
            amount_minor: closed.hammer_price_minor,
        }),
        Some(Fact::Created(_) | Fact::Started(_) | Fact::Closed(_) | Fact::Cancelled(_)) => {}
        // A newer version tells of something else: acknowledged here, nobody would ever count it.
        None => return Err(Error::unknown("what has happened to the item")),
    }
    Ok(())
}
