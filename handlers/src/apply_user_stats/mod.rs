//! Counts what users do. Counting commutes, so events may come in any order; the inbox makes each count once, and the
//! spend ledger makes each sale count once even if the inbox has long forgotten it.
mod sql;

use crate::{convert::uuid, item::routing_key};
use gavel_proto::events_v1::{ItemEvent, item_event::Fact};
use gavel_runtime::{
    Error, Result, Tx, message,
    spec::{Limits, Spec, Trigger},
};

/// The consumer.
pub struct ApplyUserStats;

impl message::TxHandler for ApplyUserStats {
    const SPEC: &'static Spec =
        &Spec::new("apply_user_stats", Trigger::Message(&[routing_key::BID_ACCEPTED, routing_key::CLOSED]))
            .limits(Limits::DEFAULT.concurrency(4));
    type Message = ItemEvent;

    async fn handle(tx: &mut Tx, event: &ItemEvent) -> Result<()> {
        let item = event.item.as_ref().ok_or_else(|| Error::invalid("the event carries no item"))?;
        match &event.fact {
            Some(Fact::BidAccepted(bid)) => sql::add_bid(tx, &bid.bidder_id, &item.currency).await,
            Some(Fact::Closed(closed)) if !closed.winner_id.is_empty() => {
                let sale = sql::Sale {
                    item_id: uuid("item.item_id", &item.item_id)?,
                    user_id: &closed.winner_id,
                    currency: &item.currency,
                    amount_minor: closed.hammer_price_minor,
                };
                if sql::enter_sale(tx, &sale).await? {
                    sql::add_sale(tx, &sale).await?;
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }
}
