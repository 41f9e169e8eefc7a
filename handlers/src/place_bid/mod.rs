//! Places a bid. The item's row is locked, the database's clock read under the lock, the rules asked; then the bid, the
//! item's new price, the event and the receipt are committed together.
mod sql;

use crate::{
    convert::{timestamp, user, uuid},
    item::{self, ItemRow, Locked, routing_key},
};
use gavel_proto::{
    events_v1::{BidAccepted, item_event::Fact},
    v1,
};
use gavel_rules::{Auction, BID_CEILING_MINOR, Bid, Refusal, RefusalReason};
use gavel_runtime::{
    Class, Error, Result, Tx,
    auth::{Access, Caller},
    ids, rpc,
    spec::{Limits, Spec, Trigger},
};
use uuid::Uuid;

/// `BidService.PlaceBid`.
pub struct PlaceBid;

/// A checked wish to bid.
pub struct Command {
    item_id: Uuid,
    bid: Bid,
}

impl rpc::TxHandler for PlaceBid {
    const SPEC: &'static Spec = &Spec::new("place_bid", Trigger::Rpc("gavel.v1.BidService/PlaceBid"))
        .limits(Limits::DEFAULT.timeout(std::time::Duration::from_secs(5)).concurrency(1_024));
    const ACCESS: Access = Access::Roles(&["bidder"]);
    type Request = v1::PlaceBidRequest;
    type Command = Command;
    type Reply = v1::PlaceBidResponse;

    fn idempotency_key(request: &v1::PlaceBidRequest) -> &str {
        &request.idempotency_key
    }

    fn parse(request: v1::PlaceBidRequest, caller: &Caller) -> Result<Command> {
        let amount_minor = gavel_rules::amount(request.max_amount_minor).map_err(Error::invalid)?;
        let bid = Bid { bidder: user(&caller.subject)?, amount_minor };
        Ok(Command { item_id: uuid("item_id", &request.item_id)?, bid })
    }

    async fn handle(tx: &mut Tx, Command { item_id, bid }: &Command) -> Result<v1::PlaceBidResponse> {
        let Locked { item, now } = item::lock(tx, *item_id).await?;
        let auction = item.auction()?;
        let accepted = gavel_rules::decide(&auction, bid, now).map_err(|refusal| refused(&auction, refusal))?;
        let bid_id = ids::ordered();
        let item = ItemRow {
            price_minor: Some(accepted.price_minor),
            leader_id: Some(bid.bidder.to_string()),
            bid_count: item.bid_count + 1,
            version: item.version + 1,
            ..item
        };
        sql::record(tx, bid_id, bid, &item, now).await?;
        let fact = Fact::BidAccepted(BidAccepted {
            bid_id: bid_id.to_string(),
            bidder_id: bid.bidder.to_string(),
            outbid_user_id: accepted.outbid.map(|outbid| outbid.to_string()).unwrap_or_default(),
        });
        tx.emit(item.event(routing_key::BID_ACCEPTED, now, fact)?).await?;
        Ok(v1::PlaceBidResponse {
            bid_id: bid_id.to_string(),
            outcome: v1::BidOutcome::Leading.into(),
            sequence: item.version,
            price_minor: accepted.price_minor,
            next_minimum_minor: accepted.next_minimum_minor,
            ends_at: Some(timestamp(item.ends_at)),
            decided_at: Some(timestamp(now)),
        })
    }
}

fn refused(auction: &Auction, refusal: Refusal) -> Error {
    use v1::BidRefusalReason as Wire;
    let (reason, next_minimum_minor) = match refusal.reason {
        RefusalReason::BelowMinimum { .. } => (Wire::BelowMinimum, refusal.next_minimum_minor),
        RefusalReason::AboveCeiling => (Wire::AboveCeiling, refusal.next_minimum_minor),
        RefusalReason::SellerMayNotBid => (Wire::SellerMayNotBid, 0),
        RefusalReason::NotStarted { .. } => (Wire::NotStarted, refusal.next_minimum_minor),
        RefusalReason::Ended { .. } => (Wire::Ended, 0),
    };
    Error::new(Class::Refused, refusal.to_string()).with_detail(&v1::BidRefused {
        reason: reason.into(),
        next_minimum_minor,
        maximum_minor: BID_CEILING_MINOR,
        starts_at: Some(timestamp(auction.starts_at)),
        ends_at: Some(timestamp(auction.ends_at)),
    })
}
